//! The embedded engine: a whole plan over batches of records, from accepted or refused to rows with features.
//!
//! Order of work for a batch of the root stream, each step column by column:
//! 1. accept: event time in bounds, id not seen before, not behind the allowed lateness; watermark moves with each event
//! 2. arrive: every entity of the root stream keeps the event and reads its windows as of it
//! 3. look up: entities of other streams are read as of the event's time
//! 4. evaluate row expressions, in the plan's order
//!
//! Rows come out in the order of arrival; a row sees exactly the events that arrived before it, so the answer does not
//! depend on where batches end.

mod baseline;
pub mod batch;
mod columns;
mod entity;
mod expiry;
pub mod inspect;
pub mod joins;
mod packed;
pub mod patterns;
mod pending;
pub mod plan;
mod plan_parts;
pub mod progress;
mod revise;
mod row_store;
mod session_timers;
mod sessions;
mod snapshot;
mod spill;
mod states;
mod stream;
mod time;
pub mod upgrade;

use arrow::array::{BooleanArray, RecordBatch};
use arrow::compute::concat_batches;
use arrow::datatypes::{DataType, Field, Schema};
use std::sync::Arc;

use self::baseline::Baseline;
use self::columns::{optional_timestamps, timestamps, Columns};
use self::entity::{Entity, EntityBuilder, EntityId, Reader, Readings};
use self::joins::{JoinStats, Joins};
use self::patterns::{PatternColumn, PatternReadings, Patterns};
use self::pending::Pending;
use self::plan::{FeaturePlan, Plan};
use self::plan_parts::PlanParts;
use self::revise::patterns::changed_by;
use self::revise::{looked_up_by, Revisions};
pub use self::revise::{RevisionStats, CAUSE_ID, CAUSE_STREAM, CHANGED, OLD, REVISION, WAS};
use self::sessions::{session_features, Sessions};
use self::spill::Spill;
pub use self::spill::SpillStats;
pub use self::stream::Outcome;
use self::stream::{Accepted, StreamState};
use crate::error::{KernelError, Result};
use crate::expr::Expression;
use crate::keyed::store::KeyedStore;
use crate::pattern::store::PatternStats;

/// Columns that the engine adds to a row, beside its features.
pub const ARRIVAL_TIME: &str = "__arrival_time";
pub const WATERMARK: &str = "__watermark";
pub const LATE: &str = "__late";
pub const FEATURE_STATES: &str = "__feature_states";
pub const SESSION_START: &str = "__session_start";

/// What became of a batch.
pub struct Processed {
    /// One outcome per record handed in.
    pub outcomes: Vec<Outcome>,
    /// The accepted records of the root stream with their features, in order of arrival; none for another stream.
    pub rows: Option<RecordBatch>,
}

/// A running pipeline's keyed state and its compiled plan.
pub struct Engine {
    root: usize,
    streams: Vec<StreamState>,
    entities: Vec<Entity>,
    features: Vec<Feature>,
    sessions: Option<Sessions>,
    revisions: Option<Revisions>,
    patterns: Patterns,
    pending: Option<Pending>,
    joins: Joins,
    parts: PlanParts,
    spill: Option<Spill>,
    /// Keys are missing that are kept elsewhere.
    incomplete: bool,
}

/// Whether rows are computed as their events arrive, or later, their events being in the state.
enum Turn {
    Arriving,
    Held,
}

enum Feature {
    /// (entity, its column)
    Aggregate {
        name: String,
        entity: usize,
        column: usize,
    },
    Expression {
        name: String,
        expression: Expression,
    },
    Baseline {
        name: String,
        baseline: usize,
    },
    Pattern {
        name: String,
        column: PatternColumn,
    },
}

/// Counters and sizes of an engine.
#[derive(Debug, Clone, Default)]
pub struct EngineStats {
    pub keys: usize,
    pub events: usize,
    pub bytes: usize,
    pub ids: usize,
    pub id_bytes: usize,
    pub timers: usize,
    pub saturated_keys: usize,
    pub revisions: RevisionStats,
    pub patterns: PatternStats,
    /// Rows that wait, and those that left early because too many did.
    pub pending: (usize, u64),
    pub joins: JoinStats,
}

