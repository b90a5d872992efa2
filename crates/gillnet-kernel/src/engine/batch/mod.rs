//! The batch twin of the engine: the same plan over complete, sorted input, key by key on several threads.
//!
//! Input comes in parts of event time: every event of every stream from the last part's end up to `until`, each stream sorted by
//! (time, id) and without duplicates. Order of work for a part:
//! 1. prepare: each entity evaluates the inputs and conditions of its aggregates, and deals its events out to shards by key
//! 2. shards: a row is read at its own turn, and sees everything at or before it; so no row is ever revised. The events of
//!    a looked-up stream go in before the rows of the same time
//! 3. gather: values go back to the order of rows
//! 4. sessions that no event can extend any more close; baselines count them
//! 5. row expressions and baselines, in the plan's order
//! 6. rows of joins and matches of patterns, which the caller takes: [`BatchEngine::joined`], [`BatchEngine::matches`]
//!
//! Rows are those of the live engine after their last revision, bit for bit, whatever the parts, shards and threads. Two things
//! are the twin's own. A baseline live depends on when watermarks moved; here a reading at time t counts the sessions, as they
//! are in the end, that closed in whole steps before t's own. And a key over `max_events_per_key` drops its oldest events
//! at its own turn, when all later ones are still to come: rows say `saturated` from the same limit, but not always the same rows.
//! A join's key loses no event here: what it keeps is bounded by the part and the join's bounds.

mod joins;
mod parallel;
mod patterns;
mod repeats;
mod shard;
mod sorting;

use arrow::array::{new_null_array, Array, ArrayRef, RecordBatch, StringBuilder};
use arrow::compute::{concat_batches, interleave, lexsort_to_indices, take_record_batch, SortColumn};
use arrow::datatypes::DataType;
use hashbrown::DefaultHashBuilder;
use std::hash::BuildHasher;
use std::sync::Arc;

use self::joins::BatchJoins;
use self::parallel::in_parallel;
use self::patterns::BatchPatterns;
pub use self::repeats::{RepeatedIds, BUCKETS};
use self::shard::{arrive, look_up, Lookup, ShardReadings};
pub use self::sorting::{sort_events, SEQUENCE};
use super::columns::Columns;
use super::entity::{Entity, Keys, Reader};
use super::plan::{EmissionPlan, Plan};
use super::sessions::Sessions;
use super::stream::StreamState;
use super::{Engine, Feature, FEATURE_STATES, SESSION_START};
use crate::arrival::id_key::id_keys;
use crate::error::{KernelError, Result};
use crate::keyed::store::EventBatch;

/// The answer to a part.
pub struct Part {
    /// The root's events with their features, in the order of (time, id).
    pub rows: RecordBatch,
    /// Sessions that closed, in the order of (end, key, start); none where the plan has no sessions, or none closed.
    pub sessions: Option<RecordBatch>,
}

/// A plan over complete, sorted input.
pub struct BatchEngine {
    root: usize,
    streams: Vec<StreamState>,
    features: Vec<Feature>,
    /// The population's: baselines, and what closed sessions look like.
    sessions: Option<Sessions>,
    patterns: BatchPatterns,
    joins: BatchJoins,
    shards: Vec<Shard>,
    threads: usize,
    /// Places keys on shards; never decides a value.
    hasher: DefaultHashBuilder,
    /// Every event before this was handed in.
    until: i64,
}

/// Each entity's state for a part of the keys.
struct Shard {
    entities: Vec<Entity>,
    sessions: Option<Sessions>,
}

/// The events of a stream in a part.
struct Events {
    /// Columns of the stream's schema.
    batch: RecordBatch,
    /// Further columns, which go through.
    extra: Columns,
    times: Vec<i64>,
    ids: Vec<u128>,
}

/// What an entity takes of a part.
struct Prepared<'a> {
    number: usize,
    events: EventBatch<'a>,
    event_keys: Keys<'a>,
    event_shards: Vec<Vec<u32>>,
    /// Of the rows that look up.
    row_keys: Option<Keys<'a>>,
    row_shards: Vec<Vec<u32>>,
}

