//! What a store tells of itself: one walk over its keys, sizes without a walk, and the events of one key in clear.

use super::KeyedStore;
use crate::keyed::key::KeyState;

/// One key, as a walk sees it.
pub struct KeySeen<'a> {
    pub slot: u32,
    pub key: &'a str,
    pub state: &'a KeyState,
    /// Bytes of heap memory: of its events, accumulators and text.
    pub bytes: usize,
}

impl KeyedStore {
    /// All keys from a place on, in the order of their places.
    pub fn walk(&self, from: usize) -> impl Iterator<Item = KeySeen<'_>> {
        let mut next = from;
        std::iter::from_fn(move || loop {
            let slot = self.slots.at_or_after(next)?;
            next = slot as usize + 1;
            let place = &self.slots[slot];
            if place.used {
                let text = if place.key.is_heap_allocated() { place.key.len() } else { 0 };
                let bytes = place.state.heap_bytes() + text;
                return Some(KeySeen { slot, key: &place.key, state: &place.state, bytes });
            }
        })
    }

    /// The state of a slot.
    pub fn state(&self, slot: u32) -> &KeyState {
        &self.slots[slot].state
    }

    /// Bytes beside the keys' own: of their places, of the index and of texts that events share.
    pub fn structure_bytes(&self) -> usize {
        self.slots.heap_bytes() + self.index.allocation_size() + self.interner.heap_bytes()
    }

    /// Bytes of memory by the number of events, without a walk over keys: a lower bound, without what accumulators take.
    pub fn estimated_bytes(&self) -> usize {
        self.events * self.layout.stride() * 8 + self.structure_bytes()
    }
}
