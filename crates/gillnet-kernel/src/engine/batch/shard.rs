//! One shard of an entity's keys: its events and rows of a part, key by key.
//!
//! A part is complete and sorted, so the keys can be worked on one after the other, each in the order of its events: its state
//! is brought into the cache once for all of them. Values come out in that order, with the row that each belongs to.

use arrow::array::ArrayRef;

use super::super::entity::{Entity, Keys, Readings};
use super::super::sessions::Sessions;
use crate::error::Result;
use crate::keyed::key::Value;
use crate::keyed::store::{Column, EventBatch, KeyedStore};

/// In place of a slot where a looked-up key has no event.
const UNKNOWN: u32 = u32::MAX;

/// What a shard reads for some rows of a part.
pub struct ShardReadings {
    pub columns: Vec<ArrayRef>,
    /// The row of each value, in the columns' order.
    pub rows: Vec<u32>,
    /// Rows whose reading is saturated.
    pub saturated: Vec<u32>,
}

/// Collects readings.
struct Reader {
    columns: Vec<Column>,
    values: Vec<Value>,
    rows: Vec<u32>,
    saturated: Vec<u32>,
}

impl Reader {
    fn new(entity: &Entity, rows: usize) -> Result<Self> {
        let columns = entity.columns(rows)?;
        Ok(Self {
            values: vec![Value::Null; columns.len()],
            columns,
            rows: Vec::with_capacity(rows),
            saturated: Vec::new(),
        })
    }

    fn push(&mut self, row: u32, store: &KeyedStore, saturated: bool) {
        for (column, &value) in self.columns.iter_mut().zip(&self.values) {
            column.push(value, |code| store.text(code));
        }
        self.rows.push(row);
        if saturated {
            self.saturated.push(row);
        }
    }

    fn finish(self) -> ShardReadings {
        let columns = self.columns.into_iter().map(Column::finish).collect();
        ShardReadings { columns, rows: self.rows, saturated: self.saturated }
    }
}

/// Slot and place of each event, packed so that sorting them brings the events of a key together, in their order.
fn by_slot(places: impl Iterator<Item = (u32, u32)>) -> Vec<u64> {
    let mut packed: Vec<u64> = places.map(|(slot, place)| u64::from(slot) << 32 | u64::from(place)).collect();
    packed.sort_unstable();
    packed
}

fn unpack(packed: u64) -> (u32, u32) {
    ((packed >> 32) as u32, packed as u32)
}

pub fn key_of<'a>(keys: &'a Keys<'_>, row: u32) -> &'a str {
    keys.get(row as usize).expect("rows of a shard have keys")
}

/// The root's own events `rows` arrive in their order; every output is read as of each.
///
/// # Errors
/// None but those of building columns.
pub fn arrive(
    entity: &mut Entity,
    sessions: Option<&mut Sessions>,
    events: &EventBatch<'_>,
    keys: &Keys<'_>,
    rows: &[u32],
) -> Result<ShardReadings> {
    let mut reader = Reader::new(entity, rows.len())?;
    let store = &mut entity.store;
    let located = rows.iter().map(|&row| (store.locate(key_of(keys, row)), row));
    let mut slots = Vec::with_capacity(if sessions.is_some() { rows.len() } else { 0 });
    for (slot, row) in by_slot(located).into_iter().map(unpack) {
        let arrived = store.arrive(slot, events, row as usize);
        reader.values.copy_from_slice(arrived.values);
        let saturated = arrived.saturated;
        reader.push(row, store, saturated);
        if sessions.is_some() {
            slots.push(slot);
        }
    }
    let mut read = reader.finish();
    if let Some(sessions) = sessions {
        note_sessions(sessions, &mut read, slots, events.times);
    }
    Ok(read)
}

/// Set timers for the sessions that begin.
fn note_sessions(sessions: &mut Sessions, read: &mut ShardReadings, slots: Vec<u32>, times: &[i64]) {
    let times: Vec<i64> = read.rows.iter().map(|&row| times[row as usize]).collect();
    let columns = std::mem::take(&mut read.columns);
    let readings = Readings { columns, saturated: Vec::new(), slots, before_others: Vec::new() };
    // In sorted input nothing is late.
    sessions.arrived(&readings, &times, &times);
    read.columns = readings.columns;
}

/// The events of a looked-up stream, and the rows that look up.
pub struct Lookup<'a> {
    pub events: &'a EventBatch<'a>,
    pub event_keys: &'a Keys<'a>,
    pub row_times: &'a [i64],
    pub row_keys: &'a Keys<'a>,
}

/// Events and rows of a shard in the order of time; at the same time events come first.
///
/// # Errors
/// None but those of building columns.
pub fn look_up(entity: &mut Entity, lookup: &Lookup<'_>, events: &[u32], rows: &[u32]) -> Result<ShardReadings> {
    let mut reader = Reader::new(entity, rows.len())?;
    let store = &mut entity.store;
    // Events first, so that a row finds the slot of a key that this part brings.
    let event_slots: Vec<u32> = events.iter().map(|&event| store.locate(key_of(lookup.event_keys, event))).collect();
    let row_slots: Vec<u32> =
        rows.iter().map(|&row| store.find(key_of(lookup.row_keys, row)).unwrap_or(UNKNOWN)).collect();
    let turns = merged(lookup, events, rows);
    let slot_of = |turn: Turn| match turn {
        Turn::Event(place) => event_slots[place as usize],
        Turn::Row(place) => row_slots[place as usize],
    };
    let ordered = by_slot(turns.iter().enumerate().map(|(place, &turn)| (slot_of(turn), place as u32)));
    for (slot, place) in ordered.into_iter().map(unpack) {
        match turns[place as usize] {
            Turn::Event(event) => {
                store.insert(slot, lookup.events, events[event as usize] as usize);
            }
            Turn::Row(row) => read_row(store, &mut reader, slot, rows[row as usize], lookup.row_times),
        }
    }
    Ok(reader.finish())
}

fn read_row(store: &mut KeyedStore, reader: &mut Reader, slot: u32, row: u32, times: &[i64]) {
    let time = times[row as usize];
    let saturated = if slot == UNKNOWN {
        reader.values.copy_from_slice(store.read_empty(time));
        false
    } else {
        let (values, saturated) = store.read_as_of(slot, time);
        reader.values.copy_from_slice(values);
        saturated
    };
    reader.push(row, store, saturated);
}

/// Place among the shard's events, or among its rows.
#[derive(Clone, Copy)]
pub enum Turn {
    Event(u32),
    Row(u32),
}

pub fn merged(lookup: &Lookup<'_>, events: &[u32], rows: &[u32]) -> Vec<Turn> {
    let mut turns = Vec::with_capacity(events.len() + rows.len());
    let mut next = 0;
    for (place, &row) in rows.iter().enumerate() {
        let time = lookup.row_times[row as usize];
        while next < events.len() && lookup.events.times[events[next] as usize] <= time {
            turns.push(Turn::Event(next as u32));
            next += 1;
        }
        turns.push(Turn::Row(place as u32));
    }
    turns.extend((next..events.len()).map(|event| Turn::Event(event as u32)));
    turns
}