impl BatchEngine {
    /// Compile a plan, for `shards` parts of the keys and up to `threads` threads; with `matches` the caller takes them.
    ///
    /// # Errors
    /// [`KernelError::Plan`] where the plan cannot be executed.
    pub fn new(plan: &Plan, shards: usize, threads: usize, matches: bool) -> Result<Self> {
        // A row at its own turn sees everything: it neither waits nor is revised.
        let plan = Plan { revisions: false, emission: EmissionPlan::OnArrival, ..plan.clone() };
        let Engine { root, streams, features, sessions, joins, .. } = Engine::new(&plan)?;
        let joins = BatchJoins::new(joins, shards.max(1));
        let of_shards = Plan { joins: Vec::new(), ..plan };
        let mut of_patterns = Vec::new();
        let shards = (0..shards.max(1))
            .map(|_| {
                let Engine { entities, mut sessions, patterns, .. } = Engine::new(&of_shards)?;
                sessions.iter_mut().for_each(Sessions::without_baselines);
                of_patterns.push(patterns);
                Ok(Shard { entities, sessions })
            })
            .collect::<Result<Vec<_>>>()?;
        let patterns = BatchPatterns::new(of_patterns, matches);
        let hasher = DefaultHashBuilder::default();
        let threads = threads.max(1);
        Ok(Self { root, streams, features, sessions, patterns, joins, shards, threads, hasher, until: i64::MIN })
    }

    /// How far back of a row events of any stream can change it; none where that is by a session, whose beginning may lie
    /// any number of sessions back, or by a baseline.
    pub fn lookback_us(&self) -> Option<i64> {
        if self.sessions.is_some() {
            return None;
        }
        let reach = self.shards[0].entities.iter().map(|entity| entity.store.layout().influence_us(usize::MAX));
        let reach = reach.chain([self.patterns.lookback_us(), self.joins.lookback_us()]);
        Some(reach.max().unwrap_or(0)).filter(|&reach| reach != i64::MAX)
    }

    /// The rows of the next part: of every event before `until` that was not handed in yet. Streams without events may be left out.
    ///
    /// # Errors
    /// An unknown stream, a batch without its columns, or one that is not sorted or outside its part.
    pub fn process(&mut self, part: &[(String, RecordBatch)], until: i64) -> Result<Part> {
        let events = self.take(part, until)?;
        self.joins.arrive(&events, &self.hasher, self.threads)?;
        let read = self.read(&events)?;
        let sessions = self.close_sessions(until)?;
        let patterns = self.read_patterns(&events, until)?;
        let rows = self.rows(&events[self.root], read, &patterns)?;
        self.sweep(events.iter().map(|stream| stream.times.len()).sum(), until)?;
        self.until = until;
        Ok(Part { rows, sessions })
    }

    /// The next rows of a join of the part that was processed last, about `most`, with its number in the plan; none if there are no
    /// more. Take all of them before the next part: what is not taken is held.
    ///
    /// # Errors
    /// An expression that fails.
    pub fn joined(&mut self, most: usize) -> Result<Option<(usize, RecordBatch)>> {
        self.joins.joined(most, self.until, self.threads)
    }

    /// The next matches of the part that was processed last, about `most`; none if there are no more. Columns: those of a live
    /// engine's; none is ever revised or withdrawn. Take all of them before the next part: what is not taken is held, and so are
    /// the events.
    ///
    /// # Errors
    /// A condition that fails.
    pub fn matches(&mut self, most: usize) -> Result<Option<RecordBatch>> {
        self.patterns.matches(most, self.threads)
    }

    /// Keys and events held, of joins and patterns too.
    pub fn held(&self) -> (usize, usize) {
        let entities = self.shards.iter().flat_map(|shard| &shard.entities);
        let others = [self.joins.held(), self.patterns.held()].into_iter();
        let held = entities.map(|e| (e.store.len(), e.store.events())).chain(others);
        held.fold((0, 0), |(keys, events), (more_keys, more_events)| (keys + more_keys, events + more_events))
    }

    /// Hold a part against what was promised of it.
    fn take(&self, part: &[(String, RecordBatch)], until: i64) -> Result<Vec<Events>> {
        if let Some((name, _)) = part.iter().find(|(name, _)| self.streams.iter().all(|s| s.name != *name)) {
            return Err(KernelError::Batch(format!("the plan has no stream '{name}'")));
        }
        if until < self.until {
            return Err(KernelError::Batch(format!("parts were handed in up to {}, after {until}", self.until)));
        }
        let batch_of = |stream: &StreamState| {
            let found = part.iter().find(|(name, _)| *name == stream.name).map(|(_, batch)| batch.clone());
            found.unwrap_or_else(|| RecordBatch::new_empty(stream.schema.clone()))
        };
        self.streams.iter().map(|stream| Events::of(stream, &batch_of(stream), self.until, until)).collect()
    }

