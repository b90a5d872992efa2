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
mod columns;
mod entity;
pub mod plan;
mod sessions;
mod stream;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Float64Array, RecordBatch, StringArray};
use arrow::array::{StringBuilder, UInt64Array};
use arrow::datatypes::{DataType, Field, Float64Type, Schema, TimeUnit, TimestampMicrosecondType};
use serde_json::json;
use std::sync::Arc;

use self::baseline::Baseline;
use self::columns::{optional_timestamps, timestamps, Columns};
use self::entity::{Entity, EntityBuilder, EntityId, Reader, Readings, NO_SLOT};
use self::plan::{FeaturePlan, Plan};
use self::sessions::{Closed, SessionTimers};
pub use self::stream::Outcome;
use self::stream::{Accepted, StreamState};
use crate::arrival::watermark;
use crate::error::{KernelError, Result};
use crate::expr::Expression;
use crate::keyed::key::Value;
use crate::keyed::layout::Function;
use crate::keyed::store::{Column, KeyedStore};
use crate::keyed::window::Window;

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
    /// Up to where sessions and baselines were forgotten.
    forgotten: i64,
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
}

struct Sessions {
    entity: usize,
    window: usize,
    key: String,
    timers: SessionTimers,
    gap_us: i64,
    /// The entity's output that holds the session's start and its number of events.
    start_column: usize,
    count_column: usize,
    /// Row expressions that need nothing but the session's own outputs.
    expressions: Vec<(String, Expression)>,
    baselines: Vec<(String, Baseline)>,
    schema: Arc<Schema>,
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
}

