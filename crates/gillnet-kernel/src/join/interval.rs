//! One interval join: arrivals of both sides in, rows out.
//!
//! 1. arrive: an event finds the kept events of its key within the bounds, and is kept itself
//! 2. the caller keeps the pairs that meet the condition; an outer side's events in them are matched, and rows that
//!    had said otherwise are withdrawn
//! 3. what is unmatched on an outer side leaves once the other side can bring no partner in order any more
//! 4. sweep: events go once nothing that would be accepted can match them
//!
//! Pairs leave on arrival and never change. A row without a partner leaves once, and is withdrawn at most once. So the last
//! revision of each (left id, right id) depends on the set of events only (I2), not on their order or the batches.

mod sizes;
mod stored;

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::ops::Range;

use compact_str::CompactString;

use super::bounds::{Bounds, Side};
use super::events::{Event, Fate, Payload};
use super::store::JoinStore;
use crate::error::Result;
use crate::keyed::row::OrderKey;

/// Named limits (I7).
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Events of one key and side at the most; beyond it the oldest go.
    pub events_per_key: usize,
    /// Pairs that one arrival gives at the most; beyond it those with the oldest partners are left out.
    pub pairs_per_event: usize,
}

/// How far each side has come: index by [`Side`].
#[derive(Debug, Clone, Copy)]
pub struct Marks {
    /// What comes in order lies at or after this.
    pub current: [i64; 2],
    /// What is accepted lies at or after this.
    pub earliest: [i64; 2],
}

/// An event that arrives; without a key it matches nothing.
#[derive(Debug)]
pub struct Arrival {
    pub side: Side,
    pub order: OrderKey,
    pub key: Option<CompactString>,
    pub payload: Payload,
}

/// One event's part of a row.
#[derive(Debug, Clone)]
pub struct Half {
    pub order: OrderKey,
    pub payload: Payload,
}

/// Two events of one key within the bounds.
#[derive(Debug)]
pub struct Pair {
    pub halves: [Half; 2],
    slot: u32,
    /// The side that arrived, and the number of the arrival among those looked at together.
    arrived: Side,
    arrival: usize,
}

/// A row that goes out.
#[derive(Debug)]
pub struct JoinedRow {
    pub key: Option<CompactString>,
    pub halves: [Option<Half>; 2],
    /// The row had said that its event has no partner, and now there is one.
    pub withdrawn: bool,
    /// It may have partners that were forgotten: the key was over its limit, or the event's own stream was idle for long.
    pub saturated: bool,
}

/// What a join did.
#[derive(Debug, Clone, Copy, Default)]
pub struct JoinCounts {
    pub pairs: u64,
    pub unmatched: u64,
    pub withdrawn: u64,
    /// Pairs that were left out because one arrival had too many.
    pub dropped_pairs: u64,
    /// Events that went because their key had too many.
    pub dropped_events: u64,
    /// Events that came after what they could match may have been forgotten.
    pub incomplete: u64,
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Timer {
    due: i64,
    order: OrderKey,
    slot: u32,
}

/// A join's state.
#[derive(Debug)]
pub struct IntervalJoin {
    bounds: Bounds,
    outer: [bool; 2],
    /// Whether pairs must meet a condition besides.
    conditional: bool,
    limits: Limits,
    store: JoinStore,
    inbox: VecDeque<Arrival>,
    /// Of each outer side, when to look at an event that had no partner.
    timers: [BinaryHeap<Reverse<Timer>>; 2],
    /// Events of each side before this may have been forgotten.
    swept_to: [i64; 2],
    unswept: usize,
    counts: JoinCounts,
}

/// What a few arrivals came to, before the condition is known.
#[derive(Default)]
struct Chunk {
    pairs: Vec<Pair>,
    rows: Vec<JoinedRow>,
    /// Arrivals of outer sides.
    outer: Vec<(u32, Side, OrderKey)>,
    over_limit: Vec<(u32, Side)>,
    arrivals: usize,
}

impl IntervalJoin {
    /// A join whose `outer` sides (index by [`Side`]) also give events without a partner; `conditional` where not every pair
    /// within the bounds meets its condition.
    pub fn new(bounds: Bounds, outer: [bool; 2], conditional: bool, limits: Limits) -> Self {
        Self {
            bounds,
            outer,
            conditional,
            limits,
            store: JoinStore::default(),
            inbox: VecDeque::new(),
            timers: [BinaryHeap::new(), BinaryHeap::new()],
            swept_to: [i64::MIN; 2],
            unswept: 0,
            counts: JoinCounts::default(),
        }
    }

