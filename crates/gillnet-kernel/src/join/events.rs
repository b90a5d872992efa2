//! The events of one key on one side of a join, in the order of I1.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use crate::keyed::row::OrderKey;

/// What the caller keeps of an event. Shared with rows that wait to go out.
pub type Payload = Arc<[u8]>;

/// What has been said of an event of an outer side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// No partner so far, and nothing said.
    Waiting,
    /// No partner so far, and a row without one has left.
    Unmatched,
    Matched,
}

/// An event that may still find partners.
#[derive(Debug, Clone)]
pub struct Event {
    pub order: OrderKey,
    pub payload: Payload,
    pub fate: Fate,
    /// When it came, what it could match may have been forgotten.
    pub incomplete: bool,
}

/// Sorted events. One that arrives d events behind the newest costs O(min(d, events before it)) to insert.
#[derive(Debug, Default)]
pub struct Events {
    sorted: VecDeque<Event>,
    /// Event time of the newest event that went because the key was over its limit.
    dropped_until: Option<i64>,
}

impl Events {
    /// Put an event in its place.
    pub fn insert(&mut self, event: Event) {
        let at = self.sorted.partition_point(|other| other.order < event.order);
        self.sorted.insert(at, event);
    }

    /// Where the events of event times `first` to `last` stand, both included.
    pub fn places(&self, first: i64, last: i64) -> Range<usize> {
        let begin = self.sorted.partition_point(|event| event.order.0 < first);
        begin..self.sorted.partition_point(|event| event.order.0 <= last).max(begin)
    }

    /// The events at some places.
    pub fn at(&self, places: Range<usize>) -> impl Iterator<Item = &Event> {
        self.sorted.range(places)
    }

    /// The same, to change what was said of them.
    pub fn at_mut(&mut self, places: Range<usize>) -> impl Iterator<Item = &mut Event> {
        self.sorted.range_mut(places)
    }

    /// The event at a place in the order.
    pub fn find(&mut self, order: OrderKey) -> Option<&mut Event> {
        let at = self.sorted.binary_search_by(|event| event.order.cmp(&order)).ok()?;
        self.sorted.get_mut(at)
    }

    /// Drop the oldest event because the key is over its limit.
    pub fn drop_oldest(&mut self) -> Option<Event> {
        let gone = self.sorted.pop_front()?;
        self.dropped_until = self.dropped_until.max(Some(gone.order.0));
        Some(gone)
    }

    /// Whether an event at `first` or later was dropped because the key was over its limit.
    pub fn dropped_since(&self, first: i64) -> bool {
        self.dropped_until.is_some_and(|until| until >= first)
    }

    /// Drop events before `horizon`; `gone` sees each.
    pub fn prune(&mut self, horizon: i64, mut gone: impl FnMut(&Event)) {
        while self.sorted.front().is_some_and(|event| event.order.0 < horizon) {
            gone(&self.sorted.pop_front().expect("just seen"));
        }
        if !self.dropped_since(horizon) {
            self.dropped_until = None;
        }
        if self.sorted.capacity() > 8 && self.sorted.len() * 4 < self.sorted.capacity() {
            self.sorted.shrink_to(self.sorted.len() * 2);
        }
    }

    /// Whether nothing of it can matter any more.
    pub fn forgettable(&self) -> bool {
        self.sorted.is_empty() && self.dropped_until.is_none()
    }

    /// Number of events.
    pub fn len(&self) -> usize {
        self.sorted.len()
    }

    /// Whether it holds no event.
    pub fn is_empty(&self) -> bool {
        self.sorted.is_empty()
    }

    /// Bytes of heap memory in use, without payloads.
    pub fn heap_bytes(&self) -> usize {
        self.sorted.capacity() * std::mem::size_of::<Event>()
    }
}
