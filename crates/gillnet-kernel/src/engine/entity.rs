//! One entity of a pipeline: a key column of a stream, with all aggregates over it.

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Decimal128Type, Float64Type, Int64Type, Schema, TimestampMicrosecondType};
use compact_str::{CompactString, ToCompactString};
use serde_json::Value as Json;
use std::hint::black_box;
use std::sync::Arc;

use super::plan::{arrow_type, FeaturePlan, Limits};
use crate::bytes::{ByteReader, ByteWriter};
use crate::error::{KernelError, Result};
use crate::expr::Expression;
use crate::keyed::key::Value;
use crate::keyed::layout::{Function, LaneType, Layout};
use crate::keyed::store::{Column, EventBatch, KeyedStore, Lane};

/// Events whose keys are looked up together.
const GROUP: usize = 64;
/// In place of a slot where an event's key is null.
pub const NO_SLOT: u32 = u32::MAX;

/// Which entity an aggregate belongs to: stream, key column, and the root's column that is looked up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EntityId {
    pub stream: String,
    pub key: Option<String>,
}

impl EntityId {
    /// The entity's name: `stream.key`, or `stream.*` where the whole stream is one key.
    pub fn name(&self) -> String {
        format!("{}.{}", self.stream, self.key.as_deref().unwrap_or("*"))
    }
}

/// A reader of the entity from the root stream: by the entity's own arrival, or by a lookup with another column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reader {
    Own,
    Lookup(String),
}

/// The state of one entity, and how to prepare its events.
pub struct Entity {
    pub id: EntityId,
    pub reader: Reader,
    pub store: KeyedStore,
    /// Feature numbers, in the order of the store's outputs.
    pub features: Vec<usize>,
    /// The bit of an event's mask that says whether a feature takes it, in the same order.
    pub bits: Vec<u8>,
    /// The inputs of the lanes, as the plan has them in JSON.
    pub lane_sources: Vec<String>,
    /// State of readings before this time may have been forgotten.
    pub(super) swept_to: i64,
    types: Vec<DataType>,
    lanes: Vec<Expression>,
    selections: Vec<Selection>,
    /// The selections as the plan has them.
    pub(super) selection_sources: Vec<SelectionSource>,
}

/// The condition as JSON, the lane that must not be null, and whether it must be a number.
pub(super) type SelectionSource = (Option<String>, Option<usize>, bool);

struct Selection {
    condition: Option<Expression>,
    lane: Option<usize>,
    not_nan: bool,
}

/// Gathers the aggregates of one entity.
pub struct EntityBuilder {
    pub id: EntityId,
    pub reader: Reader,
    schema: Arc<Schema>,
    layout: Layout,
    lane_sources: Vec<String>,
    selection_sources: Vec<SelectionSource>,
    lanes: Vec<Expression>,
    selections: Vec<Selection>,
    features: Vec<usize>,
    bits: Vec<u8>,
    types: Vec<DataType>,
}

impl EntityBuilder {
    /// An entity without aggregates over a stream of `schema`.
    pub fn new(id: EntityId, reader: Reader, schema: Arc<Schema>) -> Self {
        Self {
            id,
            reader,
            schema,
            layout: Layout::default(),
            lane_sources: Vec::new(),
            selection_sources: Vec::new(),
            lanes: Vec::new(),
            selections: Vec::new(),
            features: Vec::new(),
            bits: Vec::new(),
            types: Vec::new(),
        }
    }

    /// Add feature number `number` of the plan.
    ///
    /// # Errors
    /// An aggregate that does not fit its input.
    pub fn add(&mut self, number: usize, plan: &FeaturePlan) -> Result<()> {
        let FeaturePlan::Aggregate { function, input, condition, window, value_type, name, .. } = plan else {
            return Err(KernelError::Plan("only aggregates belong to an entity".into()));
        };
        let place = |error: KernelError| KernelError::Plan(format!("feature '{name}': {error}"));
        let lane = input.as_ref().map(|input| self.lane(input)).transpose().map_err(place)?;
        let not_nan = matches!(function, Function::Min | Function::Max);
        let bit = self.selection(condition.as_ref(), lane, not_nan).map_err(place)?;
        self.layout.add(*function, *window, bit, lane.map(|lane| lane as u8)).map_err(place)?;
        self.features.push(number);
        self.bits.push(bit);
        self.types.push(arrow_type(value_type)?);
        Ok(())
    }

