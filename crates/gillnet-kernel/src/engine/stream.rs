//! A stream's gate: what is accepted, what is a duplicate, too late, or out of bounds (I3).

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, UInt32Array};
use arrow::compute::take_record_batch;
use arrow::datatypes::{DataType, Schema, TimestampMicrosecondType};
use std::hint::black_box;
use std::ops::Range;
use std::sync::Arc;

use super::plan::StreamPlan;
use crate::arrival::dedupe::SeenIds;
use crate::arrival::id_key::id_keys;
use crate::arrival::watermark::{self, Watermark};
use crate::bytes::{ByteReader, ByteWriter};
use crate::error::{KernelError, Result};
use crate::keyed::window::FURTHEST_US;

/// Ids that are looked up together before they are judged one by one: see [`SeenIds::contains`].
const GROUP: usize = 64;

/// What became of a record that was decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Outcome {
    Accepted = 0,
    Duplicate = 1,
    TooLate = 2,
    /// Event time before the stream's earliest: malformed.
    BeforeEarliest = 3,
    /// Event time too far ahead of the arrival: malformed; it must not push the watermark.
    AheadOfArrival = 4,
    /// Accepted, behind the watermark but inside the allowed lateness.
    Late = 5,
}

/// The state of one stream's gate.
pub struct StreamState {
    pub name: String,
    pub schema: Arc<Schema>,
    pub event_time: String,
    pub watermark: Watermark,
    pub watermark_delay_us: i64,
    pub seen: SeenIds,
    id: String,
    pub allowed_lateness_us: i64,
    earliest_us: i64,
    max_ahead_us: i64,
}

/// The accepted part of a batch.
pub struct Accepted {
    pub outcomes: Vec<Outcome>,
    pub batch: RecordBatch,
    pub times: Vec<i64>,
    pub ids: Vec<u128>,
    /// The watermark at each accepted record, before it moved it.
    pub watermarks: Vec<i64>,
    /// Behind the watermark but inside the allowed lateness.
    pub late: Vec<bool>,
}

impl Accepted {
    /// Number of accepted records.
    pub fn len(&self) -> usize {
        self.times.len()
    }

    /// The accepted records of a range, without outcomes.
    pub fn slice(&self, range: Range<usize>) -> Self {
        Self {
            outcomes: Vec::new(),
            batch: self.batch.slice(range.start, range.len()),
            times: self.times[range.clone()].to_vec(),
            ids: self.ids[range.clone()].to_vec(),
            watermarks: self.watermarks[range.clone()].to_vec(),
            late: self.late[range].to_vec(),
        }
    }
}

impl StreamState {
    /// The gate of a stream.
    ///
    /// # Errors
    /// An unknown type, id or event time column.
    pub fn new(plan: &StreamPlan) -> Result<Self> {
        let schema = plan.arrow_schema()?;
        let field = schema.field_with_name(&plan.event_time)?;
        if !matches!(field.data_type(), DataType::Timestamp(..)) {
            return Err(KernelError::Plan(format!("stream '{}': event time must be a timestamp", plan.name)));
        }
        schema.field_with_name(&plan.id)?;
        Ok(Self {
            name: plan.name.clone(),
            schema: Arc::new(schema),
            event_time: plan.event_time.clone(),
            watermark: Watermark::new(plan.watermark_delay_us, plan.idle_after_us),
            watermark_delay_us: plan.watermark_delay_us,
            seen: SeenIds::new(plan.allowed_lateness_us / 16),
            id: plan.id.clone(),
            allowed_lateness_us: plan.allowed_lateness_us,
            earliest_us: plan.earliest_us.max(-FURTHEST_US),
            max_ahead_us: plan.max_ahead_us,
        })
    }

    /// How far ahead of its arrival an event may be.
    pub fn max_ahead_us(&self) -> i64 {
        self.max_ahead_us
    }

    /// The column of the event's id.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The earliest event time that would be accepted now; `i64::MIN` while there is no watermark.
    pub fn earliest_accepted(&self) -> i64 {
        match self.watermark.current() {
            watermark::NONE => i64::MIN,
            current => current.saturating_sub(self.allowed_lateness_us),
        }
    }

    /// Write the watermark alone.
    pub(super) fn write_watermark(&self, out: &mut ByteWriter) {
        self.watermark.write_state(out);
    }

