//! When sessions close: timers that the watermark fires, and what was said of each session.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use crate::bytes::{ByteReader, ByteWriter};
use crate::error::Result;
use crate::keyed::key::SessionSpan;

/// A timer: something around the event at `anchor` of the key in `slot` is to be looked at once the watermark passes `due`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Timer {
    due: i64,
    pub slot: u32,
    pub anchor: i64,
    /// Set by an event behind the watermark: rows of later sessions may depend on it too.
    pub late: bool,
}

/// The timers of one session entity, and the sessions emitted so far that could still change.
///
/// Kept true: a session whose row is missing or out of date has a timer somewhere in its run of events (the events around it
/// without a longer gap). A new session gets one from its first event; while it is open, the timer moves on. An event at or
/// ahead of the watermark cannot change an emitted session, which lies more than a gap behind; one behind it can change those
/// that end at most a gap before it.
#[derive(Debug)]
pub struct SessionTimers {
    gap_us: i64,
    heap: BinaryHeap<Reverse<Timer>>,
    /// By slot and start.
    emitted: BTreeMap<(u32, i64), Emitted>,
    /// Sessions that ended more than a gap before this are over for good: emitted, and forgotten event by event.
    settled: i64,
}

#[derive(Debug, Clone, Copy)]
struct Emitted {
    last: i64,
    /// Of the row's values.
    digest: u64,
    revision: u32,
    /// Its events belong to another session now.
    replaced: bool,
}

impl SessionTimers {
    /// Timers for sessions that end after a gap of more than `gap_us`.
    pub fn new(gap_us: i64) -> Self {
        Self { gap_us, heap: BinaryHeap::new(), emitted: BTreeMap::new(), settled: i64::MIN }
    }

    /// An event arrived: `begins` if it is the first of its session as of its arrival, `late` if it lies behind the watermark.
    pub fn arrived(&mut self, slot: u32, time: i64, begins: bool, late: bool) {
        if begins || (late && self.may_change(slot, time)) {
            self.heap.push(Reverse(Timer { due: self.end_of(time), slot, anchor: time, late }));
        }
    }

    fn may_change(&self, slot: u32, time: i64) -> bool {
        // A session that was replaced may begin later than the one that its events are in now, and ended earlier.
        let emitted = self.emitted.range((slot, i64::MIN)..=(slot, i64::MAX)).rev();
        let newest = emitted.map(|(_, emitted)| emitted).find(|emitted| !emitted.replaced);
        newest.is_some_and(|newest| self.end_of(newest.last) >= time)
    }

    /// Whether a timer is due at `watermark`.
    pub fn is_due(&self, watermark: i64) -> bool {
        // A session is closed only when no event can extend it: one at due itself still could.
        self.heap.peek().is_some_and(|Reverse(timer)| timer.due < watermark)
    }

    /// The next timer that is due at `watermark`.
    pub fn pop_due(&mut self, watermark: i64) -> Option<Timer> {
        self.is_due(watermark).then(|| self.heap.pop()).flatten().map(|Reverse(timer)| timer)
    }

    /// Whether the session is closed at `watermark`; if not, set its timer.
    pub fn close_or_wait(&mut self, slot: u32, span: SessionSpan, watermark: i64) -> bool {
        let due = self.end_of(span.last);
        if due >= watermark {
            self.heap.push(Reverse(Timer { due, slot, anchor: span.start, late: false }));
        }
        due < watermark
    }

    /// Let emitted sessions of `slot` that begin within `(after, until]` be looked at again.
    pub fn look_again(&mut self, slot: u32, after: i64, until: i64) {
        if until <= after {
            return;
        }
        for (&(_, start), emitted) in self.emitted.range((slot, after + 1)..=(slot, until)) {
            if !emitted.replaced {
                let due = self.end_of(emitted.last);
                self.heap.push(Reverse(Timer { due, slot, anchor: start, late: false }));
            }
        }
    }

    /// Whether an event at `anchor` can have changed the session, which is not over for good.
    pub fn concerns(&self, span: SessionSpan, anchor: i64) -> bool {
        self.end_of(span.last) >= anchor.max(self.settled)
    }

    /// The revision under which a closed session's row is to go out: 0 the first time; none if that row went out before.
    pub fn revise(&mut self, slot: u32, span: SessionSpan, digest: u64) -> Option<u32> {
        let before = self.emitted.get(&(slot, span.start));
        if before.is_some_and(|b| !b.replaced && b.last == span.last && b.digest == digest) {
            return None;
        }
        let revision = before.map_or(0, |before| before.revision + 1);
        let emitted = Emitted { last: span.last, digest, revision, replaced: false };
        self.emitted.insert((slot, span.start), emitted);
        Some(revision)
    }