    /// The readings of each entity, by shard.
    fn read(&mut self, events: &[Events]) -> Result<Vec<Vec<ShardReadings>>> {
        let Self { root, streams, shards, threads, hasher, .. } = self;
        let home: Option<usize> = self.sessions.as_ref().map(|sessions| sessions.entity);
        let root_events = &events[*root];
        let of = |entity: &Entity| streams.iter().position(|s| s.name == entity.id.stream).expect("checked");
        let arrays = {
            let entities: Vec<&Entity> = shards[0].entities.iter().collect();
            in_parallel(*threads, entities, |entity| entity.lane_arrays(&events[of(entity)].batch))?
        };
        let prepared = {
            let tasks: Vec<_> = shards[0].entities.iter().zip(&arrays).enumerate().collect();
            in_parallel(*threads, tasks, |(number, (entity, arrays))| {
                let deal = |keys: &Keys<'_>, rows| deal(hasher, keys, rows, shards.len());
                prepare(number, entity, arrays, &events[of(entity)], root_events, deal)
            })?
        };
        let mut tasks = Vec::with_capacity(prepared.len() * shards.len());
        for (number, shard) in shards.iter_mut().enumerate() {
            let mut sessions = shard.sessions.as_mut();
            for (entity, prepared) in shard.entities.iter_mut().zip(&prepared) {
                let sessions = if Some(prepared.number) == home { sessions.take() } else { None };
                tasks.push((number, entity, sessions, prepared));
            }
        }
        let entities = prepared.len();
        let read = in_parallel(*threads, tasks, |(shard, entity, sessions, prepared)| {
            work(shard, entity, sessions, prepared, &root_events.times)
        })?;
        let mut of_entities: Vec<Vec<ShardReadings>> = (0..entities).map(|_| Vec::new()).collect();
        for (place, readings) in read.into_iter().enumerate() {
            of_entities[place % entities].push(readings);
        }
        Ok(of_entities)
    }

    /// The sessions that no event from `until` on can extend, in order.
    fn close_sessions(&mut self, until: i64) -> Result<Option<RecordBatch>> {
        let Some(population) = &mut self.sessions else { return Ok(None) };
        let tasks: Vec<_> = self.shards.iter_mut().collect();
        let closed = in_parallel(self.threads, tasks, |Shard { entities, sessions }| {
            let sessions = sessions.as_mut().expect("every shard has the plan's sessions");
            let entity = &mut entities[sessions.entity];
            sessions.close_due(entity, until)?;
            std::iter::from_fn(|| sessions.close(entity, until, usize::MAX).transpose()).collect::<Result<Vec<_>>>()
        })?;
        let closed: Vec<RecordBatch> = closed.into_iter().flatten().collect();
        let Some(first) = closed.first() else { return Ok(None) };
        let closed = concat_batches(&first.schema(), &closed)?;
        let column = |name: &str| closed.column_by_name(name).expect("every session has it").clone();
        let order = [column("session_end"), closed.column(0).clone(), column("session_start")];
        let order: Vec<SortColumn> = order.into_iter().map(|values| SortColumn { values, options: None }).collect();
        let closed = take_record_batch(&closed, &lexsort_to_indices(&order, None)?)?;
        population.count_closed(&closed)?;
        Ok(Some(closed))
    }

    /// What patterns say of the root's rows.
    fn read_patterns(&mut self, events: &[Events], until: i64) -> Result<Vec<Vec<ShardReadings>>> {
        let Self { root, streams, patterns, threads, hasher, .. } = self;
        let of = |name: &str| streams.iter().position(|s| s.name == name).expect("checked");
        let shards = patterns.shards();
        let deal = |keys: &Keys<'_>, rows| deal(hasher, keys, rows, shards);
        patterns.read(|stream| &events[of(stream)], &events[*root], deal, until, *threads)
    }

