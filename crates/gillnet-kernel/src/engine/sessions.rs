//! Sessions of the root stream's key: their rows when the watermark closes them, and again when a late event changes them.
//!
//! A session is known by its key and its start. Its row goes out when no event can extend it any more; a late event that changes
//! one of its values sends it again with a higher revision. Where a late event bridges two sessions, begins one earlier or moves
//! the cut of a long one, a start that was emitted may be no start any more: a row with that start, a higher revision and no
//! values names the session that holds its events now (`replaced_by`), in the same batch as that session's own row.

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch, StringArray, UInt64Array};
use arrow::compute::{cast, nullif};
use arrow::datatypes::{DataType, Field, Float64Type, Schema, TimeUnit, TimestampMicrosecondType};
use serde_json::json;
use std::collections::VecDeque;
use std::sync::Arc;

use super::baseline::Baseline;
use super::columns::{optional_timestamps, timestamps, Columns};
use super::entity::{Entity, Readings, NO_SLOT};
use super::plan::{FeaturePlan, Plan, SessionsPlan};
use super::session_timers::{LookedAt, SessionTimers, Timer};
use super::stream::Accepted;
use super::upgrade::{copy, refused};
use super::SESSION_START;
use crate::arrival::watermark;
use crate::bytes::{ByteReader, ByteWriter};
use crate::error::{KernelError, Result};
use crate::expr::Expression;
use crate::keyed::key::{SessionSpan, Value};
use crate::keyed::layout::Function;
use crate::keyed::store::{Column, KeyedStore};
use crate::keyed::window::Window;

/// Columns of a closed session before its features, and after its key.
const HEAD: [&str; 4] = ["session_start", "session_end", "revision", "replaced_by"];

/// Sessions of one batch of rows, where they are closed while a batch of events is worked on.
const CLOSED_AT_ONCE: usize = 1_024;

/// The sessions of a plan.
pub struct Sessions {
    /// The entity, and the window of its layout that is the session.
    pub entity: usize,
    window: usize,
    key: String,
    gap_us: i64,
    /// How far ahead an event can change what else a session's row reads.
    influence_us: i64,
    timers: SessionTimers,
    /// The entity's outputs that hold the session's start and its number of events: no features of the user's.
    start_column: usize,
    count_column: usize,
    /// Row expressions that need nothing but the session's own outputs.
    expressions: Vec<(String, Expression)>,
    baselines: Vec<(String, Baseline)>,
    schema: Arc<Schema>,
    /// Rows of sessions that were closed while a batch was worked on.
    closed: VecDeque<RecordBatch>,
    /// Records that arrived since the entity was last swept.
    unswept: usize,
    /// Up to where emitted sessions and baselines were forgotten.
    forgotten: i64,
}

impl Sessions {
    /// The sessions of entity number `entity`, whose feature `hidden` is the session's start and the next one its count.
    pub fn new(plan: &SessionsPlan, entities: &[Entity], entity: usize, hidden: usize) -> Self {
        let home = &entities[entity];
        let column = |number: usize| home.features.iter().position(|f| *f == number).expect("added when compiled");
        let layout = home.store.layout();
        let window = layout.outputs[column(hidden)].window;
        Self {
            entity,
            window,
            key: plan.key.clone(),
            gap_us: plan.gap_us,
            influence_us: layout.influence_us(window),
            timers: SessionTimers::new(plan.gap_us),
            start_column: column(hidden),
            count_column: column(hidden + 1),
            expressions: Vec::new(),
            baselines: Vec::new(),
            schema: Arc::new(Schema::empty()),
            closed: VecDeque::new(),
            unswept: 0,
            forgotten: i64::MIN,
        }
    }

    /// Add a baseline over the closed sessions' feature `of`, and return its number.
    pub fn add_baseline(&mut self, of: &str, baseline: Baseline) -> usize {
        self.baselines.push((of.to_owned(), baseline));
        self.baselines.len() - 1
    }

    /// Leave the baselines to somebody else, who counts the sessions of several shards together.
    pub fn without_baselines(&mut self) {
        self.baselines.clear();
    }

    /// Count sessions that closed elsewhere, each for the first time.
    ///
    /// # Errors
    /// None but arrow's own.
    pub fn count_closed(&mut self, closed: &RecordBatch) -> Result<()> {
        let ends = closed.column_by_name(HEAD[1]).expect("every session has it");
        let first: Vec<(i64, u32)> =
            ends.as_primitive::<TimestampMicrosecondType>().values().iter().map(|&last| (last, 0)).collect();
        self.feed_baselines(closed, &first)
    }

