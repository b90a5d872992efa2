//! A key's state under another layout: what an upgrade of the definition keeps of it.
//!
//! 1. prune as the old layout would have, so that what is left does not depend on when a sweep came by
//! 2. move each event: its lanes by their inputs, its mask by what the old mask still tells
//! 3. move the floors that mean the same
//! 4. prune as the new layout would have: what goes leaves its floors behind

use super::key::KeyState;
use super::layout::{Floor, LaneType, Layout};
use super::row;
use super::store::NO_TEXT;

/// How one layout's rows become another's.
#[derive(Debug)]
pub struct Conversion {
    /// Of each new lane, the old one with the same input.
    pub lanes: Vec<Option<u8>>,
    /// Of each new selection, how the old mask tells it; none where it does not, so that no old event is selected.
    pub bits: Vec<Option<BitRule>>,
    /// Of each word of the new floors, the old one that means the same.
    pub floors: Vec<Option<usize>>,
}

/// A new selection by what is known of an old event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BitRule {
    /// All of these old bits are set.
    pub all_of: Vec<u8>,
    /// And this old lane is a number.
    pub not_nan: Option<u8>,
}

impl BitRule {
    fn holds(&self, event: &[u64]) -> bool {
        self.all_of.iter().all(|&bit| row::selected(event, bit))
            && self.not_nan.is_none_or(|lane| !f64::from_bits(row::lane(event, lane)).is_nan())
    }
}

/// For each word of the new floors, the old word of the same meaning. `old_bit` gives a new selection's bit of old.
pub fn same_floors(old: &Layout, new: &Layout, old_bit: impl Fn(u8) -> Option<u8>) -> Vec<Option<usize>> {
    let mut found: Vec<Option<usize>> = Vec::with_capacity(new.floors.len());
    for (place, floor) in new.floors.iter().enumerate() {
        found.push(match *floor {
            // The one that was kept for longest; where that is too short, it says no less than nothing.
            Floor::Latest { bit, .. } => old_bit(bit).and_then(|old_bit| {
                let same = old.floors.iter().enumerate().filter_map(|(at, floor)| match *floor {
                    Floor::Latest { bit, size_us } if bit == old_bit => Some((size_us, at)),
                    _ => None,
                });
                same.max().map(|(_, at)| at)
            }),
            Floor::SessionStart { .. } => old.floors.iter().position(|other| other == floor),
            Floor::SessionLast => found[place - 1].map(|start| start + 1),
        });
    }
    found
}

impl Conversion {
    /// The state of one key. Events before `horizons` (of the old layout, of the new one) are gone; texts are still by the old
    /// store's codes.
    pub(super) fn key(&self, old: &Layout, new: &Layout, state: &KeyState, horizons: (i64, i64)) -> KeyState {
        let mut whole = KeyState::small(state.rows().into_owned(), state.floors().into());
        whole.prune(old, horizons.0, |_| {});
        let rows = whole.rows().chunks_exact(old.stride()).flat_map(|event| self.row(new, event)).collect();
        let mut moved = KeyState::small(rows, self.floors(old, new, whole.floors()));
        moved.prune(new, horizons.1, |_| {});
        moved
    }

    fn row(&self, new: &Layout, event: &[u64]) -> Vec<u64> {
        let holds = |(_, rule): &(usize, &Option<BitRule>)| rule.as_ref().is_some_and(|rule| rule.holds(event));
        let mask = self.bits.iter().enumerate().filter(holds).fold(0, |mask, (bit, _)| mask | 1 << bit);
        let mut moved = vec![0; new.stride()];
        row::set_header(&mut moved, row::time(event), row::id(event), mask);
        for (lane, from) in self.lanes.iter().enumerate() {
            let missing = if new.lanes[lane] == LaneType::Text { NO_TEXT } else { 0 };
            row::set_lane(&mut moved, lane as u8, from.map_or(missing, |from| row::lane(event, from)));
        }
        moved
    }

    fn floors(&self, old: &Layout, new: &Layout, floors: &[i64]) -> Box<[i64]> {
        if floors.is_empty() {
            return Box::default();
        }
        let word = |from: &Option<usize>| from.map_or(i64::MIN, |from| floors[from]);
        // Behind the layout's own: up to where events went because the key was over its limit.
        let dropped_until = floors.get(old.floors.len()).copied();
        let moved: Vec<i64> = self.floors.iter().map(word).chain(dropped_until).collect();
        debug_assert!(moved.len() >= new.floors.len());
        match moved.iter().all(|&word| word == i64::MIN) {
            true => Box::default(),
            false => moved.into(),
        }
    }
}
