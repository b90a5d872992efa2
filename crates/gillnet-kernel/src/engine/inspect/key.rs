//! One key in clear: its events with what the features take of them, and the features as of a time.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, StringBuilder, UInt64Builder};
use arrow::datatypes::DataType;

use super::{label, OperatorName};
use crate::arrival::id_key;
use crate::engine::columns::{timestamps, Columns};
use crate::engine::entity::Entity;
use crate::engine::joins::inspected::JoinSide;
use crate::engine::patterns::PatternEntity;
use crate::engine::stream::StreamState;
use crate::engine::Engine;
use crate::error::Result;
use crate::join::events::{Event, Fate};
use crate::keyed::key::Value;
use crate::keyed::layout::LaneType;
use crate::keyed::row;
use crate::keyed::store::{Column, NO_TEXT};

pub const EVENT_TIME: &str = "event_time";
pub const ID: &str = "id";
/// Which features take the event: a bit each, by [`KeyView::bits`].
pub const MASK: &str = "__mask";
/// What was said of an event of a join's outer side.
pub const FATE: &str = "fate";

/// A key, as one operator holds it.
pub struct KeyView {
    pub of: OperatorName,
    pub bytes: usize,
    pub events: RecordBatch,
    /// The bit of [`MASK`] of each of its features; empty where it has none.
    pub bits: Vec<u8>,
    /// One row: its features, as of the time that was asked for.
    pub values: Option<RecordBatch>,
    pub saturated: bool,
}

impl Engine {
    /// What every operator holds of `key`, those that hold nothing left out; features are read as of `at`.
    ///
    /// # Errors
    /// None but arrow's own.
    pub fn look_at_key(&mut self, key: &str, at: i64) -> Result<Vec<KeyView>> {
        let mut views = Vec::new();
        for number in 0..self.entities.len() {
            views.extend(self.entity_key(number, key, at)?);
        }
        for pattern in self.patterns.iter() {
            views.extend(self.pattern_key(pattern, key, at)?);
        }
        for side in self.joins.sides(&self.streams) {
            let Some(found) = side.join.store().keys().find(|other| other.text == key) else { continue };
            let held = found.side(side.side);
            if held.is_empty() {
                continue;
            }
            let events = join_events(&side, &self.streams, None, held.iter())?;
            let stream = self.streams[side.stream].name.clone();
            let of = OperatorName {
                kind: "join",
                name: format!("{}.{stream}", side.name),
                stream,
                ..OperatorName::default()
            };
            let bytes = crate::join::store::JoinStore::side_bytes(found, side.side);
            views.push(KeyView { of, bytes, events, bits: Vec::new(), values: None, saturated: false });
        }
        Ok(views)
    }

    fn entity_key(&mut self, number: usize, key: &str, at: i64) -> Result<Option<KeyView>> {
        let names = self.feature_names(&self.entities[number].features);
        let integer_id = self.integer_id(&self.entities[number].id.stream);
        let entity = &mut self.entities[number];
        let Some(slot) = entity.store.find(key) else { return Ok(None) };
        let mut events = EventColumns::of_entity(entity, integer_id)?;
        let stride = entity.store.layout().stride();
        let rows = entity.store.state(slot).rows();
        rows.chunks_exact(stride).for_each(|event| events.push(None, event, |code| entity.store.text(code)));
        let bytes = entity.store.walk(slot as usize).next().map_or(0, |seen| seen.bytes);
        let (read, saturated) = entity.store.read_as_of(slot, at);
        let values = read.to_vec();
        let mut row = Columns { fields: Vec::new(), arrays: Vec::new() };
        for ((name, value), mut column) in names.iter().zip(values).zip(entity.columns(1)?) {
            column.push(value, |code| entity.store.text(code));
            row.push(name, column.finish());
        }
        let of = OperatorName {
            kind: "windows",
            name: label(&entity.id, &entity.reader),
            stream: entity.id.stream.clone(),
            at: super::looked_up_at(&entity.reader),
            features: names,
        };
        let bits = entity.bits[..of.features.len()].to_vec();
        let values = if row.fields.is_empty() { None } else { Some(row.finish()?) };
        Ok(Some(KeyView { of, bytes, events: events.finish()?, bits, values, saturated }))
    }

