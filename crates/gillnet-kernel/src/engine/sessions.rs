//! When sessions close: one timer for each, set by its first event and by late ones, fired by the watermark.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};

use crate::keyed::key::SessionSpan;

/// A session that is over, to be emitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Closed {
    pub slot: u32,
    pub span: SessionSpan,
    /// 0 the first time; one more each time a late event changed the session after it was emitted.
    pub revision: u32,
}

/// The timers of one session entity.
#[derive(Debug)]
pub struct SessionTimers {
    gap_us: i64,
    /// (due, slot, event time of an event in the session)
    heap: BinaryHeap<Reverse<(i64, u32, i64)>>,
    emitted: HashMap<(u32, i64), Emitted>,
}

#[derive(Debug, Clone, Copy)]
struct Emitted {
    last: i64,
    events: u64,
    revision: u32,
}

impl SessionTimers {
    /// Timers for sessions that end after a gap of more than `gap_us`.
    pub fn new(gap_us: i64) -> Self {
        Self { gap_us, heap: BinaryHeap::new(), emitted: HashMap::new() }
    }

    /// An event arrived: `starts` if it is the first of its session, `late` if it lies behind the watermark.
    pub fn arrived(&mut self, slot: u32, time: i64, starts: bool, late: bool) {
        // A later event of an open session needs no timer: the first one's moves on when it fires.
        if starts || late {
            self.heap.push(Reverse((time.saturating_add(self.gap_us), slot, time)));
        }
    }

    /// The next timer that is due at `watermark`: slot and event time of an event of the session.
    pub fn pop_due(&mut self, watermark: i64) -> Option<(u32, i64)> {
        let &Reverse((due, slot, anchor)) = self.heap.peek()?;
        // Closed only when no event can extend it: one at due itself still could.
        if due >= watermark {
            return None;
        }
        self.heap.pop();
        Some((slot, anchor))
    }

    /// A timer fired and the session that it belongs to is `span` with `events` events. Says whether it is to be emitted;
    /// if it goes on, its timer is set anew.
    pub fn fired(&mut self, slot: u32, span: SessionSpan, events: u64, watermark: i64) -> Option<Closed> {
        if span.last.saturating_add(self.gap_us) >= watermark {
            self.heap.push(Reverse((span.last.saturating_add(self.gap_us), slot, span.last)));
            return None;
        }
        let before = self.emitted.get(&(slot, span.start)).copied();
        if before.is_some_and(|before| before.last == span.last && before.events == events) {
            return None;
        }
        let revision = before.map_or(0, |before| before.revision + 1);
        self.emitted.insert((slot, span.start), Emitted { last: span.last, events, revision });
        Some(Closed { slot, span, revision })
    }

    /// Forget sessions that no accepted event can change any more.
    pub fn forget_before(&mut self, earliest: i64) {
        let gap = self.gap_us;
        self.emitted.retain(|_, emitted| emitted.last.saturating_add(gap) >= earliest);
    }

    /// Timers and emitted sessions held.
    pub fn held(&self) -> usize {
        self.heap.len() + self.emitted.len()
    }
}
