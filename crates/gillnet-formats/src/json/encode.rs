//! A record batch to JSON objects, one a row.

use arrow::array::{Array, RecordBatch};

use super::spec::{Content, Field, Spec};
use super::write::{write_object, Writer};
use crate::error::{FormatError, Result};

/// Encoded records, one after the other in one buffer, without separators.
#[derive(Debug, Default)]
pub struct Encoded {
    /// The bytes of all records.
    pub bytes: Vec<u8>,
    /// Where each record ends; the first one starts at 0.
    pub ends: Vec<usize>,
}

impl Encoded {
    /// The records in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &[u8]> {
        let start = |row: usize| if row == 0 { 0 } else { self.ends[row - 1] };
        (0..self.ends.len()).map(move |row| &self.bytes[start(row)..self.ends[row]])
    }
}

/// Encodes the rows of record batches as JSON objects, each on one line.
///
/// The specification names the fields in order. A field is a column (`column`, by default the field's name), a `constant`,
/// or a nested object (`fields`); `timestamp` is `rfc3339` (default), `s`, `ms` or `us`:
///
/// ```json
/// {"omit_nulls": false,
///  "fields": [{"name": "tx_id"}, {"name": "at", "column": "event_time_us", "timestamp": "ms"},
///             {"name": "features", "fields": [{"name": "spend_5m"}]}, {"name": "model", "constant": "fraud@3"}]}
/// ```
///
/// Decimals are written as numbers with all digits of their scale, floats with the fewest digits that read back as the
/// same float, NaN and infinities as null.
pub struct JsonEncoder {
    spec: Spec,
}

impl JsonEncoder {
    /// Compile a specification.
    pub fn new(spec_json: &[u8]) -> Result<Self> {
        Ok(Self { spec: Spec::read(spec_json)? })
    }

    /// Encode all rows.
    pub fn encode(&self, batch: &RecordBatch) -> Result<Encoded> {
        let fields = bind_all(&self.spec.fields, batch)?;
        let rows = batch.num_rows();
        let mut encoded =
            Encoded { bytes: Vec::with_capacity(rows * 32 * fields.len().max(4)), ends: Vec::with_capacity(rows) };
        for row in 0..rows {
            write_row(&fields, row, self.spec.omit_nulls, &mut encoded.bytes);
            encoded.ends.push(encoded.bytes.len());
        }
        Ok(encoded)
    }
}

/// A field with the column that it is written from.
enum Bound<'a> {
    Column(&'a [u8], Writer<'a>),
    Constant(&'a [u8], &'a [u8]),
    Group(&'a [u8], Vec<Bound<'a>>),
}

fn bind_all<'a>(fields: &'a [Field], batch: &'a RecordBatch) -> Result<Vec<Bound<'a>>> {
    fields.iter().map(|field| bind(field, batch)).collect()
}

fn bind<'a>(field: &'a Field, batch: &'a RecordBatch) -> Result<Bound<'a>> {
    let prefix = field.prefix.as_slice();
    Ok(match &field.content {
        Content::Column { name, timestamp } => {
            let column = batch.column_by_name(name);
            let column = column.ok_or_else(|| FormatError::Batch(format!("no column {name:?} to encode")))?;
            Bound::Column(prefix, Writer::new(name, column, *timestamp)?)
        }
        Content::Constant(value) => Bound::Constant(prefix, value),
        Content::Group(fields) => Bound::Group(prefix, bind_all(fields, batch)?),
    })
}

fn write_row(fields: &[Bound<'_>], row: usize, omit_nulls: bool, out: &mut Vec<u8>) {
    write_object(out, |out| {
        for field in fields {
            match field {
                Bound::Column(prefix, writer) => writer.write_field(prefix, row, omit_nulls, out),
                Bound::Constant(prefix, value) => {
                    out.extend_from_slice(prefix);
                    out.extend_from_slice(value);
                }
                Bound::Group(prefix, fields) => {
                    out.extend_from_slice(prefix);
                    write_row(fields, row, omit_nulls, out);
                }
            }
        }
    });
}

/// The values of a column as record keys: text as it is, other types as their JSON text; `None` for null.
pub fn encode_keys(batch: &RecordBatch, column: &str) -> Result<Vec<Option<Vec<u8>>>> {
    let array = batch.column_by_name(column);
    let array = array.ok_or_else(|| FormatError::Batch(format!("no column {column:?} to take keys from")))?;
    let writer = Writer::new(column, array, Default::default())?;
    let key = |row: usize| {
        if writer.is_null(row) {
            return None;
        }
        let mut out = Vec::new();
        match writer.as_text(row) {
            Some(text) => out.extend_from_slice(text),
            None => writer.write(row, false, &mut out),
        }
        Some(out)
    };
    Ok((0..array.len()).map(key).collect())
}
