//! What a join tells of itself: its keys, how long each side keeps events, and sizes without a walk.

use std::collections::BinaryHeap;

use super::{Arrival, IntervalJoin, Timer};
use crate::join::bounds::Side;
use crate::join::store::JoinStore;

impl IntervalJoin {
    /// The events by key.
    pub fn store(&self) -> &JoinStore {
        &self.store
    }

    /// How long after the other side's earliest acceptable time an event of `side` is kept.
    pub fn retention_us(&self, side: Side) -> i64 {
        match side {
            Side::Left => self.bounds.upper,
            Side::Right => -self.bounds.lower,
        }
    }

    /// Bytes beside the keys' own, without a walk.
    pub fn waiting_bytes(&self) -> usize {
        let timers: usize = self.timers.iter().map(BinaryHeap::capacity).sum();
        timers * std::mem::size_of::<Timer>() + self.inbox.capacity() * std::mem::size_of::<Arrival>()
    }
}
