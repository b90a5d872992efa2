//! The joins of a plan: columns and expressions around [`crate::join`], and how far each side has come.
//!
//! Of an event that a join keeps, the id and the columns that its condition and its output name are packed to a string of
//! bytes, and unpacked for all rows of a batch together.

pub mod inspected;
mod stored;

use std::sync::Arc;

use arrow::array::{
    ArrayRef, AsArray, BooleanArray, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray, UInt32Array,
};
use arrow::compute::take;
use arrow::datatypes::{DataType, Field, Schema};
use arrow::row::{RowConverter, SortField};
use compact_str::CompactString;
use serde::Deserialize;
use serde_json::Value as Json;

use super::columns::Columns;
use super::entity::Keys;
use super::stream::StreamState;
use super::Engine;
use crate::arrival::watermark;
use crate::error::{KernelError, Result};
use crate::expr::Expression;
use crate::join::events::Payload;
use crate::join::{Arrival, Bounds, IntervalJoin, JoinCounts, JoinedRow, Limits, Marks, Pair, Side};
use crate::keyed::window::FURTHEST_US;

pub const KEY: &str = "__key";
pub const REVISION: &str = "__revision";
pub const WITHDRAWN: &str = "__withdrawn";
pub const SATURATED: &str = "__saturated";
/// Id and event time of the left side and of the right.
pub const IDS: [&str; 2] = ["__left_id", "__right_id"];
pub const TIMES: [&str; 2] = ["__left_time", "__right_time"];

/// An interval join, as the plan says it.
#[derive(Debug, Clone, Deserialize)]
pub struct JoinPlan {
    pub name: String,
    pub left: SidePlan,
    pub right: SidePlan,
    pub lower_us: i64,
    pub upper_us: i64,
    pub how: How,
    pub condition: Option<Json>,
    pub select: Vec<SelectPlan>,
    pub max_events_per_key: usize,
    pub max_pairs_per_event: usize,
}

#[derive(Debug, Clone, Deserialize)]
pub struct SidePlan {
    pub stream: String,
    pub key: String,
}

#[derive(Debug, Clone, Deserialize)]
pub struct SelectPlan {
    pub name: String,
    pub expression: Json,
}

/// Whose events come out without a partner too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum How {
    Inner,
    Left,
    Right,
    Full,
}

/// Sizes of all joins together.
#[derive(Debug, Clone, Copy, Default)]
pub struct JoinStats {
    pub keys: usize,
    pub events: usize,
    pub timers: usize,
    pub bytes: usize,
}

/// The joins of a plan.
#[derive(Default)]
pub struct Joins(Vec<PlannedJoin>);

struct PlannedJoin {
    name: String,
    shape: JoinShape,
    join: IntervalJoin,
}

/// What a join takes of its streams, and what its rows look like.
pub struct JoinShape {
    inputs: [Input; 2],
    columns: JoinColumns,
}

/// How the events of one side are packed.
struct Input {
    stream: usize,
    key: String,
    /// Columns of the stream that are kept; the id is the first.
    kept: Vec<usize>,
    rows: RowConverter,
}

/// What is read from the columns of both sides.
struct JoinColumns {
    condition: Option<Expression>,
    select: Vec<(String, Expression)>,
    integer_key: bool,
}

impl Joins {
    /// Compile the joins of a plan.
    ///
    /// # Errors
    /// [`KernelError::Plan`], naming the join.
    pub fn new(plans: &[JoinPlan], streams: &[StreamState]) -> Result<Self> {
        let place = |plan: &JoinPlan, error| KernelError::Plan(format!("join '{}': {error}", plan.name));
        let planned = plans.iter().map(|plan| PlannedJoin::new(plan, streams).map_err(|error| place(plan, error)));
        planned.collect::<Result<_>>().map(Self)
    }