    /// The entity, ready to take events.
    pub fn build(self, limits: &Limits) -> Entity {
        let selections: Vec<String> = self.selection_sources.iter().map(selection_words).collect();
        let layout = Arc::new(self.layout.finish(&self.id.name(), &self.lane_sources, &selections));
        Entity {
            swept_to: i64::MIN,
            id: self.id,
            reader: self.reader,
            store: KeyedStore::new(layout, limits.max_events_per_key),
            features: self.features,
            bits: self.bits,
            lane_sources: self.lane_sources,
            types: self.types,
            lanes: self.lanes,
            selections: self.selections,
            selection_sources: self.selection_sources,
        }
    }

    fn lane(&mut self, input: &Json) -> Result<usize> {
        let source = input.to_string();
        if let Some(found) = self.lane_sources.iter().position(|other| *other == source) {
            return Ok(found);
        }
        let expression = Expression::compile(input, &self.schema)?;
        let lane = match expression.data_type() {
            DataType::Int64 | DataType::Boolean | DataType::Timestamp(..) => LaneType::Integer,
            DataType::Decimal128(_, scale @ 0..=38) => LaneType::Decimal(*scale as u32),
            DataType::Float64 => LaneType::Float,
            DataType::Utf8 => LaneType::Text,
            other => return Err(KernelError::Plan(format!("an input of type {other} cannot be aggregated"))),
        };
        self.layout.add_lane(lane);
        self.lane_sources.push(source);
        self.lanes.push(expression);
        Ok(self.lanes.len() - 1)
    }

    fn selection(&mut self, condition: Option<&Json>, lane: Option<usize>, not_nan: bool) -> Result<u8> {
        let not_nan = not_nan && lane.is_some_and(|lane| self.layout.lanes[lane] == LaneType::Float);
        let source = (condition.map(Json::to_string), lane, not_nan);
        if let Some(found) = self.selection_sources.iter().position(|other| *other == source) {
            return Ok(found as u8);
        }
        let condition = condition.map(|json| Expression::compile(json, &self.schema)).transpose()?;
        if condition.as_ref().is_some_and(|c| *c.data_type() != DataType::Boolean) {
            return Err(KernelError::Plan("where must be a boolean expression".into()));
        }
        let bit = self.layout.add_selection()?;
        self.selection_sources.push(source);
        self.selections.push(Selection { condition, lane, not_nan });
        Ok(bit)
    }
}

/// A selection as words of the plan, for the layout's fingerprint.
fn selection_words((condition, lane, not_nan): &SelectionSource) -> String {
    let lane = lane.map_or("none".into(), |lane| lane.to_string());
    format!("of lane {lane}{} where {}", if *not_nan { " but NaN" } else { "" }, condition.as_deref().unwrap_or("true"))
}

/// The key of each event of a batch.
pub enum Keys<'a> {
    Texts(&'a StringArray),
    Integers(Vec<Option<CompactString>>),
    /// The whole stream is one key.
    One,
}

impl<'a> Keys<'a> {
    /// Keys from a column of type string or int64.
    ///
    /// # Errors
    /// A column of another type.
    pub fn of(batch: &'a RecordBatch, column: Option<&str>) -> Result<Self> {
        let Some(name) = column else { return Ok(Self::One) };
        let column = batch.column_by_name(name).ok_or_else(|| KernelError::Batch(format!("no column '{name}'")))?;
        match column.data_type() {
            DataType::Utf8 => Ok(Self::Texts(column.as_string::<i32>())),
            DataType::Int64 => {
                let numbers = column.as_primitive::<Int64Type>();
                Ok(Self::Integers(numbers.iter().map(|key| key.map(|key| key.to_compact_string())).collect()))
            }
            other => Err(KernelError::Batch(format!("key column '{name}' is {other}, not string or int64"))),
        }
    }

    /// The key of event `i`; none where the column is null.
    #[inline]
    pub fn get(&self, i: usize) -> Option<&str> {
        match self {
            Self::Texts(texts) => (!texts.is_null(i)).then(|| texts.value(i)),
            Self::Integers(numbers) => numbers[i].as_deref(),
            Self::One => Some(""),
        }
    }
}