    /// The same join without state, for events that arrive in order: it keeps those within the bounds, however many a key has.
    pub fn for_sorted(&self) -> Self {
        let limits = Limits { events_per_key: usize::MAX, ..self.limits };
        Self::new(self.bounds, self.outer, self.conditional, limits)
    }

    /// How far from an event its partners lie at the most.
    pub fn reach_us(&self) -> i64 {
        self.bounds.reach_us()
    }

    /// Events arrive; [`Self::next`] looks at them, in this order.
    pub fn arrive(&mut self, arrivals: impl Iterator<Item = Arrival>) {
        self.inbox.extend(arrivals);
    }

    /// The next rows, about `most`; none if there are no more for now.
    ///
    /// `meets` gives, for some pairs, which meet the join's condition.
    ///
    /// # Errors
    /// What `meets` fails with.
    pub fn next(
        &mut self,
        most: usize,
        marks: &Marks,
        mut meets: impl FnMut(&[Pair]) -> Result<Vec<bool>>,
    ) -> Result<Vec<JoinedRow>> {
        while !self.inbox.is_empty() {
            let rows = self.match_arrivals(most, &mut meets)?;
            if !rows.is_empty() {
                return Ok(rows);
            }
        }
        let rows = self.unmatched_due(most, marks);
        if rows.is_empty() {
            // Only now: nothing waits that was accepted under earlier marks, and every unmatched row has left.
            self.sweep(marks);
        }
        Ok(rows)
    }

    fn match_arrivals(
        &mut self,
        most: usize,
        meets: &mut impl FnMut(&[Pair]) -> Result<Vec<bool>>,
    ) -> Result<Vec<JoinedRow>> {
        let mut chunk = Chunk::default();
        while chunk.pairs.len() + chunk.rows.len() < most && chunk.arrivals < most {
            let Some(arrival) = self.inbox.pop_front() else { break };
            self.find_partners(arrival, &mut chunk);
        }
        self.unswept += chunk.arrivals;
        let met = meets(&chunk.pairs)?;
        let Chunk { pairs, mut rows, outer, over_limit, .. } = chunk;
        self.settle(pairs, &met, &mut rows);
        for (slot, side, order) in outer {
            self.wait_if_unmatched(slot, side, order);
        }
        for (slot, side) in over_limit {
            self.trim(slot, side, &mut rows);
        }
        Ok(rows)
    }

    fn find_partners(&mut self, arrival: Arrival, chunk: &mut Chunk) {
        let Arrival { side, order, key, payload } = arrival;
        let number = chunk.arrivals;
        chunk.arrivals += 1;
        let outer = self.outer[side as usize];
        let Some(key) = key else {
            if outer {
                self.counts.unmatched += 1;
                chunk.rows.push(JoinedRow::alone(None, side, Half { order, payload }));
            }
            return;
        };
        let (first, last) = self.bounds.reach(side, order.0);
        let slot = self.store.locate(&key);
        let partners = self.store.key(slot).side(side.other());
        let incomplete = first < self.swept_to[side.other() as usize] || partners.dropped_since(first);
        self.counts.incomplete += u64::from(incomplete);
        let Range { start, end } = partners.places(first, last);
        // Without a condition all of them are partners, and a busy key need not bring them along to leave most of them out.
        let surplus = if self.conditional { 0 } else { (end - start).saturating_sub(self.limits.pairs_per_event) };
        for partner in partners.at(start + surplus..end) {
            let own = Half { order, payload: payload.clone() };
            let other = Half { order: partner.order, payload: partner.payload.clone() };
            let halves = if side == Side::Left { [own, other] } else { [other, own] };
            chunk.pairs.push(Pair { halves, slot, arrived: side, arrival: number });
        }
        if surplus > 0 {
            self.counts.dropped_pairs += surplus as u64;
            self.match_places(slot, side.other(), start..start + surplus, &mut chunk.rows);
        }
        let held = self.store.insert(slot, side, Event { order, payload, fate: Fate::Waiting, incomplete });
        if outer {
            chunk.outer.push((slot, side, order));
        }
        if held > self.limits.events_per_key {
            chunk.over_limit.push((slot, side));
        }
    }

