//! Values of Arrow arrays as JSON text.

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Decimal128Array, GenericListArray, LargeStringArray, PrimitiveArray,
    StringArray, StringViewArray, TimestampMicrosecondArray,
};
use arrow::buffer::NullBuffer;
use arrow::datatypes::*;

use super::spec::{name_prefix, TimestampForm};
use super::text;
use crate::error::{FormatError, Result};
use crate::timestamp::write_rfc3339;

/// A column, ready to write the value of any row.
pub(crate) struct Writer<'a> {
    nulls: Option<&'a NullBuffer>,
    values: Values<'a>,
}

enum Values<'a> {
    Text(&'a StringArray),
    LargeText(&'a LargeStringArray),
    TextView(&'a StringViewArray),
    Boolean(&'a BooleanArray),
    Int8(&'a PrimitiveArray<Int8Type>),
    Int16(&'a PrimitiveArray<Int16Type>),
    Int32(&'a PrimitiveArray<Int32Type>),
    Int64(&'a PrimitiveArray<Int64Type>),
    UInt8(&'a PrimitiveArray<UInt8Type>),
    UInt16(&'a PrimitiveArray<UInt16Type>),
    UInt32(&'a PrimitiveArray<UInt32Type>),
    UInt64(&'a PrimitiveArray<UInt64Type>),
    Float32(&'a PrimitiveArray<Float32Type>),
    Float64(&'a PrimitiveArray<Float64Type>),
    Timestamp(&'a TimestampMicrosecondArray, TimestampForm),
    Decimal(&'a Decimal128Array, u32),
    List(&'a GenericListArray<i32>, Box<Writer<'a>>),
    Struct(Vec<(Vec<u8>, Writer<'a>)>),
    Dictionary(Vec<usize>, Box<Writer<'a>>),
    Null,
}

impl<'a> Writer<'a> {
    /// Prepare a column; `timestamp` also holds for the timestamps within it.
    pub fn new(name: &str, array: &'a ArrayRef, timestamp: TimestampForm) -> Result<Self> {
        let values = match array.data_type() {
            DataType::Utf8 => Values::Text(array.as_string()),
            DataType::LargeUtf8 => Values::LargeText(array.as_string()),
            DataType::Utf8View => Values::TextView(array.as_string_view()),
            DataType::Boolean => Values::Boolean(array.as_boolean()),
            DataType::Int8 => Values::Int8(array.as_primitive()),
            DataType::Int16 => Values::Int16(array.as_primitive()),
            DataType::Int32 => Values::Int32(array.as_primitive()),
            DataType::Int64 => Values::Int64(array.as_primitive()),
            DataType::UInt8 => Values::UInt8(array.as_primitive()),
            DataType::UInt16 => Values::UInt16(array.as_primitive()),
            DataType::UInt32 => Values::UInt32(array.as_primitive()),
            DataType::UInt64 => Values::UInt64(array.as_primitive()),
            DataType::Float32 => Values::Float32(array.as_primitive()),
            DataType::Float64 => Values::Float64(array.as_primitive()),
            DataType::Timestamp(TimeUnit::Microsecond, _) => Values::Timestamp(array.as_primitive(), timestamp),
            DataType::Decimal128(_, scale @ 0..=38) => Values::Decimal(array.as_primitive(), *scale as u32),
            DataType::List(_) => {
                let list = array.as_list::<i32>();
                Values::List(list, Box::new(Self::new(name, list.values(), timestamp)?))
            }
            DataType::Struct(fields) => {
                let columns = array.as_struct().columns().iter().zip(fields);
                let child = |(column, field): (&'a ArrayRef, &FieldRef)| {
                    Ok((name_prefix(field.name()), Self::new(name, column, timestamp)?))
                };
                Values::Struct(columns.map(child).collect::<Result<_>>()?)
            }
            DataType::Dictionary(_, _) => {
                let dictionary = array.as_any_dictionary();
                // With no value at all every key is null, and there is nothing to look up.
                let keys = if dictionary.values().is_empty() { vec![] } else { dictionary.normalized_keys() };
                Values::Dictionary(keys, Box::new(Self::new(name, dictionary.values(), timestamp)?))
            }
            DataType::Null => Values::Null,
            other => return Err(FormatError::Batch(format!("column {name:?}: {other} has no JSON form here"))),
        };
        Ok(Self { nulls: array.nulls(), values })
    }

    /// Whether the row's value is written as `null`: JSON has no NaN and no infinities either.
    #[inline]
    pub fn is_null(&self, row: usize) -> bool {
        if self.nulls.is_some_and(|nulls| nulls.is_null(row)) {
            return true;
        }
        match &self.values {
            Values::Float64(array) => !array.value(row).is_finite(),
            Values::Float32(array) => !array.value(row).is_finite(),
            Values::Dictionary(keys, values) => values.is_null(keys[row]),
            Values::Null => true,
            _ => false,
        }
    }

    /// The row's value if it is text.
    pub fn as_text(&self, row: usize) -> Option<&[u8]> {
        match &self.values {
            Values::Text(array) => Some(array.value(row).as_bytes()),
            Values::LargeText(array) => Some(array.value(row).as_bytes()),
            Values::TextView(array) => Some(array.value(row).as_bytes()),
            Values::Dictionary(keys, values) => values.as_text(keys[row]),
            _ => None,
        }
    }

    /// Append the row's value, or `null`.
    pub fn write_or_null(&self, row: usize, omit_nulls: bool, out: &mut Vec<u8>) {
        if self.is_null(row) {
            out.extend_from_slice(b"null")
        } else {
            self.write(row, omit_nulls, out)
        }
    }

    /// Append the row's value, which is not null.
    #[inline]
    pub fn write(&self, row: usize, omit_nulls: bool, out: &mut Vec<u8>) {
        match &self.values {
            Values::Text(array) => text::write_string(array.value(row).as_bytes(), out),
            Values::LargeText(array) => text::write_string(array.value(row).as_bytes(), out),
            Values::TextView(array) => text::write_string(array.value(row).as_bytes(), out),
            Values::Boolean(array) => out.extend_from_slice(if array.value(row) { b"true" } else { b"false" }),
            Values::Int8(array) => write_integer(array.value(row), out),
            Values::Int16(array) => write_integer(array.value(row), out),
            Values::Int32(array) => write_integer(array.value(row), out),
            Values::Int64(array) => write_integer(array.value(row), out),
            Values::UInt8(array) => write_integer(array.value(row), out),
            Values::UInt16(array) => write_integer(array.value(row), out),
            Values::UInt32(array) => write_integer(array.value(row), out),
            Values::UInt64(array) => write_integer(array.value(row), out),
            Values::Float32(array) => {
                out.extend_from_slice(zmij::Buffer::new().format_finite(array.value(row)).as_bytes())
            }
            Values::Float64(array) => {
                out.extend_from_slice(zmij::Buffer::new().format_finite(array.value(row)).as_bytes())
            }
            Values::Timestamp(array, form) => write_timestamp(array.value(row), *form, out),
            Values::Decimal(array, scale) => write_decimal(array.value(row), *scale, out),
            Values::List(list, values) => {
                let (start, end) = (list.value_offsets()[row] as usize, list.value_offsets()[row + 1] as usize);
                out.push(b'[');
                for element in start..end {
                    if element > start {
                        out.push(b',');
                    }
                    values.write_or_null(element, omit_nulls, out);
                }
                out.push(b']');
            }
            Values::Struct(fields) => write_object(out, |out| {
                for (prefix, values) in fields {
                    values.write_field(prefix, row, omit_nulls, out);
                }
            }),
            Values::Dictionary(keys, values) => values.write(keys[row], omit_nulls, out),
            Values::Null => out.extend_from_slice(b"null"),
        }
    }

    /// Append `,"name":value`, or nothing where nulls are left out.
    #[inline]
    pub fn write_field(&self, prefix: &[u8], row: usize, omit_nulls: bool, out: &mut Vec<u8>) {
        let null = self.is_null(row);
        if null && omit_nulls {
            return;
        }
        out.extend_from_slice(prefix);
        if null {
            out.extend_from_slice(b"null")
        } else {
            self.write(row, omit_nulls, out)
        }
    }
}

/// Append an object whose fields each begin with a comma: the first comma becomes the brace.
#[inline]
pub(crate) fn write_object(out: &mut Vec<u8>, fields: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    fields(out);
    match out.get_mut(start) {
        Some(comma) => *comma = b'{',
        None => out.push(b'{'),
    }
    out.push(b'}');
}

fn write_integer(value: impl itoa::Integer, out: &mut Vec<u8>) {
    out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
}

fn write_timestamp(instant_us: i64, form: TimestampForm, out: &mut Vec<u8>) {
    match form {
        TimestampForm::Rfc3339 => {
            out.push(b'"');
            write_rfc3339(instant_us, out);
            out.push(b'"');
        }
        TimestampForm::S => write_integer(instant_us.div_euclid(1_000_000), out),
        TimestampForm::Ms => write_integer(instant_us.div_euclid(1_000), out),
        TimestampForm::Us => write_integer(instant_us, out),
    }
}

/// Plain digits with exactly `scale` of them after the point: nothing is rounded.
fn write_decimal(scaled: i128, scale: u32, out: &mut Vec<u8>) {
    if scaled < 0 {
        out.push(b'-');
    }
    let mut buffer = itoa::Buffer::new();
    let digits = match u64::try_from(scaled.unsigned_abs()) {
        Ok(small) => buffer.format(small),
        Err(_) => buffer.format(scaled.unsigned_abs()),
    };
    let scale = scale as usize;
    let (whole, fraction) = digits.as_bytes().split_at(digits.len().saturating_sub(scale));
    out.extend_from_slice(if whole.is_empty() { b"0" } else { whole });
    if scale > 0 {
        out.push(b'.');
        out.extend(std::iter::repeat_n(b'0', scale - fraction.len()));
        out.extend_from_slice(fraction);
    }
}