impl Engine {
    /// Compile a plan.
    ///
    /// # Errors
    /// [`KernelError::Plan`] where the plan cannot be executed.
    pub fn new(plan: &Plan) -> Result<Self> {
        plan.check()?;
        let streams = plan.streams.iter().map(StreamState::new).collect::<Result<Vec<_>>>()?;
        let root = streams.iter().position(|s| s.name == plan.root);
        let root = root.ok_or_else(|| KernelError::Plan(format!("no stream '{}'", plan.root)))?;
        let (entities, sessions) = build_entities(plan, &streams, root)?;
        let pending = Pending::new(plan.emission, plan.limits.max_pending_rows);
        let joins = Joins::new(&plan.joins, &streams)?;
        let (features, patterns, parts) = (Vec::new(), Patterns::default(), plan.parts.clone());
        let (revisions, spill, incomplete) = (None, None, false);
        let mut engine = Self {
            root,
            streams,
            entities,
            features,
            sessions,
            revisions,
            patterns,
            pending,
            joins,
            parts,
            spill,
            incomplete,
        };
        engine.compile_features(plan)?;
        if plan.revisions {
            let Self { streams, entities, patterns, features, .. } = &engine;
            engine.revisions = Some(Revisions::new(plan, streams, root, entities, patterns, features)?);
        }
        Ok(engine)
    }

    fn compile_features(&mut self, plan: &Plan) -> Result<()> {
        let mut fields: Vec<Field> =
            self.streams[self.root].schema.fields().iter().map(|f| f.as_ref().clone()).collect();
        for (number, feature) in plan.features.iter().enumerate() {
            let name = feature.name().to_owned();
            match feature {
                FeaturePlan::Aggregate { value_type, .. } => {
                    let (entity, column) = self.place_of(number)?;
                    fields.push(Field::new(&name, plan::arrow_type(value_type)?, true));
                    self.features.push(Feature::Aggregate { name, entity, column });
                }
                FeaturePlan::Expression { expression, .. } => {
                    let compiled = Expression::compile(expression, &Schema::new(fields.clone()))
                        .map_err(|error| KernelError::Plan(format!("feature '{name}': {error}")))?;
                    fields.push(Field::new(&name, compiled.data_type().clone(), true));
                    self.features.push(Feature::Expression { name, expression: compiled });
                }
                FeaturePlan::Baseline(baseline) => {
                    let sessions = self.sessions.as_mut().ok_or_else(|| {
                        KernelError::Plan(format!("baseline '{name}' needs sessions, and the plan has none"))
                    })?;
                    let built =
                        Baseline::new(baseline.quantile, baseline.over_us, baseline.step_us, baseline.min_count);
                    fields.push(Field::new(&name, DataType::Float64, true));
                    let number = sessions.add_baseline(&baseline.of, built);
                    self.features.push(Feature::Baseline { name, baseline: number });
                }
                FeaturePlan::Pattern(pattern) => {
                    let column = self.patterns.add(pattern, &plan.root, &self.streams, &plan.limits)?;
                    fields.push(Field::new(&name, plan::arrow_type(&pattern.value_type)?, true));
                    self.features.push(Feature::Pattern { name, column });
                }
            }
        }
        match &mut self.sessions {
            Some(sessions) => sessions.compile(plan, &self.streams[self.root].schema, &self.entities[sessions.entity]),
            None => Ok(()),
        }
    }

    fn place_of(&self, number: usize) -> Result<(usize, usize)> {
        self.entities
            .iter()
            .enumerate()
            .find_map(|(e, entity)| Some((e, entity.features.iter().position(|f| *f == number)?)))
            .ok_or_else(|| KernelError::Plan(format!("feature number {number} belongs to no entity")))
    }

