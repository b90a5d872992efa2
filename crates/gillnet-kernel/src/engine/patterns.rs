//! Patterns of a plan: features that say whether a match was completed lately, and the matches themselves.
//!
//! A pattern stands beside the entities: it keeps the events that it is about, by its own key. Features over the same pattern,
//! key and column to look up share it.

use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, BooleanBuilder, Int64Builder, ListBuilder, RecordBatch, StringArray,
    StringBuilder, StructBuilder, TimestampMicrosecondBuilder, UInt64Array,
};
use arrow::datatypes::{DataType, Field, Fields, Float64Type, TimeUnit};

use super::columns::{timestamps, Columns};
use super::entity::{lane_of, EntityId, Keys, Reader};
use super::plan::{Limits, PatternFeaturePlan};
use super::stream::StreamState;
use super::Engine;
use crate::arrival::watermark;
use crate::bytes::{ByteReader, ByteWriter};
use crate::error::{KernelError, Result};
use crate::keyed::row::OrderKey;
use crate::keyed::store::{EventBatch, Lane};
use crate::pattern::definition::Definition;
use crate::pattern::key::Reading;
use crate::pattern::plan::PatternPlan;
use crate::pattern::store::{Id, KeyLimits, PatternStats, PatternStore, Telling, Told};

/// Columns of a match that went out.
pub const MATCH: [&str; 9] = ["pattern", "key", "first", "last", "revision", "withdrawn", "start", "end", "events"];

/// All patterns of a plan.
#[derive(Default)]
pub struct Patterns(Vec<PatternEntity>);

/// One pattern over one entity, and its features.
pub struct PatternEntity {
    pub id: EntityId,
    pub reader: Reader,
    /// The name of the first feature that is about it.
    name: String,
    plan: PatternPlan,
    store: PatternStore,
    readings: Vec<PatternReading>,
    /// State of readings before this time may have been forgotten.
    swept_to: i64,
}

#[derive(Debug, Clone, Copy)]
struct PatternReading {
    over_us: i64,
    counts: bool,
}

/// Where a feature finds its column: (pattern, its reading).
pub type PatternColumn = (usize, usize);

/// What the rows of a batch read from one pattern.
pub struct PatternReadings {
    pub columns: Vec<ArrayRef>,
    /// Rows whose reading is saturated.
    pub saturated: Vec<u32>,
    /// Rows whose events changed readings behind them, and before which time those lie.
    pub changed: Vec<(u32, i64)>,
}

impl Patterns {
    /// Add a feature; its events are of one of `streams`.
    ///
    /// # Errors
    /// A pattern that does not fit its stream.
    pub fn add(
        &mut self,
        feature: &PatternFeaturePlan,
        root: &str,
        streams: &[StreamState],
        limits: &Limits,
    ) -> Result<PatternColumn> {
        let place = |error: KernelError| KernelError::Plan(format!("feature '{}': {error}", feature.name));
        let home = streams.iter().find(|stream| stream.name == feature.stream);
        let home = home.ok_or_else(|| KernelError::Plan(format!("no stream '{}'", feature.stream)))?;
        let counts = match feature.value_type.as_str() {
            "int64" => true,
            "bool" => false,
            other => return Err(place(KernelError::Plan(format!("a pattern gives bool or int64, not {other}")))),
        };
        let reader = reader_of(feature, root).map_err(place)?;
        let id = EntityId { stream: feature.stream.clone(), key: feature.key.clone() };
        let same = |e: &PatternEntity| e.id == id && e.reader == reader && e.plan == feature.pattern;
        let pattern = match self.0.iter().position(same) {
            Some(found) => found,
            None => {
                self.0.push(PatternEntity::new(feature, id, reader, home, limits).map_err(place)?);
                self.0.len() - 1
            }
        };
        let entity = &mut self.0[pattern];
        entity.store.look_back(feature.over_us);
        entity.readings.push(PatternReading { over_us: feature.over_us, counts });
        Ok((pattern, entity.readings.len() - 1))
    }

