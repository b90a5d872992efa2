//! The ids of a stream's events that a duplicate could still repeat.

use hashbrown::hash_table::{Entry, HashTable};

use crate::bytes::{broken, ByteReader, ByteWriter};
use crate::error::Result;

/// Shards, so that one step of expiry walks over a small part only and never stops the stream.
const SHARDS: usize = 64;

/// Ids that expiry looks at for each record that comes: each id held some times before as many new ones have come.
const VISITS_PER_RECORD: usize = 4;

#[derive(Debug, Clone, Copy)]
struct Seen {
    high: u64,
    low: u64,
    bucket: i64,
}

impl Seen {
    fn new(id: u128, bucket: i64) -> Self {
        Self { high: (id >> 64) as u64, low: id as u64, bucket }
    }

    fn is(&self, other: &Self) -> bool {
        self.low == other.low && self.high == other.high
    }
}

/// A set of id keys that forgets by event time.
#[derive(Debug)]
pub struct SeenIds {
    shards: Vec<HashTable<Seen>>,
    width_us: i64,
    sweep_at: usize,
}

impl SeenIds {
    /// Ids are remembered until their event time can no longer be accepted; times are kept in steps of `width_us`.
    pub fn new(width_us: i64) -> Self {
        Self { shards: (0..SHARDS).map(|_| HashTable::new()).collect(), width_us: width_us.max(1_000_000), sweep_at: 0 }
    }

    /// Whether an id is remembered. Asked for a batch of ids before they are inserted, it brings their places into the cache,
    /// and the waits for memory overlap.
    #[inline]
    pub fn contains(&self, id: u128) -> bool {
        let seen = Seen::new(id, 0);
        let hash = mix(&seen);
        self.shards[shard_of(hash)].find(hash, |other| other.is(&seen)).is_some()
    }

    /// Remember an id. False if it was there already.
    pub fn insert(&mut self, id: u128, time: i64) -> bool {
        let seen = Seen::new(id, self.bucket(time));
        let hash = mix(&seen);
        match self.shards[shard_of(hash)].entry(hash, |other| other.is(&seen), mix) {
            Entry::Occupied(_) => false,
            Entry::Vacant(place) => {
                place.insert(seen);
                true
            }
        }
    }

    /// Forget, in one shard at the most, the ids of events before `earliest`, after a batch of so many records.
    ///
    /// A step walks over a whole shard, so it is not taken with each small batch: by lot, so often that each record pays for some
    /// [`VISITS_PER_RECORD`] ids. The lot is drawn from what a replay of the same steps finds again, not from a counter that
    /// a snapshot would have to hold. A batch without records has time for a step.
    pub fn sweep(&mut self, earliest: i64, records: usize) {
        let lot = mix(&Seen { high: earliest as u64, low: self.len() as u64, bucket: 0 });
        let held = self.shards[self.sweep_at].len();
        if records > 0 && lot % (held as u64).max(1) >= (records * VISITS_PER_RECORD) as u64 {
            return;
        }
        let oldest = self.bucket(earliest);
        let shard = &mut self.shards[self.sweep_at];
        self.sweep_at = (self.sweep_at + 1) % SHARDS;
        shard.retain(|seen| seen.bucket >= oldest);
        if shard.capacity() > 256 && shard.len() * 4 < shard.capacity() {
            shard.shrink_to(shard.len() * 2, mix);
        }
    }

    /// Take the ids of another set over, which may keep times in other steps.
    pub fn take_over(&mut self, old: &Self) {
        for seen in old.shards.iter().flatten() {
            let last = old.last_time(seen.bucket);
            let bucket = if self.width_us == old.width_us { seen.bucket } else { self.bucket(last) };
            let seen = Seen { bucket, ..*seen };
            self.shards[shard_of(mix(&seen))].insert_unique(mix(&seen), seen, mix);
        }
        self.sweep_at = old.sweep_at;
    }

