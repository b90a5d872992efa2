//! JSON records to a record batch: one pass over each record, straight into the columns.

use std::sync::Mutex;

use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::datatypes::SchemaRef;

use super::fields::{FieldId, FieldOrder};
use super::scan::Cursor;
use crate::columns::ColumnBuilder;
use crate::error::{FormatError, Result};
use crate::reason::{excerpt, fault, Fault, Parse, Reason, Rejected};
use crate::schema::{arrow_schema, read_columns, Column};

/// What a decoder is held to besides the schema.
#[derive(Debug, Clone)]
pub struct DecoderOptions {
    /// Columns that events are keyed by. Null or `""` is rejected, or a null where the column is nullable.
    pub keys: Vec<String>,
    /// The column of the event's id. Null or `""` is rejected.
    pub id: Option<String>,
    /// Records of more bytes are rejected unread.
    pub max_record_bytes: usize,
    /// Records that nest objects and arrays deeper are rejected; the record itself is depth 1.
    pub max_depth: usize,
}

impl Default for DecoderOptions {
    fn default() -> Self {
        Self { keys: vec![], id: None, max_record_bytes: 1 << 20, max_depth: 64 }
    }
}

/// The outcome of a batch of records: each is either a row or rejected.
#[derive(Debug)]
pub struct Decoded {
    /// The rows, in the order of the records.
    pub batch: RecordBatch,
    /// For each row, the index of its record.
    pub rows: Vec<u32>,
    /// The other records, by index.
    pub rejected: Vec<Rejected>,
}

/// Decodes JSON records into the Arrow columns of a schema.
///
/// Where a record has several faults, one is reported: size, UTF-8 and JSON grammar come first, then the first fault in
/// the order of the record's fields, then the first missing column in the order of the schema.
pub struct JsonDecoder {
    columns: Vec<Column>,
    schema: SchemaRef,
    options: DecoderOptions,
    /// What was learned of the fields' order: it changes speed only, never a result.
    learned: Mutex<FieldOrder>,
}

impl JsonDecoder {
    /// Make a decoder for the JSON that `gillnet.core.schema.schema_to_json` wrote.
    pub fn new(schema_json: &[u8], options: DecoderOptions) -> Result<Self> {
        let columns = read_columns(schema_json, &options.keys, options.id.as_deref())?;
        if options.max_depth < 1 || options.max_record_bytes < 2 {
            return Err(FormatError::Schema("max_depth is at least 1 and max_record_bytes at least 2".into()));
        }
        let learned = Mutex::new(FieldOrder::new(&columns));
        Ok(Self { schema: arrow_schema(&columns), columns, options, learned })
    }

    /// The Arrow schema of the decoded batches.
    pub fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    /// Decode records. Never fails for what a record holds, only if the batch is too large for Arrow.
    pub fn decode(&self, records: &[&[u8]]) -> Result<Decoded> {
        let bytes: usize = records.iter().map(|record| record.len()).sum();
        if bytes > i32::MAX as usize || records.len() > i32::MAX as usize {
            return Err(FormatError::Batch(format!("{bytes} bytes in one batch; at most 2 GiB: give fewer records")));
        }
        // Another thread may be decoding: then learn from the schema's order again rather than wait.
        let mut shared = self.learned.try_lock().ok();
        let mut fresh = None;
        let order = match shared.as_deref_mut() {
            Some(order) => order,
            None => fresh.insert(FieldOrder::new(&self.columns)),
        };
        let mut run = Run {
            columns: &self.columns,
            options: &self.options,
            builders: self.columns.iter().map(|column| ColumnBuilder::new(column, records.len())).collect(),
            order,
            seen: vec![0; self.columns.len()],
            stamp: 0,
        };
        let mut rows = Vec::with_capacity(records.len());
        let mut rejected = Vec::new();
        for (index, record) in records.iter().enumerate() {
            match run.record(record) {
                Ok(()) => rows.push(index as u32),
                Err(found) => {
                    run.builders.iter_mut().for_each(|builder| builder.truncate(rows.len()));
                    let Fault { reason, detail } = *found;
                    rejected.push(Rejected { index: index as u32, reason, detail });
                }
            }
        }
        let arrays = run.builders.into_iter().map(ColumnBuilder::finish).collect::<Result<Vec<_>>>()?;
        let with_rows = RecordBatchOptions::new().with_row_count(Some(rows.len()));
        Ok(Decoded { batch: RecordBatch::try_new_with_options(self.schema(), arrays, &with_rows)?, rows, rejected })
    }
}

