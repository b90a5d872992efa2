//! Functions of strings. Characters are Unicode scalar values; search is for the literal text, never a pattern.

use std::sync::Arc;

use arrow::array::{Array, StringArray, StringBuilder};
use arrow::compute;
use arrow::datatypes::{DataType, Int64Type};

use super::build::{refused, Typed};
use super::node::{Compute1, ComputeN};
use super::operand::{primitive_array, Operand};
use super::types::ValueType;
use crate::Result;

pub fn length(name: &str, mut arguments: Vec<Typed>) -> Result<Typed> {
    let text = arguments.remove(0).expect(ValueType::String, name)?;
    let compute: Compute1 = if name == "len_bytes" {
        Box::new(|operand| {
            let array = operand.string();
            let lengths = array.value_offsets().windows(2).map(|ends| i64::from(ends[1] - ends[0])).collect();
            Ok(primitive_array::<Int64Type>(lengths, array.nulls().cloned(), &DataType::Int64))
        })
    } else {
        Box::new(|operand| {
            let array = operand.string();
            let lengths = (0..array.len()).map(|row| array.value(row).chars().count() as i64).collect();
            Ok(primitive_array::<Int64Type>(lengths, array.nulls().cloned(), &DataType::Int64))
        })
    };
    Typed::call1(compute, text, ValueType::Int64)
}

pub fn letter_case(name: &str, mut arguments: Vec<Typed>) -> Result<Typed> {
    let change: fn(&str) -> String = if name == "to_lowercase" { str::to_lowercase } else { str::to_uppercase };
    let text = arguments.remove(0).expect(ValueType::String, name)?;
    let compute: Compute1 = Box::new(move |operand| {
        let array: StringArray = operand.string().iter().map(|text| text.map(change)).collect();
        Ok(Arc::new(array))
    });
    Typed::call1(compute, text, ValueType::String)
}

pub fn search(name: &str, arguments: Vec<Typed>) -> Result<Typed> {
    arguments[1].literal_text(name)?;
    let compute = match name {
        "contains" => compute::contains,
        "starts_with" => compute::starts_with,
        "ends_with" => compute::ends_with,
        _ => return refused(format!("unknown function {name:?}")),
    };
    let [text, part] = <[Typed; 2]>::try_from(arguments).or_else(|_| refused("two arguments are needed"))?;
    let text = text.expect(ValueType::String, name)?;
    Typed::call2(Box::new(move |text, part| Ok(Arc::new(compute(text, part)?))), text, part, ValueType::Bool)
}

/// `slice(text, offset[, length])` in characters; a negative offset counts from the end.
pub fn slice(name: &str, mut arguments: Vec<Typed>) -> Result<Typed> {
    let offset = arguments[1].literal_integer(name)?;
    let length = match arguments.get(2) {
        Some(length) => Some(length.literal_integer(name)?),
        None => None,
    };
    if length.is_some_and(|length| length < 0) {
        return refused("slice takes a length of 0 or more");
    }
    let text = arguments.swap_remove(0).expect(ValueType::String, name)?;
    let compute: Compute1 = Box::new(move |operand| {
        let part = |text| characters(text, offset, length);
        let array: StringArray = operand.string().iter().map(|text| text.map(part)).collect();
        Ok(Arc::new(array))
    });
    Typed::call1(compute, text, ValueType::String)
}

/// The characters in `[offset, offset + length)`; the part of the range that lies before the text is empty.
fn characters(text: &str, offset: i64, length: Option<i64>) -> &str {
    let start = if offset < 0 { offset.saturating_add(text.chars().count() as i64) } else { offset };
    let end = length.map_or(i64::MAX, |length| start.saturating_add(length));
    let byte = |character: i64| {
        let index = usize::try_from(character.max(0)).unwrap_or(usize::MAX);
        text.char_indices().nth(index).map_or(text.len(), |(byte, _)| byte)
    };
    let (from, to) = (byte(start), byte(end));
    if from < to {
        &text[from..to]
    } else {
        ""
    }
}

/// `concat_str(separator, a, b, …)`: null where any part is.
pub fn concat(name: &str, mut arguments: Vec<Typed>) -> Result<Typed> {
    let separator = arguments[0].literal_text(name)?.to_owned();
    let parts = arguments.split_off(1);
    let parts = parts.into_iter().map(|part| part.coerce(ValueType::String)).collect::<Result<Vec<_>>>()?;
    let call: ComputeN = Box::new(move |operands, rows| {
        let mut builder = StringBuilder::with_capacity(rows, rows * 16);
        let mut joined = String::new();
        for row in 0..rows {
            if join(&mut joined, operands, row, &separator) {
                builder.append_value(&joined);
            } else {
                builder.append_null();
            }
        }
        Ok(Arc::new(builder.finish()))
    });
    Typed::call_n(call, parts, ValueType::String)
}

/// Write the joined parts of a row; false where one is null.
fn join(joined: &mut String, operands: &[Operand], row: usize, separator: &str) -> bool {
    joined.clear();
    for (position, operand) in operands.iter().enumerate() {
        let (array, row) = (operand.string(), if operand.is_scalar() { 0 } else { row });
        if array.is_null(row) {
            return false;
        }
        if position > 0 {
            joined.push_str(separator);
        }
        joined.push_str(array.value(row));
    }
    true
}
