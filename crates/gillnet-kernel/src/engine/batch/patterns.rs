//! Patterns over a part: each key on one shard, its events in their order, a row read at its own turn.
//!
//! In sorted input a match stands once it is found: it is never revised or withdrawn. A part may have many, so that they are put into
//! words when [`BatchPatterns::matches`] gives them, and the events are swept after that.

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;

use super::super::entity::{Keys, Reader};
use super::super::patterns::{PatternEntity, Patterns};
use super::parallel::in_parallel;
use super::shard::{key_of, merged, Lookup, ShardReadings, Turn};
use super::{Events, Prepared};
use crate::error::Result;
use crate::pattern::store::Telling;

/// The patterns of a plan.
pub struct BatchPatterns {
    shards: Vec<Patterns>,
    /// Somebody takes the matches.
    told: bool,
    /// The end of the part that was read last.
    until: i64,
    /// Keys to sweep once its matches were taken.
    unswept: usize,
}

impl BatchPatterns {
    /// Patterns without state, one lot for each part of the keys; with `told` somebody takes the matches.
    pub fn new(mut shards: Vec<Patterns>, told: bool) -> Self {
        let telling = if told { Telling::WhenTaken } else { Telling::Never };
        shards.iter_mut().for_each(|patterns| patterns.tell_when(telling));
        Self { shards, told, until: i64::MIN, unswept: 0 }
    }

    /// How many parts of the keys there are.
    pub fn shards(&self) -> usize {
        self.shards.len()
    }

    /// How far back of a row events can change it; `i64::MAX` where that is by a chain of matches.
    pub fn lookback_us(&self) -> i64 {
        self.shards[0].iter().map(|pattern| pattern.influence_us().unwrap_or(i64::MAX)).max().unwrap_or(0)
    }

    /// Keys and events held.
    pub fn held(&self) -> (usize, usize) {
        let held = self.shards.iter().flat_map(|patterns| patterns.iter()).map(PatternEntity::held);
        held.fold((0, 0), |(keys, events), (more_keys, more_events)| (keys + more_keys, events + more_events))
    }

    /// The events of a part arrive, and rows of the root are read: for each pattern, what its shards read.
    ///
    /// # Errors
    /// A condition that fails.
    pub fn read<'a>(
        &mut self,
        events_of: impl Fn(&str) -> &'a Events + Sync,
        root: &'a Events,
        deal: impl Fn(&Keys<'_>, usize) -> Vec<Vec<u32>> + Sync,
        until: i64,
        threads: usize,
    ) -> Result<Vec<Vec<ShardReadings>>> {
        let patterns: Vec<_> = self.shards[0].iter().enumerate().collect();
        let prepared = in_parallel(threads, patterns, |(number, pattern)| {
            prepare(number, pattern, events_of(&pattern.id.stream), root, &deal)
        })?;
        let tasks = self.shards.iter_mut().enumerate().flat_map(|(shard, patterns)| {
            patterns.iter_mut().zip(&prepared).map(move |(pattern, prepared)| (shard, pattern, prepared))
        });
        let read = in_parallel(threads, tasks.collect(), |(shard, pattern, prepared)| {
            work(shard, pattern, prepared, &root.times)
        })?;
        let mut of_patterns: Vec<Vec<ShardReadings>> = prepared.iter().map(|_| Vec::new()).collect();
        for (place, readings) in read.into_iter().enumerate() {
            of_patterns[place % prepared.len()].push(readings);
        }
        self.until = until;
        Ok(of_patterns)
    }

    /// The next matches of the part that was read last, about `most`; none if there are no more.
    ///
    /// # Errors
    /// A condition that fails.
    pub fn matches(&mut self, most: usize, threads: usize) -> Result<Option<RecordBatch>> {
        let (until, share) = (self.until, most.div_ceil(self.shards.len()));
        let shards = self.shards.iter_mut().collect();
        let found = in_parallel(threads, shards, |patterns| patterns.matches(share, |_| until))?;
        let found: Vec<RecordBatch> = found.into_iter().flatten().collect();
        match found.first() {
            Some(first) => Ok(Some(concat_batches(&first.schema(), &found)?)),
            None => self.sweep(threads).map(|()| None),
        }
    }