    /// Accepted events of a stream arrive at the joins that it is a side of.
    ///
    /// # Errors
    /// A batch without the columns of its stream.
    pub fn arrive(&mut self, stream: usize, batch: &RecordBatch, times: &[i64], ids: &[u128]) -> Result<()> {
        for PlannedJoin { shape, join, .. } in &mut self.0 {
            for side in Side::BOTH {
                if shape.stream(side) == stream && batch.num_rows() > 0 {
                    join.arrive(shape.arrivals(side, batch, times, ids)?.into_iter());
                }
            }
        }
        Ok(())
    }

    /// Each join's shape, and the join without state.
    pub fn into_parts(self) -> impl Iterator<Item = (JoinShape, IntervalJoin)> {
        self.0.into_iter().map(|planned| (planned.shape, planned.join))
    }

    /// Sizes. Walks over all keys.
    pub fn stats(&self) -> JoinStats {
        self.0.iter().fold(JoinStats::default(), |all, planned| {
            let (keys, events, timers) = planned.join.held();
            JoinStats {
                keys: all.keys + keys,
                events: all.events + events,
                timers: all.timers + timers,
                bytes: all.bytes + planned.join.heap_bytes(),
            }
        })
    }
}

impl Engine {
    /// The next rows of a join, about `most`, with its number in the plan; none when there are no more for now.
    ///
    /// # Errors
    /// An expression that fails.
    pub fn joined(&mut self, most: usize) -> Result<Option<(usize, RecordBatch)>> {
        for number in 0..self.joins.0.len() {
            let PlannedJoin { shape, join, .. } = &mut self.joins.0[number];
            let marks = marks(Side::BOTH.map(|side| &self.streams[shape.stream(side)]));
            if let Some(rows) = shape.next(join, most, &marks)? {
                return Ok(Some((number, rows)));
            }
        }
        Ok(None)
    }

    /// What each join did so far, by its name.
    pub fn join_counts(&self) -> Vec<(String, JoinCounts)> {
        self.joins.0.iter().map(|planned| (planned.name.clone(), planned.join.counts())).collect()
    }
}

/// How far each side has come. A side that is idle or was not heard for long would keep the other one's events without bound:
/// it is taken to be where the other one is, unless that has ended and brings nothing more.
fn marks(streams: [&StreamState; 2]) -> Marks {
    let mut marks = Marks { current: [watermark::NONE; 2], earliest: [i64::MIN; 2] };
    for side in [0, 1] {
        let (own, other) = (streams[side], streams[1 - side]);
        let mut current = own.watermark.current();
        if own.watermark.idle() && !other.watermark.finished() {
            current = current.max(other.watermark.current());
        }
        marks.current[side] = current;
        if current != watermark::NONE {
            marks.earliest[side] = current.saturating_sub(own.allowed_lateness_us);
        }
    }
    marks
}

impl PlannedJoin {
    fn new(plan: &JoinPlan, streams: &[StreamState]) -> Result<Self> {
        check(plan)?;
        let sides = [&plan.left, &plan.right];
        let numbers = sides.map(|side| streams.iter().position(|stream| stream.name == side.stream));
        let [Some(left), Some(right)] = numbers else {
            return Err(KernelError::Plan("it names a stream that the plan does not have".into()));
        };
        let all = Schema::new([left, right].map(|number| qualified(&streams[number])).concat());
        let condition = plan.condition.as_ref().map(|json| Expression::compile(json, &all)).transpose()?;
        let select = plan.select.iter().map(|select| Expression::compile(&select.expression, &all));
        let select = select.collect::<Result<Vec<_>>>()?;
        let read: Vec<&str> = condition.iter().chain(&select).flat_map(Expression::columns).collect();
        let inputs =
            [Input::new(&streams[left], left, sides[0], &read)?, Input::new(&streams[right], right, sides[1], &read)?];
        // Compiled again against what is kept.
        let fields = [0, 1].map(|side| inputs[side].fields(&streams[inputs[side].stream])).concat();
        let columns = JoinColumns::new(plan, &Schema::new(fields), inputs[0].integer_key(&streams[left])?)?;
        let limits = Limits { events_per_key: plan.max_events_per_key, pairs_per_event: plan.max_pairs_per_event };
        let outer = [matches!(plan.how, How::Left | How::Full), matches!(plan.how, How::Right | How::Full)];
        let join = IntervalJoin::new(
            Bounds { lower: plan.lower_us, upper: plan.upper_us },
            outer,
            plan.condition.is_some(),
            limits,
        );
        Ok(Self { name: plan.name.clone(), shape: JoinShape { inputs, columns }, join })
    }
}

