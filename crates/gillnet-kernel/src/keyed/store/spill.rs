//! A store whose cold keys leave, and come back when they are needed: see [`crate::keyed::cold`].
//!
//! 1. before a batch: keys that it touches and that are not here are asked for, all in one call
//! 2. after it: while the store is larger than it may be, a hand goes round the places, and a key that was not touched since the
//!    hand's last visit leaves (second chance: one bit for each key, no list that every access would move)
//! 3. a key that changed since it was last handed over is *dirty*: only then it is written when it leaves, and only then it is
//!    in a snapshot. After each snapshot a second hand hands dirty keys over, a few with every batch.
//!
//! A key that comes back is pruned as a sweep would have pruned it here, so what a reading within the allowed lateness sees is
//! the same. What nothing can read any more is forgotten by the order of expiry.

use hashbrown::HashSet;
use std::sync::Arc;

use super::{release_texts, KeyedStore, Slot};
use crate::bytes::{broken, ByteReader, ByteWriter};
use crate::error::{KernelError, Result};
use crate::keyed::cold::{expiry_prefix, prefix, ColdKeys, Leaving, Packed, EXPIRY_PREFIX, PREFIX};
use crate::keyed::key::KeyState;

/// Expiry is as fine as this part of what a key is kept for: a key that leaves again and again is in the order only so often.
const EXPIRY_STEPS: i64 = 16;
/// What an allocation costs beside its bytes.
const ALLOCATION: usize = 16;

/// The cold side of a store.
pub struct Cold {
    port: Arc<dyn ColdKeys>,
    prefix: [u8; PREFIX],
    /// Whether there may be any key to come back.
    holds: bool,
    evict_at: usize,
    /// Where the hand that hands dirty keys over stands; none while it rests.
    write_at: Option<usize>,
    /// The expiry steps before this were looked through.
    expired_to: i64,
    pub fetched: u64,
    pub kept: u64,
}

impl std::fmt::Debug for Cold {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Cold({:?})", self.prefix)
    }
}

impl KeyedStore {
    /// Let cold keys leave to `port`, under entity number `entity`; `holds`: it may hold keys of this store already.
    pub fn spill_to(&mut self, port: Arc<dyn ColdKeys>, entity: u16, holds: bool) {
        self.cold = Some(Box::new(Cold {
            port,
            prefix: prefix(entity),
            holds,
            evict_at: 0,
            write_at: None,
            expired_to: i64::MIN,
            fetched: 0,
            kept: 0,
        }));
    }

    /// The cold side, if there is one.
    pub fn cold(&self) -> Option<&Cold> {
        self.cold.as_deref()
    }