    /// Events of a stream arrive, and nothing is read; returns for each pattern which of them changed readings.
    ///
    /// # Errors
    /// A batch without a pattern's columns.
    pub fn keep(
        &mut self,
        stream: &str,
        batch: &RecordBatch,
        times: &[i64],
        ids: &[u128],
    ) -> Result<Vec<Vec<(u32, i64)>>> {
        self.0
            .iter_mut()
            .map(|pattern| match pattern.id.stream == stream {
                true => pattern.insert(batch, times, ids),
                false => Ok(Vec::new()),
            })
            .collect()
    }

    /// Say when matches are put into words, before the first event.
    pub fn tell_when(&mut self, telling: Telling) {
        self.0.iter_mut().for_each(|pattern| pattern.store.tell_when(telling));
    }

    /// Read every feature for rows of the root, whose events are `arriving` with it or were kept before.
    ///
    /// # Errors
    /// A batch without a pattern's columns.
    pub fn read_rows(
        &mut self,
        batch: &RecordBatch,
        times: &[i64],
        ids: &[u128],
        arriving: bool,
    ) -> Result<Vec<PatternReadings>> {
        self.0
            .iter_mut()
            .map(|pattern| match pattern.reader.clone() {
                Reader::Own if arriving => pattern.arrive(batch, times, ids),
                Reader::Own => pattern.read_events(batch, times, ids),
                Reader::Lookup(at) => pattern.look_up(batch, times, &at),
            })
            .collect()
    }

    /// Matches that were found, changed or withdrawn, about `most`; none if there are no more.
    ///
    /// # Errors
    /// A condition that fails.
    pub fn matches(&mut self, most: usize, watermark: impl Fn(&str) -> i64) -> Result<Option<RecordBatch>> {
        let mut rows = Vec::new();
        for pattern in &mut self.0 {
            pattern.store.pass_time(watermark(&pattern.id.stream))?;
            let told = pattern.store.take_told(most.saturating_sub(rows.len()))?;
            rows.extend(told.into_iter().map(|told| (&pattern.name, &pattern.store, told)).map(named));
        }
        if rows.is_empty() {
            return Ok(None);
        }
        batch_of(&rows).map(Some)
    }

    /// Sizes of all patterns.
    pub fn stats(&self) -> PatternStats {
        self.0.iter().map(|pattern| pattern.store.stats()).fold(PatternStats::default(), |all, one| PatternStats {
            keys: all.keys + one.keys,
            events: all.events + one.events,
            bytes: all.bytes + one.bytes,
            partial_matches: all.partial_matches + one.partial_matches,
            dropped: all.dropped + one.dropped,
            saturated_keys: all.saturated_keys + one.saturated_keys,
        })
    }
}

impl Deref for Patterns {
    type Target = [PatternEntity];

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl DerefMut for Patterns {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.0
    }
}

impl Engine {
    /// Matches that were found since the last call, those whose events changed, and those that are no matches any more;
    /// about `most` rows, none if there are no more. Columns: [`MATCH`].
    ///
    /// # Errors
    /// A condition that fails.
    pub fn matches(&mut self, most: usize) -> Result<Option<RecordBatch>> {
        let streams = &self.streams;
        let mark = |name: &str| {
            streams.iter().find(|stream| stream.name == name).map_or(watermark::NONE, |s| s.watermark.current())
        };
        self.patterns.matches(most, mark)
    }
}

/// How a feature of `root`'s rows reads its pattern; the whole of another stream is looked up by no column.
fn reader_of(feature: &PatternFeaturePlan, root: &str) -> Result<Reader> {
    match &feature.at {
        _ if feature.stream == root => Ok(Reader::Own),
        Some(at) => Ok(Reader::Lookup(at.clone())),
        None if feature.key.is_none() => Ok(Reader::Lookup(String::new())),
        None => Err(KernelError::Plan(format!("stream '{}' is looked up, and no column says at what", feature.stream))),
    }
}

impl PatternEntity {
    fn new(
        feature: &PatternFeaturePlan,
        id: EntityId,
        reader: Reader,
        home: &StreamState,
        limits: &Limits,
    ) -> Result<Self> {
        let definition = Definition::compile(&feature.pattern, &home.schema, home.id())?;
        let texts = definition.lanes.iter().enumerate().filter(|(_, lane)| lane.data_type == DataType::Utf8);
        let text_lanes: Box<[usize]> = texts.map(|(number, _)| number).collect();
        let limits = KeyLimits { events: limits.max_events_per_key, partial_matches: limits.max_partial_matches };
        Ok(Self {
            id,
            reader,
            name: feature.name.clone(),
            plan: feature.pattern.clone(),
            store: PatternStore::new(definition, text_lanes, feature.over_us, limits),
            readings: Vec::new(),
            swept_to: i64::MIN,
        })
    }