    /// Turn the pairs that meet the condition into rows, and withdraw what was said of their events before.
    fn settle(&mut self, pairs: Vec<Pair>, met: &[bool], rows: &mut Vec<JoinedRow>) {
        let mut matching: Vec<Pair> =
            pairs.into_iter().zip(met).filter(|(_, &met)| met).map(|(pair, _)| pair).collect();
        let mut begin = 0;
        let mut left_out = Vec::new();
        for of_arrival in matching.chunk_by(|a, b| a.arrival == b.arrival) {
            let Pair { slot, arrived, halves, .. } = &of_arrival[0];
            self.match_event(*slot, *arrived, &halves[*arrived as usize], rows);
            for pair in of_arrival {
                self.match_event(pair.slot, arrived.other(), &pair.halves[arrived.other() as usize], rows);
            }
            let surplus = of_arrival.len().saturating_sub(self.limits.pairs_per_event);
            left_out.push((begin, surplus));
            begin += of_arrival.len();
        }
        for (begin, surplus) in left_out.into_iter().rev().filter(|&(_, surplus)| surplus > 0) {
            // Partners are in the order of I1, so these are the oldest.
            matching.drain(begin..begin + surplus);
            self.counts.dropped_pairs += surplus as u64;
        }
        self.counts.pairs += matching.len() as u64;
        rows.extend(matching.into_iter().map(|pair| JoinedRow {
            key: Some(self.store.key(pair.slot).text.clone()),
            halves: pair.halves.map(Some),
            withdrawn: false,
            saturated: false,
        }));
    }

    fn match_event(&mut self, slot: u32, side: Side, half: &Half, rows: &mut Vec<JoinedRow>) {
        if !self.outer[side as usize] {
            return;
        }
        let Some(event) = self.store.find(slot, side, half.order) else { return };
        let before = std::mem::replace(&mut event.fate, Fate::Matched);
        if before == Fate::Unmatched {
            self.counts.withdrawn += 1;
            let key = self.store.key(slot).text.clone();
            rows.push(JoinedRow { withdrawn: true, ..JoinedRow::alone(Some(key), side, half.clone()) });
        }
    }

    /// Events have a partner, though the pair is left out.
    fn match_places(&mut self, slot: u32, side: Side, places: Range<usize>, rows: &mut Vec<JoinedRow>) {
        if !self.outer[side as usize] {
            return;
        }
        let mut said = Vec::new();
        for event in self.store.side_mut(slot, side).at_mut(places) {
            if std::mem::replace(&mut event.fate, Fate::Matched) == Fate::Unmatched {
                said.push(Half { order: event.order, payload: event.payload.clone() });
            }
        }
        self.counts.withdrawn += said.len() as u64;
        let key = &self.store.key(slot).text;
        rows.extend(
            said.into_iter()
                .map(|half| JoinedRow { withdrawn: true, ..JoinedRow::alone(Some(key.clone()), side, half) }),
        );
    }

    fn wait_if_unmatched(&mut self, slot: u32, side: Side, order: OrderKey) {
        let due = self.bounds.reach(side, order.0).1;
        if self.store.find(slot, side, order).is_some_and(|event| event.fate == Fate::Waiting) {
            self.timers[side as usize].push(Reverse(Timer { due, order, slot }));
        }
    }

