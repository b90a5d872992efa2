//! Values of binary formats into columns: what each type of value becomes in each type of column.

use crate::columns::{refuse, too_long, ColumnBuilder, Values};
use crate::json::scaled_text;
use crate::reason::{Parse, Reason};
use crate::schema::{Column, Kind, MAX_DECIMAL_DIGITS};
use crate::timestamp::{parse_rfc3339, BadInstant, MAX_US, MIN_US};

/// A value as a binary record has it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Scalar<'a> {
    Boolean(bool),
    Integer(i64),
    /// Only for what `Integer` does not hold.
    Unsigned(u64),
    Float(f64),
    /// Apart from `Float`, since its shortest decimal is another.
    Single(f32),
    Text(&'a [u8]),
    /// Microseconds since 1970-01-01 UTC.
    Instant(i64),
    /// A two's complement, big-endian, with so many digits after the point.
    Decimal {
        unscaled: &'a [u8],
        scale: u32,
    },
}

const DAY_US: i64 = 86_400_000_000;

/// The instant at which a day begins, as an integer of days since 1970-01-01.
pub(crate) fn days(days: i64) -> Scalar<'static> {
    // Saturated, so that it is out of range.
    Scalar::Instant(days.saturating_mul(DAY_US))
}

impl ColumnBuilder<'_> {
    /// Append a value; on a fault the column may hold a part of it until `truncate`.
    #[inline]
    pub fn append(&mut self, value: Scalar<'_>) -> Parse<()> {
        let column = self.column;
        match (&column.kind, &mut self.values, value) {
            (Kind::Text { max_bytes }, Values::Text { ends, data }, Scalar::Text(text)) => {
                if text.is_empty() && (column.is_id || column.is_key) {
                    return self.append_empty_key();
                }
                if text.len() > *max_bytes {
                    return Err(too_long(column, text.len(), *max_bytes));
                }
                if !text.is_ascii() && std::str::from_utf8(text).is_err() {
                    return Err(refuse(column, Reason::NotUtf8, "bytes", text));
                }
                data.extend_from_slice(text);
                ends.push(data.len() as i32);
            }
            (Kind::Integer { minimum, maximum }, Values::Integer(values), Scalar::Integer(value)) => {
                if value < *minimum || value > *maximum {
                    return Err(refuse_scalar(column, Reason::OutOfRange, Scalar::Integer(value)));
                }
                values.push(value);
            }
            (Kind::Epoch { .. } | Kind::Rfc3339, Values::Integer(values), value) => {
                values.push(instant(column, value)?)
            }
            (Kind::Float { minimum, maximum, allow_nan }, Values::Float(values), value) => {
                let float = float(column, value)?;
                if !float.is_finite() && !allow_nan {
                    return Err(refuse_scalar(column, Reason::NotFinite, value));
                }
                if float < *minimum || float > *maximum {
                    return Err(refuse_scalar(column, Reason::OutOfRange, value));
                }
                values.push(float);
            }
            (Kind::Boolean, Values::Boolean(values), Scalar::Boolean(value)) => values.push(value),
            (Kind::Decimal { scale, minimum, maximum }, Values::Decimal(values), value) => {
                let scaled = decimal(column, value, *scale)?;
                if !(*minimum..=*maximum).contains(&scaled) {
                    return Err(refuse_scalar(column, Reason::OutOfRange, value));
                }
                values.push(i128::from(scaled));
            }
            (Kind::Integer { .. }, _, Scalar::Unsigned(_)) => {
                return Err(refuse_scalar(column, Reason::OutOfRange, value))
            }
            _ => return Err(refuse_scalar(column, Reason::WrongType, value)),
        }
        self.validity.append_non_null();
        Ok(())
    }
}

fn instant(column: &Column, value: Scalar<'_>) -> Parse<i64> {
    let instant = match (&column.kind, value) {
        (_, Scalar::Instant(instant)) => Some(instant),
        (Kind::Epoch { unit_us }, Scalar::Integer(count)) => count.checked_mul(*unit_us),
        (Kind::Epoch { .. }, Scalar::Unsigned(_)) => None,
        (Kind::Rfc3339, Scalar::Text(text)) => match parse_rfc3339(text) {
            Ok(instant) => Some(instant),
            Err(BadInstant::OutOfRange) => None,
            Err(BadInstant::Malformed) => return Err(refuse_scalar(column, Reason::BadTimestamp, value)),
        },
        _ => return Err(refuse_scalar(column, Reason::WrongType, value)),
    };
    instant
        .filter(|instant| (MIN_US..=MAX_US).contains(instant))
        .ok_or_else(|| refuse_scalar(column, Reason::OutOfRange, value))
}

fn float(column: &Column, value: Scalar<'_>) -> Parse<f64> {
    match value {
        Scalar::Float(value) => Ok(value),
        Scalar::Single(value) => Ok(f64::from(value)),
        Scalar::Integer(value) => Ok(value as f64),
        Scalar::Unsigned(value) => Ok(value as f64),
        _ => Err(refuse_scalar(column, Reason::WrongType, value)),
    }
}

