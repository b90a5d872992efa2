//! Which of an old entity's words a new one can go on with, and what of it is missing for how long.

use super::{refused, Complete};
use crate::engine::entity::{Entity, SelectionSource};
use crate::engine::plan::Plan;
use crate::engine::Engine;
use crate::error::Result;
use crate::keyed::convert::{same_floors, BitRule, Conversion};
use crate::keyed::layout::{Floor, Layout};
use crate::keyed::window::Window;

impl Engine {
    /// Take the keys of every entity over; the new number of each old entity, and how complete each feature is.
    pub(super) fn take_entities(&mut self, old: &Self, plan: &Plan) -> Result<(Vec<Option<usize>>, Vec<Complete>)> {
        let mut places = vec![None; old.entities.len()];
        let mut complete = vec![Complete::Now; plan.features.len()];
        for number in 0..self.entities.len() {
            let own = &self.entities[number];
            let exact = old.entities.iter().position(|other| other.id == own.id && other.reader == own.reader);
            if let Some(exact) = exact {
                places[exact] = Some(number);
            }
            // One that is read by another column has kept the same events.
            let found = exact.or_else(|| old.entities.iter().position(|other| other.id == own.id));
            let newest = self.newest_of(old, &own.id.stream);
            let entity = &mut self.entities[number];
            let told = match found {
                Some(found) => entity.take_over(&old.entities[found], newest)?,
                None => entity.begins(newest),
            };
            for (&feature, told) in self.entities[number].features.iter().zip(told) {
                if let Some(place) = complete.get_mut(feature) {
                    *place = told;
                }
            }
        }
        Ok((places, complete))
    }
}

impl Entity {
    /// An entity without events: those up to `newest` were not kept.
    fn begins(&self, newest: i64) -> Vec<Complete> {
        let windows = self.store.layout().outputs.iter().map(|output| &self.store.layout().windows[output.window]);
        windows.map(|plan| complete_from(&plan.window, newest.saturating_add(1), false)).collect()
    }

    /// Take the keys of `old` over, an entity over the same stream and key whose newest event is at `newest`.
    fn take_over(&mut self, old: &Self, newest: i64) -> Result<Vec<Complete>> {
        let how = self.conversion(old)?;
        let layout = self.store.layout();
        let (kept_us, swept_to) = (old.store.layout().retention_us(), old.swept_to);
        let horizon =
            |retention_us: i64| if swept_to == i64::MIN { i64::MIN } else { swept_to.saturating_sub(retention_us) };
        let kept_from = horizon(kept_us);
        let told = layout.outputs.iter().zip(&self.bits).map(|(output, &bit)| {
            let window = &layout.windows[output.window].window;
            let known = how.bits[usize::from(bit)].is_some();
            if known && (kept_from == i64::MIN || enough(window, bit, layout, old.store.layout(), &how, kept_us)) {
                return Complete::Now;
            }
            let since = if known { kept_from } else { newest.saturating_add(1) };
            match complete_from(window, since, chain_kept(window, old.store.layout())) {
                Complete::From(time) if time <= swept_to => Complete::Now,
                told => told,
            }
        });
        let told = told.collect();
        let horizons = (kept_from, horizon(layout.retention_us()));
        self.swept_to = swept_to;
        self.store.take_over(&old.store, &how, horizons)?;
        Ok(told)
    }

    fn conversion(&self, old: &Self) -> Result<Conversion> {
        let (layout, before) = (self.store.layout(), old.store.layout());
        let mut lanes = Vec::with_capacity(layout.lanes.len());
        for (source, lane) in self.lane_sources.iter().zip(&layout.lanes) {
            let found = old.lane_sources.iter().position(|other| other == source);
            if found.is_some_and(|found| before.lanes[found] != *lane) {
                return Err(refused(&format!("an input of entity '{}' has another type: {source}", self.id.name())));
            }
            lanes.push(found.map(|found| found as u8));
        }
        let bits: Vec<Option<BitRule>> =
            self.selection_sources.iter().map(|source| rule(source, &lanes, &old.selection_sources)).collect();
        let exactly = |bit: u8| match bits[usize::from(bit)].as_ref() {
            Some(BitRule { all_of, not_nan: None }) if all_of.len() == 1 => Some(all_of[0]),
            _ => None,
        };
        let floors = same_floors(before, layout, exactly);
        Ok(Conversion { lanes, bits, floors })
    }
}

/// How the old mask tells a new selection.
fn rule((condition, lane, number): &SelectionSource, lanes: &[Option<u8>], old: &[SelectionSource]) -> Option<BitRule> {
    let lane = match lane {
        Some(lane) => Some(usize::from(lanes[*lane]?)),
        None => None,
    };
    let bit = |condition: &Option<String>, lane: Option<usize>, number: bool| {
        old.iter().position(|other| *other == (condition.clone(), lane, number)).map(|bit| bit as u8)
    };
    if let Some(bit) = bit(condition, lane, *number) {
        return Some(BitRule { all_of: vec![bit], not_nan: None });
    }
    let not_nan = lane.filter(|_| *number).map(|lane| lane as u8);
    if let Some(bit) = bit(condition, lane, false) {
        return Some(BitRule { all_of: vec![bit], not_nan });
    }
    // The condition and the input's presence, each by itself.
    let mut all_of = Vec::new();
    if condition.is_some() {
        all_of.push(bit(condition, None, false)?);
    }
    if lane.is_some() {
        all_of.push(bit(&None, lane, false)?);
    }
    Some(BitRule { all_of, not_nan })
}

/// Whether every reading from now on finds what it needs in what was kept for `kept_us` and in the floors.
fn enough(window: &Window, bit: u8, new: &Layout, old: &Layout, how: &Conversion, kept_us: i64) -> bool {
    match *window {
        Window::Sliding { .. } | Window::Tumbling { .. } => window.retention_us() <= kept_us,
        Window::Session { .. } => window.retention_us() <= kept_us && chain_kept(window, old),
        Window::Latest { size_us, delay_us } => {
            let kept_floor = new.floors.iter().zip(&how.floors).any(|(floor, from)| {
                *floor == Floor::Latest { bit, size_us }
                    && from.is_some_and(
                        |from| matches!(old.floors[from], Floor::Latest { size_us: kept, .. } if kept >= size_us),
                    )
            });
            (kept_floor && delay_us <= kept_us) || size_us.saturating_add(delay_us) <= kept_us
        }
    }
}

/// Whether the old layout knows where the sessions of a window are cut.
fn chain_kept(window: &Window, old: &Layout) -> bool {
    let Window::Session { gap_us, max_length_us, .. } = *window else { return false };
    old.floors.contains(&Floor::SessionStart { gap_us, max_length_us })
}

/// From which reading on a window lies behind `since`, before which events are missing.
fn complete_from(window: &Window, since: i64, chain_kept: bool) -> Complete {
    match *window {
        Window::Sliding { size_us, delay_us } => {
            Complete::From(since.saturating_add(size_us).saturating_add(delay_us).saturating_sub(1))
        }
        Window::Tumbling { size_us, delay_us } => {
            let pane = since.div_euclid(size_us) + i64::from(since.rem_euclid(size_us) != 0);
            Complete::From(pane.saturating_mul(size_us).saturating_add(delay_us))
        }
        Window::Latest { size_us, delay_us } => Complete::From(since.saturating_add(size_us).saturating_add(delay_us)),
        Window::Session { .. } if !chain_kept => Complete::AfterPause,
        Window::Session { .. } => Complete::From(since.saturating_add(window.retention_us())),
    }
}