    fn pattern_key(&self, pattern: &PatternEntity, key: &str, at: i64) -> Result<Option<KeyView>> {
        let Some(slot) = pattern.store().find(key) else { return Ok(None) };
        let held = pattern.store().key(slot);
        let stream = self.stream(&pattern.id.stream);
        let mut events = EventColumns::of_pattern(pattern, stream)?;
        let stride = pattern.store().definition().stride();
        held.rows().chunks_exact(stride).for_each(|event| events.push(None, event, |code| pattern.store().text(code)));
        let of = self.pattern_name(pattern);
        let mut row = Columns { fields: Vec::new(), arrays: Vec::new() };
        let mut columns = pattern.columns(1);
        let mut saturated = held.saturated();
        for (column, reading) in columns.iter_mut().zip(pattern.read_at(key, (at, u128::MAX))) {
            column.push(reading.count);
            saturated |= reading.saturated;
        }
        for (name, column) in of.features.iter().zip(columns) {
            row.push(name, column.finish());
        }
        let (bytes, values) = (held.heap_bytes(), Some(row.finish()?));
        Ok(Some(KeyView { of, bytes, events: events.finish()?, bits: Vec::new(), values, saturated }))
    }

    pub(super) fn stream(&self, name: &str) -> &StreamState {
        self.streams.iter().find(|stream| stream.name == name).expect("checked when compiled")
    }

    pub(super) fn integer_id(&self, stream: &str) -> bool {
        let stream = self.stream(stream);
        stream.schema.field_with_name(stream.id()).is_ok_and(|id| *id.data_type() == DataType::Int64)
    }
}

/// Columns of events of one operator in the making.
pub(super) struct EventColumns {
    keys: Option<StringBuilder>,
    times: Vec<i64>,
    ids: StringBuilder,
    integer_id: bool,
    masks: Option<UInt64Builder>,
    names: Vec<String>,
    lanes: Vec<LaneColumn>,
}

struct LaneColumn {
    number: u8,
    lane: LaneType,
    column: Column,
    /// The selections that take it; a value that none takes is left out, since it may be no value at all.
    takers: u64,
}

impl EventColumns {
    /// Columns for the events of an entity, whose values are named by the plan's words for them.
    ///
    /// # Errors
    /// None: every lane has a type that can be read.
    pub fn of_entity(entity: &Entity, integer_id: bool) -> Result<Self> {
        let lanes = &entity.store.layout().lanes;
        let types = entity.lane_types();
        let columns = types.iter().zip(lanes).zip(0u8..).map(|(((data_type, takers), lane), number)| {
            Ok(LaneColumn { number, lane: *lane, column: Column::new(data_type, 0)?, takers: *takers })
        });
        Ok(Self {
            masks: Some(UInt64Builder::new()),
            names: entity.lane_sources.clone(),
            lanes: columns.collect::<Result<_>>()?,
            ..Self::new(integer_id)
        })
    }

    /// Columns for the events of a pattern, whose first lane is the id.
    ///
    /// # Errors
    /// None: every lane has a type that can be read.
    pub fn of_pattern(pattern: &PatternEntity, stream: &StreamState) -> Result<Self> {
        let definition = pattern.store().definition();
        let lanes = &definition.lanes;
        let columns = lanes.iter().zip(0u8..).map(|(lane, number)| {
            let kind = match &lane.data_type {
                DataType::Utf8 => LaneType::Text,
                DataType::Float64 => LaneType::Float,
                DataType::Decimal128(_, scale) => LaneType::Decimal((*scale).unsigned_abs().into()),
                _ => LaneType::Integer,
            };
            let takers = 1 << definition.valid_bit(usize::from(number));
            Ok(LaneColumn { number, lane: kind, column: Column::new(&lane.data_type, 0)?, takers })
        });
        let name = |column: usize| stream.schema.field(column).name().clone();
        let integer_id = lanes[0].data_type == DataType::Int64;
        Ok(Self {
            names: lanes.iter().map(|lane| name(lane.column)).collect(),
            lanes: columns.collect::<Result<_>>()?,
            ..Self::new(integer_id)
        })
    }

