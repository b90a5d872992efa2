//! All keys of an entity as bytes: every key's state, at the place that it has.
//!
//! Places are kept, and so are the ends of a large key's chunks: they decide in which order sessions that are due together go
//! out, and which of the expired events go first. A store that is read goes on exactly as the one that was written.

use super::{spread, spread_entry, tag_of, Entry, KeyedStore, Slot};
use crate::bytes::{broken, ByteReader, ByteWriter};
use crate::error::Result;
use crate::keyed::codec;
use crate::keyed::key::KeyState;
use crate::keyed::log::CHUNK_ROWS;
use crate::keyed::paged::Paged;

impl KeyedStore {
    /// Write every key.
    pub fn write_state(&self, out: &mut ByteWriter) {
        out.u64(self.sweep_at as u64);
        self.slots.write_state(out, |slot, out| self.write_slot(slot, out));
    }

    fn write_slot(&self, slot: &Slot, out: &mut ByteWriter) {
        out.flag(slot.used);
        if !slot.used {
            return;
        }
        out.text(&slot.key);
        self.write_state_of(slot, out);
    }

    /// Write a key with every event that it holds, and where its chunks end.
    pub(super) fn write_state_of(&self, slot: &Slot, out: &mut ByteWriter) {
        let lengths = slot.state.chunk_lengths();
        out.count(lengths.len());
        lengths.iter().for_each(|&length| out.u16(length));
        out.bytes(&codec::encode_whole(&self.layout, &slot.state, |code| self.interner.text(code)));
    }

    /// Read what [`Self::write_state`] wrote, into a store without keys.
    ///
    /// # Errors
    /// Bytes of another version or definition, or torn ones.
    pub fn read_state(&mut self, from: &mut ByteReader<'_>) -> Result<()> {
        self.sweep_at = from.u64()? as usize;
        self.slots = Paged::read_state(from, |from| self.slot_from(from))?;
        let mut next = 0;
        while let Some(place) = self.slots.at_or_after(next) {
            next = place as usize + 1;
            if self.slots[place].used {
                self.enter(place)?;
            }
        }
        Ok(())
    }

    fn slot_from(&mut self, from: &mut ByteReader<'_>) -> Result<Slot> {
        if !from.flag()? {
            return Ok(Slot::default());
        }
        let key = from.text()?.into();
        let (state, events) = self.read_state_of(from)?;
        self.events += events;
        Ok(Slot { key, used: true, dirty: true, state, ..Slot::default() })
    }

    /// Read what [`Self::write_state_of`] wrote; also the number of its events, which the store does not count yet.
    ///
    /// # Errors
    /// Bytes of another version or definition, or torn ones.
    pub(super) fn read_state_of(&mut self, from: &mut ByteReader<'_>) -> Result<(KeyState, usize)> {
        let lengths = from.list(ByteReader::u16)?;
        let decoded = codec::decode(&self.layout, from.bytes()?)?;
        let events = decoded.rows.len() / self.layout.stride();
        let sum: usize = lengths.iter().map(|&length| usize::from(length)).sum();
        if !lengths.is_empty() && (sum != events || lengths.iter().any(|&n| n == 0 || usize::from(n) > CHUNK_ROWS)) {
            return Err(broken("a key whose chunks do not hold its events"));
        }
        let mut rows = decoded.rows;
        self.own_texts(&mut rows, &decoded.texts);
        Ok((KeyState::from_chunks(&self.layout, rows, decoded.floors, &lengths), events))
    }

    /// Let a key be found.
    pub(super) fn enter(&mut self, slot: u32) -> Result<()> {
        if self.find(self.key_at(slot)).is_some() {
            return Err(broken("a key twice"));
        }
        let tag = tag_of(&self.hasher, self.key_at(slot));
        self.index.insert_unique(spread(tag), Entry { slot, tag }, spread_entry);
        Ok(())
    }
}