    /// Process decoded records of `stream`, in order of arrival.
    ///
    /// `partitions` gives each record's source partition (all 0 where none); `arrival` is when they were read, in µs.
    ///
    /// # Errors
    /// An unknown stream or a batch that does not have its columns.
    pub fn process(
        &mut self,
        stream: &str,
        batch: &RecordBatch,
        partitions: Option<&[i32]>,
        arrival: i64,
    ) -> Result<Processed> {
        self.check_complete()?;
        let number = self.stream_number(stream)?;
        let accepted = self.streams[number].accept(batch, partitions, arrival)?;
        self.joins.arrive(number, &accepted.batch, &accepted.times, &accepted.ids)?;
        let rows = if number == self.root && self.pending.is_none() {
            Some(self.root_rows(&accepted, arrival)?)
        } else if number == self.root {
            self.hold(&accepted, arrival)?;
            self.released(arrival, false)?
        } else {
            self.keep_for_lookups(number, &accepted)?;
            self.released(arrival, false)?
        };
        self.expire(batch.num_rows())?;
        self.spill(batch.num_rows())?;
        Ok(Processed { outcomes: accepted.outcomes, rows })
    }

    fn keep_for_lookups(&mut self, number: usize, accepted: &Accepted) -> Result<()> {
        let stream = &self.streams[number];
        for entity in self.entities.iter_mut().filter(|e| e.id.stream == stream.name) {
            entity.insert(&accepted.batch, &accepted.times, &accepted.ids)?;
        }
        let Accepted { batch, times, ids, .. } = accepted;
        let changed = self.patterns.keep(&stream.name, batch, times, ids)?;
        let Some(revisions) = &mut self.revisions else { return Ok(()) };
        revisions.arrived_elsewhere(number, stream.id(), &mut self.entities, accepted)?;
        let changed: Vec<&[(u32, i64)]> = changed.iter().map(Vec::as_slice).collect();
        revisions.patterns_changed(number, stream.id(), &mut self.entities, &changed, accepted)
    }

    /// The rows of the root stream. With sessions, the batch is cut where it matters whether a session was closed by then, so
    /// that sessions, their revisions and baselines do not depend on where batches end.
    fn root_rows(&mut self, accepted: &Accepted, arrival: i64) -> Result<RecordBatch> {
        let mut parts: Vec<RecordBatch> = Vec::new();
        let mut begin = 0;
        while let Some(sessions) = self.sessions.as_mut().filter(|_| begin < accepted.len()) {
            sessions.close_due(&mut self.entities[sessions.entity], accepted.watermarks[begin])?;
            let end = sessions.next_cut(accepted, begin);
            if (begin, end) == (0, accepted.len()) {
                break;
            }
            parts.push(self.rows(&accepted.slice(begin..end), vec![arrival; end - begin], Turn::Arriving)?);
            begin = end;
        }
        match parts.first() {
            None => self.rows(accepted, vec![arrival; accepted.len()], Turn::Arriving),
            Some(first) => Ok(concat_batches(&first.schema(), &parts)?),
        }
    }

    fn rows(&mut self, accepted: &Accepted, arrivals: Vec<i64>, turn: Turn) -> Result<RecordBatch> {
        let Accepted { batch, times, ids, watermarks, late, .. } = accepted;
        let mut readings = Vec::with_capacity(self.entities.len());
        for entity in &mut self.entities {
            readings.push(match (&entity.reader, &turn) {
                (Reader::Own, Turn::Arriving) => entity.arrive(batch, times, ids)?,
                (Reader::Own, Turn::Held) => entity.read_events(batch, times, ids)?,
                (Reader::Lookup(at), _) => {
                    let at = at.clone();
                    entity.look_up(batch, times, &at)?
                }
            });
        }
        let patterns = self.patterns.read_rows(batch, times, ids, matches!(turn, Turn::Arriving))?;
        let states = self.feature_states(&readings, &patterns, times);
        let starts = self.sessions.as_mut().map(|s| s.arrived(&readings[s.entity], times, watermarks));
        let mut columns = Columns::of(batch);
        for feature in &self.features {
            match feature {
                Feature::Aggregate { name, entity, column } => {
                    columns.push(name, readings[*entity].columns[*column].clone());
                }
                Feature::Expression { name, expression } => columns.evaluate(name, expression)?,
                Feature::Baseline { name, baseline } => {
                    let sessions = self.sessions.as_mut().expect("a baseline was compiled with its sessions");
                    columns.push(name, sessions.read_baseline(*baseline, times, watermarks));
                }
                Feature::Pattern { name, column: (pattern, reading) } => {
                    columns.push(name, patterns[*pattern].columns[*reading].clone());
                }
            }
        }
        columns.push(ARRIVAL_TIME, timestamps(arrivals));
        columns.push(WATERMARK, optional_timestamps(watermarks));
        columns.push(LATE, Arc::new(BooleanArray::from(late.clone())));
        columns.push(FEATURE_STATES, states);
        if let Some(starts) = starts {
            columns.push(SESSION_START, starts);
        }
        let rows = columns.finish()?;
        self.note_for_revisions(accepted, &readings, &patterns, &rows)?;
        Ok(rows)
    }