    /// Forget what no reading at `earliest` or later can use.
    pub fn forget_baselines_before(&mut self, earliest: i64) {
        self.baselines.iter_mut().for_each(|(_, baseline)| baseline.forget_before(earliest));
    }

    /// The output of the entity that is the session's start.
    pub fn start_column(&self) -> usize {
        self.start_column
    }

    /// Which features a closed session can have: its entity's, and expressions over nothing else.
    ///
    /// # Errors
    /// A baseline over a feature that closed sessions do not have.
    pub fn compile(&mut self, plan: &Plan, root: &Schema, entity: &Entity) -> Result<()> {
        let timestamp = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
        let types = [timestamp.clone(), timestamp.clone(), DataType::UInt64, timestamp];
        let head = HEAD.iter().zip(types).map(|(name, dtype)| Field::new(*name, dtype, *name == "replaced_by"));
        let mut fields = vec![root.field_with_name(&self.key)?.clone().with_nullable(false)];
        fields.extend(head);
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
                    self.expressions.push((name.clone(), compiled));
                }
            }
        }
        self.schema = Arc::new(Schema::new(fields));
        for (of, _) in &self.baselines {
            if self.schema.field_with_name(of).is_err() {
                return Err(KernelError::Plan(format!("a baseline is over '{of}', which closed sessions do not have")));
            }
        }
        Ok(())
    }

    /// Note the sessions that a batch's events begin or change; returns each event's session start.
    pub fn arrived(&mut self, reading: &Readings, times: &[i64], watermarks: &[i64]) -> ArrayRef {
        let starts = reading.columns[self.start_column].clone();
        let values = starts.as_primitive::<TimestampMicrosecondType>();
        for (i, &slot) in reading.slots.iter().enumerate() {
            if slot != NO_SLOT {
                self.timers.arrived(slot, times[i], values.value(i) == times[i], times[i] < watermarks[i]);
            }
        }
        starts
    }

    /// Baseline number `number` as of each event, at the watermark that it arrived under.
    pub fn read_baseline(&mut self, number: usize, times: &[i64], watermarks: &[i64]) -> ArrayRef {
        let (_, baseline) = &mut self.baselines[number];
        let values = times.iter().zip(watermarks).map(|(&time, &mark)| baseline.read(time.min(mark)));
        Arc::new(values.collect::<arrow::array::Float64Array>())
    }

    /// Where the events from `begin` on must be cut: before a late one, which may change a session that is closed, and where
    /// the watermark passes a step of a baseline, whose sessions have all closed then.
    pub fn next_cut(&self, accepted: &Accepted, begin: usize) -> usize {
        let step_end = self.baselines.iter().map(|(_, b)| b.step_end(accepted.watermarks[begin])).min();
        let cuts = |i: &usize| accepted.late[*i] || step_end.is_some_and(|end| accepted.watermarks[*i] >= end);
        (begin + 1..accepted.len()).find(cuts).unwrap_or(accepted.len())
    }

    /// Close what is due at `mark`; [`Self::close`] gives it.
    ///
    /// # Errors
    /// An expression that fails.
    pub fn close_due(&mut self, entity: &mut Entity, mark: i64) -> Result<()> {
        while let Some(rows) = self.close_some(entity, mark, CLOSED_AT_ONCE)? {
            self.closed.push_back(rows);
        }
        Ok(())
    }

    /// The rows of sessions that the watermark has closed or that late events have changed since; none if there are none.
    ///
    /// # Errors
    /// An expression that fails.
    pub fn close(&mut self, entity: &mut Entity, mark: i64, most: usize) -> Result<Option<RecordBatch>> {
        match self.closed.pop_front() {
            Some(rows) => Ok(Some(rows)),
            None => self.close_some(entity, mark, most),
        }
    }

    /// More than `most` only by the sessions of one run of events.
    fn close_some(&mut self, entity: &mut Entity, mark: i64, most: usize) -> Result<Option<RecordBatch>> {
        let mut rows = SessionRows::new(entity.columns(16)?);
        let mut looked_at = LookedAt::default();
        while rows.sessions.len() < most {
            let Some(timer) = self.timers.pop_due(mark) else { break };
            if timer.late {
                self.timers.look_again(timer.slot, timer.anchor, timer.anchor.saturating_add(self.influence_us));
            }
            if !looked_at.covers(timer) {
                self.look_at(&mut entity.store, timer, mark, &mut rows, &mut looked_at);
            }
        }
        if rows.sessions.is_empty() {
            return Ok(None);
        }
        let revisions: Vec<(i64, u32)> = rows.sessions.iter().map(|row| (row.span.last, row.revision)).collect();
        let batch = self.batch(entity, rows)?;
        self.feed_baselines(&batch, &revisions)?;
        Ok(Some(batch))
    }

    /// Bring the rows of a timer's run of events up to date.
    fn look_at(
        &mut self,
        store: &mut KeyedStore,
        timer: Timer,
        mark: i64,
        rows: &mut SessionRows,
        looked_at: &mut LookedAt,
    ) {
        let slot = timer.slot;
        let Some(run) = store.session_run(slot, self.window, timer.anchor) else { return };
        looked_at.note(timer, run[run.len() - 1].last);
        for span in run.into_iter().filter(|&span| self.timers.concerns(span, timer.anchor)).collect::<Vec<_>>() {
            if !self.timers.close_or_wait(slot, span, mark) {
                // The sessions after it end later still; its timer stands for them.
                return;
            }
            let (key, values) = store.read_slot(slot, span.last);
            let (key, values) = (key.to_owned(), values.to_vec());
            for (gone, revision) in self.timers.replaced_by(slot, span) {
                rows.push_replaced(key.clone(), gone, revision, span.start);
            }
            if let Some(revision) = self.timers.revise(slot, span, digest(&values, store)) {
                rows.push(key, span, revision, &values, store);
            }
        }
    }

    fn batch(&self, entity: &Entity, rows: SessionRows) -> Result<RecordBatch> {
        let SessionRows { sessions, columns } = rows;
        let keys: StringArray = sessions.iter().map(|row| Some(row.key.as_str())).collect();
        let replaced_by: Vec<i64> = sessions.iter().map(|row| row.replaced_by.unwrap_or(watermark::NONE)).collect();
        let mut arrays: Vec<ArrayRef> = vec![
            // The store has every key as text.
            cast(&keys, self.schema.field(0).data_type())?,
            timestamps(sessions.iter().map(|row| row.span.start).collect()),
            timestamps(sessions.iter().map(|row| row.span.last).collect()),
            Arc::new(UInt64Array::from_iter_values(sessions.iter().map(|row| u64::from(row.revision)))),
            optional_timestamps(&replaced_by),
        ];
        let visible = |place: &usize| self.start_column != *place && self.count_column != *place;
        debug_assert_eq!(columns.len(), entity.features.len());
        arrays.extend(columns.into_iter().enumerate().filter(|(i, _)| visible(i)).map(|(_, column)| column.finish()));
        let fields = self.schema.fields().iter().take(arrays.len()).cloned().collect::<Vec<_>>();
        let mut columns = Columns { fields, arrays };
        // What an expression makes of nulls is no value of a session that is no more.
        let gone = BooleanArray::from(sessions.iter().map(|row| row.replaced_by.is_some()).collect::<Vec<_>>());
        for (name, expression) in &self.expressions {
            columns.evaluate(name, expression)?;
            if gone.true_count() > 0 {
                let array = columns.arrays.pop().expect("just evaluated");
                columns.arrays.push(nullif(&array, &gone)?);
            }
        }
        columns.finish()
    }

    fn feed_baselines(&mut self, batch: &RecordBatch, revisions: &[(i64, u32)]) -> Result<()> {
        for (of, baseline) in &mut self.baselines {
            let column = batch.column_by_name(of).expect("checked when compiled");
            let values = cast(column, &DataType::Float64)?;
            let values = values.as_primitive::<Float64Type>();
            for (i, &(last, revision)) in revisions.iter().enumerate() {
                // A session counts once, as it first closed: the baseline is of sessions, not of emissions.
                if values.is_valid(i) && revision == 0 {
                    baseline.add(last.saturating_add(self.gap_us), values.value(i));
                }
            }
        }
        Ok(())
    }

    /// Give the entity's memory back, unless sessions wait to be emitted: their events are still needed.
    pub fn sweep(&mut self, entity: &mut Entity, records: usize, mark: i64, earliest: i64) {
        self.unswept = self.unswept.saturating_add(records);
        if self.timers.is_due(mark) || earliest == i64::MIN || self.unswept == 0 {
            return;
        }
        self.timers.settle(earliest);
        // A session's row reads as of its last event, which lies up to a gap further back than what may still change it.
        entity.sweep(self.unswept.max(64), earliest.saturating_sub(self.gap_us));
        self.unswept = 0;
        // These walk over all that they hold, so they run once a minute of event time.
        if earliest > self.forgotten.saturating_add(60_000_000) {
            self.forgotten = earliest;
            self.timers.forget_settled();
            self.baselines.iter_mut().for_each(|(_, baseline)| baseline.forget_before(earliest));
        }
    }

    /// Write timers, baselines, and closed sessions that were not asked for yet.
    ///
    /// # Errors
    /// None but arrow's own.
    pub fn write_state(&self, out: &mut ByteWriter) -> Result<()> {
        out.u64(self.unswept as u64);
        out.i64(self.forgotten);
        self.timers.write_state(out);
        self.baselines.iter().for_each(|(_, baseline)| baseline.write_state(out));
        out.count(self.closed.len());
        self.closed.iter().try_for_each(|rows| out.batch(rows))
    }

    /// Read what [`Self::write_state`] wrote.
    ///
    /// # Errors
    /// Bytes that are no sessions.
    pub fn read_state(&mut self, from: &mut ByteReader<'_>) -> Result<()> {
        (self.unswept, self.forgotten) = (from.u64()? as usize, from.i64()?);
        self.timers.read_state(from)?;
        self.baselines.iter_mut().try_for_each(|(_, baseline)| baseline.read_state(from))?;
        self.closed = from.list(ByteReader::batch)?.into();
        Ok(())
    }

    /// Take the timers of `old` over, and of each baseline the old one of the number in `baselines`.
    ///
    /// # Errors
    /// Closed sessions that were not asked for yet: their rows are of the old plan.
    pub(super) fn take_over(&mut self, old: &Self, baselines: &[Option<usize>]) -> Result<()> {
        if !old.closed.is_empty() {
            return Err(refused(
                "closed sessions wait to leave under the old definition; go on with it once, and stop it",
            ));
        }
        (self.unswept, self.forgotten) = (old.unswept, old.forgotten);
        copy(|out| old.timers.write_state(out), |from| self.timers.read_state(from))?;
        for ((_, baseline), from) in self.baselines.iter_mut().zip(baselines) {
            let Some((_, before)) = from.map(|from| &old.baselines[from]) else { continue };
            copy(|out| before.write_state(out), |from| baseline.read_state(from))?;
        }
        Ok(())
    }

    /// The timers, and what was said of each session.
    pub(super) fn timers(&self) -> &SessionTimers {
        &self.timers
    }

    /// How long a session waits for more.
    pub(super) fn gap_us(&self) -> i64 {
        self.gap_us
    }

    /// The baselines, each with the feature that it is over.
    pub(super) fn baselines(&self) -> impl Iterator<Item = (&str, &Baseline)> {
        self.baselines.iter().map(|(of, baseline)| (of.as_str(), baseline))
    }

    /// Timers and emitted sessions held.
    pub fn held(&self) -> usize {
        self.timers.held()
    }
}