    /// Keep the events of a batch; returns those that changed readings behind them, and before which time those lie.
    ///
    /// # Errors
    /// A batch without the pattern's columns.
    pub fn insert(&mut self, batch: &RecordBatch, times: &[i64], ids: &[u128]) -> Result<Vec<(u32, i64)>> {
        let events = prepare(self.store.definition(), batch, times, ids)?;
        let keys = Keys::of(batch, self.id.key.as_deref())?;
        let mut changed = Vec::new();
        for i in 0..batch.num_rows() {
            let Some(key) = keys.get(i) else { continue };
            changed.extend(self.store.arrive(key, &events, i)?.changed_until.map(|until| (i as u32, until)));
        }
        Ok(changed)
    }

    /// The events of a batch as [`Self::take`] takes them.
    ///
    /// # Errors
    /// A condition that fails.
    pub fn prepare<'a>(&self, batch: &'a RecordBatch, times: &'a [i64], ids: &'a [u128]) -> Result<EventBatch<'a>> {
        prepare(self.store.definition(), batch, times, ids)
    }

    /// Event `i` of the batch arrives at `key`.
    ///
    /// # Errors
    /// A condition that fails.
    pub fn take(&mut self, key: &str, events: &EventBatch<'_>, i: usize) -> Result<()> {
        self.store.arrive(key, events, i).map(|_| ())
    }

    /// The events and matches by key.
    pub fn store(&self) -> &PatternStore {
        &self.store
    }

    /// The name of the first feature that is about it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Keys and events held.
    pub fn held(&self) -> (usize, usize) {
        self.store.held()
    }

    /// Let the events of a batch arrive in order; read every feature as of each.
    ///
    /// # Errors
    /// A batch without the pattern's columns.
    pub fn arrive(&mut self, batch: &RecordBatch, times: &[i64], ids: &[u128]) -> Result<PatternReadings> {
        let events = prepare(self.store.definition(), batch, times, ids)?;
        let keys = Keys::of(batch, self.id.key.as_deref())?;
        let mut readings = self.builders(batch.num_rows());
        for i in 0..batch.num_rows() {
            let Some(key) = keys.get(i) else {
                readings.push_null();
                continue;
            };
            let arrived = self.store.arrive(key, &events, i)?;
            readings.changed.extend(arrived.changed_until.map(|until| (i as u32, until)));
            self.read_into(&mut readings, i, key, (times[i], ids[i]), false);
        }
        Ok(readings.finish())
    }

    /// Read every feature as of each of the pattern's own events, which were kept before.
    ///
    /// # Errors
    /// A batch without the key's column.
    pub fn read_events(&mut self, batch: &RecordBatch, times: &[i64], ids: &[u128]) -> Result<PatternReadings> {
        let keys = Keys::of(batch, self.id.key.as_deref())?;
        let mut readings = self.builders(batch.num_rows());
        for i in 0..batch.num_rows() {
            match keys.get(i) {
                Some(key) => self.read_into(&mut readings, i, key, (times[i], ids[i]), false),
                None => readings.push_null(),
            }
        }
        Ok(readings.finish())
    }

    /// Read every feature as of the times of the root's rows, for the keys of column `at`.
    ///
    /// # Errors
    /// A batch without that column.
    pub fn look_up(&mut self, batch: &RecordBatch, times: &[i64], at: &str) -> Result<PatternReadings> {
        let keys = Keys::of(batch, self.id.key.as_ref().map(|_| at))?;
        let mut readings = self.builders(batch.num_rows());
        for (i, &time) in times.iter().enumerate() {
            match keys.get(i) {
                // Its stream was idle for long, and the row may miss events.
                Some(key) => self.read_into(&mut readings, i, key, (time, u128::MAX), time < self.swept_to),
                None => readings.push_null(),
            }
        }
        Ok(readings.finish())
    }

    /// Every feature of `key` over all events that are known now: as of the key's own event at `order`, or of a time, with
    /// `u128::MAX` for the id. The same as at the event's arrival, had all others been there.
    ///
    /// Nothing is changed by it, and it costs no more than finding the key.
    pub fn read_at<'a>(&'a self, key: &str, order: OrderKey) -> impl Iterator<Item = Reading> + 'a {
        let slot = self.store.find(key);
        self.readings.iter().map(move |reading| match slot {
            Some(slot) => self.store.read(slot, order, reading.over_us),
            None => Reading { count: 0, saturated: false },
        })
    }

    /// How far ahead of its time an event can change readings; none where that is by a chain of matches.
    pub fn influence_us(&self) -> Option<i64> {
        self.store.influence_us()
    }

    /// Give memory back, in up to `slots` keys: nothing will read or change the state as of a time before `reach`.
    ///
    /// # Errors
    /// A condition that fails.
    pub fn sweep(&mut self, slots: usize, reach: i64) -> Result<()> {
        self.swept_to = self.swept_to.max(reach);
        self.store.sweep(slots, reach)
    }

    /// Whether it is the same pattern over the same key, read by the same column.
    pub(super) fn same_as(&self, other: &Self) -> bool {
        self.id == other.id && self.reader == other.reader && self.plan == other.plan
    }

    /// How far back its features look.
    pub(super) fn looks_back_us(&self) -> i64 {
        self.readings.iter().map(|reading| reading.over_us).max().unwrap_or(0)
    }

    /// Write the state of every key.
    pub fn write_state(&self, out: &mut ByteWriter) {
        out.i64(self.swept_to);
        self.store.write_state(out);
    }

    /// Read what [`Self::write_state`] wrote.
    ///
    /// # Errors
    /// Bytes that are no state of this pattern.
    pub fn read_state(&mut self, from: &mut ByteReader<'_>) -> Result<()> {
        self.swept_to = from.i64()?;
        self.store.read_state(from)
    }

    /// Read every feature of `key` as of a place in the order, for row `i`.
    pub fn read_into(&self, readings: &mut Builders, i: usize, key: &str, order: OrderKey, incomplete: bool) {
        let mut saturated = incomplete;
        for (column, reading) in readings.columns.iter_mut().zip(self.read_at(key, order)) {
            column.push(reading.count);
            saturated |= reading.saturated;
        }
        if saturated {
            readings.saturated.push(i as u32);
        }
    }

    /// Columns without rows, one for each feature.
    pub fn columns(&self, rows: usize) -> Vec<ValueBuilder> {
        let column = |reading: &PatternReading| {
            if reading.counts {
                ValueBuilder::Count(Int64Builder::with_capacity(rows))
            } else {
                ValueBuilder::Any(BooleanBuilder::with_capacity(rows))
            }
        };
        self.readings.iter().map(column).collect()
    }

    /// Readings without rows.
    pub fn builders(&self, rows: usize) -> Builders {
        Builders { columns: self.columns(rows), saturated: Vec::new(), changed: Vec::new() }
    }
}