    fn note_for_revisions(
        &mut self,
        accepted: &Accepted,
        readings: &[Readings],
        patterns: &[PatternReadings],
        rows: &RecordBatch,
    ) -> Result<()> {
        let Some(revisions) = &mut self.revisions else { return Ok(()) };
        for (number, (entity, readings)) in self.entities.iter().zip(readings).enumerate() {
            revisions.arrived(self.root, number, entity, &readings.before_others, accepted)?;
        }
        let id = self.streams[self.root].id();
        revisions.patterns_changed(self.root, id, &mut self.entities, &changed_by(patterns), accepted)?;
        revisions.emitted(rows, &accepted.times, &accepted.ids)
    }

    /// Rows that went out and that later arrivals have changed, as they are now and as they went out last; about `most` rows
    /// at the most, none if there are no more.
    ///
    /// Columns: what the plan needs of the root stream, its features, each of them once more as [`OLD`]`name` and
    /// [`WAS`]`name`, then [`CHANGED`], [`REVISION`], [`CAUSE_STREAM`] and [`CAUSE_ID`].
    ///
    /// # Errors
    /// An expression that fails.
    pub fn revisions(&mut self, most: usize) -> Result<Option<RecordBatch>> {
        let Some(revisions) = &mut self.revisions else { return Ok(None) };
        let names: Vec<String> = self.streams.iter().map(|stream| stream.name.clone()).collect();
        let rows = revisions.next(most, &mut self.entities, &self.patterns, &names)?;
        self.spill(most)?;
        Ok(rows)
    }

    /// Events that disturbed rows which [`Self::revisions`] has not looked at yet.
    pub fn disturbances(&self) -> usize {
        self.revisions.as_ref().map_or(0, Revisions::disturbances)
    }

    /// The sessions that the watermark has closed since the last call, as rows; none if there are none.
    ///
    /// # Errors
    /// An expression that fails.
    pub fn closed_sessions(&mut self, most: usize) -> Result<Option<RecordBatch>> {
        // Rows that can still be revised read the events of sessions that are over.
        let earliest = self.streams[self.root].earliest_accepted().min(self.still_read_from());
        let Some(sessions) = &mut self.sessions else { return Ok(None) };
        let mark = self.streams[self.root].watermark.current();
        let entity = &mut self.entities[sessions.entity];
        let rows = sessions.close(entity, mark, most)?;
        sessions.sweep(entity, 0, mark, earliest);
        Ok(rows)
    }

    /// Sizes of the whole state. Walks over all keys.
    pub fn stats(&self) -> EngineStats {
        let mut stats = EngineStats::default();
        for entity in &self.entities {
            let store = entity.store.stats();
            stats.keys += store.keys;
            stats.events += store.events;
            stats.bytes += store.bytes;
            stats.saturated_keys += store.saturated_keys;
        }
        for stream in &self.streams {
            stats.ids += stream.seen.len();
            stats.id_bytes += stream.seen.heap_bytes();
        }
        if let Some(revisions) = &self.revisions {
            stats.revisions = revisions.stats();
            stats.bytes += stats.revisions.bytes;
        }
        stats.patterns = self.patterns.stats();
        stats.bytes += stats.patterns.bytes;
        stats.saturated_keys += stats.patterns.saturated_keys;
        stats.joins = self.joins.stats();
        stats.bytes += stats.joins.bytes;
        stats.pending = self.pending.as_ref().map_or((0, 0), Pending::stats);
        stats.timers = self.sessions.as_ref().map_or(0, |sessions| sessions.held());
        stats
    }