/// One call of `decode`.
struct Run<'s> {
    columns: &'s [Column],
    options: &'s DecoderOptions,
    builders: Vec<ColumnBuilder<'s>>,
    order: &'s mut FieldOrder,
    /// By column, the stamp of the last record that had it.
    seen: Vec<u32>,
    stamp: u32,
}

impl Run<'_> {
    fn record(&mut self, record: &[u8]) -> Parse<()> {
        if record.len() > self.options.max_record_bytes {
            let limit = self.options.max_record_bytes;
            return Err(fault(Reason::TooLarge, format!("{} bytes, at most {limit} are allowed", record.len())));
        }
        if let Err(error) = std::str::from_utf8(record) {
            return Err(fault(Reason::NotUtf8, format!("byte {} is not UTF-8", error.valid_up_to())));
        }
        let mut cursor = Cursor::new(record);
        cursor.skip_space();
        match cursor.peek() {
            Some(b'{') => {}
            None => return Err(fault(Reason::EmptyRecord, format!("{} bytes", record.len()))),
            Some(_) => return Err(not_an_object(&mut cursor)),
        }
        cursor.at += 1;
        self.stamp += 1;
        self.object(&mut cursor)
    }

    /// Read the fields, up to the end of the record.
    fn object(&mut self, cursor: &mut Cursor<'_>) -> Parse<()> {
        let mut first_fault = None;
        let mut found = 0;
        let mut field = FieldId::START;
        cursor.skip_space();
        if !cursor.take(b'}') {
            loop {
                let (next, column) = self.order.next(field, cursor)?;
                field = next;
                match column {
                    Some(column) if self.seen[column] != self.stamp => {
                        self.seen[column] = self.stamp;
                        found += 1;
                        self.value(column, cursor, &mut first_fault)?;
                    }
                    _ => self.skip(column, cursor, &mut first_fault)?,
                }
                cursor.skip_space();
                if cursor.take(b'}') {
                    break;
                }
                if !cursor.take(b',') {
                    return Err(cursor.syntax("',' or '}'"));
                }
                cursor.skip_space();
            }
        }
        cursor.finish()?;
        match first_fault {
            Some(found) => Err(found),
            None if found == self.columns.len() => Ok(()),
            None => self.fill_missing(),
        }
    }

    #[inline]
    fn value(&mut self, column: usize, cursor: &mut Cursor<'_>, first_fault: &mut Option<Box<Fault>>) -> Parse<()> {
        let start = cursor.at;
        match self.builders[column].read(cursor) {
            Ok(()) => Ok(()),
            Err(found) => {
                // The record is lost, but whether it is JSON at all is the more basic news: read on.
                cursor.at = start;
                cursor.skip_value()?;
                first_fault.get_or_insert(found);
                Ok(())
            }
        }
    }

    /// Step over the value of an unknown field, or of a column's second occurrence.
    fn skip(&self, column: Option<usize>, cursor: &mut Cursor<'_>, first_fault: &mut Option<Box<Fault>>) -> Parse<()> {
        let depth = 1 + cursor.skip_value()?;
        if let Some(column) = column {
            first_fault.get_or_insert_with(|| duplicate(&self.columns[column]));
        } else if depth > self.options.max_depth {
            let limit = self.options.max_depth;
            first_fault.get_or_insert_with(|| fault(Reason::TooDeep, format!("nested {depth} deep, at most {limit}")));
        }
        Ok(())
    }

    /// Columns that the record does not have are null, where they may be.
    #[cold]
    fn fill_missing(&mut self) -> Parse<()> {
        for (column, builder) in self.builders.iter_mut().enumerate() {
            if self.seen[column] == self.stamp {
                continue;
            }
            let Column { name, nullable, .. } = &self.columns[column];
            if !nullable {
                return Err(fault(Reason::MissingField, format!("column '{name}' is not in the record")));
            }
            builder.append_null()?;
        }
        Ok(())
    }
}

#[cold]
fn duplicate(column: &Column) -> Box<Fault> {
    fault(Reason::DuplicateField, format!("column '{}' is in the record twice", column.name))
}

/// The record does not start with a brace: it is another JSON value, or no JSON.
#[cold]
fn not_an_object(cursor: &mut Cursor<'_>) -> Box<Fault> {
    let start = cursor.at;
    match cursor.skip_value().and_then(|_| cursor.finish()) {
        Ok(()) => fault(Reason::NotAnObject, format!("found '{}'", excerpt(&cursor.bytes[start..]))),
        Err(found) => found,
    }
}