/// A feature's column in the making.
pub enum ValueBuilder {
    Count(Int64Builder),
    Any(BooleanBuilder),
}

impl ValueBuilder {
    /// Append the value of so many matches.
    pub fn push(&mut self, count: i64) {
        match self {
            Self::Count(builder) => builder.append_value(count),
            Self::Any(builder) => builder.append_value(count > 0),
        }
    }

    /// The finished array.
    pub fn finish(self) -> ArrayRef {
        match self {
            Self::Count(mut builder) => Arc::new(builder.finish()),
            Self::Any(mut builder) => Arc::new(builder.finish()),
        }
    }
}

/// Readings in the making.
pub struct Builders {
    columns: Vec<ValueBuilder>,
    saturated: Vec<u32>,
    changed: Vec<(u32, i64)>,
}

impl Builders {
    fn push_null(&mut self) {
        for column in &mut self.columns {
            match column {
                ValueBuilder::Count(builder) => builder.append_null(),
                ValueBuilder::Any(builder) => builder.append_null(),
            }
        }
    }

    /// The finished readings.
    pub fn finish(self) -> PatternReadings {
        PatternReadings {
            columns: self.columns.into_iter().map(ValueBuilder::finish).collect(),
            saturated: self.saturated,
            changed: self.changed,
        }
    }
}

