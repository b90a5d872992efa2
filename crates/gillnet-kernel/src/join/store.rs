//! All keys of one join, with the events of both sides; expired events leave by a sweep that does a little each time.

use std::hash::BuildHasher;

use compact_str::CompactString;
use hashbrown::{DefaultHashBuilder, HashTable};

use super::bounds::Side;
use super::events::{Event, Events, Payload};
use crate::bytes::{broken, ByteReader, ByteWriter};
use crate::error::Result;
use crate::keyed::paged::Paged;
use crate::keyed::row::OrderKey;

/// Bytes that a shared payload has beside its own: two counts.
const PAYLOAD_HEAD: usize = 16;

/// One key.
#[derive(Debug, Default)]
pub struct JoinKey {
    pub text: CompactString,
    used: bool,
    sides: [Events; 2],
}

impl JoinKey {
    /// The events of a side.
    pub fn side(&self, side: Side) -> &Events {
        &self.sides[side as usize]
    }
}

/// Events by key. A key's slot stays while it holds anything.
#[derive(Debug, Default)]
pub struct JoinStore {
    index: HashTable<u32>,
    keys: Paged<JoinKey>,
    hasher: DefaultHashBuilder,
    sweep_at: usize,
    events: usize,
    payload_bytes: usize,
}

impl JoinStore {
    /// The slot of a key, a new one if it has none.
    pub fn locate(&mut self, text: &str) -> u32 {
        let hash = self.hasher.hash_one(text);
        if let Some(&slot) = self.index.find(hash, |&slot| self.keys[slot].text == text) {
            return slot;
        }
        let key = JoinKey { text: text.into(), used: true, ..JoinKey::default() };
        let slot = self.keys.insert(key);
        let (keys, hasher) = (&self.keys, &self.hasher);
        self.index.insert_unique(hash, slot, |&slot| hasher.hash_one(keys[slot].text.as_str()));
        slot
    }

    /// The key of a slot.
    pub fn key(&self, slot: u32) -> &JoinKey {
        &self.keys[slot]
    }

    /// One side of the key of a slot, to change what was said of its events.
    pub fn side_mut(&mut self, slot: u32, side: Side) -> &mut Events {
        &mut self.keys[slot].sides[side as usize]
    }

    /// An event that is kept, to change what was said of it; none if it went, or its key did.
    pub fn find(&mut self, slot: u32, side: Side, order: OrderKey) -> Option<&mut Event> {
        self.keys.get(slot)?;
        self.keys[slot].sides[side as usize].find(order)
    }

    /// Keep an event; the number of events that its key now has on that side.
    pub fn insert(&mut self, slot: u32, side: Side, event: Event) -> usize {
        self.events += 1;
        self.payload_bytes += event.payload.len() + PAYLOAD_HEAD;
        let events = self.side_mut(slot, side);
        events.insert(event);
        events.len()
    }

    /// Take the oldest event of a key that is over its limit.
    pub fn drop_oldest(&mut self, slot: u32, side: Side) -> Option<Event> {
        let gone = self.side_mut(slot, side).drop_oldest()?;
        self.events -= 1;
        self.payload_bytes -= gone.payload.len() + PAYLOAD_HEAD;
        Some(gone)
    }

    /// Prune up to `slots` keys, going round: events before their side's horizon go, and keys without any.
    pub fn sweep(&mut self, slots: usize, horizons: [i64; 2]) {
        for _ in 0..slots.min(self.keys.places()) {
            let next = self.keys.at_or_after(self.sweep_at).or_else(|| self.keys.at_or_after(0));
            let Some(slot) = next else { break };
            self.sweep_at = slot as usize + 1;
            if self.keys[slot].used {
                self.prune(slot, horizons);
            }
        }
        if self.index.capacity() > 256 && self.index.len() * 4 < self.index.capacity() {
            let (len, keys, hasher) = (self.index.len(), &self.keys, &self.hasher);
            self.index.shrink_to(len * 2, |&slot| hasher.hash_one(keys[slot].text.as_str()));
        }
    }