    /// Have the keys here that are kept elsewhere. The slot of each that was here already, `u32::MAX` for the others; nothing where
    /// none can be elsewhere.
    ///
    /// # Errors
    /// The host cannot read, or gives bytes that are no state of a key.
    pub fn bring_in<'a>(&mut self, keys: impl Iterator<Item = Option<&'a str>>) -> Result<Vec<u32>> {
        let Some(cold) = self.cold.as_deref().filter(|cold| cold.holds) else { return Ok(Vec::new()) };
        let mut names = Packed::default();
        let mut asked: HashSet<&str> = HashSet::new();
        let mut find = |key: &'a str| {
            let found = self.find(key);
            if found.is_none() && asked.insert(key) {
                names.push(&[&cold.prefix, key.as_bytes()]);
            }
            found
        };
        let found = keys.map(|key| key.and_then(&mut find).unwrap_or(u32::MAX)).collect();
        if names.is_empty() {
            return Ok(found);
        }
        let states = cold.port.fetch(&names)?;
        if states.len() != names.len() {
            return Err(KernelError::State("cold keys were asked for and another number of them came".into()));
        }
        for (name, state) in names.iter().zip(states.iter()).filter(|(_, state)| !state.is_empty()) {
            let key = std::str::from_utf8(&name[PREFIX..]).expect("made of a text");
            self.admit(key, state)?;
        }
        Ok(found)
    }

    /// Put a key back as it left, unless it is here: then that is newer.
    ///
    /// # Errors
    /// Bytes that are no state of a key.
    pub fn put_back(&mut self, key: &str, state: &[u8]) -> Result<()> {
        match self.find(key) {
            Some(_) => Ok(()),
            None => self.admit(key, state),
        }
    }

    /// Put a key back that is not here, as it left.
    fn admit(&mut self, key: &str, bytes: &[u8]) -> Result<()> {
        let mut from = ByteReader::new(bytes);
        from.i64()?;
        let state = self.state_from(&mut from)?;
        from.end()?;
        let slot = self.locate(key);
        self.slots[slot].state = state;
        self.slots[slot].touched = true;
        self.prune_slot(slot, self.horizon);
        if let Some(cold) = &mut self.cold {
            cold.fetched += 1;
        }
        Ok(())
    }

    /// The bytes of a key that leaves, and from when on nothing can read it.
    fn leave(&self, slot: &Slot, prefix: [u8; PREFIX], out: &mut Leaving) {
        // A key without events holds what dropped ones left behind: times, all of them.
        let newest = slot.state.last_time(&self.layout).or_else(|| slot.state.floors().iter().copied().max());
        let expires = newest.unwrap_or(self.horizon).saturating_add(self.layout.floors_outlive_us()).saturating_add(1);
        let step = self.expiry_step();
        let expires = expires.div_euclid(step).saturating_add(1).saturating_mul(step);
        let mut state = ByteWriter::default();
        state.i64(expires);
        self.write_state_of(slot, &mut state);
        out.names.push(&[&prefix, slot.key.as_bytes()]);
        out.states.push(&[&state.finish()]);
        out.expiries.push(&[&expiry_prefix(prefix, expires), slot.key.as_bytes()]);
    }

    fn expiry_step(&self) -> i64 {
        ((self.layout.retention_us() + self.layout.floors_outlive_us()) / EXPIRY_STEPS).max(1_000_000)
    }

    /// Let cold keys leave until about `bytes` are free, and not many more than `most`.
    ///
    /// # Errors
    /// The host cannot write: the keys are still here.
    pub fn evict(&mut self, bytes: usize, most: usize) -> Result<()> {
        let Some(mut cold) = self.cold.take() else { return Ok(()) };
        let (mut freed, mut chosen, mut leaving) = (0, Vec::new(), Leaving::default());
        // Twice round, so that the second visit finds the keys that the first one only marked.
        for _ in 0..self.slots.places() * 2 {
            let next = self.slots.at_or_after(cold.evict_at).or_else(|| self.slots.at_or_after(0));
            let Some(place) = next.filter(|_| freed < bytes && chosen.len() < most) else { break };
            cold.evict_at = place as usize + 1;
            let slot = &mut self.slots[place];
            // The hand has gone all the way round: what it chose is not chosen again.
            if !slot.used || slot.leaving || std::mem::take(&mut slot.touched) {
                continue;
            }
            slot.leaving = true;
            let slot = &self.slots[place];
            freed += slot.state.heap_bytes() + ALLOCATION + std::mem::size_of::<Slot>();
            if slot.dirty {
                self.leave(slot, cold.prefix, &mut leaving);
            }
            chosen.push(place);
        }
        let kept = cold.hand_over(&leaving);
        self.cold = Some(cold);
        for &place in &chosen {
            match &kept {
                Ok(()) => self.remove(place),
                Err(_) => self.slots[place].leaving = false,
            }
        }
        kept
    }

    /// Take a key out of memory.
    fn remove(&mut self, place: u32) {
        let stride = self.layout.stride();
        let state = std::mem::take(&mut self.slots[place].state);
        let rows = state.rows();
        self.events -= rows.len() / stride;
        if !self.text_lanes.is_empty() {
            rows.chunks_exact(stride).for_each(|event| release_texts(&mut self.interner, &self.text_lanes, event));
        }
        self.forget(place);
    }

    /// Let the second hand go round once, handing dirty keys over.
    pub fn begin_write_behind(&mut self) {
        if let Some(cold) = &mut self.cold {
            cold.write_at = Some(0);
        }
    }

    /// Hand up to `most` dirty keys over, if the second hand is on its way. They stay here.
    ///
    /// # Errors
    /// The host cannot write.
    pub fn write_behind(&mut self, most: usize) -> Result<()> {
        let Some(mut at) = self.cold.as_ref().and_then(|cold| cold.write_at) else { return Ok(()) };
        let mut cold = self.cold.take().expect("just seen");
        let (mut leaving, mut written, mut looked_at) = (Leaving::default(), Vec::new(), 0);
        // Many places that are clean are passed quickly, but not all of them at once.
        while written.len() < most && looked_at < most.saturating_mul(16) {
            let Some(place) = self.slots.at_or_after(at) else {
                at = usize::MAX;
                break;
            };
            (at, looked_at) = (place as usize + 1, looked_at + 1);
            let slot = &self.slots[place];
            if slot.used && slot.dirty {
                self.leave(slot, cold.prefix, &mut leaving);
                written.push(place);
            }
        }
        let kept = cold.hand_over(&leaving);
        cold.write_at = Some(at).filter(|&at| at != usize::MAX);
        self.cold = Some(cold);
        if kept.is_ok() {
            written.into_iter().for_each(|place| self.slots[place].dirty = false);
        }
        kept
    }

    /// Let the host forget up to about `most` keys that nothing can read any more.
    ///
    /// # Errors
    /// The host cannot read or write, or gives bytes that are no state of a key.
    pub fn expire_cold(&mut self, most: usize) -> Result<()> {
        let (horizon, step) = (self.horizon, self.expiry_step());
        let Some(cold) = self.cold.as_deref_mut().filter(|cold| cold.holds) else { return Ok(()) };
        if horizon == i64::MIN || horizon < cold.expired_to.saturating_add(step) {
            return Ok(());
        }
        let begin = expiry_prefix(cold.prefix, i64::MIN);
        let expiries = cold.port.expiries(&begin, &expiry_prefix(cold.prefix, horizon), most)?;
        if expiries.len() < most {
            cold.expired_to = horizon;
        }
        if expiries.is_empty() {
            return Ok(());
        }
        let mut names = Packed::default();
        for expiry in expiries.iter() {
            if expiry.len() < EXPIRY_PREFIX {
                return Err(broken("an expiry of no key"));
            }
            names.push(&[&cold.prefix, &expiry[EXPIRY_PREFIX..]]);
        }
        // A key that left again since has a later time, under which it will be found.
        let states = cold.port.fetch(&names)?;
        let mut gone = Packed::default();
        for (name, state) in names.iter().zip(states.iter()).filter(|(_, state)| !state.is_empty()) {
            if ByteReader::new(state).i64()? < horizon {
                gone.push(&[name]);
            }
        }
        cold.port.forget(&gone, &expiries)
    }

    /// About how many bytes of memory the keys hold; unlike [`Self::stats`], it does not walk over them.
    pub fn about_bytes(&self) -> usize {
        let event = self.layout.stride() * 8;
        self.events * event * 9 / 8
            + self.len() * (ALLOCATION + event / 4)
            + self.slots.heap_bytes()
            + self.index.allocation_size()
            + self.interner.heap_bytes()
    }

    /// Write the keys that the host does not have as they are.
    pub fn write_dirty(&self, out: &mut ByteWriter) {
        let dirty: Vec<&Slot> = self.slots.iter().filter(|slot| slot.used && slot.dirty).collect();
        out.count(dirty.len());
        for slot in dirty {
            out.text(&slot.key);
            self.write_state_of(slot, out);
        }
    }

    /// Read what [`Self::write_dirty`] wrote, into a store without keys.
    ///
    /// # Errors
    /// Bytes of another version or definition, or torn ones.
    pub fn read_dirty(&mut self, from: &mut ByteReader<'_>) -> Result<()> {
        for _ in 0..from.count()? {
            let key = from.text()?.to_owned();
            let state = self.state_from(from)?;
            if self.find(&key).is_some() {
                return Err(broken("a key twice"));
            }
            let slot = self.locate(&key);
            self.slots[slot].state = state;
            self.slots[slot].dirty = true;
        }
        Ok(())
    }

    fn state_from(&mut self, from: &mut ByteReader<'_>) -> Result<KeyState> {
        let (state, events) = self.read_state_of(from)?;
        self.events += events;
        Ok(state)
    }
}

impl Cold {
    fn hand_over(&mut self, leaving: &Leaving) -> Result<()> {
        if !leaving.names.is_empty() {
            self.port.keep(leaving)?;
            self.holds = true;
            self.kept += leaving.names.len() as u64;
        }
        Ok(())
    }
}
