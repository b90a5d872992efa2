//! Comparison and membership. Floats are ordered as in Polars: NaN equals NaN and is above every number.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, ArrowPrimitiveType, AsArray, BooleanArray};
use arrow::buffer::{BooleanBuffer, NullBuffer};
use arrow::compute::kernels::cmp;
use arrow::datatypes::{Decimal128Type, Float64Type, Int64Type, TimestampMicrosecondType};
use hashbrown::HashSet;

use super::build::{refused, unify, Typed};
use super::cast;
use super::node::{Compute1, Compute2, Node};
use super::operand::test2;
use super::types::ValueType;
use crate::Result;

/// Up to this many values a membership test compares one by one; above it looks them up in a hash set.
const LINEAR_MEMBERS: usize = 8;

pub fn compare(name: &str, arguments: Vec<Typed>) -> Result<Typed> {
    let (arguments, common) = cast::unify_for_comparison(arguments, name)?;
    let compute = match common {
        ValueType::Int64 => ordered::<Int64Type>(name)?,
        ValueType::Timestamp => ordered::<TimestampMicrosecondType>(name)?,
        ValueType::Decimal(_) => ordered::<Decimal128Type>(name)?,
        ValueType::Float64 => float(name)?,
        ValueType::String => arrow_comparison(name)?,
        ValueType::Bool if matches!(name, "eq" | "ne") => arrow_comparison(name)?,
        _ => return refused(format!("{name} does not compare {common}")),
    };
    let [left, right] = <[Typed; 2]>::try_from(arguments).or_else(|_| refused("two arguments are needed"))?;
    Typed::call2(compute, left, right, ValueType::Bool)
}

fn predicate<T: ArrowPrimitiveType>(f: impl Fn(T::Native, T::Native) -> bool + Send + Sync + 'static) -> Compute2 {
    Box::new(move |left, right| {
        let bits = test2(left.values::<T>(), right.values::<T>(), &f);
        Ok(Arc::new(BooleanArray::new(bits, NullBuffer::union(left.nulls(), right.nulls()))))
    })
}

fn ordered<T: ArrowPrimitiveType>(name: &str) -> Result<Compute2>
where
    T::Native: Ord,
{
    Ok(match name {
        "eq" => predicate::<T>(|a, b| a == b),
        "ne" => predicate::<T>(|a, b| a != b),
        "lt" => predicate::<T>(|a, b| a < b),
        "le" => predicate::<T>(|a, b| a <= b),
        "gt" => predicate::<T>(|a, b| a > b),
        "ge" => predicate::<T>(|a, b| a >= b),
        _ => return refused(format!("unknown function {name:?}")),
    })
}

// `|` and `&` instead of `||` and `&&`: without a branch the loops run in vectors.
fn float_equal(a: f64, b: f64) -> bool {
    (a == b) | (a.is_nan() & b.is_nan())
}

fn float_less(a: f64, b: f64) -> bool {
    (a < b) | (!a.is_nan() & b.is_nan())
}

fn float(name: &str) -> Result<Compute2> {
    Ok(match name {
        "eq" => predicate::<Float64Type>(float_equal),
        "ne" => predicate::<Float64Type>(|a, b| !float_equal(a, b)),
        "lt" => predicate::<Float64Type>(float_less),
        "le" => predicate::<Float64Type>(|a, b| !float_less(b, a)),
        "gt" => predicate::<Float64Type>(|a, b| float_less(b, a)),
        "ge" => predicate::<Float64Type>(|a, b| !float_less(a, b)),
        _ => return refused(format!("unknown function {name:?}")),
    })
}

fn arrow_comparison(name: &str) -> Result<Compute2> {
    let compute = match name {
        "eq" => cmp::eq,
        "ne" => cmp::neq,
        "lt" => cmp::lt,
        "le" => cmp::lt_eq,
        "gt" => cmp::gt,
        "ge" => cmp::gt_eq,
        _ => return refused(format!("unknown function {name:?}")),
    };
    Ok(Box::new(move |left, right| Ok(Arc::new(compute(left, right)?))))
}