impl Engine {
    /// Compile a plan.
    ///
    /// # Errors
    /// [`KernelError::Plan`] where the plan cannot be executed.
    pub fn new(plan: &Plan) -> Result<Self> {
        let streams = plan.streams.iter().map(StreamState::new).collect::<Result<Vec<_>>>()?;
        let root = streams.iter().position(|s| s.name == plan.root);
        let root = root.ok_or_else(|| KernelError::Plan(format!("no stream '{}'", plan.root)))?;
        let (entities, sessions) = build_entities(plan, &streams, root)?;
        let mut engine = Self { root, streams, entities, features: Vec::new(), sessions, forgotten: i64::MIN };
        engine.compile_features(plan)?;
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
                    sessions.baselines.push((baseline.of.clone(), built));
                    fields.push(Field::new(&name, DataType::Float64, true));
                    self.features.push(Feature::Baseline { name, baseline: sessions.baselines.len() - 1 });
                }
            }
        }
        self.compile_sessions(plan)
    }

    fn place_of(&self, number: usize) -> Result<(usize, usize)> {
        self.entities
            .iter()
            .enumerate()
            .find_map(|(e, entity)| Some((e, entity.features.iter().position(|f| *f == number)?)))
            .ok_or_else(|| KernelError::Plan(format!("feature number {number} belongs to no entity")))
    }

    /// Which features a closed session can have: its entity's, and expressions over nothing else.
    fn compile_sessions(&mut self, plan: &Plan) -> Result<()> {
        let Some(sessions) = &mut self.sessions else { return Ok(()) };
        let entity = &self.entities[sessions.entity];
        let timestamp = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
        let key_type = self.streams[self.root].schema.field_with_name(&sessions.key)?.data_type().clone();
        let mut fields = vec![
            Field::new(&sessions.key, key_type, false),
            Field::new("session_start", timestamp.clone(), false),
            Field::new("session_end", timestamp, false),
            Field::new("revision", DataType::UInt64, false),
        ];
        for (column, &number) in entity.features.iter().enumerate() {
            if number < plan.features.len() {
                let data_type = entity.columns(0)?.swap_remove(column).finish().data_type().clone();
                fields.push(Field::new(plan.features[number].name(), data_type, true));
            }
        }
        for feature in &plan.features {
            if let FeaturePlan::Expression { name, expression } = feature {
                if let Ok(compiled) = Expression::compile(expression, &Schema::new(fields.clone())) {
                    fields.push(Field::new(name, compiled.data_type().clone(), true));
                    sessions.expressions.push((name.clone(), compiled));
                }
            }
        }
        sessions.schema = Arc::new(Schema::new(fields));
        for (of, _) in &sessions.baselines {
            if sessions.schema.field_with_name(of).is_err() {
                return Err(KernelError::Plan(format!("a baseline is over '{of}', which closed sessions do not have")));
            }
        }
        Ok(())
    }

    /// A partition was assigned to the run: it holds the stream's watermark until it is heard or idle.
    ///
    /// # Errors
    /// An unknown stream.
    pub fn register_partition(&mut self, stream: &str, partition: i32, now: i64) -> Result<()> {
        let number = self.stream_number(stream)?;
        self.streams[number].watermark.register(partition, now);
        Ok(())
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
        let number = self.stream_number(stream)?;
        let accepted = self.streams[number].accept(batch, partitions, arrival)?;
        let rows = if number == self.root {
            Some(self.rows(&accepted, arrival)?)
        } else {
            for entity in self.entities.iter_mut().filter(|e| e.id.stream == stream) {
                entity.insert(&accepted.batch, &accepted.times, &accepted.ids)?;
            }
            None
        };
        self.expire(batch.num_rows());
        Ok(Processed { outcomes: accepted.outcomes, rows })
    }

    fn rows(&mut self, accepted: &Accepted, arrival: i64) -> Result<RecordBatch> {
        let Accepted { batch, times, ids, watermarks, late, .. } = accepted;
        let root = &self.streams[self.root].name;
        let mut readings = Vec::with_capacity(self.entities.len());
        for entity in &mut self.entities {
            readings.push(match &entity.reader {
                Reader::Own if entity.id.stream == *root => entity.arrive(batch, times, ids)?,
                Reader::Own => Readings { columns: Vec::new(), saturated: Vec::new(), slots: Vec::new() },
                Reader::Lookup(at) => {
                    let at = at.clone();
                    entity.look_up(batch, times, &at)?
                }
            });
        }
        let states = self.feature_states(&readings, times);
        let starts = self.note_sessions(&readings, times, watermarks);
        let mut columns = Columns::of(batch);
        for feature in &self.features {
            match feature {
                Feature::Aggregate { name, entity, column } => {
                    columns.push(name, readings[*entity].columns[*column].clone());
                }
                Feature::Expression { name, expression } => columns.evaluate(name, expression)?,
                Feature::Baseline { name, baseline } => {
                    let sessions = self.sessions.as_mut().expect("a baseline was compiled with its sessions");
                    let (_, baseline) = &mut sessions.baselines[*baseline];
                    let values: Float64Array = times.iter().map(|&time| baseline.read(time)).collect();
                    columns.push(name, Arc::new(values));
                }
            }
        }
        columns.push(ARRIVAL_TIME, timestamps(vec![arrival; times.len()]));
        columns.push(WATERMARK, optional_timestamps(watermarks));
        columns.push(LATE, Arc::new(BooleanArray::from(late.clone())));
        columns.push(FEATURE_STATES, states);
        if let Some(starts) = starts {
            columns.push(SESSION_START, starts);
        }
        columns.finish()
    }

    /// Per row, the features that are not simply fresh or absent: `name=stale` or `name=saturated`, comma-separated.
    fn feature_states(&self, readings: &[Readings], times: &[i64]) -> ArrayRef {
        let mut builder = StringBuilder::new();
        let lagging: Vec<i64> = self.entities.iter().map(|entity| self.known_until(entity)).collect();
        let special = readings.iter().any(|r| !r.saturated.is_empty()) || lagging.iter().any(|&mark| mark != i64::MAX);
        for (i, &time) in times.iter().enumerate() {
            let mut text = String::new();
            if special {
                for feature in &self.features {
                    let Feature::Aggregate { name, entity, .. } = feature else { continue };
                    let state = if readings[*entity].saturated.binary_search(&(i as u32)).is_ok() {
                        "saturated"
                    } else if time > lagging[*entity] {
                        "stale"
                    } else {
                        continue;
                    };
                    let comma = if text.is_empty() { "" } else { "," };
                    text.push_str(&format!("{comma}{name}={state}"));
                }
            }
            if text.is_empty() {
                builder.append_null();
            } else {
                builder.append_value(text);
            }
        }
        Arc::new(builder.finish())
    }

    /// Up to which event time an entity's events are known to have arrived: of interest for lookups only, since a row's
    /// own stream is read as of its arrival by definition.
    fn known_until(&self, entity: &Entity) -> i64 {
        if entity.reader == Reader::Own {
            return i64::MAX;
        }
        let other = self.streams.iter().find(|s| s.name == entity.id.stream).expect("checked when compiled");
        if other.watermark.idle() && other.watermark.current() != watermark::NONE {
            return i64::MAX;
        }
        other.watermark.current().saturating_add(other.watermark_delay_us)
    }

    fn note_sessions(&mut self, readings: &[Readings], times: &[i64], watermarks: &[i64]) -> Option<ArrayRef> {
        let sessions = self.sessions.as_mut()?;
        let reading = &readings[sessions.entity];
        let starts = reading.columns[sessions.start_column].clone();
        let values = starts.as_primitive::<TimestampMicrosecondType>();
        for (i, &slot) in reading.slots.iter().enumerate() {
            if slot != NO_SLOT {
                let begins = values.value(i) == times[i];
                // A session that has closed can be reached by late events only: within the gap of its end, too.
                sessions.timers.arrived(slot, times[i], begins, times[i] < watermarks[i]);
            }
        }
        Some(starts)
    }

    /// Processing time passes without records: partitions may fall idle.
    pub fn pass_time(&mut self, now: i64) {
        self.streams.iter_mut().for_each(|stream| stream.watermark.pass_time(now));
    }

    /// A bounded stream has ended: its watermark goes to the end of time.
    ///
    /// # Errors
    /// An unknown stream.
    pub fn finish(&mut self, stream: &str) -> Result<()> {
        let number = self.stream_number(stream)?;
        self.streams[number].watermark.finish();
        Ok(())
    }

    /// The sessions that the watermark has closed since the last call, as rows; none if there are none.
    ///
    /// # Errors
    /// An expression that fails.
    pub fn closed_sessions(&mut self, most: usize) -> Result<Option<RecordBatch>> {
        let Some(sessions) = &mut self.sessions else { return Ok(None) };
        let mark = self.streams[self.root].watermark.current();
        let entity = &mut self.entities[sessions.entity];
        let mut closed: Vec<(Closed, String)> = Vec::new();
        let mut columns: Vec<Column> = entity.columns(16)?;
        while closed.len() < most {
            let Some((slot, anchor)) = sessions.timers.pop_due(mark) else { break };
            let Some((span, key, values)) = entity.store.session(slot, sessions.window, anchor) else { continue };
            let (key, values) = (key.to_owned(), values.to_vec());
            let Value::Integer(events) = values[sessions.count_column] else { continue };
            if let Some(session) = sessions.timers.fired(slot, span, events as u64, mark) {
                for (column, &value) in columns.iter_mut().zip(&values) {
                    column.push(value, |code| entity.store.text(code));
                }
                closed.push((session, key));
            }
        }
        if closed.is_empty() {
            return Ok(None);
        }
        let batch = session_rows(sessions, entity, &closed, columns)?;
        feed_baselines(sessions, &batch, &closed)?;
        Ok(Some(batch))
    }

    /// Give memory back: a part of the keys and ids each time, so that no call takes long.
    fn expire(&mut self, records: usize) {
        let earliest: Vec<i64> = self.streams.iter().map(StreamState::earliest_accepted).collect();
        for (stream, &earliest) in self.streams.iter_mut().zip(&earliest) {
            if earliest != i64::MIN {
                stream.seen.sweep(earliest);
            }
        }
        for entity in &mut self.entities {
            let own = self.streams.iter().position(|s| s.name == entity.id.stream).expect("checked when compiled");
            let mut reach = earliest[own];
            if matches!(entity.reader, Reader::Lookup(_)) && !self.streams[self.root].watermark.idle() {
                reach = reach.min(earliest[self.root]);
            }
            if reach != i64::MIN {
                let horizon = reach.saturating_sub(entity.store.layout().retention_us());
                entity.store.sweep(records.max(64), horizon, reach);
            }
        }
        if let Some(sessions) = &mut self.sessions {
            let reach = earliest[self.root];
            // These walk over all that they hold, so they run once a minute of event time.
            if reach > self.forgotten.saturating_add(60_000_000) {
                self.forgotten = reach;
                sessions.timers.forget_before(reach);
                sessions.baselines.iter_mut().for_each(|(_, baseline)| baseline.forget_before(reach));
            }
        }
    }

    /// The watermark of a stream in µs, or none; and the partition that holds it back.
    ///
    /// # Errors
    /// An unknown stream.
    pub fn watermark(&self, stream: &str) -> Result<(Option<i64>, Option<i32>)> {
        let mark = &self.streams[self.stream_number(stream)?].watermark;
        let current = Some(mark.current()).filter(|&current| current != watermark::NONE);
        Ok((current, mark.slowest().map(|(partition, _)| partition)))
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
        stats.timers = self.sessions.as_ref().map_or(0, |sessions| sessions.timers.held());
        stats
    }

    /// Sizes per entity: (name, keys, events, bytes).
    pub fn entity_stats(&self) -> Vec<(String, usize, usize, usize)> {
        let name = |e: &Entity| format!("{}.{}", e.id.stream, e.id.key.as_deref().unwrap_or("*"));
        self.entities
            .iter()
            .map(|e| {
                let stats = e.store.stats();
                (name(e), stats.keys, stats.events, stats.bytes)
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
        let FeaturePlan::Aggregate { stream, key, at, .. } = feature else { continue };
        entity_for(&mut builders, streams, stream, key.as_deref(), at.as_deref())?.add(number, feature)?;
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
        let column = |number: usize| entities[entity].features.iter().position(|f| *f == number).expect("added above");
        let layout = entities[entity].store.layout();
        Sessions {
            entity,
            window: layout.outputs[column(hidden)].window,
            key: sessions.key.clone(),
            timers: SessionTimers::new(sessions.gap_us),
            gap_us: sessions.gap_us,
            start_column: column(hidden),
            count_column: column(hidden + 1),
            expressions: Vec::new(),
            baselines: Vec::new(),
            schema: Arc::new(Schema::empty()),
        }
    });
    Ok((entities, sessions))
}

