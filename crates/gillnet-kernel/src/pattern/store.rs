//! All keys of one pattern: let events arrive, read, tell what became of matches, and give memory back by TTL.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

use compact_str::CompactString;
use hashbrown::HashMap;

use super::definition::Definition;
use super::key::{Change, Key, Reading};
use super::plan::Skip;
use super::search::{Match, Tools};
use crate::error::Result;
use crate::keyed::interner::Interner;
use crate::keyed::paged::Paged;
use crate::keyed::row::{self, OrderKey};
use crate::keyed::store::{EventBatch, Lane, NO_TEXT};

/// Partial matches of one key at the most, unless configured otherwise; beyond it the oldest go and readings are `saturated`.
pub const MAX_PARTIAL_MATCHES: usize = 1_000;

/// A key at its place.
#[derive(Debug, Default)]
pub(super) struct Slot {
    pub name: CompactString,
    pub used: bool,
    pub key: Key,
    /// The earliest of its timers.
    pub timer: Option<i64>,
}

/// An id as its column has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Id {
    Text(CompactString),
    Integer(i64),
}

/// What an arrival did to readings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Arrived {
    /// Before which event time readings behind the event may be others now; none where they stay.
    pub changed_until: Option<i64>,
}

/// A match that was found or changed, or that is no match any more: then its events are left out.
#[derive(Debug, Clone)]
pub struct Told {
    pub key: CompactString,
    pub revision: u32,
    pub first: Id,
    pub last: Id,
    pub start: i64,
    pub end: i64,
    pub withdrawn: bool,
    /// (alternative, id, event time)
    pub events: Vec<(usize, Id, i64)>,
}

/// When what became of a match is put into words, which needs its events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Telling {
    /// As it happens, since its events may be gone before it is taken.
    AtOnce,
    /// When it is taken: whoever takes it sweeps only afterwards.
    WhenTaken,
    /// Not at all: nobody takes it.
    Never,
}

/// Counters of a store.
#[derive(Debug, Clone, Copy, Default)]
pub struct PatternStats {
    pub keys: usize,
    pub events: usize,
    pub bytes: usize,
    pub partial_matches: usize,
    /// Partial matches that were given up at the limit, since the start.
    pub dropped: u64,
    pub saturated_keys: usize,
}

/// Limits of one key.
#[derive(Debug, Clone, Copy)]
pub struct KeyLimits {
    pub events: usize,
    pub partial_matches: usize,
}

/// The keyed state of one pattern.
pub struct PatternStore {
    pub(super) definition: Definition,
    pub(super) limits: KeyLimits,
    /// How far back readings look for matches.
    pub(super) over_us: i64,
    pub(super) index: HashMap<CompactString, u32>,
    pub(super) slots: Paged<Slot>,
    pub(super) texts: Interner,
    pub(super) text_lanes: Box<[usize]>,
    id_is_text: bool,
    row: Vec<u64>,
    pub(super) holds: Vec<u64>,
    changes: Vec<Change>,
    pub(super) told: VecDeque<Told>,
    telling: Telling,
    /// Changes by slot that are put into words when they are taken, after what is in `told`.
    untold: VecDeque<(u32, Change)>,
    /// When a match that waits for its time is complete: (time, slot).
    pub(super) timers: BinaryHeap<Reverse<(i64, u32)>>,
    pub(super) sweep_at: usize,
    pub(super) events: usize,
    pub(super) dropped: u64,
}

impl PatternStore {
    /// An empty store.
    pub fn new(definition: Definition, text_lanes: Box<[usize]>, over_us: i64, limits: KeyLimits) -> Self {
        Self {
            id_is_text: text_lanes.contains(&0),
            row: vec![0; definition.stride()],
            definition,
            limits: KeyLimits { events: limits.events.max(1), partial_matches: limits.partial_matches.max(1) },
            over_us,
            index: HashMap::new(),
            slots: Paged::new(),
            texts: Interner::default(),
            text_lanes,
            holds: Vec::new(),
            changes: Vec::new(),
            told: VecDeque::new(),
            telling: Telling::AtOnce,
            untold: VecDeque::new(),
            timers: BinaryHeap::new(),
            sweep_at: 0,
            events: 0,
            dropped: 0,
        }
    }

    /// The pattern.
    pub fn definition(&self) -> &Definition {
        &self.definition
    }

    /// Readings look back at least so far.
    pub fn look_back(&mut self, over_us: i64) {
        self.over_us = self.over_us.max(over_us);
    }

    /// Say when matches are put into words, before the first event.
    pub fn tell_when(&mut self, telling: Telling) {
        self.telling = telling;
    }

    /// How far ahead of its time an event can change readings; none where matches must not overlap, and one that is moved moves
    /// the next.
    pub fn influence_us(&self) -> Option<i64> {
        let bounded = self.definition.skip != Skip::PastLastEvent;
        bounded.then(|| self.definition.lookback_us().saturating_add(self.over_us))
    }

    /// The slot of a key that has events.
    pub fn find(&self, key: &str) -> Option<u32> {
        self.index.get(key).copied()
    }