    fn rows(
        &mut self,
        events: &Events,
        read: Vec<Vec<ShardReadings>>,
        patterns: &[Vec<ShardReadings>],
    ) -> Result<RecordBatch> {
        let states = self.feature_states(&read, patterns, events.times.len());
        let read = self.gather(&read, events.times.len())?;
        let patterns = self.gather(patterns, events.times.len())?;
        let mut columns = Columns::of(&events.batch);
        for feature in &self.features {
            match feature {
                Feature::Aggregate { name, entity, column } => columns.push(name, read[*entity][*column].clone()),
                Feature::Pattern { name, column: (pattern, reading) } => {
                    columns.push(name, patterns[*pattern][*reading].clone());
                }
                Feature::Expression { name, expression } => columns.evaluate(name, expression)?,
                Feature::Baseline { name, baseline } => {
                    let sessions = self.sessions.as_mut().expect("a baseline was compiled with its sessions");
                    columns.push(name, sessions.read_baseline(*baseline, &events.times, &events.times));
                }
            }
        }
        columns.push(FEATURE_STATES, states);
        if let Some(sessions) = &self.sessions {
            columns.push(SESSION_START, read[sessions.entity][sessions.start_column()].clone());
        }
        columns.fields.extend(events.extra.fields.iter().cloned());
        columns.arrays.extend(events.extra.arrays.iter().cloned());
        columns.finish()
    }

    /// Each entity's columns in the order of rows; null for rows that no shard has, since their key is null.
    fn gather(&self, read: &[Vec<ShardReadings>], rows: usize) -> Result<Vec<Vec<ArrayRef>>> {
        let places: Vec<Vec<(usize, usize)>> = read.iter().map(|shards| places(shards, rows)).collect();
        let tasks: Vec<(usize, usize)> =
            (0..read.len()).flat_map(|e| (0..read[e][0].columns.len()).map(move |column| (e, column))).collect();
        let arrays = in_parallel(self.threads, tasks, |(entity, column)| {
            let null = new_null_array(read[entity][0].columns[column].data_type(), 1);
            let parts = read[entity].iter().map(|shard| shard.columns[column].as_ref());
            let parts: Vec<&dyn Array> = parts.chain([null.as_ref()]).collect();
            Ok(interleave(&parts, &places[entity])?)
        })?;
        let mut arrays = arrays.into_iter();
        Ok(read.iter().map(|shards| arrays.by_ref().take(shards[0].columns.len()).collect()).collect())
    }

    /// Per row, the features that may miss events of a key over its limit: `name=saturated`, comma-separated.
    fn feature_states(&self, read: &[Vec<ShardReadings>], patterns: &[Vec<ShardReadings>], rows: usize) -> ArrayRef {
        let (saturated, of_patterns) = (saturated_rows(read, rows), saturated_rows(patterns, rows));
        if saturated.iter().chain(&of_patterns).all(Vec::is_empty) {
            return new_null_array(&DataType::Utf8, rows);
        }
        let mut builder = StringBuilder::new();
        for row in 0..rows {
            let told = self.features.iter().filter_map(|feature| match feature {
                Feature::Aggregate { name, entity, .. } if saturated[*entity].get(row) == Some(&true) => {
                    Some(format!("{name}=saturated"))
                }
                Feature::Pattern { name, column } if of_patterns[column.0].get(row) == Some(&true) => {
                    Some(format!("{name}=saturated"))
                }
                _ => None,
            });
            let told: Vec<String> = told.collect();
            builder.append_option((!told.is_empty()).then(|| told.join(",")));
        }
        Arc::new(builder.finish())
    }

    /// Give memory back: nothing reads or changes the state as of a time before `until` any more.
    fn sweep(&mut self, records: usize, until: i64) -> Result<()> {
        let tasks: Vec<_> = self.shards.iter_mut().collect();
        in_parallel(self.threads, tasks, |Shard { entities, sessions }| {
            for (number, entity) in entities.iter_mut().enumerate() {
                match sessions {
                    Some(sessions) if sessions.entity == number => sessions.sweep(entity, records, until, until),
                    _ => entity.sweep(records.max(64), until),
                }
            }
            Ok(())
        })?;
        self.patterns.may_sweep(records.max(64), self.threads)?;
        if let Some(sessions) = &mut self.sessions {
            sessions.forget_baselines_before(until);
        }
        Ok(())
    }
}

