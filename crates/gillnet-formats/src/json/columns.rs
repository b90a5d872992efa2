//! Column builders that a half-parsed record can be taken out of again.

use std::sync::Arc;

use arrow::array::builder::NullBufferBuilder;
use arrow::array::{
    ArrayRef, BooleanArray, Decimal128Array, Float64Array, Int64Array, StringArray, TimestampMicrosecondArray,
};
use arrow::buffer::{BooleanBuffer, Buffer, OffsetBuffer, ScalarBuffer};

use super::number::Number;
use super::scan::{Cursor, RawString};
use super::text;
use crate::error::Result;
use crate::reason::{excerpt, fault, Parse, Reason};
use crate::schema::{Column, Kind};
use crate::timestamp::{parse_rfc3339, BadInstant, MAX_US, MIN_US};

/// The values of one column so far.
pub(crate) struct ColumnBuilder<'s> {
    column: &'s Column,
    values: Values,
    validity: NullBufferBuilder,
}

enum Values {
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

    /// Read the value that comes next and append it; on a fault nothing is known of the cursor's place, and the column may
    /// hold a part of the value until `truncate`.
    #[inline]
    pub fn read(&mut self, cursor: &mut Cursor<'_>) -> Parse<()> {
        if cursor.peek() == Some(b'n') {
            cursor.literal(b"null")?;
            return self.append_null();
        }
        let column = self.column;
        match (&column.kind, &mut self.values) {
            (Kind::Text { max_bytes }, Values::Text { ends, data }) => {
                let raw = string(cursor, column)?;
                let start = data.len();
                text::append(raw, data)
                    .map_err(|_| refuse(column, Reason::NotUtf8, "half of a surrogate pair in", raw.body))?;
                let length = data.len() - start;
                if length > *max_bytes {
                    return Err(too_long(column, length, *max_bytes));
                }
                if length == 0 && (column.is_id || column.is_key) {
                    return self.append_empty_key();
                }
                ends.push(data.len() as i32);
            }
            (Kind::Integer { minimum, maximum }, Values::Integer(values)) => {
                let number = integer(cursor, column)?;
                let value = number.as_i64().map_err(|reason| refuse_number(column, reason, &number))?;
                if value < *minimum || value > *maximum {
                    return Err(refuse_number(column, Reason::OutOfRange, &number));
                }
                values.push(value);
            }
            (Kind::Epoch { unit_us }, Values::Integer(values)) => {
                let number = integer(cursor, column)?;
                let instant = number.as_i64().ok().and_then(|value| value.checked_mul(*unit_us));
                match instant.filter(|instant| (MIN_US..=MAX_US).contains(instant)) {
                    Some(instant) => values.push(instant),
                    None => return Err(refuse_number(column, Reason::OutOfRange, &number)),
                }
            }
            (Kind::Rfc3339, Values::Integer(values)) => values.push(instant(cursor, column)?),
            (Kind::Float { minimum, maximum, allow_nan }, Values::Float(values)) => {
                let value = float(cursor, column, *allow_nan)?;
                if value < *minimum || value > *maximum {
                    return Err(refuse(column, Reason::OutOfRange, "", value.to_string().as_bytes()));
                }
                values.push(value);
            }
            (Kind::Boolean, Values::Boolean(values)) => values.push(boolean(cursor, column)?),
            (Kind::Decimal { scale, minimum, maximum }, Values::Decimal(values)) => {
                values.push(i128::from(decimal(cursor, column, *scale, *minimum..=*maximum)?));
            }
            _ => unreachable!("a column's values are made for its kind"),
        }
        self.validity.append_non_null();
        Ok(())
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
    fn append_empty_key(&mut self) -> Parse<()> {
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

fn string<'a>(cursor: &mut Cursor<'a>, column: &Column) -> Parse<RawString<'a>> {
    if cursor.peek() == Some(b'"') {
        cursor.string()
    } else {
        Err(wrong_type(cursor, column))
    }
}

fn number<'a>(cursor: &mut Cursor<'a>, column: &Column) -> Parse<Number<'a>> {
    match cursor.peek() {
        Some(b'-' | b'0'..=b'9') => cursor.number(),
        _ => Err(wrong_type(cursor, column)),
    }
}

fn integer<'a>(cursor: &mut Cursor<'a>, column: &Column) -> Parse<Number<'a>> {
    let number = number(cursor, column)?;
    if number.integer {
        Ok(number)
    } else {
        Err(refuse_number(column, Reason::WrongType, &number))
    }
}