impl JoinShape {
    /// The stream of a side.
    pub fn stream(&self, side: Side) -> usize {
        self.inputs[side as usize].stream
    }

    /// Events of a side's stream, as the join takes them.
    ///
    /// # Errors
    /// A batch without the columns of its stream.
    pub fn arrivals(&self, side: Side, batch: &RecordBatch, times: &[i64], ids: &[u128]) -> Result<Vec<Arrival>> {
        self.inputs[side as usize].arrivals(side, batch, times, ids)
    }

    /// The next rows of a join of this shape, about `most`; none when there are no more for now.
    ///
    /// # Errors
    /// An expression that fails.
    pub fn next(&self, join: &mut IntervalJoin, most: usize, marks: &Marks) -> Result<Option<RecordBatch>> {
        let Self { inputs, columns } = self;
        let rows = join.next(most, marks, |pairs| columns.meet(inputs, pairs))?;
        if rows.is_empty() {
            return Ok(None);
        }
        columns.assemble(inputs, &rows).map(Some)
    }
}

fn check(plan: &JoinPlan) -> Result<()> {
    let bounds = [plan.lower_us, plan.upper_us];
    if plan.lower_us > plan.upper_us || bounds.iter().any(|bound| bound.unsigned_abs() > FURTHEST_US.unsigned_abs()) {
        return Err(KernelError::Plan(format!("bounds of {} to {} µs hold nothing", plan.lower_us, plan.upper_us)));
    }
    if plan.left.stream == plan.right.stream {
        return Err(KernelError::Plan("a stream is not joined with itself".into()));
    }
    if plan.max_events_per_key == 0 || plan.max_pairs_per_event == 0 {
        return Err(KernelError::Plan("a limit of 0 keeps nothing".into()));
    }
    Ok(())
}

/// A stream's columns as expressions name them: `stream.column`; null where the side has no event.
fn qualified(stream: &StreamState) -> Vec<Field> {
    let named = |field: &Arc<Field>| field.as_ref().clone().with_name(format!("{}.{}", stream.name, field.name()));
    stream.schema.fields().iter().map(|field| named(field).with_nullable(true)).collect()
}

impl Input {
    fn new(stream: &StreamState, number: usize, side: &SidePlan, read: &[&str]) -> Result<Self> {
        let id = stream.schema.index_of(stream.id())?;
        let names = qualified(stream);
        let others = (0..names.len()).filter(|&column| column != id && read.contains(&names[column].name().as_str()));
        let kept: Vec<usize> = [id].into_iter().chain(others).collect();
        let sorts = kept.iter().map(|&column| SortField::new(names[column].data_type().clone()));
        Ok(Self { stream: number, key: side.key.clone(), rows: RowConverter::new(sorts.collect())?, kept })
    }

    fn fields(&self, stream: &StreamState) -> Vec<Field> {
        let names = qualified(stream);
        self.kept.iter().map(|&column| names[column].clone()).collect()
    }

    fn integer_key(&self, stream: &StreamState) -> Result<bool> {
        Ok(*stream.schema.field_with_name(&self.key)?.data_type() == DataType::Int64)
    }

    fn arrivals(&self, side: Side, batch: &RecordBatch, times: &[i64], ids: &[u128]) -> Result<Vec<Arrival>> {
        let packed = self.rows.convert_columns(batch.project(&self.kept)?.columns())?;
        let keys = Keys::of(batch, Some(&self.key))?;
        let arrival = |i: usize| Arrival {
            side,
            order: (times[i], ids[i]),
            key: keys.get(i).map(CompactString::from),
            payload: Payload::from(packed.row(i).as_ref()),
        };
        Ok((0..batch.num_rows()).map(arrival).collect())
    }

