//! Revisions of what patterns say of rows.
//!
//! A pattern tells with each event how far it changed readings, so only rows in between are read again. Its number here is that of
//! the entities and, behind them, its own.

use arrow::array::ArrayRef;
use arrow::compute::interleave;

use super::{id_text, Affected, Cause, Named, Revisions, RowNumber, Source};
use crate::engine::entity::{Entity, Keys, Reader};
use crate::engine::patterns::{PatternEntity, PatternReadings, ValueBuilder};
use crate::engine::stream::{Accepted, StreamState};
use crate::error::{KernelError, Result};
use crate::keyed::row::OrderKey;
use crate::keyed::store::KeyedStore;

/// Of a pattern: its stream and key, and the root's own entity that knows the rows which read it.
pub struct PatternHome {
    stream: usize,
    key: Option<String>,
    pub home: usize,
    own: bool,
}

/// The homes of all patterns.
///
/// # Errors
/// No entity of the root that knows the rows.
pub fn homes(
    streams: &[StreamState],
    root: usize,
    entities: &[Entity],
    patterns: &[PatternEntity],
) -> Result<Vec<PatternHome>> {
    patterns
        .iter()
        .map(|pattern| {
            let by = match &pattern.reader {
                Reader::Own => pattern.id.key.as_deref(),
                Reader::Lookup(at) => pattern.id.key.as_ref().map(|_| at.as_str()),
            };
            let is_home =
                |e: &Entity| e.reader == Reader::Own && e.id.stream == streams[root].name && e.id.key.as_deref() == by;
            let home = entities.iter().position(is_home);
            let home =
                home.ok_or_else(|| KernelError::Plan(format!("no entity of the root keeps the rows by {by:?}")))?;
            let stream = streams.iter().position(|s| s.name == pattern.id.stream).expect("checked when compiled");
            Ok(PatternHome { stream, key: pattern.id.key.clone(), home, own: pattern.reader == Reader::Own })
        })
        .collect()
}

impl Revisions {
    /// Events of a stream changed what patterns say: note those that have rows behind them.
    ///
    /// # Errors
    /// A batch without a key's or the id's column.
    pub fn patterns_changed(
        &mut self,
        stream: usize,
        id: &str,
        entities: &mut [Entity],
        changed: &[&[(u32, i64)]],
        accepted: &Accepted,
    ) -> Result<()> {
        for (number, changed) in changed.iter().enumerate().filter(|(_, changed)| !changed.is_empty()) {
            let PatternHome { stream: from, key, home, own } = &self.patterns[number];
            if *from != stream {
                continue;
            }
            let keys = Keys::of(&accepted.batch, key.as_deref())?;
            entities[*home].bring_in(&keys, accepted.len())?;
            let (home, same_time) = (&entities[*home].store, !own);
            let id_column = accepted.batch.schema().index_of(id)?;
            let mut causes = Vec::new();
            for (i, until) in changed.iter().map(|&(i, until)| (i as usize, until)) {
                let Some(key) = keys.get(i) else { continue };
                let order = (accepted.times[i], accepted.ids[i]);
                if rows_behind(home, key, order, same_time) {
                    let named = Named { stream, id: id_text(&accepted.batch, id_column, i) };
                    causes.push((key, Cause { order, same_time, until: Some(until), named }));
                }
            }
            for (key, cause) in causes {
                self.disturb(entities.len() + number, key, cause);
            }
        }
        Ok(())
    }

    /// Put a pattern's readings into the feature columns, where they were disturbed.
    pub(super) fn reread_pattern(
        &mut self,
        rows: &[RowNumber],
        affected: &[Affected],
        number: usize,
        pattern: &PatternEntity,
        columns: &mut [ArrayRef],
    ) -> Result<()> {
        let own = pattern.reader == Reader::Own;
        let mut fresh = pattern.columns(affected.len());
        let mut choice: Vec<(usize, usize)> = (0..rows.len()).map(|row| (0, row)).collect();
        for (reading, affected) in affected.iter().enumerate() {
            let (time, id) = affected.order;
            let key = &self.work_keys[affected.key as usize];
            let mut saturated = false;
            for (column, read) in fresh.iter_mut().zip(pattern.read_at(key, (time, if own { id } else { u128::MAX }))) {
                column.push(read.count);
                saturated |= read.saturated;
            }
            if saturated {
                self.unrevised += 1;
            } else {
                choice[rows.binary_search(&affected.row).expect("a row of the chunk")] = (1, reading);
            }
        }
        let fresh: Vec<ArrayRef> = fresh.into_iter().map(ValueBuilder::finish).collect();
        for (feature, source) in self.sources.iter().enumerate() {
            match source {
                Source::Pattern((of, reading)) if *of == number => {
                    let place = self.root.kept.len() + feature;
                    columns[place] = interleave(&[columns[place].as_ref(), fresh[*reading].as_ref()], &choice)?;
                }
                _ => {}
            }
        }
        Ok(())
    }
}

/// Whether rows of the key lie behind a place in the order; with `same_time`, at its very time or later.
fn rows_behind(home: &KeyedStore, key: &str, order: OrderKey, same_time: bool) -> bool {
    let Some(slot) = home.find(key) else { return false };
    match home.newest(slot) {
        Some(newest) if newest == order.0 && !same_time => !home.orders_after(slot, order, order.0).is_empty(),
        newest => newest.is_some_and(|newest| newest >= order.0),
    }
}

/// What a batch of rows changed of each pattern.
pub fn changed_by(readings: &[PatternReadings]) -> Vec<&[(u32, i64)]> {
    readings.iter().map(|readings| readings.changed.as_slice()).collect()
}