    /// Read what [`Self::write_watermark`] wrote.
    ///
    /// # Errors
    /// Bytes that are no watermark.
    pub(super) fn read_watermark(&mut self, from: &mut ByteReader<'_>) -> Result<()> {
        self.watermark.read_state(from)
    }

    /// Write the watermark and the ids that were seen.
    pub fn write_state(&self, out: &mut ByteWriter) {
        self.watermark.write_state(out);
        self.seen.write_state(out);
    }

    /// Read what [`Self::write_state`] wrote.
    ///
    /// # Errors
    /// Bytes that are no stream's.
    pub fn read_state(&mut self, from: &mut ByteReader<'_>) -> Result<()> {
        self.watermark.read_state(from)?;
        self.seen.read_state(from)
    }

    /// Sort a batch into accepted and refused records. Each record is judged by the watermark as it stands when it arrives.
    ///
    /// # Errors
    /// A batch without the id or event time column.
    pub fn accept(&mut self, batch: &RecordBatch, partitions: Option<&[i32]>, arrival: i64) -> Result<Accepted> {
        let ids = id_keys(self.column(batch, &self.id)?)?;
        let times = self.event_times(batch)?;
        let rows = batch.num_rows();
        if partitions.is_some_and(|p| p.len() != rows) {
            return Err(KernelError::Batch("partitions and records differ in number".into()));
        }
        let mut accepted = Accepted {
            outcomes: Vec::with_capacity(rows),
            batch: batch.clone(),
            times: Vec::with_capacity(rows),
            ids: Vec::with_capacity(rows),
            watermarks: Vec::with_capacity(rows),
            late: Vec::with_capacity(rows),
        };
        let mut kept: Vec<u32> = Vec::with_capacity(rows);
        for (i, (&time, &id)) in times.iter().zip(&ids).enumerate() {
            if i % GROUP == 0 {
                let group = &ids[i..(i + GROUP).min(rows)];
                black_box(group.iter().fold(false, |any, &id| any ^ self.seen.contains(id)));
            }
            let partition = partitions.map_or(0, |p| p[i]);
            let outcome = self.judge(time, id, arrival);
            accepted.outcomes.push(outcome);
            if matches!(outcome, Outcome::Accepted | Outcome::Late) {
                kept.push(i as u32);
                accepted.times.push(time);
                accepted.ids.push(id);
                accepted.watermarks.push(self.watermark.current());
                accepted.late.push(outcome == Outcome::Late);
                self.watermark.observe(partition, time, arrival);
            }
        }
        if kept.len() < rows {
            accepted.batch = take_record_batch(batch, &UInt32Array::from(kept))?;
        }
        Ok(accepted)
    }

    fn judge(&mut self, time: i64, id: u128, arrival: i64) -> Outcome {
        if time < self.earliest_us {
            Outcome::BeforeEarliest
        } else if time > arrival.saturating_add(self.max_ahead_us).min(FURTHEST_US) {
            Outcome::AheadOfArrival
        } else if time < self.earliest_accepted() {
            // A duplicate this late can no longer be told from an original: both are too late.
            Outcome::TooLate
        } else if !self.seen.insert(id, time) {
            Outcome::Duplicate
        } else if time < self.watermark.current() {
            Outcome::Late
        } else {
            Outcome::Accepted
        }
    }

    /// The event times of a batch, in µs.
    ///
    /// # Errors
    /// A batch without that column, or with nulls in it.
    pub fn event_times<'a>(&self, batch: &'a RecordBatch) -> Result<&'a [i64]> {
        let times = self.column(batch, &self.event_time)?.as_primitive_opt::<TimestampMicrosecondType>();
        let times =
            times.ok_or_else(|| KernelError::Batch(format!("column '{}' is no timestamp in µs", self.event_time)))?;
        Ok(times.values())
    }

    /// A column that every record has a value in.
    ///
    /// # Errors
    /// A batch without it, or with nulls in it.
    pub fn column<'a>(&self, batch: &'a RecordBatch, name: &str) -> Result<&'a ArrayRef> {
        let column = batch.column_by_name(name);
        let column = column.ok_or_else(|| KernelError::Batch(format!("stream '{}': no column '{name}'", self.name)))?;
        if column.null_count() > 0 {
            return Err(KernelError::Batch(format!("stream '{}': column '{name}' holds nulls", self.name)));
        }
        Ok(column)
    }
}