/// A float is the shortest decimal that reads as it: 12.34 is 12.34, and not what is next to it in binary.
fn decimal(column: &Column, value: Scalar<'_>, scale: u8) -> Parse<i64> {
    let scaled = match value {
        Scalar::Integer(value) => scaled_integer(i128::from(value), 0, scale),
        Scalar::Unsigned(value) => scaled_integer(i128::from(value), 0, scale),
        Scalar::Decimal { unscaled, scale: digits } => match big_endian(unscaled) {
            Some(value) => scaled_integer(value, digits, scale),
            None => Err(Reason::OutOfRange),
        },
        Scalar::Text(text) => scaled_text(text, scale).unwrap_or(Err(Reason::WrongType)),
        Scalar::Float(value) if !value.is_finite() => Err(Reason::NotFinite),
        Scalar::Single(value) if !value.is_finite() => Err(Reason::NotFinite),
        Scalar::Float(value) => shortest(zmij::Buffer::new().format_finite(value), scale),
        Scalar::Single(value) => shortest(zmij::Buffer::new().format_finite(value), scale),
        Scalar::Boolean(_) | Scalar::Instant(_) => Err(Reason::WrongType),
    };
    scaled.map_err(|reason| refuse_scalar(column, reason, value))
}

fn shortest(text: &str, scale: u8) -> Result<i64, Reason> {
    scaled_text(text.as_bytes(), scale).unwrap_or(Err(Reason::OutOfRange))
}

/// `value` with `digits` after the point, as an integer with `scale` of them.
fn scaled_integer(mut value: i128, digits: u32, scale: u8) -> Result<i64, Reason> {
    let (mut have, want) = (digits, u32::from(scale));
    if value == 0 {
        return Ok(0);
    }
    while have > want {
        if value % 10 != 0 {
            return Err(Reason::InexactDecimal);
        }
        (value, have) = (value / 10, have - 1);
        if value == 0 {
            return Ok(0);
        }
    }
    let scaled = value.checked_mul(10i128.pow(want - have)).ok_or(Reason::OutOfRange)?;
    let limit = 10i128.pow(MAX_DECIMAL_DIGITS);
    if -limit < scaled && scaled < limit {
        Ok(scaled as i64)
    } else {
        Err(Reason::OutOfRange)
    }
}

/// A two's complement of any length, if it fits 128 bits. No bytes at all are zero, as other readers have it.
fn big_endian(bytes: &[u8]) -> Option<i128> {
    let sign = if bytes.first().is_some_and(|byte| byte & 0x80 != 0) { 0xff } else { 0 };
    let extra = bytes.len().saturating_sub(16);
    let (more, kept) = bytes.split_at(extra);
    if more.iter().any(|&byte| byte != sign) || (extra > 0 && (kept[0] ^ sign) & 0x80 != 0) {
        return None;
    }
    let mut whole = [sign; 16];
    whole[16 - kept.len()..].copy_from_slice(kept);
    Some(i128::from_be_bytes(whole))
}

#[cold]
fn refuse_scalar(column: &Column, reason: Reason, value: Scalar<'_>) -> Box<crate::reason::Fault> {
    let shown;
    let (found, bytes): (&str, &[u8]) = match value {
        Scalar::Text(text) => ("text", text),
        Scalar::Boolean(value) => ("boolean", if value { b"true" } else { b"false" }),
        other => {
            let (found, text) = match other {
                Scalar::Integer(value) => ("integer", value.to_string()),
                Scalar::Unsigned(value) => ("integer", value.to_string()),
                Scalar::Float(value) => ("float", value.to_string()),
                Scalar::Single(value) => ("float", value.to_string()),
                Scalar::Instant(value) => ("timestamp", format!("{value} us")),
                Scalar::Decimal { unscaled, scale } => {
                    let text = big_endian(unscaled).map_or(format!("{} bytes", unscaled.len()), |v| v.to_string());
                    ("decimal", format!("{text}e-{scale}"))
                }
                Scalar::Text(_) | Scalar::Boolean(_) => unreachable!("these came before"),
            };
            shown = text;
            (found, shown.as_bytes())
        }
    };
    refuse(column, reason, found, bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn big_endian_numbers_of_any_length() {
        assert_eq!(big_endian(&[]), Some(0));
        assert_eq!(big_endian(&[0x80]), Some(-128));
        assert_eq!(big_endian(&[0; 40]), Some(0));
        assert_eq!(big_endian(&[0xff; 40]), Some(-1));
        let mut large = vec![0x7f];
        large.extend([0xff; 15]);
        assert_eq!(big_endian(&large), Some(i128::MAX));
        large.insert(0, 0);
        assert_eq!(big_endian(&large), Some(i128::MAX));
        large[0] = 1;
        assert_eq!(big_endian(&large), None);
        // 128 bits whose sign is another than that of the bytes before them.
        let mut wrapped = vec![0, 0x80];
        wrapped.extend([0; 15]);
        assert_eq!(big_endian(&wrapped), None);
    }

    #[test]
    fn decimals_change_their_scale_exactly_or_not_at_all() {
        assert_eq!(scaled_integer(1234, 2, 4), Ok(123_400));
        assert_eq!(scaled_integer(-1200, 4, 2), Ok(-12));
        assert_eq!(scaled_integer(1201, 4, 2), Err(Reason::InexactDecimal));
        assert_eq!(scaled_integer(0, u32::MAX, 0), Ok(0));
        assert_eq!(scaled_integer(1, u32::MAX, 0), Err(Reason::InexactDecimal));
        assert_eq!(scaled_integer(i128::MAX, 0, 18), Err(Reason::OutOfRange));
        assert_eq!(scaled_integer(10i128.pow(18), 0, 0), Err(Reason::OutOfRange));
        assert_eq!(scaled_integer(1 - 10i128.pow(18), 0, 0), Ok(1 - 10i64.pow(18)));
    }
}
