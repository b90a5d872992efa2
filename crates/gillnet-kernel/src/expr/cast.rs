//! Conversions between value types. What has no counterpart in the target type becomes null.

use std::sync::Arc;

use arrow::array::{Array, ArrowPrimitiveType, PrimitiveArray, StringArray};
use arrow::datatypes::{DataType, Decimal128Type, Float64Type, Int64Type, TimestampMicrosecondType};

use super::build::{read_literals_beside_decimals, refused, unify, Typed};
use super::decimal;
use super::node::Compute1;
use super::numeric::{checked1, total1};
use super::operand::primitive_array;
use super::types::ValueType;
use crate::Result;

/// `cast(x, "type")`.
pub fn call(name: &str, mut arguments: Vec<Typed>) -> Result<Typed> {
    let to: ValueType = arguments[1].literal_text(name)?.parse()?;
    arguments.swap_remove(0).coerce(to)
}

/// Convert a value of a known type; the pairs that exist are those of the documented table.
pub fn cast(argument: Typed, to: ValueType) -> Result<Typed> {
    use ValueType::{Bool, Decimal, Float64, Int64, String, Timestamp};
    let result = to.arrow();
    let compute = match (argument.value_type, to) {
        (Int64, Float64) => total1::<Int64Type, Float64Type>(|value| value as f64, result),
        (Float64, Int64) => checked1::<Float64Type, Int64Type>(float_to_integer, result),
        (Int64, Timestamp) => total1::<Int64Type, TimestampMicrosecondType>(|value| value, result),
        (Timestamp, Int64) => total1::<TimestampMicrosecondType, Int64Type>(|value| value, result),
        (Int64, Decimal(scale)) => {
            checked1::<Int64Type, Decimal128Type>(move |value| decimal::rescale(value.into(), 0, scale), result)
        }
        (Decimal(scale), Int64) => {
            let unit = decimal::power_of_ten(scale);
            checked1::<Decimal128Type, Int64Type>(move |value| i64::try_from(value / unit).ok(), result)
        }
        (Decimal(from), Decimal(to)) => {
            checked1::<Decimal128Type, Decimal128Type>(move |value| decimal::rescale(value, from, to), result)
        }
        (Decimal(scale), Float64) => {
            total1::<Decimal128Type, Float64Type>(move |value| decimal::to_f64(value, scale), result)
        }
        (Float64, Decimal(scale)) => {
            checked1::<Float64Type, Decimal128Type>(move |value| decimal::from_f64(value, scale), result)
        }
        (Bool, Int64) => from_bool::<Int64Type>(i64::from, result),
        (Bool, Float64) => from_bool::<Float64Type>(|value| f64::from(u8::from(value)), result),
        (String, Int64) => from_text::<Int64Type>(|text| text.parse().ok(), result),
        (String, Float64) => from_text::<Float64Type>(|text| text.parse().ok(), result),
        (String, Decimal(scale)) => from_text::<Decimal128Type>(move |text| decimal::parse(text, scale), result),
        (Int64, String) => primitive_to_text::<Int64Type>(|value| value.to_string()),
        (Decimal(scale), String) => primitive_to_text::<Decimal128Type>(move |value| decimal::format(value, scale)),
        (Bool, String) => bool_to_text(),
        (from, to) if from == to => return Ok(argument),
        (from, to) => return refused(format!("there is no cast from {from} to {to}")),
    };
    Typed::call1(compute, argument, to)
}

/// Truncate towards zero; None for NaN and what does not fit.
fn float_to_integer(value: f64) -> Option<i64> {
    // -2⁶³ is a float, 2⁶³ - 1 is not: the range is half open.
    let limit = 9_223_372_036_854_775_808.0;
    (-limit..limit).contains(&value).then_some(value as i64)
}

fn from_bool<O: ArrowPrimitiveType>(f: fn(bool) -> O::Native, result: DataType) -> Compute1 {
    Box::new(move |operand| {
        let array = operand.boolean();
        let values = array.values().iter().map(f).collect();
        Ok(primitive_array::<O>(values, array.nulls().cloned(), &result))
    })
}

fn from_text<O: ArrowPrimitiveType>(
    f: impl Fn(&str) -> Option<O::Native> + Send + Sync + 'static,
    result: DataType,
) -> Compute1 {
    Box::new(move |operand| {
        let array: PrimitiveArray<O> = operand.string().iter().map(|text| text.and_then(&f)).collect();
        Ok(Arc::new(array.with_data_type(result.clone())))
    })
}

fn primitive_to_text<A: ArrowPrimitiveType>(f: impl Fn(A::Native) -> String + Send + Sync + 'static) -> Compute1 {
    Box::new(move |operand| {
        let array: StringArray = operand.primitive::<A>().iter().map(|value| value.map(&f)).collect();
        Ok(Arc::new(array))
    })
}

fn bool_to_text() -> Compute1 {
    Box::new(|operand| {
        let word = |value: bool| if value { "true" } else { "false" };
        let array: StringArray = operand.boolean().iter().map(|value| value.map(word)).collect();
        Ok(Arc::new(array))
    })
}

/// As `unify`, but decimals that do not fit 38 digits in the larger scale keep their place in the order instead of
/// becoming null, so that comparisons are right for every value.
pub fn unify_for_comparison(mut arguments: Vec<Typed>, function: &str) -> Result<(Vec<Typed>, ValueType)> {
    read_literals_beside_decimals(&mut arguments)?;
    let decimal = arguments.iter().any(|argument| matches!(argument.value_type, ValueType::Decimal(_)));
    let scales: Option<Vec<u8>> = arguments.iter().map(|argument| argument.value_type.exact_scale()).collect();
    let Some(to) = scales.filter(|_| decimal).and_then(|scales| scales.into_iter().max()) else {
        return unify(arguments, function);
    };
    let grow = |argument: Typed| match argument.value_type {
        ValueType::Decimal(from) if from < to => {
            let factor = decimal::power_of_ten(to - from);
            let result = ValueType::Decimal(to);
            let compute = total1::<Decimal128Type, Decimal128Type>(
                move |value| decimal::rescale_saturating(value, factor),
                result.arrow(),
            );
            Typed::call1(compute, argument, result)
        }
        ValueType::Int64 => {
            let factor = decimal::power_of_ten(to);
            let result = ValueType::Decimal(to);
            let compute = total1::<Int64Type, Decimal128Type>(
                move |value| decimal::rescale_saturating(value.into(), factor),
                result.arrow(),
            );
            Typed::call1(compute, argument, result)
        }
        _ => Ok(argument),
    };
    Ok((arguments.into_iter().map(grow).collect::<Result<_>>()?, ValueType::Decimal(to)))
}
