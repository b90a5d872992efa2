//! All keys of a pattern as bytes: events, matches and what was not told yet. Partial matches are found again.

use std::cmp::Reverse;

use super::definition::Definition;
use super::key::Key;
use super::search::{Loss, Match, Tools};
use super::store::{Id, PatternStore, Slot, Told};
use crate::bytes::{broken, ByteReader, ByteWriter};
use crate::error::Result;
use crate::keyed::interner::Interner;
use crate::keyed::paged::Paged;
use crate::keyed::row::{self, OrderKey};
use crate::keyed::store::NO_TEXT;

impl PatternStore {
    /// Write every key.
    pub fn write_state(&self, out: &mut ByteWriter) {
        out.u64(self.sweep_at as u64);
        out.u64(self.dropped);
        self.slots.write_state(out, |slot, out| self.write_slot(slot, out));
        let mut timers: Vec<(i64, u32)> = self.timers.iter().map(|Reverse(timer)| *timer).collect();
        timers.sort_unstable();
        out.count(timers.len());
        for (due, slot) in timers {
            out.i64(due);
            out.u32(slot);
        }
        out.count(self.told.len());
        self.told.iter().for_each(|told| write_told(told, out));
    }

    fn write_slot(&self, slot: &Slot, out: &mut ByteWriter) {
        out.flag(slot.used);
        if !slot.used {
            return;
        }
        out.text(&slot.name);
        write_optional(slot.timer, out);
        out.count(slot.key.rows().len() / self.definition.stride());
        for event in slot.key.rows().chunks_exact(self.definition.stride()) {
            for (word, &value) in event.iter().enumerate() {
                match word.checked_sub(row::HEADER).filter(|lane| self.text_lanes.contains(lane)) {
                    Some(_) if value == NO_TEXT => out.flag(false),
                    Some(_) => {
                        out.flag(true);
                        out.text(self.texts.text(value));
                    }
                    None => out.u64(value),
                }
            }
        }
        slot.key.write_state(out);
    }

    /// Read what [`Self::write_state`] wrote, into a store without keys.
    ///
    /// # Errors
    /// Torn bytes, or those of another definition.
    pub fn read_state(&mut self, from: &mut ByteReader<'_>) -> Result<()> {
        (self.sweep_at, self.dropped) = (from.u64()? as usize, from.u64()?);
        self.slots = Paged::read_state(from, |from| self.slot_from(from))?;
        let timers = from.list(|from| Ok(Reverse((from.i64()?, from.u32()?))))?;
        self.timers = timers.into();
        self.told = from.list(|from| read_told(from, self.definition.names.len()))?.into();
        let mut next = 0;
        while let Some(place) = self.slots.at_or_after(next) {
            next = place as usize + 1;
            let slot = &mut self.slots[place];
            if !slot.used {
                continue;
            }
            if self.index.insert(slot.name.clone(), place).is_some() {
                return Err(broken("a key twice"));
            }
            // What was given up before is counted already.
            let mut dropped = 0;
            let mut tools = Tools {
                definition: &self.definition,
                texts: &self.texts,
                most_runs: self.limits.partial_matches,
                dropped: &mut dropped,
                holds: &mut self.holds,
            };
            slot.key.rebuild(&mut tools)?;
        }
        Ok(())
    }

    fn slot_from(&mut self, from: &mut ByteReader<'_>) -> Result<Slot> {
        if !from.flag()? {
            return Ok(Slot::default());
        }
        let (name, timer) = (from.text()?.into(), read_optional(from)?);
        let (definition, lanes) = (&self.definition, &self.text_lanes);
        let mut rows = Vec::new();
        let events = from.count()?;
        for _ in 0..events {
            read_event(from, definition, lanes, &mut self.texts, &mut rows)?;
        }
        self.events += events;
        Ok(Slot { name, used: true, timer, key: Key::read_state(from, definition, rows)? })
    }
}

