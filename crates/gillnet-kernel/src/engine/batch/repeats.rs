//! Ids that came before, among more events than fit into memory: an id names one event, and the first to arrive is it.
//!
//! Ids are dealt to buckets by a hash. A bucket holds all events of its ids, in the order of arrival, so that it is judged by
//! itself: on any thread, and after its first part went to a file and came back.

use hashbrown::HashSet;

use crate::error::{KernelError, Result};

const BUCKET_BITS: u32 = 6;
/// Parts into which ids are dealt.
pub const BUCKETS: usize = 1 << BUCKET_BITS;
/// Bytes of an event in a bucket: its id key, then its place in the order of arrival.
pub const ENTRY_BYTES: usize = 24;

/// Ids of all events of a stream, in buckets.
pub struct RepeatedIds {
    /// Entries one after the other, as they go to a file.
    buckets: Vec<Vec<u8>>,
    held: usize,
}

impl Default for RepeatedIds {
    fn default() -> Self {
        Self { buckets: (0..BUCKETS).map(|_| Vec::new()).collect(), held: 0 }
    }
}

impl RepeatedIds {
    /// Take the ids of the next events; the first of them has the place `first` in the order of arrival.
    pub fn add(&mut self, ids: &[u128], first: u64) {
        for (place, &id) in (first..).zip(ids) {
            let bucket = &mut self.buckets[(spread(id) >> (64 - BUCKET_BITS)) as usize];
            let mut entry = [0; ENTRY_BYTES];
            entry[..16].copy_from_slice(&id.to_le_bytes());
            entry[16..].copy_from_slice(&place.to_le_bytes());
            bucket.extend_from_slice(&entry);
        }
        self.held += ids.len();
    }

    /// Events in memory.
    pub fn held(&self) -> usize {
        self.held
    }

    /// Take a bucket's entries out of memory, to be kept elsewhere and given back to [`Self::repeated`].
    pub fn take(&mut self, bucket: usize) -> Vec<u8> {
        let taken = std::mem::take(&mut self.buckets[bucket]);
        self.held -= taken.len() / ENTRY_BYTES;
        taken
    }

    /// The places of all events of a bucket but the first of each id, in their order; `before` is what was taken of it earlier.
    ///
    /// # Errors
    /// Bytes that are no entries.
    pub fn repeated(&self, bucket: usize, before: &[u8]) -> Result<Vec<i64>> {
        if !before.len().is_multiple_of(ENTRY_BYTES) {
            let length = before.len();
            return Err(KernelError::Batch(format!("{length} bytes of ids are not a number of whole entries")));
        }
        let entries = || before.chunks_exact(ENTRY_BYTES).chain(self.buckets[bucket].chunks_exact(ENTRY_BYTES));
        let mut seen = HashSet::with_capacity((before.len() + self.buckets[bucket].len()) / ENTRY_BYTES);
        let id = |entry: &[u8]| u128::from_le_bytes(entry[..16].try_into().expect("sixteen bytes"));
        let repeats = entries().filter(|entry| !seen.insert(id(entry)));
        Ok(repeats.map(|entry| i64::from_le_bytes(entry[16..].try_into().expect("eight bytes"))).collect())
    }
}

/// Spread ids evenly over 64 bits: the finaliser of SplitMix64 over both words.
fn spread(id: u128) -> u64 {
    let mixed = ((id >> 64) as u64 ^ 0x9E37_79B9_7F4A_7C15).wrapping_mul(0xBF58_476D_1CE4_E5B9) ^ id as u64;
    let mixed = (mixed ^ (mixed >> 31)).wrapping_mul(0x94D0_49BB_1331_11EB);
    mixed ^ (mixed >> 29)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(ids: &RepeatedIds, before: &[Vec<u8>]) -> Vec<i64> {
        let mut found: Vec<i64> =
            (0..BUCKETS).flat_map(|bucket| ids.repeated(bucket, &before[bucket]).expect("whole entries")).collect();
        found.sort_unstable();
        found
    }

    #[test]
    fn all_but_the_first_of_each_id_are_repeats_wherever_the_first_is_kept() {
        let mut ids = RepeatedIds::default();
        let none: Vec<Vec<u8>> = vec![Vec::new(); BUCKETS];
        ids.add(&(0..1_000).collect::<Vec<u128>>(), 0);
        assert_eq!(all(&ids, &none), [0; 0]);
        let before: Vec<Vec<u8>> = (0..BUCKETS).map(|bucket| ids.take(bucket)).collect();
        assert_eq!(ids.held(), 0);
        ids.add(&[1 << 64, 999, 1_000, 0, 999], 1_000);
        assert_eq!(ids.held(), 5);
        assert_eq!(all(&ids, &before), [1_001, 1_003, 1_004]);
        assert_eq!(all(&ids, &none), [1_004]);
    }

    #[test]
    fn torn_entries_are_refused() {
        let error = RepeatedIds::default().repeated(0, &[0; 25]).expect_err("one byte too many");
        assert!(error.to_string().contains("25 bytes"), "{error}");
    }

    #[test]
    fn ids_that_count_up_fill_the_buckets_evenly() {
        let mut ids = RepeatedIds::default();
        ids.add(&(0..64_000).map(crate::arrival::id_key::of_integer).collect::<Vec<u128>>(), 0);
        let sizes = ids.buckets.iter().map(|bucket| bucket.len() / ENTRY_BYTES);
        assert!(sizes.clone().all(|size| (700..1_300).contains(&size)), "{:?}", sizes.collect::<Vec<_>>());
    }
}