    /// Sessions that were emitted and whose first event now belongs to the session `span`, with the revision that says so.
    pub fn replaced_by(&mut self, slot: u32, span: SessionSpan) -> Vec<(SessionSpan, u32)> {
        let inside = (slot, span.start.saturating_add(1))..(slot, span.last.saturating_add(1));
        if inside.is_empty() {
            return Vec::new();
        }
        let emitted = self.emitted.range_mut(inside).filter(|(_, emitted)| !emitted.replaced);
        emitted
            .map(|(&(_, start), emitted)| {
                (emitted.replaced, emitted.revision) = (true, emitted.revision + 1);
                (SessionSpan { start, last: emitted.last }, emitted.revision)
            })
            .collect()
    }

    /// Every timer due was fired, and no event before `earliest` will be accepted: what ended before is over for good.
    pub fn settle(&mut self, earliest: i64) {
        self.settled = self.settled.max(earliest);
    }

    /// Forget sessions that are over for good. Walks over all.
    pub fn forget_settled(&mut self) {
        let (gap, settled) = (self.gap_us, self.settled);
        self.emitted.retain(|_, emitted| emitted.last.saturating_add(gap) >= settled);
    }

    /// Timers and emitted sessions held.
    pub fn held(&self) -> usize {
        self.heap.len() + self.emitted.len()
    }

    /// Event time of the last event of each session that was emitted and may still change.
    pub fn emitted_ends(&self) -> impl Iterator<Item = i64> + '_ {
        self.emitted.values().map(|emitted| emitted.last)
    }

    /// Bytes of heap memory in use, about: a tree's nodes are taken to be two thirds full.
    pub fn heap_bytes(&self) -> usize {
        let emitted = std::mem::size_of::<((u32, i64), Emitted)>() * 3 / 2;
        self.heap.capacity() * std::mem::size_of::<Timer>() + self.emitted.len() * emitted
    }

    /// Write the timers and what was said of each session.
    pub fn write_state(&self, out: &mut ByteWriter) {
        out.i64(self.settled);
        let mut timers: Vec<Timer> = self.heap.iter().map(|Reverse(timer)| *timer).collect();
        timers.sort_unstable();
        out.count(timers.len());
        for timer in timers {
            out.i64(timer.due);
            out.u32(timer.slot);
            out.i64(timer.anchor);
            out.flag(timer.late);
        }
        out.count(self.emitted.len());
        for (&(slot, start), emitted) in &self.emitted {
            out.u32(slot);
            out.i64(start);
            out.i64(emitted.last);
            out.u64(emitted.digest);
            out.u32(emitted.revision);
            out.flag(emitted.replaced);
        }
    }

    /// Read what [`Self::write_state`] wrote.
    ///
    /// # Errors
    /// Bytes that are no timers.
    pub fn read_state(&mut self, from: &mut ByteReader<'_>) -> Result<()> {
        self.settled = from.i64()?;
        let timer = |from: &mut ByteReader<'_>| {
            Ok(Reverse(Timer { due: from.i64()?, slot: from.u32()?, anchor: from.i64()?, late: from.flag()? }))
        };
        self.heap = from.list(timer)?.into();
        self.emitted = from.list(read_emitted)?.into_iter().collect();
        Ok(())
    }

    fn end_of(&self, last: i64) -> i64 {
        last.saturating_add(self.gap_us)
    }
}

fn read_emitted(from: &mut ByteReader<'_>) -> Result<((u32, i64), Emitted)> {
    let session = (from.u32()?, from.i64()?);
    let (last, digest, revision, replaced) = (from.i64()?, from.u64()?, from.u32()?, from.flag()?);
    Ok((session, Emitted { last, digest, revision, replaced }))
}

/// Which runs of events were looked at in one go, so that several timers of one run cost no more than one.
#[derive(Debug, Default)]
pub struct LookedAt(BTreeMap<(u32, i64), i64>);

impl LookedAt {
    /// The run was looked at from `timer`'s event up to `last`.
    pub fn note(&mut self, timer: Timer, last: i64) {
        self.0.insert((timer.slot, timer.anchor), last);
    }

    /// Whether that covers the timer's event.
    pub fn covers(&self, timer: Timer) -> bool {
        let before = self.0.range((timer.slot, i64::MIN)..=(timer.slot, timer.anchor)).next_back();
        before.is_some_and(|(_, &last)| last >= timer.anchor)
    }
}
