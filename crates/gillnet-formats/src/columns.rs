//! Column builders that a half-read record can be taken out of again.

use std::sync::Arc;

use arrow::array::builder::NullBufferBuilder;
use arrow::array::{
    ArrayRef, BooleanArray, Decimal128Array, Float64Array, Int64Array, StringArray, TimestampMicrosecondArray,
};
use arrow::buffer::{BooleanBuffer, Buffer, OffsetBuffer, ScalarBuffer};

use crate::error::Result;
use crate::reason::{excerpt, fault, Parse, Reason};
use crate::schema::{Column, Kind};

/// The values of one column so far.
pub(crate) struct ColumnBuilder<'s> {
    pub(crate) column: &'s Column,
    pub(crate) values: Values,
    pub(crate) validity: NullBufferBuilder,
}

pub(crate) enum Values {
    Text { ends: Vec<i32>, data: Vec<u8> },
    Integer(Vec<i64>),
    Float(Vec<f64>),
    Boolean(Vec<bool>),
    Decimal(Vec<i128>),
}

impl<'s> ColumnBuilder<'s> {
    pub fn new(column: &'s Column, rows: usize) -> Self {
        let values = match column.kind {
            Kind::Text { .. } => {
                let mut ends = Vec::with_capacity(rows + 1);
                ends.push(0);
                Values::Text { ends, data: Vec::with_capacity(rows * 16) }
            }
            Kind::Integer { .. } | Kind::Epoch { .. } | Kind::Rfc3339 => Values::Integer(Vec::with_capacity(rows)),
            Kind::Float { .. } => Values::Float(Vec::with_capacity(rows)),
            Kind::Boolean => Values::Boolean(Vec::with_capacity(rows)),
            Kind::Decimal { .. } => Values::Decimal(Vec::with_capacity(rows)),
        };
        Self { column, values, validity: NullBufferBuilder::new(rows) }
    }

    /// Append `null`, where the column takes one.
    pub fn append_null(&mut self) -> Parse<()> {
        let column = self.column;
        let reason = match column {
            Column { is_id: true, .. } => Reason::NullId,
            Column { nullable: true, .. } => {
                self.append_default();
                return Ok(());
            }
            Column { is_key: true, .. } => Reason::NullKey,
            _ => Reason::NullValue,
        };
        Err(fault(reason, format!("column '{}': null, and it is not nullable", column.name)))
    }

    /// `""` in a key: no key at all, so a null where the column takes one.
    #[cold]
    pub(crate) fn append_empty_key(&mut self) -> Parse<()> {
        let reason = match self.column {
            Column { is_id: true, .. } => Reason::NullId,
            Column { nullable: true, .. } => {
                self.append_default();
                return Ok(());
            }
            _ => Reason::EmptyKey,
        };
        Err(fault(reason, format!("column '{}': an empty string", self.column.name)))
    }

    fn append_default(&mut self) {
        match &mut self.values {
            Values::Text { ends, data } => ends.push(data.len() as i32),
            Values::Integer(values) => values.push(0),
            Values::Float(values) => values.push(0.0),
            Values::Boolean(values) => values.push(false),
            Values::Decimal(values) => values.push(0),
        }
        self.validity.append_null();
    }

    /// The bytes of text so far; Arrow's offsets have 31 bits.
    pub fn text_bytes(&self) -> usize {
        match &self.values {
            Values::Text { data, .. } => data.len(),
            _ => 0,
        }
    }

    /// Forget everything after the first `rows` values.
    pub fn truncate(&mut self, rows: usize) {
        match &mut self.values {
            Values::Text { ends, data } => {
                ends.truncate(rows + 1);
                data.truncate(ends[rows] as usize);
            }
            Values::Integer(values) => values.truncate(rows),
            Values::Float(values) => values.truncate(rows),
            Values::Boolean(values) => values.truncate(rows),
            Values::Decimal(values) => values.truncate(rows),
        }
        if self.validity.len() > rows {
            self.validity.truncate(rows);
        }
    }

    /// The finished Arrow array.
    pub fn finish(self) -> Result<ArrayRef> {
        let nulls = self.validity.build();
        Ok(match self.values {
            Values::Text { ends, data } => {
                let offsets = OffsetBuffer::new(ScalarBuffer::from(ends));
                Arc::new(StringArray::try_new(offsets, Buffer::from_vec(data), nulls)?)
            }
            Values::Integer(values) => match self.column.kind {
                Kind::Integer { .. } => Arc::new(Int64Array::try_new(values.into(), nulls)?),
                _ => Arc::new(TimestampMicrosecondArray::try_new(values.into(), nulls)?.with_timezone("UTC")),
            },
            Values::Float(values) => Arc::new(Float64Array::try_new(values.into(), nulls)?),
            Values::Boolean(values) => Arc::new(BooleanArray::new(BooleanBuffer::from(values), nulls)),
            Values::Decimal(values) => {
                let array = Decimal128Array::try_new(values.into(), nulls)?;
                let Kind::Decimal { scale, .. } = self.column.kind else {
                    unreachable!("decimals are of a decimal column")
                };
                Arc::new(array.with_precision_and_scale(38, scale as i8)?)
            }
        })
    }
}

#[cold]
pub(crate) fn refuse(column: &Column, reason: Reason, found: &str, value: &[u8]) -> Box<crate::reason::Fault> {
    let space = if found.is_empty() { "" } else { " " };
    let (name, expected) = (&column.name, column.kind.expected());
    fault(reason, format!("column '{name}': expected {expected}, found {found}{space}'{}'", excerpt(value)))
}

#[cold]
pub(crate) fn too_long(column: &Column, length: usize, limit: usize) -> Box<crate::reason::Fault> {
    fault(Reason::TooLarge, format!("column '{}': {length} bytes of text, at most {limit} are allowed", column.name))
}