    /// Sizes per entity: (name, keys, events, bytes).
    pub fn entity_stats(&self) -> Vec<(String, usize, usize, usize)> {
        self.entities
            .iter()
            .map(|e| {
                let stats = e.store.stats();
                (e.id.name(), stats.keys, stats.events, stats.bytes)
            })
            .collect()
    }

    /// The keyed store of entity number `entity`, in the order of [`Self::entity_stats`].
    ///
    /// # Errors
    /// A number that no entity has.
    pub fn store(&self, entity: usize) -> Result<&KeyedStore> {
        let entity = self.entities.get(entity).map(|entity| &entity.store);
        entity.ok_or_else(|| KernelError::Batch("no such entity".into()))
    }

    /// The same, to change it.
    ///
    /// # Errors
    /// A number that no entity has.
    pub fn store_mut(&mut self, entity: usize) -> Result<&mut KeyedStore> {
        let entity = self.entities.get_mut(entity).map(|entity| &mut entity.store);
        entity.ok_or_else(|| KernelError::Batch("no such entity".into()))
    }

    fn stream_number(&self, name: &str) -> Result<usize> {
        self.streams
            .iter()
            .position(|stream| stream.name == name)
            .ok_or_else(|| KernelError::Batch(format!("the plan has no stream '{name}'")))
    }
}

/// The entities of a plan, and its sessions.
fn build_entities(plan: &Plan, streams: &[StreamState], root: usize) -> Result<(Vec<Entity>, Option<Sessions>)> {
    let mut builders: Vec<EntityBuilder> = Vec::new();
    for (number, feature) in plan.features.iter().enumerate() {
        let FeaturePlan::Aggregate { stream, key, at, name, .. } = feature else { continue };
        // The whole of another stream is looked up too, if by no column.
        let at = if *stream == plan.root { at.as_deref() } else { at.as_deref().or(key.is_none().then_some("")) };
        if *stream != plan.root && at.is_none() {
            return Err(KernelError::Plan(format!(
                "feature '{name}' of stream '{stream}' says no column to look it up at"
            )));
        }
        entity_for(&mut builders, streams, stream, key.as_deref(), at)?.add(number, feature)?;
    }
    if plan.revisions {
        for at in looked_up_by(plan) {
            // The rows by the column that they look up with: by it, an event of the other stream finds those that it changes.
            entity_for(&mut builders, streams, &plan.root, at, None)?;
        }
    }
    let hidden = plan.features.len();
    if let Some(sessions) = &plan.sessions {
        let root = &streams[root];
        let builder = entity_for(&mut builders, streams, &root.name, Some(&sessions.key), None)?;
        for (place, feature) in session_features(&root.name, &root.event_time, sessions).iter().enumerate() {
            builder.add(hidden + place, feature)?;
        }
    }
    let entities: Vec<Entity> = builders.into_iter().map(|builder| builder.build(&plan.limits)).collect();
    let sessions = plan.sessions.as_ref().map(|sessions| {
        let is_home = |e: &&Entity| e.reader == Reader::Own && e.features.contains(&hidden);
        let entity = entities.iter().position(|e| is_home(&e)).expect("added above");
        Sessions::new(sessions, &entities, entity, hidden)
    });
    Ok((entities, sessions))
}

fn entity_for<'a>(
    builders: &'a mut Vec<EntityBuilder>,
    streams: &[StreamState],
    stream: &str,
    key: Option<&str>,
    at: Option<&str>,
) -> Result<&'a mut EntityBuilder> {
    let id = EntityId { stream: stream.to_owned(), key: key.map(str::to_owned) };
    let reader = at.map_or(Reader::Own, |at| Reader::Lookup(at.to_owned()));
    let place = match builders.iter().position(|b| b.id == id && b.reader == reader) {
        Some(place) => place,
        None => {
            let home = streams.iter().find(|s| s.name == stream);
            let home = home.ok_or_else(|| KernelError::Plan(format!("no stream '{stream}'")))?;
            builders.push(EntityBuilder::new(id, reader, home.schema.clone()));
            builders.len() - 1
        }
    };
    Ok(&mut builders[place])
}