/// What the rows of a batch read from one entity.
pub struct Readings {
    pub columns: Vec<ArrayRef>,
    /// Rows whose reading is saturated.
    pub saturated: Vec<u32>,
    /// The key's slot of each row; none for lookups.
    pub slots: Vec<u32>,
    /// Rows that came before others of their key that were there already.
    pub before_others: Vec<u32>,
}

impl Entity {
    /// The events of a batch as the store takes them.
    ///
    /// # Errors
    /// An expression that fails, or a batch without its columns.
    pub fn prepare<'a>(
        &self,
        arrays: &'a [ArrayRef],
        batch: &RecordBatch,
        times: &'a [i64],
        ids: &'a [u128],
    ) -> Result<EventBatch<'a>> {
        let mut masks = vec![0u64; batch.num_rows()];
        for (bit, selection) in self.selections.iter().enumerate() {
            mark(&mut masks, bit, selection, arrays, batch)?;
        }
        let lanes = arrays.iter().map(lane_of).collect();
        Ok(EventBatch { times, ids, masks, lanes })
    }

    /// Evaluate the input of each lane.
    ///
    /// # Errors
    /// An expression that fails.
    pub fn lane_arrays(&self, batch: &RecordBatch) -> Result<Vec<ArrayRef>> {
        self.lanes.iter().map(|lane| lane.evaluate(batch)).collect()
    }

    /// Let the events of a batch arrive in order; read every feature as of each.
    ///
    /// # Errors
    /// A batch without the entity's columns.
    pub fn arrive(&mut self, batch: &RecordBatch, times: &[i64], ids: &[u128]) -> Result<Readings> {
        let arrays = self.lane_arrays(batch)?;
        let events = self.prepare(&arrays, batch, times, ids)?;
        let keys = Keys::of(batch, self.id.key.as_deref())?;
        let known = self.bring_in(&keys, batch.num_rows())?;
        let mut columns = self.columns(batch.num_rows())?;
        let (mut saturated, mut before_others) = (Vec::new(), Vec::new());
        let mut slots = Vec::with_capacity(batch.num_rows());
        let mut values: Vec<Value> = vec![Value::Null; columns.len()];
        for i in 0..batch.num_rows() {
            if i == slots.len() {
                self.locate(&keys, &known, (batch.num_rows() - i).min(GROUP), &mut slots);
            }
            if slots[i] == NO_SLOT {
                columns.iter_mut().for_each(|column| column.push(Value::Null, |_| ""));
                continue;
            }
            let arrived = self.store.arrive(slots[i], &events, i);
            // Copied out, since texts are looked up in the store while the columns take them.
            values.copy_from_slice(arrived.values);
            if arrived.saturated {
                saturated.push(i as u32);
            }
            if arrived.before_others {
                before_others.push(i as u32);
            }
            for (column, &value) in columns.iter_mut().zip(&values) {
                column.push(value, |code| self.store.text(code));
            }
        }
        let columns = columns.into_iter().map(Column::finish).collect();
        Ok(Readings { columns, saturated, slots, before_others })
    }

    /// Keep the events of a batch without reading; returns those that came before others of their key.
    ///
    /// # Errors
    /// A batch without the entity's columns.
    pub fn insert(&mut self, batch: &RecordBatch, times: &[i64], ids: &[u128]) -> Result<Vec<u32>> {
        let arrays = self.lane_arrays(batch)?;
        let events = self.prepare(&arrays, batch, times, ids)?;
        let keys = Keys::of(batch, self.id.key.as_deref())?;
        let known = self.bring_in(&keys, batch.num_rows())?;
        let (mut slots, mut before_others) = (Vec::with_capacity(batch.num_rows()), Vec::new());
        for i in 0..batch.num_rows() {
            if i == slots.len() {
                self.locate(&keys, &known, (batch.num_rows() - i).min(GROUP), &mut slots);
            }
            if slots[i] != NO_SLOT && self.store.insert(slots[i], &events, i) {
                before_others.push(i as u32);
            }
        }
        Ok(before_others)
    }

    /// Have the keys of a batch in memory, those that are kept elsewhere included. The slots of those that were here already, for
    /// [`Self::locate`], which need not look for them again; none at all where no key is kept elsewhere.
    ///
    /// # Errors
    /// The host cannot read.
    pub fn bring_in(&mut self, keys: &Keys<'_>, events: usize) -> Result<Vec<u32>> {
        self.store.bring_in((0..events).map(|i| keys.get(i)))
    }

    /// Find the slots of the next `events` events, and have the state behind them in the cache: see [`KeyedStore::warm`].
    fn locate(&mut self, keys: &Keys<'_>, known: &[u32], events: usize, slots: &mut Vec<u32>) {
        let first = slots.len();
        slots.extend((first..first + events).map(|i| match known.get(i) {
            Some(&slot) if slot != NO_SLOT => slot,
            _ => keys.get(i).map_or(NO_SLOT, |key| self.store.locate(key)),
        }));
        let known = slots[first..].iter().filter(|&&slot| slot != NO_SLOT);
        black_box(known.fold(0, |all, &slot| all ^ self.store.warm(slot)));
    }

    /// Give memory back, in up to `slots` keys: nothing will read or change the state as of a time before `reach`.
    pub fn sweep(&mut self, slots: usize, reach: i64) {
        self.swept_to = self.swept_to.max(reach);
        let horizon = reach.saturating_sub(self.store.layout().retention_us());
        self.store.sweep(slots, horizon);
    }

    /// Write what was swept, and every key; those that are kept elsewhere as they are here are left out.
    pub fn write_state(&self, out: &mut ByteWriter, some_elsewhere: bool) {
        out.i64(self.swept_to);
        if some_elsewhere {
            out.flag(self.store.cold().is_some());
        }
        match self.store.cold() {
            Some(_) => self.store.write_dirty(out),
            None => self.store.write_state(out),
        }
    }

    /// Read what [`Self::write_state`] wrote, into an entity without keys.
    ///
    /// # Errors
    /// Bytes of another version or definition, or torn ones.
    pub fn read_state(&mut self, from: &mut ByteReader<'_>, some_elsewhere: bool) -> Result<()> {
        self.swept_to = from.i64()?;
        match some_elsewhere && from.flag()? {
            true => self.store.read_dirty(from),
            false => self.store.read_state(from),
        }
    }

    /// Read every feature as of each of the root's own events, which were kept before.
    ///
    /// # Errors
    /// A batch without the key's column.
    pub fn read_events(&mut self, batch: &RecordBatch, times: &[i64], ids: &[u128]) -> Result<Readings> {
        let keys = Keys::of(batch, self.id.key.as_deref())?;
        self.bring_in(&keys, batch.num_rows())?;
        let mut columns = self.columns(batch.num_rows())?;
        let mut saturated = Vec::new();
        let mut values: Vec<Value> = vec![Value::Null; columns.len()];
        for (i, order) in times.iter().copied().zip(ids.iter().copied()).enumerate() {
            match keys.get(i).and_then(|key| self.store.find(key)) {
                None => values.fill(Value::Null),
                Some(slot) => {
                    let (read, is_saturated) = self.store.read_event(slot, order);
                    values.copy_from_slice(read);
                    if is_saturated {
                        saturated.push(i as u32);
                    }
                }
            }
            for (column, &value) in columns.iter_mut().zip(&values) {
                column.push(value, |code| self.store.text(code));
            }
        }
        let columns = columns.into_iter().map(Column::finish).collect();
        Ok(Readings { columns, saturated, slots: Vec::new(), before_others: Vec::new() })
    }

    /// Read every feature as of the times of the root's rows, with the keys of column `at`. A row from before what was swept
    /// (its stream was idle for long) is saturated: it may miss events.
    ///
    /// # Errors
    /// A batch without that column.
    pub fn look_up(&mut self, batch: &RecordBatch, times: &[i64], at: &str) -> Result<Readings> {
        let column = self.id.key.as_ref().map(|_| at);
        let keys = Keys::of(batch, column)?;
        self.bring_in(&keys, batch.num_rows())?;
        let mut columns = self.columns(batch.num_rows())?;
        let mut saturated = Vec::new();
        let mut values: Vec<Value> = vec![Value::Null; columns.len()];
        for (i, &time) in times.iter().enumerate() {
            let mut incomplete = time < self.swept_to;
            match keys.get(i) {
                None => {
                    values.fill(Value::Null);
                    incomplete = false;
                }
                Some(key) => match self.store.read(key, time) {
                    Some((read, saturated)) => {
                        values.copy_from_slice(read);
                        incomplete |= saturated;
                    }
                    None => values.copy_from_slice(self.store.read_empty(time)),
                },
            }
            if incomplete {
                saturated.push(i as u32);
            }
            for (column, &value) in columns.iter_mut().zip(&values) {
                column.push(value, |code| self.store.text(code));
            }
        }
        let columns = columns.into_iter().map(Column::finish).collect();
        Ok(Readings { columns, saturated, slots: Vec::new(), before_others: Vec::new() })
    }

    /// Of each lane, its type and the mask of the selections that take it.
    pub fn lane_types(&self) -> Vec<(DataType, u64)> {
        let takes = |lane: usize| {
            let own = self.selections.iter().enumerate().filter(|(_, selection)| selection.lane == Some(lane));
            own.fold(0u64, |mask, (bit, _)| mask | 1 << bit)
        };
        self.lanes.iter().enumerate().map(|(i, lane)| (lane.data_type().clone(), takes(i))).collect()
    }

    /// Whether it has a key that `event` of the batch belongs to, and which.
    ///
    /// # Errors
    /// A batch without the key's column.
    pub fn keys<'a>(&self, batch: &'a RecordBatch) -> Result<Keys<'a>> {
        Keys::of(batch, self.id.key.as_deref())
    }

    /// Empty columns for the entity's outputs.
    ///
    /// # Errors
    /// A type that no aggregate has.
    pub fn columns(&self, rows: usize) -> Result<Vec<Column>> {
        self.types.iter().map(|data_type| Column::new(data_type, rows)).collect()
    }
}

