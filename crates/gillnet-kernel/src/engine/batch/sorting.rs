//! Events in the order of I1: event time, then id key; of those with the same id at the same time the first to arrive comes first.

use arrow::array::{AsArray, RecordBatch, UInt32Array};
use arrow::compute::take_record_batch;
use arrow::datatypes::{Int64Type, TimestampMicrosecondType};

use crate::arrival::id_key::id_keys;
use crate::error::{KernelError, Result};

/// The column with each event's place in the order of arrival.
pub const SEQUENCE: &str = "__sequence";

/// Sort the events of a stream by time, id and, where the batch has it, [`SEQUENCE`].
///
/// # Errors
/// A batch without those columns, or with nulls in them.
pub fn sort_events(batch: &RecordBatch, event_time: &str, id: &str) -> Result<RecordBatch> {
    let column = |name: &str| {
        let found = batch.column_by_name(name).filter(|column| column.null_count() == 0);
        found.ok_or_else(|| KernelError::Batch(format!("column '{name}' is missing or holds nulls")))
    };
    let times = column(event_time)?.as_primitive_opt::<TimestampMicrosecondType>();
    let times =
        times.ok_or_else(|| KernelError::Batch(format!("column '{event_time}' is no timestamp in µs")))?.values();
    let ids = id_keys(column(id)?)?;
    let sequence = match batch.column_by_name(SEQUENCE) {
        Some(column) => column.as_primitive_opt::<Int64Type>().map(|numbers| numbers.values()),
        None => None,
    };
    let order = |row: usize| (times[row], ids[row], sequence.map_or(row as i64, |numbers| numbers[row]));
    if (1..batch.num_rows()).all(|row| order(row - 1) <= order(row)) {
        return Ok(batch.clone());
    }
    let mut rows: Vec<u32> = (0..batch.num_rows() as u32).collect();
    rows.sort_unstable_by_key(|&row| order(row as usize));
    Ok(take_record_batch(batch, &UInt32Array::from(rows))?)
}