/// The session's start and its number of events, as features of its entity.
pub fn session_features(stream: &str, event_time: &str, sessions: &SessionsPlan) -> [FeaturePlan; 2] {
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

/// Rows of sessions in the making.
struct SessionRows {
    sessions: Vec<SessionRow>,
    columns: Vec<Column>,
}

struct SessionRow {
    key: String,
    span: SessionSpan,
    revision: u32,
    replaced_by: Option<i64>,
}

impl SessionRows {
    fn new(columns: Vec<Column>) -> Self {
        Self { sessions: Vec::new(), columns }
    }

    fn push(&mut self, key: String, span: SessionSpan, revision: u32, values: &[Value], store: &KeyedStore) {
        for (column, &value) in self.columns.iter_mut().zip(values) {
            column.push(value, |code| store.text(code));
        }
        self.sessions.push(SessionRow { key, span, revision, replaced_by: None });
    }

    fn push_replaced(&mut self, key: String, span: SessionSpan, revision: u32, by: i64) {
        self.columns.iter_mut().for_each(|column| column.push(Value::Null, |_| ""));
        self.sessions.push(SessionRow { key, span, revision, replaced_by: Some(by) });
    }
}

/// FNV-1a over a row's values: tells whether a late event changed any of them.
fn digest(values: &[Value], store: &KeyedStore) -> u64 {
    let mut hash = 0xCBF2_9CE4_8422_2325u64;
    let mut take =
        |bytes: &[u8]| bytes.iter().for_each(|&b| hash = (hash ^ u64::from(b)).wrapping_mul(0x0100_0000_01B3));
    for value in values {
        match *value {
            Value::Null => take(&[0]),
            Value::Integer(x) => take(&x.to_le_bytes()),
            Value::Decimal(x) => take(&x.to_le_bytes()),
            Value::Float(x) => take(&x.to_bits().to_le_bytes()),
            Value::Text(code) => take(store.text(code).as_bytes()),
        }
        take(&[0xFF]);
    }
    hash
}
