//! All keys of a store under another layout: see [`crate::keyed::convert`].

use super::{KeyedStore, Slot};
use crate::error::Result;
use crate::keyed::convert::Conversion;
use crate::keyed::key::KeyState;
use crate::keyed::paged::Paged;
use crate::keyed::row;
use crate::keyed::store::NO_TEXT;

impl KeyedStore {
    /// Take the keys of `old` over, each at the place that it has, into a store without keys.
    ///
    /// # Errors
    /// A store that holds a key twice.
    pub fn take_over(&mut self, old: &Self, how: &Conversion, horizons: (i64, i64)) -> Result<()> {
        self.sweep_at = old.sweep_at;
        self.horizon = horizons.1;
        let slots: Paged<Slot> = old.slots.map(|slot| match slot.used {
            true => Slot {
                key: slot.key.clone(),
                used: true,
                dirty: true,
                state: self.converted(old, &slot.state, how, horizons),
                ..Slot::default()
            },
            false => Slot::default(),
        });
        self.slots = slots;
        let mut next = 0;
        while let Some(place) = self.slots.at_or_after(next) {
            next = place as usize + 1;
            if self.slots[place].used {
                self.enter(place)?;
                self.trim(place, self.max_events_per_key);
            }
        }
        Ok(())
    }

    fn converted(&mut self, old: &Self, state: &KeyState, how: &Conversion, horizons: (i64, i64)) -> KeyState {
        let moved = how.key(&old.layout, &self.layout, state, horizons);
        let mut rows = moved.rows().into_owned();
        for event in rows.chunks_exact_mut(self.layout.stride()) {
            for &lane in &self.text_lanes {
                if row::lane(event, lane) != NO_TEXT {
                    let code = self.interner.acquire(old.interner.text(row::lane(event, lane)));
                    row::set_lane(event, lane, code);
                }
            }
        }
        self.events += rows.len() / self.layout.stride();
        KeyState::from_parts(&self.layout, rows, moved.floors().into())
    }
}
