//! What is asked of a key without reading a window: how many of its events lie before some time.

use super::{count_until, Events, KeyState};
use crate::keyed::layout::Layout;
use crate::keyed::row;

impl KeyState {
    /// Event times of the oldest and the newest event that are kept.
    pub fn span(&self, layout: &Layout) -> Option<(i64, i64)> {
        let first = match &self.events {
            Events::Small(rows) => rows.first().map(|_| row::time(rows)),
            Events::Large(large) => large.log.first().map(row::time),
        };
        first.zip(self.last_time(layout))
    }

    /// How many events lie before `time`.
    pub fn count_before(&self, layout: &Layout, time: i64) -> usize {
        match &self.events {
            Events::Small(rows) => count_until(rows, layout.stride(), time.saturating_sub(1)),
            Events::Large(large) => large.log.count_before(time),
        }
    }
}