    /// Drop the oldest events of a key that is over its limit. What is unmatched leaves now, since it would be forgotten.
    fn trim(&mut self, slot: u32, side: Side, rows: &mut Vec<JoinedRow>) {
        while self.store.key(slot).side(side).len() > self.limits.events_per_key {
            let Some(gone) = self.store.drop_oldest(slot, side) else { return };
            self.counts.dropped_events += 1;
            if self.outer[side as usize] && gone.fate == Fate::Waiting {
                self.counts.unmatched += 1;
                let half = Half { order: gone.order, payload: gone.payload };
                let key = self.store.key(slot).text.clone();
                rows.push(JoinedRow { saturated: true, ..JoinedRow::alone(Some(key), side, half) });
            }
        }
    }

    /// Events of outer sides for which no partner can come in order any more.
    fn unmatched_due(&mut self, most: usize, marks: &Marks) -> Vec<JoinedRow> {
        let mut rows = Vec::new();
        for side in Side::BOTH {
            // An event at the mark itself is still in order.
            let mark = marks.current[side.other() as usize];
            while rows.len() < most && self.timers[side as usize].peek().is_some_and(|Reverse(timer)| timer.due < mark)
            {
                let Some(Reverse(timer)) = self.timers[side as usize].pop() else { break };
                rows.extend(self.unmatched(timer, side));
            }
            shrink(&mut self.timers[side as usize]);
        }
        self.counts.unmatched += rows.len() as u64;
        rows
    }

    fn unmatched(&mut self, timer: Timer, side: Side) -> Option<JoinedRow> {
        let event = self.store.find(timer.slot, side, timer.order)?;
        if event.fate != Fate::Waiting {
            return None;
        }
        event.fate = Fate::Unmatched;
        let (saturated, half) = (event.incomplete, Half { order: event.order, payload: event.payload.clone() });
        let key = self.store.key(timer.slot).text.clone();
        Some(JoinedRow { saturated, ..JoinedRow::alone(Some(key), side, half) })
    }

    /// Give memory back: an event that nothing acceptable on the other side can match goes.
    fn sweep(&mut self, marks: &Marks) {
        let horizons = Side::BOTH.map(|side| self.bounds.horizon(side, marks.earliest[side.other() as usize]));
        for (swept_to, horizon) in self.swept_to.iter_mut().zip(horizons) {
            *swept_to = (*swept_to).max(horizon);
        }
        self.store.sweep(self.unswept.max(64), horizons);
        self.unswept = 0;
        if self.inbox.capacity() > 1_024 {
            self.inbox.shrink_to(0);
        }
    }

    /// Keys, events and timers that are held.
    pub fn held(&self) -> (usize, usize, usize) {
        (self.store.len(), self.store.events(), self.timers.iter().map(BinaryHeap::len).sum())
    }

    /// Bytes of heap memory in use. Walks over all keys.
    pub fn heap_bytes(&self) -> usize {
        let timers: usize = self.timers.iter().map(BinaryHeap::capacity).sum();
        self.store.heap_bytes()
            + timers * std::mem::size_of::<Timer>()
            + self.inbox.capacity() * std::mem::size_of::<Arrival>()
    }

    /// What the join did since it was made.
    pub fn counts(&self) -> JoinCounts {
        self.counts
    }
}

impl JoinedRow {
    fn alone(key: Option<CompactString>, side: Side, half: Half) -> Self {
        let halves = if side == Side::Left { [Some(half), None] } else { [None, Some(half)] };
        Self { key, halves, withdrawn: false, saturated: false }
    }
}

fn shrink(timers: &mut BinaryHeap<Reverse<Timer>>) {
    if timers.capacity() > 256 && timers.len() * 4 < timers.capacity() {
        timers.shrink_to(timers.len() * 2);
    }
}
