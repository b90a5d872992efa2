//! What a pattern's store tells of itself: one walk over its keys, and sizes without a walk.

use super::key::Key;
use super::store::PatternStore;

impl PatternStore {
    /// All keys from a place on: (place, key's name, key), in the order of their places.
    pub fn walk(&self, from: usize) -> impl Iterator<Item = (u32, &str, &Key)> {
        let mut next = from;
        std::iter::from_fn(move || loop {
            let slot = self.slots.at_or_after(next)?;
            next = slot as usize + 1;
            let place = &self.slots[slot];
            if place.used {
                return Some((slot, place.name.as_str(), &place.key));
            }
        })
    }

    /// The key in `slot`.
    pub fn key(&self, slot: u32) -> &Key {
        &self.slots[slot].key
    }

    /// The text of a code that an event holds.
    pub fn text(&self, code: u64) -> &str {
        self.texts.text(code)
    }

    /// How far back readings look for matches.
    pub fn looks_back_us(&self) -> i64 {
        self.over_us
    }

    /// Bytes beside the keys' own.
    pub fn structure_bytes(&self) -> usize {
        let timers = self.timers.capacity() * std::mem::size_of::<(i64, u32)>();
        self.slots.heap_bytes() + self.index.allocation_size() + self.texts.heap_bytes() + timers
    }

    /// Bytes of memory by the number of events, without a walk over keys: a lower bound, without matches.
    pub fn estimated_bytes(&self) -> usize {
        self.events * self.definition.stride() * 8 + self.structure_bytes()
    }
}