impl Events {
    fn of(stream: &StreamState, batch: &RecordBatch, from: i64, until: i64) -> Result<Self> {
        let schema = batch.schema();
        let known = stream.schema.fields().iter().map(|field| Ok(schema.index_of(field.name())?));
        let known: Vec<usize> = known.collect::<Result<_>>()?;
        let extra: Vec<usize> = (0..batch.num_columns()).filter(|column| !known.contains(column)).collect();
        let extra = Columns::of(&batch.project(&extra)?);
        let batch = batch.project(&known)?;
        let times = stream.event_times(&batch)?.to_vec();
        let ids = id_keys(stream.column(&batch, stream.id())?)?;
        let outside = |&time: &i64| time < from || time >= until;
        if let Some(time) = times.first().into_iter().chain(times.last()).find(|&time| outside(time)) {
            let name = &stream.name;
            return Err(KernelError::Batch(format!(
                "stream '{name}': an event at {time} is not within {from} and {until}"
            )));
        }
        let orders = times.iter().zip(&ids);
        if let Some((time, _)) = orders.clone().zip(orders.skip(1)).find(|(a, b)| a >= b).map(|(_, b)| b) {
            return Err(KernelError::Batch(format!(
                "stream '{}': the event at {time} is a duplicate, or not in the order of time and id",
                stream.name
            )));
        }
        Ok(Self { batch, extra, times, ids })
    }
}

fn prepare<'a>(
    number: usize,
    entity: &Entity,
    arrays: &'a [ArrayRef],
    events: &'a Events,
    root: &'a Events,
    deal: impl Fn(&Keys<'_>, usize) -> Vec<Vec<u32>>,
) -> Result<Prepared<'a>> {
    let event_keys = entity.keys(&events.batch)?;
    let row_keys = match &entity.reader {
        Reader::Own => None,
        Reader::Lookup(at) => Some(Keys::of(&root.batch, entity.id.key.as_ref().map(|_| at.as_str()))?),
    };
    Ok(Prepared {
        number,
        events: entity.prepare(arrays, &events.batch, &events.times, &events.ids)?,
        event_shards: deal(&event_keys, events.times.len()),
        event_keys,
        row_shards: row_keys.as_ref().map_or_else(Vec::new, |keys| deal(keys, root.times.len())),
        row_keys,
    })
}

/// The rows of each shard; rows whose key is null are nobody's.
fn deal(hasher: &DefaultHashBuilder, keys: &Keys<'_>, rows: usize, shards: usize) -> Vec<Vec<u32>> {
    let mut dealt: Vec<Vec<u32>> = (0..shards).map(|_| Vec::with_capacity(rows / shards + 1)).collect();
    for row in 0..rows {
        if let Some(key) = keys.get(row) {
            let shard = if shards == 1 { 0 } else { (hasher.hash_one(key) >> 7) as usize % shards };
            dealt[shard].push(row as u32);
        }
    }
    dealt
}

fn work(
    shard: usize,
    entity: &mut Entity,
    sessions: Option<&mut Sessions>,
    prepared: &Prepared<'_>,
    row_times: &[i64],
) -> Result<ShardReadings> {
    let Prepared { events, event_keys, event_shards, row_keys, row_shards, .. } = prepared;
    match row_keys {
        None => arrive(entity, sessions, events, event_keys, &event_shards[shard]),
        Some(row_keys) => {
            let lookup = Lookup { events, event_keys, row_times, row_keys };
            look_up(entity, &lookup, &event_shards[shard], &row_shards[shard])
        }
    }
}

/// For each of `read`, whether a row's reading is saturated; empty where none is.
fn saturated_rows(read: &[Vec<ShardReadings>], rows: usize) -> Vec<Vec<bool>> {
    let of = |shards: &Vec<ShardReadings>| {
        let mut saturated = Vec::new();
        for &row in shards.iter().flat_map(|shard| &shard.saturated) {
            saturated.resize(rows, false);
            saturated[row as usize] = true;
        }
        saturated
    };
    read.iter().map(of).collect()
}

/// For each row, the shard and the place there that hold its values; the place behind the shards is null.
fn places(shards: &[ShardReadings], rows: usize) -> Vec<(usize, usize)> {
    let mut places = vec![(shards.len(), 0); rows];
    for (number, shard) in shards.iter().enumerate() {
        for (place, &row) in shard.rows.iter().enumerate() {
            places[row as usize] = (number, place);
        }
    }
    places
}