    /// Event `i` of the batch arrives at `key`.
    ///
    /// # Errors
    /// A condition that fails.
    pub fn arrive(&mut self, key: &str, batch: &EventBatch<'_>, i: usize) -> Result<Arrived> {
        if !self.definition.strict && !self.matters(batch.masks[i]) {
            return Ok(Arrived::default());
        }
        let slot = self.locate(key);
        self.fill_row(batch, i);
        self.make_room(slot)?;
        let mut tools = Tools {
            definition: &self.definition,
            texts: &self.texts,
            most_runs: self.limits.partial_matches,
            dropped: &mut self.dropped,
            holds: &mut self.holds,
        };
        self.slots[slot].key.arrive(&mut tools, &self.row, &mut self.changes)?;
        self.events += 1;
        let arrived = self.arrived(slot, batch.times[i]);
        self.set_timer(slot);
        if !self.changes.is_empty() {
            self.tell(slot)?;
        }
        Ok(arrived)
    }

    /// Readings follow from matches; with a time after the last event, also from those that wait and that nobody confirmed yet.
    fn arrived(&self, slot: u32, time: i64) -> Arrived {
        let completed = |change: &Change| match change {
            Change::Found(found) | Change::Withdrawn(found) => found.completed(&self.definition).0,
        };
        let mut latest = self.changes.iter().map(completed).max();
        if self.definition.tail_us > 0 {
            let waiting = self.slots[slot].key.due_last(&self.definition);
            latest = latest.max(waiting).max(Some(time.saturating_add(self.definition.lookback_us())));
        }
        Arrived { changed_until: latest.map(|latest| latest.saturating_add(self.over_us)) }
    }

    /// Whether an event can fit a step or break a guard: others change nothing, unless a step is strict.
    #[inline]
    fn matters(&self, mask: u64) -> bool {
        let (hold, open) = self.definition.judge(mask);
        hold | open != 0
    }

    /// Matches of the key in `slot` that were completed in (time − over, time] and up to `order`, over all that is known now.
    pub fn read(&self, slot: u32, order: OrderKey, over_us: i64) -> Reading {
        self.slots[slot].key.read(&self.definition, order, over_us)
    }

    /// Event time has passed `mark`: matches that waited for it are complete.
    ///
    /// # Errors
    /// A condition that fails.
    pub fn pass_time(&mut self, mark: i64) -> Result<()> {
        while let Some(&Reverse((due, slot))) = self.timers.peek() {
            if due >= mark {
                break;
            }
            self.timers.pop();
            // A slot may have been given to another key since: then nothing waits there, or what does has a timer too.
            if !self.slots.get(slot).is_some_and(|place| place.used) {
                continue;
            }
            let Slot { key, timer, .. } = &mut self.slots[slot];
            *timer = None;
            key.confirm_passed(&self.definition, mark, &mut self.changes);
            self.tell(slot)?;
            self.set_timer(slot);
        }
        Ok(())
    }

    /// Have the key in `slot` looked at when the first match that waits there is complete.
    fn set_timer(&mut self, slot: u32) {
        if self.definition.tail_us == 0 {
            return;
        }
        let Slot { key, timer, .. } = &mut self.slots[slot];
        if let Some(due) = key.due_at(&self.definition).filter(|due| timer.is_none_or(|set| *due < set)) {
            *timer = Some(due);
            self.timers.push(Reverse((due, slot)));
        }
    }

    /// Up to `most` matches that were found, changed or withdrawn since the last call.
    ///
    /// # Errors
    /// A condition that fails.
    pub fn take_told(&mut self, most: usize) -> Result<Vec<Told>> {
        self.put_into_words(most)?;
        let most = most.min(self.told.len());
        Ok(self.told.drain(..most).collect())
    }

    /// Have at least `most` changes in words, or all of them.
    fn put_into_words(&mut self, most: usize) -> Result<()> {
        while self.told.len() < most {
            let Some((slot, change)) = self.untold.pop_front() else { break };
            let told = self.told_of(slot, change)?;
            self.told.extend(told);
        }
        Ok(())
    }

    /// Prune up to `slots` keys, going round: nothing will come or be read as of a time before `reach`.
    ///
    /// # Errors
    /// A condition that fails.
    pub fn sweep(&mut self, slots: usize, reach: i64) -> Result<()> {
        for _ in 0..slots.min(self.slots.places()) {
            let next = self.slots.at_or_after(self.sweep_at).or_else(|| self.slots.at_or_after(0));
            let Some(slot) = next else { break };
            self.sweep_at = slot as usize + 1;
            self.prune(slot, reach)?;
        }
        if self.index.capacity() > 1_024 && self.index.len() * 4 < self.index.capacity() {
            self.index.shrink_to(self.index.len() * 2);
        }
        self.texts.shrink();
        Ok(())
    }