    /// Give memory back, in `keys` of each shard: now, or once the matches were taken.
    ///
    /// # Errors
    /// A condition that fails.
    pub fn may_sweep(&mut self, keys: usize, threads: usize) -> Result<()> {
        self.unswept = self.unswept.saturating_add(keys);
        if self.told {
            return Ok(());
        }
        self.sweep(threads)
    }

    fn sweep(&mut self, threads: usize) -> Result<()> {
        let (keys, until) = (std::mem::take(&mut self.unswept), self.until);
        let sweep = |patterns: &mut Patterns| patterns.iter_mut().try_for_each(|pattern| pattern.sweep(keys, until));
        in_parallel(threads, self.shards.iter_mut().collect(), sweep).map(|_| ())
    }
}

fn prepare<'a>(
    number: usize,
    pattern: &PatternEntity,
    events: &'a Events,
    root: &'a Events,
    deal: impl Fn(&Keys<'_>, usize) -> Vec<Vec<u32>>,
) -> Result<Prepared<'a>> {
    let event_keys = Keys::of(&events.batch, pattern.id.key.as_deref())?;
    let row_keys = match &pattern.reader {
        Reader::Own => None,
        Reader::Lookup(at) => Some(Keys::of(&root.batch, pattern.id.key.as_ref().map(|_| at.as_str()))?),
    };
    Ok(Prepared {
        number,
        events: pattern.prepare(&events.batch, &events.times, &events.ids)?,
        event_shards: deal(&event_keys, events.times.len()),
        event_keys,
        row_shards: row_keys.as_ref().map_or_else(Vec::new, |keys| deal(keys, root.times.len())),
        row_keys,
    })
}

fn work(
    shard: usize,
    pattern: &mut PatternEntity,
    prepared: &Prepared<'_>,
    row_times: &[i64],
) -> Result<ShardReadings> {
    let Prepared { events, event_keys, event_shards, row_keys, row_shards, .. } = prepared;
    match row_keys {
        None => {
            let rows = &event_shards[shard];
            let mut readings = pattern.builders(rows.len());
            for &row in rows {
                let (key, i) = (key_of(event_keys, row), row as usize);
                pattern.take(key, events, i)?;
                pattern.read_into(&mut readings, i, key, (events.times[i], events.ids[i]), false);
            }
            let readings = readings.finish();
            Ok(ShardReadings { columns: readings.columns, rows: rows.clone(), saturated: readings.saturated })
        }
        Some(row_keys) => {
            let lookup = Lookup { events, event_keys, row_times, row_keys };
            look_up(pattern, &lookup, &event_shards[shard], &row_shards[shard])
        }
    }
}

/// Events and rows of a shard in the order of time; at the same time events come first.
fn look_up(pattern: &mut PatternEntity, lookup: &Lookup<'_>, events: &[u32], rows: &[u32]) -> Result<ShardReadings> {
    let mut readings = pattern.builders(rows.len());
    for turn in merged(lookup, events, rows) {
        match turn {
            Turn::Event(place) => {
                let event = events[place as usize];
                pattern.take(key_of(lookup.event_keys, event), lookup.events, event as usize)?;
            }
            Turn::Row(place) => {
                let (key, row) = (key_of(lookup.row_keys, rows[place as usize]), rows[place as usize] as usize);
                pattern.read_into(&mut readings, row, key, (lookup.row_times[row], u128::MAX), false);
            }
        }
    }
    let readings = readings.finish();
    Ok(ShardReadings { columns: readings.columns, rows: rows.to_vec(), saturated: readings.saturated })
}