fn boolean(cursor: &mut Cursor<'_>, column: &Column) -> Parse<bool> {
    match cursor.peek() {
        Some(b't') => cursor.literal(b"true").map(|()| true),
        Some(b'f') => cursor.literal(b"false").map(|()| false),
        _ => Err(wrong_type(cursor, column)),
    }
}

fn instant(cursor: &mut Cursor<'_>, column: &Column) -> Parse<i64> {
    let raw = string(cursor, column)?;
    parse_rfc3339(&text::resolve(raw)).map_err(|bad| match bad {
        BadInstant::Malformed => refuse(column, Reason::BadTimestamp, "", raw.body),
        BadInstant::OutOfRange => refuse(column, Reason::OutOfRange, "", raw.body),
    })
}

/// A float is a JSON number. JSON has no infinities: they are text, and only where the column allows them.
fn float(cursor: &mut Cursor<'_>, column: &Column, allow_nan: bool) -> Parse<f64> {
    if cursor.peek() != Some(b'"') {
        let number = number(cursor, column)?;
        let value = number.as_f64();
        return if value.is_finite() { Ok(value) } else { Err(refuse_number(column, Reason::NotFinite, &number)) };
    }
    let raw = cursor.string()?;
    let value = match &*text::resolve(raw) {
        b"NaN" => f64::NAN,
        b"Infinity" => f64::INFINITY,
        b"-Infinity" => f64::NEG_INFINITY,
        _ => return Err(refuse(column, Reason::WrongType, "string", raw.body)),
    };
    if allow_nan {
        Ok(value)
    } else {
        Err(refuse(column, Reason::NotFinite, "string", raw.body))
    }
}

/// A decimal is a JSON number, or text that holds nothing but one.
fn decimal(cursor: &mut Cursor<'_>, column: &Column, scale: u8, range: std::ops::RangeInclusive<i64>) -> Parse<i64> {
    let text;
    let number = if cursor.peek() == Some(b'"') {
        let raw = cursor.string()?;
        text = text::resolve(raw);
        let mut inner = Cursor::new(&text);
        let whole = inner.number().ok().filter(|_| inner.at == text.len());
        whole.ok_or_else(|| refuse(column, Reason::WrongType, "string", raw.body))?
    } else {
        number(cursor, column)?
    };
    let scaled = number.as_scaled(scale).map_err(|reason| refuse_number(column, reason, &number))?;
    if range.contains(&scaled) {
        Ok(scaled)
    } else {
        Err(refuse_number(column, Reason::OutOfRange, &number))
    }
}

#[cold]
fn refuse(column: &Column, reason: Reason, found: &str, value: &[u8]) -> Box<crate::reason::Fault> {
    let space = if found.is_empty() { "" } else { " " };
    let (name, expected) = (&column.name, column.kind.expected());
    fault(reason, format!("column '{name}': expected {expected}, found {found}{space}'{}'", excerpt(value)))
}

#[cold]
fn refuse_number(column: &Column, reason: Reason, number: &Number<'_>) -> Box<crate::reason::Fault> {
    refuse(column, reason, "number", number.text)
}

#[cold]
fn too_long(column: &Column, length: usize, limit: usize) -> Box<crate::reason::Fault> {
    fault(Reason::TooLarge, format!("column '{}': {length} bytes of text, at most {limit} are allowed", column.name))
}

/// The next value is of another JSON type than the column's, or none at all, which the caller finds out by skipping it.
#[cold]
fn wrong_type(cursor: &Cursor<'_>, column: &Column) -> Box<crate::reason::Fault> {
    let found = match cursor.peek() {
        Some(b'"') => "string",
        Some(b'{') => "object",
        Some(b'[') => "array",
        Some(b't' | b'f') => "bool",
        Some(b'-' | b'0'..=b'9') => "number",
        _ => "no value",
    };
    let rest = &cursor.bytes[cursor.at..];
    let end = match found {
        "string" => rest.iter().skip(1).position(|&byte| byte == b'"').map_or(rest.len(), |at| at + 2),
        "object" | "array" => 0,
        _ => rest.iter().position(|byte| b",}] \t\r\n".contains(byte)).unwrap_or(rest.len()),
    };
    let value = if end == 0 { String::new() } else { format!(" '{}'", excerpt(&rest[..end])) };
    fault(
        Reason::WrongType,
        format!("column '{}': expected {}, found {found}{value}", column.name, column.kind.expected()),
    )
}
