//! Records of a source shared out among shards: by the key of each, with how far the source was read.
//!
//! A shard sees only its own records, so it cannot know how far a partition was read by itself: the intake, which reads all of a
//! partition, tells it, and every shard has the watermarks that one flow over all records would have.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::AsArray;
use arrow::datatypes::TimestampMicrosecondType;
use gillnet_formats::encode_keys;
use gillnet_kernel::KernelError;

use crate::aside::{self, Aside};
use crate::error::Result;
use crate::frame::{Chunk, Heard, InRecord, OutRecords};
use crate::program::{Program, Stream};
use crate::scoring::column;

/// Shares out the records of one stream's partitions that one reader reads.
pub struct Intake {
    program: Arc<Program>,
    stream: u16,
    shards: u32,
    /// Shards that got no record are told this often how far the source is, in µs.
    tell_all_us: i64,
    heard: BTreeMap<i32, Heard>,
    told_all: i64,
    /// Whether anything was heard since all were told.
    news: bool,
}

/// What an intake made of a chunk.
#[derive(Debug, Default)]
pub struct Shared {
    /// Chunks for shards, by the shard.
    pub chunks: Vec<(u32, Vec<u8>)>,
    /// Records that are malformed.
    pub aside: OutRecords,
    /// How many of them.
    pub malformed: u64,
    /// The least of the newest event times of the partitions read here.
    pub slowest: Option<i64>,
}

impl Intake {
    /// An intake of a stream's records for so many shards, which all are told every `tell_all_us` how far it is.
    ///
    /// # Errors
    /// A number that no stream has, or a stream that cannot be shared out.
    pub fn new(program: &Arc<Program>, stream: u16, shards: u32, tell_all_us: i64) -> Result<Self> {
        let by = &program.stream(stream)?.shard_by;
        if by.is_none() && shards > 1 {
            let name = &program.stream(stream)?.name;
            return Err(KernelError::Plan(format!("stream '{name}' has no column that it can be shared out by")).into());
        }
        let (program, heard) = (Arc::clone(program), BTreeMap::new());
        Ok(Self { program, stream, shards, tell_all_us, heard, told_all: i64::MIN, news: false })
    }

    /// Share out a chunk. One without records tells the shards how far the source is, if they are to be told.
    ///
    /// # Errors
    /// Whatever the decoder refuses as a whole: a fault of the program.
    pub fn share(&mut self, chunk: &Chunk<'_>) -> Result<Shared> {
        let program = Arc::clone(&self.program);
        let stream = program.stream(self.stream)?;
        let mut shared = Shared::default();
        let mut parts: BTreeMap<u32, Vec<InRecord<'_>>> = BTreeMap::new();
        if !chunk.records.is_empty() {
            self.sort(stream, chunk, &mut parts, &mut shared)?;
        }
        if self.news && chunk.arrival.saturating_sub(self.told_all) >= self.tell_all_us {
            (self.news, self.told_all) = (false, chunk.arrival);
            for shard in 0..self.shards {
                parts.entry(shard).or_default();
            }
        }
        let heard: Vec<Heard> = self.heard.values().copied().collect();
        shared.slowest = heard.iter().map(|heard| heard.newest).min();
        for (shard, records) in parts {
            let part = Chunk { stream: self.stream, arrival: chunk.arrival, records, heard: heard.clone() };
            shared.chunks.push((shard, part.write()));
        }
        Ok(shared)
    }

    fn sort<'a>(
        &mut self,
        stream: &Stream,
        chunk: &Chunk<'a>,
        parts: &mut BTreeMap<u32, Vec<InRecord<'a>>>,
        shared: &mut Shared,
    ) -> Result<()> {
        let values: Vec<&[u8]> = chunk.records.iter().map(|record| record.value).collect();
        let decoded = stream.decoder.decode(&values)?;
        let by = stream.shard_by.as_deref();
        let keys = by.map(|by| encode_keys(&decoded.batch, by)).transpose()?;
        let times = column(&decoded.batch, &stream.event_time)?.as_primitive::<TimestampMicrosecondType>();
        for (row, place) in decoded.rows.iter().enumerate() {
            let record = chunk.records[*place as usize];
            let key = keys.as_ref().and_then(|keys| keys[row].as_deref()).unwrap_or_default();
            parts.entry(shard_of(key, self.shards)).or_default().push(record);
            let time = times.value(row);
            // What the gate refuses must not move a watermark.
            if time >= stream.earliest_us && time <= chunk.arrival.saturating_add(stream.max_ahead_us) {
                self.hear(record.partition, time.min(chunk.arrival), chunk.arrival);
            }
        }
        shared.malformed = decoded.rejected.len() as u64;
        let refused = decoded.rejected.into_iter().map(Aside::from).collect();
        let number = self.stream.into();
        aside::write(&self.program, number, chunk.arrival, &chunk.records, refused, &mut shared.aside)
    }

    fn hear(&mut self, partition: i32, time: i64, at: i64) {
        self.news = true;
        let new = Heard { stream: self.stream, partition, newest: time, at };
        let heard = self.heard.entry(partition).or_insert(new);
        (heard.newest, heard.at) = (heard.newest.max(time), at);
    }
}

/// The shard of a key: FNV-1a, and a last round that mixes it (MurmurHash3's), the same on every machine and in every version.
pub fn shard_of(key: &[u8], shards: u32) -> u32 {
    let fold = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01B3);
    let mut hash = key.iter().fold(0xCBF2_9CE4_8422_2325, fold);
    for round in [0xFF51_AFD7_ED55_8CCD_u64, 0xC4CE_B9FE_1A85_EC53] {
        hash = (hash ^ (hash >> 33)).wrapping_mul(round);
    }
    ((hash ^ (hash >> 33)) % u64::from(shards.max(1))) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_are_filled_evenly() {
        let mut sizes = [0_u32; 32];
        (0..32_000).for_each(|key: u32| sizes[shard_of(format!("c{key}").as_bytes(), 32) as usize] += 1);
        assert!(sizes.iter().all(|size| (800..1_200).contains(size)), "{sizes:?}");
    }
}
