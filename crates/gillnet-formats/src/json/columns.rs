//! The next JSON value into a column.

use super::number::Number;
use super::scan::{Cursor, RawString};
use super::text;
use crate::columns::{refuse, too_long, ColumnBuilder, Values};
use crate::reason::{excerpt, fault, Parse, Reason};
use crate::schema::{Column, Kind};
use crate::timestamp::{parse_rfc3339, BadInstant, MAX_US, MIN_US};

impl ColumnBuilder<'_> {
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
fn refuse_number(column: &Column, reason: Reason, number: &Number<'_>) -> Box<crate::reason::Fault> {
    refuse(column, reason, "number", number.text)
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