fn mark(masks: &mut [u64], bit: usize, selection: &Selection, arrays: &[ArrayRef], batch: &RecordBatch) -> Result<()> {
    let condition = selection.condition.as_ref().map(|c| c.evaluate(batch)).transpose()?;
    let condition: Option<&BooleanArray> = condition.as_ref().map(|array| array.as_boolean());
    let lane = selection.lane.map(|lane| &arrays[lane]);
    let nulls = lane.and_then(|array| array.logical_nulls());
    let floats = lane.filter(|_| selection.not_nan).map(|array| array.as_primitive::<Float64Type>());
    for (i, mask) in masks.iter_mut().enumerate() {
        let chosen = condition.is_none_or(|c| !c.is_null(i) && c.value(i))
            && nulls.as_ref().is_none_or(|nulls| nulls.is_valid(i))
            && floats.is_none_or(|floats| !floats.value(i).is_nan());
        *mask |= u64::from(chosen) << bit;
    }
    Ok(())
}

/// The words of an array of a type that lanes have.
pub fn lane_of(array: &ArrayRef) -> Lane<'_> {
    let words = match array.data_type() {
        DataType::Utf8 => return Lane::Text(array.as_string::<i32>()),
        DataType::Int64 => array.as_primitive::<Int64Type>().values().iter().map(|&x| x as u64).collect(),
        DataType::Timestamp(..) => {
            array.as_primitive::<TimestampMicrosecondType>().values().iter().map(|&x| x as u64).collect()
        }
        DataType::Boolean => array.as_boolean().values().iter().map(u64::from).collect(),
        DataType::Float64 => array.as_primitive::<Float64Type>().values().iter().map(|&x| float_word(x)).collect(),
        // A column has at most 18 digits; a wider product of an expression saturates.
        DataType::Decimal128(..) => array
            .as_primitive::<Decimal128Type>()
            .values()
            .iter()
            .map(|&x| x.clamp(i64::MIN.into(), i64::MAX.into()) as i64 as u64)
            .collect(),
        other => unreachable!("lanes of type {other} are refused when the plan is compiled"),
    };
    Lane::Words(words)
}

/// Equal values have equal words: minus zero is zero, and there is one NaN.
fn float_word(x: f64) -> u64 {
    if x.is_nan() {
        f64::NAN.to_bits()
    } else {
        (x + 0.0).to_bits()
    }
}
