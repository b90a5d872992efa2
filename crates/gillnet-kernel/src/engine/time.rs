//! How far each stream is: its partitions, processing time that passes, and its end.

use super::Engine;
use crate::arrival::watermark;
use crate::error::Result;

impl Engine {
    /// A partition was assigned to the run: it holds the stream's watermark until it is heard or idle.
    ///
    /// # Errors
    /// An unknown stream.
    pub fn register_partition(&mut self, stream: &str, partition: i32, now: i64) -> Result<()> {
        let number = self.stream_number(stream)?;
        self.streams[number].watermark.register(partition, now);
        Ok(())
    }

    /// Whoever reads all of a partition has read up to event time `newest` at processing time `at`, other shards' records among them.
    /// Told again, it changes nothing; and nothing is heard of a partition that gives only what is too late, as where it is read.
    ///
    /// # Errors
    /// An unknown stream.
    pub fn observe(&mut self, stream: &str, partition: i32, newest: i64, at: i64) -> Result<()> {
        let number = self.stream_number(stream)?;
        let stream = &mut self.streams[number];
        if newest >= stream.earliest_accepted() {
            stream.watermark.hear(partition, newest, at);
        }
        Ok(())
    }

    /// Processing time passes without records: partitions may fall idle.
    pub fn pass_time(&mut self, now: i64) -> bool {
        let mut changed = false;
        for stream in &mut self.streams {
            changed |= stream.watermark.pass_time(now);
        }
        changed
    }

    /// A restored engine goes on at processing time `now`: see [`crate::arrival::watermark::Watermark::resume`].
    pub fn resume(&mut self, now: i64) {
        self.streams.iter_mut().for_each(|stream| stream.watermark.resume(now));
    }

    /// A bounded stream has ended: its watermark goes to the end of time.
    ///
    /// # Errors
    /// An unknown stream.
    pub fn finish(&mut self, stream: &str) -> Result<()> {
        let number = self.stream_number(stream)?;
        self.streams[number].watermark.finish();
        Ok(())
    }

    /// The watermark of a stream in µs, or none; and the partition that holds it back.
    ///
    /// # Errors
    /// An unknown stream.
    pub fn watermark(&self, stream: &str) -> Result<(Option<i64>, Option<i32>)> {
        let mark = &self.streams[self.stream_number(stream)?].watermark;
        let current = Some(mark.current()).filter(|&current| current != watermark::NONE);
        Ok((current, mark.slowest().map(|(partition, _)| partition)))
    }
}