    /// Write every id, and which shard forgets next.
    pub fn write_state(&self, out: &mut ByteWriter) {
        out.u8(self.sweep_at as u8);
        for shard in &self.shards {
            let mut ids: Vec<&Seen> = shard.iter().collect();
            // A table gives them in an order that depends on its history; the bytes must not.
            ids.sort_unstable_by_key(|seen| (seen.high, seen.low));
            out.count(ids.len());
            for seen in ids {
                out.u64(seen.high);
                out.u64(seen.low);
                out.i64(seen.bucket);
            }
        }
    }

    /// Read what [`Self::write_state`] wrote.
    ///
    /// # Errors
    /// Bytes that are no set of ids.
    pub fn read_state(&mut self, from: &mut ByteReader<'_>) -> Result<()> {
        self.sweep_at = usize::from(from.u8()?) % SHARDS;
        for number in 0..SHARDS {
            let ids = from.list(|from| Ok(Seen { high: from.u64()?, low: from.u64()?, bucket: from.i64()? }))?;
            let shard = &mut self.shards[number];
            shard.reserve(ids.len(), mix);
            for seen in ids {
                if shard_of(mix(&seen)) != number || shard.find(mix(&seen), |other| other.is(&seen)).is_some() {
                    return Err(broken("an id twice or in a wrong place"));
                }
                shard.insert_unique(mix(&seen), seen, mix);
            }
        }
        Ok(())
    }

    /// For each step of event time, the last time that lies in it and how many of its ids are held. Walks over all.
    pub fn by_time(&self) -> std::collections::BTreeMap<i64, usize> {
        let mut steps = std::collections::BTreeMap::new();
        for seen in self.shards.iter().flatten() {
            let last = self.last_time(seen.bucket);
            *steps.entry(last).or_insert(0) += 1;
        }
        steps
    }

    /// Ids held.
    pub fn len(&self) -> usize {
        self.shards.iter().map(HashTable::len).sum()
    }

    /// Whether it holds no id.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes of heap memory in use.
    pub fn heap_bytes(&self) -> usize {
        self.shards.iter().map(HashTable::allocation_size).sum()
    }

    fn bucket(&self, time: i64) -> i64 {
        time.div_euclid(self.width_us)
    }

    /// The last time that lies in a bucket.
    fn last_time(&self, bucket: i64) -> i64 {
        bucket.saturating_add(1).saturating_mul(self.width_us).saturating_sub(1)
    }
}

fn shard_of(hash: u64) -> usize {
    (hash >> 58) as usize % SHARDS
}

fn mix(seen: &Seen) -> u64 {
    let mixed = (seen.high ^ 0x9E37_79B9_7F4A_7C15).wrapping_mul(0xBF58_476D_1CE4_E5B9) ^ seen.low;
    let mixed = (mixed ^ mixed >> 31).wrapping_mul(0x94D0_49BB_1331_11EB);
    mixed ^ mixed >> 29
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repeated_id_is_found_and_memory_comes_back() {
        let mut seen = SeenIds::new(60_000_000);
        for i in 0..100_000u128 {
            assert!(seen.insert(i << 4, i as i64 * 1_000_000));
        }
        assert!(!seen.insert(77 << 4, 77_000_000));
        let full = seen.heap_bytes();
        for _ in 0..SHARDS {
            seen.sweep(99_000 * 1_000_000, 100_000);
        }
        assert!(seen.len() < 1_100, "{}", seen.len());
        assert!(seen.heap_bytes() * 10 < full);
    }

    #[test]
    fn small_batches_forget_as_well_and_hold_little_more_than_what_can_be_repeated() {
        let (mut seen, reach) = (SeenIds::new(1_000_000), 20_000i64);
        for i in 0..200_000i64 {
            assert!(seen.insert((i as u128) << 4, i * 1_000_000));
            if i % 4 == 3 {
                seen.sweep((i - reach) * 1_000_000, 4);
            }
            assert!(seen.len() < 2 * reach as usize, "{} after {i}", seen.len());
        }
        assert!(seen.len() >= reach as usize);
        assert!(!seen.insert(199_000 << 4, 199_000_000_000));
    }
}