/// The session's start and its number of events, which timers need.
fn session_features(stream: &str, event_time: &str, sessions: &plan::SessionsPlan) -> [FeaturePlan; 2] {
    let window = Window::Session { gap_us: sessions.gap_us, max_length_us: sessions.max_length_us, delay_us: 0 };
    let feature = |name: &str, value_type: &str, function, input| FeaturePlan::Aggregate {
        name: name.into(),
        value_type: value_type.into(),
        stream: stream.into(),
        key: Some(sessions.key.clone()),
        at: None,
        function,
        input,
        condition: None,
        window,
    };
    [
        feature(SESSION_START, "timestamp", Function::First, Some(json!({ "column": event_time }))),
        feature("__session_count", "int64", Function::Count, None),
    ]
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

fn session_rows(
    sessions: &Sessions,
    entity: &Entity,
    closed: &[(Closed, String)],
    columns: Vec<Column>,
) -> Result<RecordBatch> {
    let keys: StringArray = closed.iter().map(|(_, key)| Some(key.as_str())).collect();
    let mut arrays: Vec<ArrayRef> = vec![
        // The store has every key as text.
        arrow::compute::cast(&keys, sessions.schema.field(0).data_type())?,
        timestamps(closed.iter().map(|(session, _)| session.span.start).collect()),
        timestamps(closed.iter().map(|(session, _)| session.span.last).collect()),
        Arc::new(UInt64Array::from_iter_values(closed.iter().map(|(session, _)| u64::from(session.revision)))),
    ];
    let visible = |place: &usize| sessions.start_column != *place && sessions.count_column != *place;
    debug_assert_eq!(columns.len(), entity.features.len());
    arrays.extend(columns.into_iter().enumerate().filter(|(i, _)| visible(i)).map(|(_, column)| column.finish()));
    let fields = sessions.schema.fields().iter().take(arrays.len()).cloned().collect::<Vec<_>>();
    let mut columns = Columns { fields, arrays };
    for (name, expression) in &sessions.expressions {
        columns.evaluate(name, expression)?;
    }
    columns.finish()
}

fn feed_baselines(sessions: &mut Sessions, batch: &RecordBatch, closed: &[(Closed, String)]) -> Result<()> {
    for (of, baseline) in &mut sessions.baselines {
        let column = batch.column_by_name(of).expect("checked when compiled");
        let values = arrow::compute::cast(column, &DataType::Float64)?;
        let values = values.as_primitive::<Float64Type>();
        for (i, (session, _)) in closed.iter().enumerate() {
            // A revision counts the session again only if it is the first: the baseline is of sessions, not of emissions.
            if values.is_valid(i) && session.revision == 0 {
                baseline.add(session.span.last.saturating_add(sessions.gap_us), values.value(i));
            }
        }
    }
    Ok(())
}
