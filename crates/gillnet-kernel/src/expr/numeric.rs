//! Arithmetic and math. Integers and decimals are exact or null; floats follow IEEE 754.
//!
//! Logarithms and powers come from the `libm` crate and not from the platform's C library, so that every runtime gives
//! the same last bit.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, ArrowPrimitiveType, PrimitiveArray};
use arrow::buffer::{BooleanBuffer, NullBuffer};
use arrow::datatypes::{DataType, Decimal128Type, Float64Type, Int64Type, TimestampMicrosecondType};

use super::build::{common_type, refused, unify, Typed};
use super::decimal;
use super::node::{Compute1, Compute2};
use super::operand::{map2, primitive_array, test2, Operand};
use super::types::{ValueType, MAX_DECIMAL_DIGITS};
use crate::Result;

/// A function that keeps nulls and never makes one.
pub fn total1<A, O>(f: impl Fn(A::Native) -> O::Native + Send + Sync + 'static, result: DataType) -> Compute1
where
    A: ArrowPrimitiveType,
    O: ArrowPrimitiveType,
{
    Box::new(move |operand| {
        let array = operand.primitive::<A>();
        let values = array.values().iter().map(|&value| f(value)).collect();
        Ok(primitive_array::<O>(values, array.nulls().cloned(), &result))
    })
}

/// A function that gives None, hence null, where the result does not exist or fit.
pub fn checked1<A, O>(f: impl Fn(A::Native) -> Option<O::Native> + Send + Sync + 'static, result: DataType) -> Compute1
where
    A: ArrowPrimitiveType,
    O: ArrowPrimitiveType,
{
    Box::new(move |operand| {
        let array = operand.primitive::<A>();
        let mut failed = false;
        let values = array.values().iter().map(|&value| f(value).unwrap_or_else(|| default_after(&mut failed)));
        let values: Vec<_> = values.collect();
        // The second pass is for batches with a failure only: those are rare, and the first loop stays simple.
        let nulls = if failed {
            let valid = BooleanBuffer::collect_bool(array.len(), |i| f(array.value(i)).is_some());
            NullBuffer::union(array.nulls(), Some(&NullBuffer::new(valid)))
        } else {
            array.nulls().cloned()
        };
        Ok(primitive_array::<O>(values, nulls, &result))
    })
}

fn total2<A, O>(f: impl Fn(A::Native, A::Native) -> O::Native + Send + Sync + 'static, result: DataType) -> Compute2
where
    A: ArrowPrimitiveType,
    O: ArrowPrimitiveType,
{
    Box::new(move |left, right| {
        let values = map2(left.values::<A>(), right.values::<A>(), &f);
        Ok(primitive_array::<O>(values, NullBuffer::union(left.nulls(), right.nulls()), &result))
    })
}

fn checked2<A, O>(
    f: impl Fn(A::Native, A::Native) -> Option<O::Native> + Send + Sync + 'static,
    result: DataType,
) -> Compute2
where
    A: ArrowPrimitiveType,
    O: ArrowPrimitiveType,
{
    Box::new(move |left, right| {
        let (a, b) = (left.values::<A>(), right.values::<A>());
        let failed = std::cell::Cell::new(false);
        let values = map2(a, b, |x, y| {
            let value = f(x, y);
            failed.set(failed.get() | value.is_none());
            value.unwrap_or_default()
        });
        let mut nulls = NullBuffer::union(left.nulls(), right.nulls());
        if failed.get() {
            let valid = test2(a, b, |x, y| f(x, y).is_some());
            nulls = NullBuffer::union(nulls.as_ref(), Some(&NullBuffer::new(valid)));
        }
        Ok(primitive_array::<O>(values, nulls, &result))
    })
}

fn default_after<T: Default>(failed: &mut bool) -> T {
    *failed = true;
    T::default()
}

type Pair = [Typed; 2];

fn pair(arguments: Vec<Typed>) -> Result<Pair> {
    arguments.try_into().or_else(|_| refused("two arguments are needed"))
}

fn numbers(function: &str, arguments: Vec<Typed>) -> Result<Vec<Typed>> {
    arguments.into_iter().map(|argument| argument.expect_number(function)).collect()
}

/// `+ - // %`: both sides in their common type.
pub fn arithmetic(name: &str, arguments: Vec<Typed>) -> Result<Typed> {
    let arguments = numbers(name, arguments)?;
    let common = common_type(&arguments, name)?;
    let arguments = arguments.into_iter().map(|argument| argument.coerce(common)).collect::<Result<Vec<_>>>()?;
    let [left, right] = pair(arguments)?;
    let (compute, result) = match common {
        ValueType::Int64 => (integer_arithmetic(name)?, common),
        ValueType::Float64 => (float_arithmetic(name)?, common),
        ValueType::Decimal(_) => {
            let result = if name == "floor_div" { ValueType::Int64 } else { common };
            (decimal_arithmetic(name, result.arrow())?, result)
        }
        _ => return refused(format!("{name} takes numbers")),
    };
    Typed::call2(compute, left, right, result)
}

fn integer_arithmetic(name: &str) -> Result<Compute2> {
    let result = DataType::Int64;
    Ok(match name {
        "add" => checked2::<Int64Type, Int64Type>(i64::checked_add, result),
        "sub" => checked2::<Int64Type, Int64Type>(i64::checked_sub, result),
        "mul" => checked2::<Int64Type, Int64Type>(i64::checked_mul, result),
        "floor_div" => checked2::<Int64Type, Int64Type>(
            |a, b| {
                let step = i64::from(a.checked_rem(b)? != 0 && (a < 0) != (b < 0));
                Some(a.checked_div(b)? - step)
            },
            result,
        ),
        "mod" => checked2::<Int64Type, Int64Type>(
            |a, b| {
                // wrapping: the remainder of the least integer by -1 is 0, though its quotient overflows.
                let rest = if b == 0 { return None } else { a.wrapping_rem(b) };
                Some(if rest != 0 && (rest < 0) != (b < 0) { rest + b } else { rest })
            },
            result,
        ),
        _ => return refused(format!("unknown function {name:?}")),
    })
}

fn float_arithmetic(name: &str) -> Result<Compute2> {
    let result = DataType::Float64;
    Ok(match name {
        "add" => total2::<Float64Type, Float64Type>(|a, b| a + b, result),
        "sub" => total2::<Float64Type, Float64Type>(|a, b| a - b, result),
        "mul" => total2::<Float64Type, Float64Type>(|a, b| a * b, result),
        "div" => total2::<Float64Type, Float64Type>(|a, b| a / b, result),
        "floor_div" => total2::<Float64Type, Float64Type>(|a, b| (a / b).floor(), result),
        "mod" => total2::<Float64Type, Float64Type>(|a, b| a - b * (a / b).floor(), result),
        "pow" => total2::<Float64Type, Float64Type>(libm::pow, result),
        _ => return refused(format!("unknown function {name:?}")),
    })
}

fn decimal_arithmetic(name: &str, result: DataType) -> Result<Compute2> {
    let bounded = decimal::bounded;
    Ok(match name {
        "add" => checked2::<Decimal128Type, Decimal128Type>(move |a, b| a.checked_add(b).and_then(bounded), result),
        "sub" => checked2::<Decimal128Type, Decimal128Type>(move |a, b| a.checked_sub(b).and_then(bounded), result),
        "mul" => checked2::<Decimal128Type, Decimal128Type>(move |a, b| a.checked_mul(b).and_then(bounded), result),
        "mod" => checked2::<Decimal128Type, Decimal128Type>(
            |a, b| decimal::floor_div_mod(a, b).map(|(_, rest)| rest),
            result,
        ),
        "floor_div" => checked2::<Decimal128Type, Int64Type>(
            |a, b| decimal::floor_div_mod(a, b).and_then(|(quotient, _)| i64::try_from(quotient).ok()),
            result,
        ),
        _ => return refused(format!("unknown function {name:?}")),
    })
}

/// `*`: the scales of decimals add up, so that the product is exact.
pub fn multiply(name: &str, arguments: Vec<Typed>) -> Result<Typed> {
    let arguments = numbers(name, arguments)?;
    let common = common_type(&arguments, name)?;
    let ValueType::Decimal(_) = common else {
        let [left, right] = pair(arguments)?;
        let compute = if common == ValueType::Int64 { integer_arithmetic(name)? } else { float_arithmetic(name)? };
        return Typed::call2(compute, left.coerce(common)?, right.coerce(common)?, common);
    };
    let scales: Vec<u8> = arguments.iter().filter_map(|argument| argument.value_type.exact_scale()).collect();
    let scale: u8 = scales.iter().sum();
    if scale > MAX_DECIMAL_DIGITS {
        return refused(format!("the product has {scale} digits after the point; cast one side to float64"));
    }
    // An integer takes part as a decimal without digits after the point.
    let exact = |argument: Typed| match argument.value_type {
        ValueType::Int64 => argument.coerce(ValueType::Decimal(0)),
        _ => Ok(argument),
    };
    let [left, right] = pair(arguments.into_iter().map(exact).collect::<Result<_>>()?)?;
    let result = ValueType::Decimal(scale);
    Typed::call2(decimal_arithmetic(name, result.arrow())?, left, right, result)
}

/// `/ **`: always on floats.
pub fn float_binary(name: &str, arguments: Vec<Typed>) -> Result<Typed> {
    let [left, right] = pair(numbers(name, arguments)?)?;
    let (left, right) = (left.coerce(ValueType::Float64)?, right.coerce(ValueType::Float64)?);
    Typed::call2(float_arithmetic(name)?, left, right, ValueType::Float64)
}

fn one(arguments: Vec<Typed>) -> Result<Typed> {
    let [argument] = <[Typed; 1]>::try_from(arguments).or_else(|_| refused("one argument is needed"))?;
    Ok(argument)
}

pub fn float_unary(name: &str, arguments: Vec<Typed>) -> Result<Typed> {
    let f: fn(f64) -> f64 = match name {
        "sqrt" => f64::sqrt,
        "exp" => libm::exp,
        "log" => libm::log,
        "log1p" => libm::log1p,
        _ => return refused(format!("unknown function {name:?}")),
    };
    let argument = one(arguments)?.expect_number(name)?.coerce(ValueType::Float64)?;
    Typed::call1(total1::<Float64Type, Float64Type>(f, DataType::Float64), argument, ValueType::Float64)
}

pub fn unary(name: &str, arguments: Vec<Typed>) -> Result<Typed> {
    let argument = one(arguments)?.expect_number(name)?;
    let result = argument.value_type;
    let compute = match (name, result) {
        ("neg", ValueType::Int64) => checked1::<Int64Type, Int64Type>(i64::checked_neg, result.arrow()),
        ("abs", ValueType::Int64) => checked1::<Int64Type, Int64Type>(i64::checked_abs, result.arrow()),
        ("neg", ValueType::Float64) => total1::<Float64Type, Float64Type>(|value| -value, result.arrow()),
        ("abs", ValueType::Float64) => total1::<Float64Type, Float64Type>(f64::abs, result.arrow()),
        ("neg", _) => total1::<Decimal128Type, Decimal128Type>(|value| -value, result.arrow()),
        _ => total1::<Decimal128Type, Decimal128Type>(i128::abs, result.arrow()),
    };
    Typed::call1(compute, argument, result)
}

/// `floor` and `ceil`: the type stays.
pub fn whole(name: &str, arguments: Vec<Typed>) -> Result<Typed> {
    let argument = one(arguments)?.expect_number(name)?;
    let (result, up) = (argument.value_type, name == "ceil");
    let compute = match result {
        ValueType::Float64 => {
            total1::<Float64Type, Float64Type>(if up { f64::ceil } else { f64::floor }, result.arrow())
        }
        ValueType::Decimal(scale) => {
            let unit = decimal::power_of_ten(scale);
            let round = move |value: i128| {
                let rest = value.rem_euclid(unit);
                let floor = value - rest;
                decimal::bounded(if up && rest != 0 { floor.checked_add(unit)? } else { floor })
            };
            checked1::<Decimal128Type, Decimal128Type>(round, result.arrow())
        }
        _ => return Ok(argument),
    };
    Typed::call1(compute, argument, result)
}

/// `round(n)`: halves go to the even neighbour; the type stays.
pub fn round(name: &str, arguments: Vec<Typed>) -> Result<Typed> {
    let [argument, digits] = pair(arguments)?;
    let argument = argument.expect_number(name)?;
    let digits = match digits.literal_integer(name)? {
        digits @ 0..=18 => digits as u8,
        digits => return refused(format!("round takes 0 to 18 digits, not {digits}")),
    };
    let result = argument.value_type;
    let compute = match result {
        ValueType::Float64 => {
            let factor = decimal::power_of_ten(digits) as f64;
            let round = move |value: f64| {
                let rounded = (value * factor).round_ties_even() / factor;
                // Beyond the range of a float there are no digits after the point to round.
                if rounded.is_finite() {
                    rounded
                } else {
                    value
                }
            };
            total1::<Float64Type, Float64Type>(round, result.arrow())
        }
        ValueType::Decimal(scale) if scale > digits => {
            let unit = decimal::power_of_ten(scale - digits);
            let round =
                move |value| decimal::divide_half_even(value, unit).checked_mul(unit).and_then(decimal::bounded);
            checked1::<Decimal128Type, Decimal128Type>(round, result.arrow())
        }
        _ => return Ok(argument),
    };
    Typed::call1(compute, argument, result)
}

/// `clip_lower`, `clip_upper`, `min_horizontal`, `max_horizontal`: one of the arguments, by comparison.
pub fn choose(name: &str, arguments: Vec<Typed>) -> Result<Typed> {
    let (mut arguments, common) = unify(arguments, name)?;
    let compute = match common {
        ValueType::Int64 | ValueType::Timestamp | ValueType::Decimal(_) => ordered_choice(name, common)?,
        ValueType::Float64 => float_choice(name)?,
        _ => return refused(format!("{name} takes numbers or timestamps, not {common}")),
    };
    let mut chosen = arguments.remove(0);
    for argument in arguments {
        let compute = Arc::clone(&compute);
        let call = Box::new(move |operands: &[Operand], rows: usize| compute(&operands[0], &operands[1], rows));
        chosen = Typed::call_n(call, vec![chosen, argument], common)?;
    }
    Ok(chosen)
}

type Choice = Arc<dyn Fn(&Operand, &Operand, usize) -> Result<ArrayRef> + Send + Sync>;

/// Which side is taken where one of the two is null.
#[derive(Clone, Copy, PartialEq)]
enum Nulls {
    /// The other side.
    Skip,
    /// The left side: a clipped null stays null, and a null bound does not clip.
    KeepLeft,
}

fn ordered_choice(name: &str, value_type: ValueType) -> Result<Choice> {
    let data_type = value_type.arrow();
    Ok(match (name, value_type) {
        ("clip_lower", ValueType::Int64) => choice::<Int64Type>(Ord::max, Nulls::KeepLeft, data_type),
        ("clip_upper", ValueType::Int64) => choice::<Int64Type>(Ord::min, Nulls::KeepLeft, data_type),
        ("max_horizontal", ValueType::Int64) => choice::<Int64Type>(Ord::max, Nulls::Skip, data_type),
        ("min_horizontal", ValueType::Int64) => choice::<Int64Type>(Ord::min, Nulls::Skip, data_type),
        ("clip_lower", ValueType::Timestamp) => {
            choice::<TimestampMicrosecondType>(Ord::max, Nulls::KeepLeft, data_type)
        }
        ("clip_upper", ValueType::Timestamp) => {
            choice::<TimestampMicrosecondType>(Ord::min, Nulls::KeepLeft, data_type)
        }
        ("max_horizontal", ValueType::Timestamp) => {
            choice::<TimestampMicrosecondType>(Ord::max, Nulls::Skip, data_type)
        }
        ("min_horizontal", ValueType::Timestamp) => {
            choice::<TimestampMicrosecondType>(Ord::min, Nulls::Skip, data_type)
        }
        ("clip_lower", _) => choice::<Decimal128Type>(Ord::max, Nulls::KeepLeft, data_type),
        ("clip_upper", _) => choice::<Decimal128Type>(Ord::min, Nulls::KeepLeft, data_type),
        ("max_horizontal", _) => choice::<Decimal128Type>(Ord::max, Nulls::Skip, data_type),
        ("min_horizontal", _) => choice::<Decimal128Type>(Ord::min, Nulls::Skip, data_type),
        _ => return refused(format!("unknown function {name:?}")),
    })
}

/// NaN is skipped by minimum and maximum, stays NaN when clipped, and does not clip as a bound.
fn float_choice(name: &str) -> Result<Choice> {
    let result = DataType::Float64;
    Ok(match name {
        "clip_lower" => choice::<Float64Type>(|a, b| if a < b { b } else { a }, Nulls::KeepLeft, result),
        "clip_upper" => choice::<Float64Type>(|a, b| if a > b { b } else { a }, Nulls::KeepLeft, result),
        "max_horizontal" => choice::<Float64Type>(|a, b| if a >= b || b.is_nan() { a } else { b }, Nulls::Skip, result),
        "min_horizontal" => choice::<Float64Type>(|a, b| if a <= b || b.is_nan() { a } else { b }, Nulls::Skip, result),
        _ => return refused(format!("unknown function {name:?}")),
    })
}

fn choice<T: ArrowPrimitiveType>(
    f: impl Fn(T::Native, T::Native) -> T::Native + Send + Sync + 'static,
    nulls: Nulls,
    result: DataType,
) -> Choice {
    Arc::new(move |left, right, rows| {
        if left.array().null_count() == 0 && right.array().null_count() == 0 {
            return Ok(primitive_array::<T>(map2(left.values::<T>(), right.values::<T>(), &f), None, &result));
        }
        let value = |operand: &Operand, row: usize| -> Option<T::Native> {
            let (array, row) = (operand.primitive::<T>(), if operand.is_scalar() { 0 } else { row });
            array.is_valid(row).then(|| array.value(row))
        };
        let pick = |row| match (value(left, row), value(right, row)) {
            (Some(a), Some(b)) => Some(f(a, b)),
            (None, other) if nulls == Nulls::Skip => other,
            (a, _) => a,
        };
        let array: PrimitiveArray<T> = (0..rows).map(pick).collect();
        Ok(Arc::new(array.with_data_type(result.clone())))
    })
}
