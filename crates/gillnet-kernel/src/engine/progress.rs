//! How far each stream is in event time, for people and metrics (I8): nothing here changes what is computed.

use super::Engine;
use crate::arrival::watermark::{Partition, NONE};
use crate::error::Result;

/// How far a stream is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Progress {
    /// The watermark in µs; `i64::MAX` once the input has ended.
    pub watermark: Option<i64>,
    /// The partition that holds the watermark back; none while all are idle or unknown.
    pub held_by: Option<i32>,
    /// Every partition that is known, by number.
    pub partitions: Vec<Partition>,
}

impl Engine {
    /// How far a stream is: its watermark, the partition that holds it back, and every partition.
    ///
    /// # Errors
    /// An unknown stream.
    pub fn progress(&self, stream: &str) -> Result<Progress> {
        let mark = &self.streams[self.stream_number(stream)?].watermark;
        let mut partitions = mark.partitions().to_vec();
        partitions.sort_unstable_by_key(|partition| partition.number);
        let known = Some(mark.current()).filter(|&current| current != NONE);
        Ok(Progress { watermark: known, held_by: mark.slowest().map(|(partition, _)| partition), partitions })
    }
}