    fn prune(&mut self, slot: u32, horizons: [i64; 2]) {
        let Self { keys, events, payload_bytes, .. } = self;
        for (side, horizon) in keys[slot].sides.iter_mut().zip(horizons) {
            side.prune(horizon, |gone| {
                *events -= 1;
                *payload_bytes -= gone.payload.len() + PAYLOAD_HEAD;
            });
        }
        if keys[slot].sides.iter().all(Events::forgettable) {
            let gone = self.keys.remove(slot);
            let hash = self.hasher.hash_one(gone.text.as_str());
            if let Ok(entry) = self.index.find_entry(hash, |&other| other == slot) {
                entry.remove();
            }
        }
    }

    /// Write every key and its events, but their payloads.
    pub fn write_state(&self, out: &mut ByteWriter) {
        out.u64(self.sweep_at as u64);
        self.keys.write_state(out, |key, out| {
            out.flag(key.used);
            if key.used {
                out.text(&key.text);
                key.sides.iter().for_each(|side| side.write_state(out));
            }
        });
    }

    /// Read what [`Self::write_state`] wrote; `payload` gives those of each side in the order of [`Self::side_events`].
    ///
    /// # Errors
    /// Bytes that are no store.
    pub fn read_state(
        &mut self,
        from: &mut ByteReader<'_>,
        mut payload: impl FnMut(Side) -> Result<Payload>,
    ) -> Result<()> {
        self.sweep_at = from.u64()? as usize;
        self.keys = Paged::read_state(from, |from| {
            if !from.flag()? {
                return Ok(JoinKey::default());
            }
            let text = from.text()?.into();
            let left = Events::read_state(from, || payload(Side::Left))?;
            let right = Events::read_state(from, || payload(Side::Right))?;
            Ok(JoinKey { text, used: true, sides: [left, right] })
        })?;
        self.index_all()
    }

    /// Let every key be found, and count what there is.
    fn index_all(&mut self) -> Result<()> {
        let Self { index, keys, hasher, events, payload_bytes, .. } = self;
        let mut next = 0;
        while let Some(slot) = keys.at_or_after(next) {
            next = slot as usize + 1;
            let key = &keys[slot];
            if !key.used {
                continue;
            }
            let hash = hasher.hash_one(key.text.as_str());
            if index.find(hash, |&other| keys[other].text == key.text).is_some() {
                return Err(broken("a key twice"));
            }
            index.insert_unique(hash, slot, |&slot| hasher.hash_one(keys[slot].text.as_str()));
            for event in key.sides.iter().flat_map(Events::iter) {
                *events += 1;
                *payload_bytes += event.payload.len() + PAYLOAD_HEAD;
            }
        }
        Ok(())
    }

    /// All keys, in the order of their places.
    pub fn keys(&self) -> impl Iterator<Item = &JoinKey> {
        self.keys.iter().filter(|key| key.used)
    }

    /// Bytes of a key's events and text on one side.
    pub fn side_bytes(key: &JoinKey, side: Side) -> usize {
        let events = key.side(side);
        let payloads: usize = events.iter().map(|event| event.payload.len() + PAYLOAD_HEAD).sum();
        events.heap_bytes() + payloads
    }

    /// Bytes that are known without walking: of events and their payloads, and of the places of keys.
    pub fn estimated_bytes(&self) -> usize {
        let events = self.events * std::mem::size_of::<Event>();
        events + self.payload_bytes + self.keys.heap_bytes() + self.index.allocation_size()
    }

    /// All events of a side, by key.
    pub fn side_events(&self, side: Side) -> impl Iterator<Item = &Event> {
        self.keys.iter().filter(|key| key.used).flat_map(move |key| key.side(side).iter())
    }

    /// Number of keys.
    pub fn len(&self) -> usize {
        self.index.len()
    }

    /// Whether no key is held.
    pub fn is_empty(&self) -> bool {
        self.index.is_empty()
    }

    /// Events held over all keys.
    pub fn events(&self) -> usize {
        self.events
    }

    /// Bytes of heap memory in use. Walks over all keys.
    pub fn heap_bytes(&self) -> usize {
        let of = |key: &JoinKey| {
            let text = if key.text.is_heap_allocated() { key.text.len() } else { 0 };
            text + key.sides.iter().map(Events::heap_bytes).sum::<usize>()
        };
        let keys: usize = self.keys.iter().map(of).sum();
        keys + self.keys.heap_bytes() + self.index.allocation_size() + self.payload_bytes
    }
}