    /// The columns that were kept, of some events; null where there is none.
    fn unpack<'a>(&self, payloads: impl Iterator<Item = Option<&'a Payload>>) -> Result<Vec<ArrayRef>> {
        let payloads: Vec<Option<&Payload>> = payloads.collect();
        let parser = self.rows.parser();
        let present: Vec<&Payload> = payloads.iter().copied().flatten().collect();
        let columns = self.rows.convert_rows(present.iter().map(|payload| parser.parse(payload)))?;
        if present.len() == payloads.len() {
            return Ok(columns);
        }
        let mut places = 0..;
        let places: UInt32Array = payloads.iter().map(|payload| payload.and_then(|_| places.next())).collect();
        Ok(columns.iter().map(|column| take(column, &places, None)).collect::<std::result::Result<_, _>>()?)
    }
}

impl JoinColumns {
    fn new(plan: &JoinPlan, schema: &Schema, integer_key: bool) -> Result<Self> {
        let condition = plan.condition.as_ref().map(|json| Expression::compile(json, schema)).transpose()?;
        if condition.as_ref().is_some_and(|condition| *condition.data_type() != DataType::Boolean) {
            return Err(KernelError::Plan("the condition must be a boolean expression".into()));
        }
        let named = |select: &SelectPlan| Ok((select.name.clone(), Expression::compile(&select.expression, schema)?));
        Ok(Self { condition, select: plan.select.iter().map(named).collect::<Result<_>>()?, integer_key })
    }

    /// Which pairs meet the condition; null counts as false.
    fn meet(&self, inputs: &[Input; 2], pairs: &[Pair]) -> Result<Vec<bool>> {
        let Some(condition) = self.condition.as_ref().filter(|_| !pairs.is_empty()) else {
            return Ok(vec![true; pairs.len()]);
        };
        let side = |side: usize| inputs[side].unpack(pairs.iter().map(|pair| Some(&pair.halves[side].payload)));
        let columns = [side(0)?, side(1)?].concat();
        let met = condition.evaluate_columns(&columns, pairs.len())?;
        Ok(met.as_boolean().iter().map(|met| met == Some(true)).collect())
    }

    fn assemble(&self, inputs: &[Input; 2], rows: &[JoinedRow]) -> Result<RecordBatch> {
        let side = |side: usize| {
            inputs[side].unpack(rows.iter().map(|row| row.halves[side].as_ref().map(|half| &half.payload)))
        };
        let sides = [side(0)?, side(1)?];
        let mut out = Columns { fields: Vec::new(), arrays: Vec::new() };
        out.push(KEY, self.keys(rows));
        for number in [0, 1] {
            out.push(IDS[number], sides[number][0].clone());
            let times = rows.iter().map(|row| row.halves[number].as_ref().map(|half| half.order.0));
            out.push(TIMES[number], Arc::new(times.collect::<TimestampMicrosecondArray>().with_timezone("UTC")));
        }
        let columns = sides.concat();
        for (name, expression) in &self.select {
            out.push(name, expression.evaluate_columns(&columns, rows.len())?);
        }
        out.push(REVISION, Arc::new(rows.iter().map(|row| Some(i64::from(row.withdrawn))).collect::<Int64Array>()));
        let flag =
            |of: fn(&JoinedRow) -> bool| rows.iter().map(|row| of(row).then_some(true)).collect::<BooleanArray>();
        out.push(WITHDRAWN, Arc::new(flag(|row| row.withdrawn)));
        out.push(SATURATED, Arc::new(flag(|row| row.saturated)));
        out.finish()
    }

    fn keys(&self, rows: &[JoinedRow]) -> ArrayRef {
        let keys = rows.iter().map(|row| row.key.as_deref());
        if self.integer_key {
            return Arc::new(keys.map(|key| key.and_then(|key| key.parse::<i64>().ok())).collect::<Int64Array>());
        }
        Arc::new(keys.collect::<StringArray>())
    }
}