/// The events of a batch as a pattern's store takes them: bits of conditions, then of the columns that are not null.
fn prepare<'a>(
    definition: &Definition,
    batch: &'a RecordBatch,
    times: &'a [i64],
    ids: &'a [u128],
) -> Result<EventBatch<'a>> {
    let mut masks = vec![0u64; batch.num_rows()];
    for (bit, selection) in definition.selections.iter().enumerate() {
        let chosen = selection.evaluate_bool(batch)?;
        masks.iter_mut().zip(chosen.values()).for_each(|(mask, holds)| *mask |= u64::from(holds) << bit);
    }
    let mut lanes = Vec::with_capacity(definition.lanes.len());
    for (number, lane) in definition.lanes.iter().enumerate() {
        let array = batch.column(lane.column);
        let (bit, nulls) = (definition.valid_bit(number), array.logical_nulls());
        for (i, mask) in masks.iter_mut().enumerate() {
            *mask |= u64::from(nulls.as_ref().is_none_or(|nulls| nulls.is_valid(i))) << bit;
        }
        lanes.push(match array.data_type() {
            // As it is: a condition tells minus zero from zero.
            DataType::Float64 => {
                Lane::Words(array.as_primitive::<Float64Type>().values().iter().map(|x| x.to_bits()).collect())
            }
            _ => lane_of(array),
        });
    }
    Ok(EventBatch { times, ids, masks, lanes })
}

struct MatchRow {
    pattern: String,
    /// (step, id, event time)
    events: Vec<(String, Id, i64)>,
    told: Told,
}

fn named((pattern, store, mut told): (&String, &PatternStore, Told)) -> MatchRow {
    let names = &store.definition().names;
    let events = std::mem::take(&mut told.events).into_iter().map(|(step, id, time)| (names[step].clone(), id, time));
    MatchRow { pattern: pattern.clone(), events: events.collect(), told }
}

fn batch_of(rows: &[MatchRow]) -> Result<RecordBatch> {
    let texts = |text: &dyn Fn(&MatchRow) -> String| -> ArrayRef {
        Arc::new(rows.iter().map(|row| Some(text(row))).collect::<StringArray>())
    };
    let arrays: [ArrayRef; 9] = [
        texts(&|row| row.pattern.clone()),
        texts(&|row| row.told.key.to_string()),
        texts(&|row| id_text(&row.told.first)),
        texts(&|row| id_text(&row.told.last)),
        Arc::new(UInt64Array::from_iter_values(rows.iter().map(|row| u64::from(row.told.revision)))),
        Arc::new(BooleanArray::from(rows.iter().map(|row| row.told.withdrawn).collect::<Vec<_>>())),
        timestamps(rows.iter().map(|row| row.told.start).collect()),
        timestamps(rows.iter().map(|row| row.told.end).collect()),
        events_array(rows),
    ];
    let mut columns = Columns { fields: Vec::new(), arrays: Vec::new() };
    for (name, array) in MATCH.iter().zip(arrays) {
        columns.push(name, array);
    }
    columns.finish()
}

/// The events of each match; null where it was withdrawn.
fn events_array(rows: &[MatchRow]) -> ArrayRef {
    let timestamp = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    let fields = Fields::from(vec![
        Field::new("step", DataType::Utf8, false),
        Field::new("id", DataType::Utf8, false),
        Field::new("event_time", timestamp, false),
    ]);
    let times = TimestampMicrosecondBuilder::new().with_timezone("UTC");
    let builder = StructBuilder::new(
        fields.clone(),
        vec![Box::new(StringBuilder::new()), Box::new(StringBuilder::new()), Box::new(times)],
    );
    let mut list = ListBuilder::new(builder).with_field(Field::new("item", DataType::Struct(fields), false));
    for row in rows {
        for (step, id, time) in &row.events {
            let event = list.values();
            event.field_builder::<StringBuilder>(0).expect("text").append_value(step);
            event.field_builder::<StringBuilder>(1).expect("text").append_value(id_text(id));
            event.field_builder::<TimestampMicrosecondBuilder>(2).expect("instants").append_value(*time);
            event.append(true);
        }
        list.append(!row.told.withdrawn);
    }
    Arc::new(list.finish())
}

fn id_text(id: &Id) -> String {
    match id {
        Id::Text(text) => text.to_string(),
        Id::Integer(number) => number.to_string(),
    }
}