fn read_event(
    from: &mut ByteReader<'_>,
    definition: &Definition,
    text_lanes: &[usize],
    texts: &mut Interner,
    rows: &mut Vec<u64>,
) -> Result<()> {
    let begin = rows.len();
    for word in 0..definition.stride() {
        let lane = word.checked_sub(row::HEADER).filter(|lane| text_lanes.contains(lane));
        rows.push(match lane {
            None => from.u64()?,
            Some(_) if from.flag()? => texts.acquire(from.text()?),
            Some(_) => NO_TEXT,
        });
    }
    let event = &rows[begin..];
    let before = begin.checked_sub(definition.stride()).map(|last| row::order_key(&rows[last..begin]));
    let missing =
        |&lane: &usize| row::selected(event, definition.valid_bit(lane)) && row::lane(event, lane as u8) == NO_TEXT;
    if before.is_some_and(|before| before >= row::order_key(event)) || text_lanes.iter().any(missing) {
        return Err(broken("events out of order or without their texts"));
    }
    Ok(())
}

/// Write a match.
pub(super) fn write_match(found: &Match, out: &mut ByteWriter) {
    write_order(found.start, out);
    write_order(found.last, out);
    out.u64(found.digest);
    out.u32(found.revision);
}

/// Read a match.
pub(super) fn read_match(from: &mut ByteReader<'_>) -> Result<Match> {
    let (start, last) = (read_order(from)?, read_order(from)?);
    Ok(Match { start, last, digest: from.u64()?, revision: from.u32()? })
}

/// Write a loss.
pub(super) fn write_loss(loss: &Loss, out: &mut ByteWriter) {
    write_order(loss.at, out);
    out.i64(loss.until);
}

/// Read a loss.
pub(super) fn read_loss(from: &mut ByteReader<'_>) -> Result<Loss> {
    Ok(Loss { at: read_order(from)?, until: from.i64()? })
}

/// Write a time that may be none.
pub(super) fn write_optional(time: Option<i64>, out: &mut ByteWriter) {
    out.flag(time.is_some());
    out.i64(time.unwrap_or_default());
}

/// Read a time that may be none.
pub(super) fn read_optional(from: &mut ByteReader<'_>) -> Result<Option<i64>> {
    let (some, time) = (from.flag()?, from.i64()?);
    Ok(some.then_some(time))
}

fn write_order(order: OrderKey, out: &mut ByteWriter) {
    out.i64(order.0);
    out.u128(order.1);
}

fn read_order(from: &mut ByteReader<'_>) -> Result<OrderKey> {
    Ok((from.i64()?, from.u128()?))
}

fn write_id(id: &Id, out: &mut ByteWriter) {
    match id {
        Id::Text(text) => {
            out.flag(true);
            out.text(text);
        }
        Id::Integer(number) => {
            out.flag(false);
            out.i64(*number);
        }
    }
}

fn read_id(from: &mut ByteReader<'_>) -> Result<Id> {
    Ok(if from.flag()? { Id::Text(from.text()?.into()) } else { Id::Integer(from.i64()?) })
}

fn write_told(told: &Told, out: &mut ByteWriter) {
    out.text(&told.key);
    out.u32(told.revision);
    write_id(&told.first, out);
    write_id(&told.last, out);
    out.i64(told.start);
    out.i64(told.end);
    out.flag(told.withdrawn);
    out.count(told.events.len());
    for (step, id, time) in &told.events {
        out.u32(*step as u32);
        write_id(id, out);
        out.i64(*time);
    }
}

fn read_told(from: &mut ByteReader<'_>, names: usize) -> Result<Told> {
    let (key, revision) = (from.text()?.into(), from.u32()?);
    let (first, last) = (read_id(from)?, read_id(from)?);
    let (start, end, withdrawn) = (from.i64()?, from.i64()?, from.flag()?);
    let events = from.list(|from| Ok((from.u32()? as usize, read_id(from)?, from.i64()?)))?;
    if events.iter().any(|(step, ..)| *step >= names) {
        return Err(broken("a match of a step that is not there"));
    }
    Ok(Told { key, revision, first, last, start, end, withdrawn, events })
}