    fn new(integer_id: bool) -> Self {
        let (times, ids) = (Vec::new(), StringBuilder::new());
        Self { keys: None, times, ids, integer_id, masks: None, names: Vec::new(), lanes: Vec::new() }
    }

    /// The same with a column of keys before the others.
    pub fn with_keys(self) -> Self {
        Self { keys: Some(StringBuilder::new()), ..self }
    }

    /// Rows so far.
    pub fn len(&self) -> usize {
        self.times.len()
    }

    /// Add an event of `key`.
    pub fn push<'a>(&mut self, key: Option<&str>, event: &[u64], text: impl Fn(u64) -> &'a str) {
        if let (Some(keys), Some(key)) = (&mut self.keys, key) {
            keys.append_value(key);
        }
        self.times.push(row::time(event));
        self.ids.append_value(id_key::to_text(row::id(event), self.integer_id));
        let mask = row::mask(event);
        if let Some(masks) = &mut self.masks {
            masks.append_value(mask);
        }
        for lane in &mut self.lanes {
            let word = row::lane(event, lane.number);
            let value = match lane.lane {
                LaneType::Text if word == NO_TEXT => Value::Null,
                _ if mask & lane.takers == 0 => Value::Null,
                LaneType::Text => Value::Text(word),
                LaneType::Integer => Value::Integer(word as i64),
                LaneType::Decimal(_) => Value::Decimal(i128::from(word as i64)),
                LaneType::Float => Value::Float(f64::from_bits(word)),
            };
            lane.column.push(value, &text);
        }
    }

    /// The batch.
    ///
    /// # Errors
    /// None but arrow's own.
    pub fn finish(self) -> Result<RecordBatch> {
        let mut columns = Columns { fields: Vec::new(), arrays: Vec::new() };
        if let Some(mut keys) = self.keys {
            columns.push("key", Arc::new(keys.finish()));
        }
        columns.push(EVENT_TIME, timestamps(self.times));
        let mut ids = self.ids;
        columns.push(ID, Arc::new(ids.finish()));
        if let Some(mut masks) = self.masks {
            columns.push(MASK, Arc::new(masks.finish()));
        }
        for (name, lane) in self.names.iter().zip(self.lanes) {
            columns.push(name, lane.column.finish());
        }
        columns.finish()
    }
}

/// Events of a join's side with the columns that it keeps of them.
///
/// # Errors
/// None but arrow's own.
pub(super) fn join_events<'a>(
    side: &JoinSide<'_>,
    streams: &[StreamState],
    keys: Option<Vec<&str>>,
    events: impl Iterator<Item = &'a Event>,
) -> Result<RecordBatch> {
    let events: Vec<&Event> = events.collect();
    let kept = side.columns(streams, events.iter().map(|event| &event.payload))?;
    let mut columns = Columns { fields: Vec::new(), arrays: Vec::new() };
    if let Some(keys) = keys {
        columns.push("key", Arc::new(arrow::array::StringArray::from(keys)));
    }
    columns.push(EVENT_TIME, timestamps(events.iter().map(|event| event.order.0).collect()));
    let fate = |event: &&Event| match event.fate {
        Fate::Waiting => "waiting",
        Fate::Unmatched => "unmatched",
        Fate::Matched => "matched",
    };
    let fates: ArrayRef = Arc::new(events.iter().map(|event| Some(fate(event))).collect::<arrow::array::StringArray>());
    columns.push(FATE, fates);
    for (field, array) in kept.schema().fields().iter().zip(kept.columns()) {
        columns.push(field.name(), array.clone());
    }
    columns.finish()
}