pub fn is_nan(name: &str, mut arguments: Vec<Typed>) -> Result<Typed> {
    let argument = arguments.remove(0).expect_number(name)?.coerce(ValueType::Float64)?;
    let compute: Compute1 = Box::new(|operand| {
        let array = operand.primitive::<Float64Type>();
        Ok(Arc::new(BooleanArray::from_unary(array, f64::is_nan)))
    });
    Typed::call1(compute, argument, ValueType::Bool)
}

/// `is_in`: the first argument against literals.
pub fn is_in(name: &str, arguments: Vec<Typed>) -> Result<Typed> {
    if arguments[1..].iter().any(|value| !matches!(value.node, Node::Constant(_)) || value.node.is_null_constant()) {
        return refused("is_in takes literals that are not null");
    }
    if let [argument] = arguments.as_slice() {
        let value_type = argument.value_type;
        return members_of(arguments, value_type);
    }
    let (arguments, common) = unify(arguments, name)?;
    members_of(arguments, common)
}

fn members_of(mut arguments: Vec<Typed>, common: ValueType) -> Result<Typed> {
    let constants: Vec<ArrayRef> = arguments[1..]
        .iter()
        .filter_map(|value| if let Node::Constant(array) = &value.node { Some(Arc::clone(array)) } else { None })
        .collect();
    let compute = match common {
        ValueType::Int64 => primitive_members::<Int64Type, i64>(&constants, |value| value),
        ValueType::Timestamp => primitive_members::<TimestampMicrosecondType, i64>(&constants, |value| value),
        ValueType::Decimal(_) => primitive_members::<Decimal128Type, i128>(&constants, |value| value),
        ValueType::Float64 => primitive_members::<Float64Type, u64>(&constants, float_identity),
        ValueType::String => text_members(&constants),
        _ => return refused(format!("is_in does not compare {common}")),
    };
    Typed::call1(compute, arguments.swap_remove(0), ValueType::Bool)
}

/// Bits that are equal exactly where the comparison calls two floats equal.
fn float_identity(value: f64) -> u64 {
    if value.is_nan() {
        f64::NAN.to_bits()
    } else if value == 0.0 {
        0
    } else {
        value.to_bits()
    }
}

/// Test every row of a column.
type TestRows<V> = Box<dyn Fn(&[V]) -> BooleanBuffer + Send + Sync>;

fn primitive_members<T, K>(constants: &[ArrayRef], key: fn(T::Native) -> K) -> Compute1
where
    T: ArrowPrimitiveType,
    K: Copy + Eq + std::hash::Hash + Send + Sync + 'static,
{
    let members: Vec<K> = constants.iter().map(|constant| key(constant.as_primitive::<T>().value(0))).collect();
    let test: TestRows<T::Native> = if members.len() <= LINEAR_MEMBERS {
        Box::new(move |rows| {
            BooleanBuffer::collect_bool(rows.len(), |i| {
                let row = key(rows[i]);
                members.iter().fold(false, |found, member| found | (*member == row))
            })
        })
    } else {
        let members: HashSet<K> = members.into_iter().collect();
        Box::new(move |rows| BooleanBuffer::collect_bool(rows.len(), |i| members.contains(&key(rows[i]))))
    };
    Box::new(move |operand| {
        let array = operand.primitive::<T>();
        Ok(Arc::new(BooleanArray::new(test(array.values()), array.nulls().cloned())))
    })
}

fn text_members(constants: &[ArrayRef]) -> Compute1 {
    let members: HashSet<String> =
        constants.iter().map(|constant| constant.as_string::<i32>().value(0).to_owned()).collect();
    let few: Option<Vec<String>> = (members.len() <= LINEAR_MEMBERS).then(|| members.iter().cloned().collect());
    Box::new(move |operand| {
        let array = operand.string();
        let bits = match &few {
            Some(few) => {
                BooleanBuffer::collect_bool(array.len(), |i| few.iter().any(|member| member == array.value(i)))
            }
            None => BooleanBuffer::collect_bool(array.len(), |i| members.contains(array.value(i))),
        };
        Ok(Arc::new(BooleanArray::new(bits, array.nulls().cloned())))
    })
}