    fn prune(&mut self, slot: u32, reach: i64) -> Result<()> {
        if !self.slots[slot].used {
            return Ok(());
        }
        // What is confirmed here is told with its events, so before they go.
        self.slots[slot].key.confirm_passed(&self.definition, reach, &mut self.changes);
        self.tell(slot)?;
        let (lanes, texts, events) = (&self.text_lanes, &mut self.texts, &mut self.events);
        let key = &mut self.slots[slot].key;
        key.prune(&self.definition, reach, self.over_us, |row| {
            *events -= 1;
            release_texts(texts, lanes, row);
        });
        if key.forgettable() {
            let Slot { name, .. } = self.slots.remove(slot);
            self.index.remove(&name);
        }
        Ok(())
    }

    fn make_room(&mut self, slot: u32) -> Result<()> {
        let limit = self.limits.events - 1;
        if !self.untold.is_empty() && self.slots[slot].key.exceeds(self.definition.stride(), limit) {
            self.put_into_words(usize::MAX)?;
        }
        let (lanes, texts, events) = (&self.text_lanes, &mut self.texts, &mut self.events);
        let key = &mut self.slots[slot].key;
        key.trim(&self.definition, limit, |row| {
            *events -= 1;
            release_texts(texts, lanes, row);
        });
        Ok(())
    }

    /// Turn changes into what is told of them: ids as their column has them, and the events of a match.
    fn tell(&mut self, slot: u32) -> Result<()> {
        let changes = std::mem::take(&mut self.changes);
        match self.telling {
            Telling::Never => {}
            Telling::WhenTaken => self.untold.extend(changes.into_iter().map(|change| (slot, change))),
            Telling::AtOnce => {
                for change in changes {
                    let told = self.told_of(slot, change)?;
                    self.told.extend(told);
                }
            }
        }
        Ok(())
    }

    fn told_of(&mut self, slot: u32, change: Change) -> Result<Option<Told>> {
        let (found, withdrawn): (&Match, bool) = match &change {
            Change::Found(found) => (found, false),
            Change::Withdrawn(gone) => (gone, true),
        };
        let Slot { name, key, .. } = &self.slots[slot];
        let stride = self.definition.stride();
        let event = |order| key.find(stride, order).map(|place| &key.rows()[place * stride..(place + 1) * stride]);
        let (Some(first), Some(last)) = (event(found.start), event(found.last)) else { return Ok(None) };
        let mut told = Told {
            key: name.clone(),
            revision: found.revision,
            first: self.id_of(first),
            last: self.id_of(last),
            start: found.start.0,
            end: found.last.0,
            withdrawn,
            events: Vec::new(),
        };
        if !withdrawn {
            let mut tools = Tools {
                definition: &self.definition,
                texts: &self.texts,
                most_runs: self.limits.partial_matches,
                dropped: &mut self.dropped,
                holds: &mut self.holds,
            };
            for (step, range) in key.events_of(&mut tools, stride, found)? {
                let event = &key.rows()[range];
                told.events.push((step, self.id_of(event), row::time(event)));
            }
        }
        Ok(Some(told))
    }

    fn id_of(&self, event: &[u64]) -> Id {
        match row::lane(event, 0) {
            code if self.id_is_text => Id::Text(self.texts.text(code).into()),
            number => Id::Integer(number as i64),
        }
    }

    fn locate(&mut self, key: &str) -> u32 {
        if let Some(&slot) = self.index.get(key) {
            return slot;
        }
        let slot = self.slots.insert(Slot { name: key.into(), used: true, ..Slot::default() });
        self.index.insert(key.into(), slot);
        slot
    }

    fn fill_row(&mut self, batch: &EventBatch<'_>, i: usize) {
        row::set_header(&mut self.row, batch.times[i], batch.ids[i], batch.masks[i]);
        for (number, lane) in batch.lanes.iter().enumerate() {
            let word = match lane {
                Lane::Words(words) => words[i],
                Lane::Text(texts) if arrow::array::Array::is_null(texts, i) => NO_TEXT,
                Lane::Text(texts) => self.texts.acquire(texts.value(i)),
            };
            row::set_lane(&mut self.row, number as u8, word);
        }
    }

    /// Keys and events held.
    pub fn held(&self) -> (usize, usize) {
        (self.index.len(), self.events)
    }

    /// Sizes. Walks over all keys.
    pub fn stats(&self) -> PatternStats {
        let mut stats = PatternStats {
            keys: self.index.len(),
            events: self.events,
            dropped: self.dropped,
            ..PatternStats::default()
        };
        for slot in self.slots.iter().filter(|slot| slot.used) {
            stats.partial_matches += slot.key.runs();
            stats.saturated_keys += usize::from(slot.key.saturated());
            stats.bytes += slot.key.heap_bytes();
        }
        stats.bytes += self.slots.heap_bytes() + self.index.allocation_size() + self.texts.heap_bytes();
        stats.bytes += self.timers.capacity() * std::mem::size_of::<(i64, u32)>();
        stats
    }
}

fn release_texts(texts: &mut Interner, lanes: &[usize], event: &[u64]) {
    for &lane in lanes {
        let word = row::lane(event, lane as u8);
        if word != NO_TEXT {
            texts.release(word);
        }
    }
}
