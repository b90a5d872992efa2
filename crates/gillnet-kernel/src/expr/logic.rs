//! Boolean logic with nulls (Kleene), null tests, and the choice between arguments.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, ArrowPrimitiveType, BooleanArray};
use arrow::buffer::{BooleanBuffer, NullBuffer};
use arrow::compute::{self, kernels::zip::zip, prep_null_mask_filter};
use arrow::datatypes::{DataType, Decimal128Type, Float64Type, Int64Type, TimestampMicrosecondType};

use super::build::{refused, unify, Typed};
use super::node::{ComputeN, Node};
use super::operand::{primitive_array, Operand, Values};
use super::types::ValueType;
use crate::Result;

/// `&` and `|` over two or more conditions.
pub fn connective(name: &str, arguments: Vec<Typed>) -> Result<Typed> {
    let compute = if name == "and" { compute::and_kleene } else { compute::or_kleene };
    let conditions = arguments.into_iter().map(|argument| argument.expect(ValueType::Bool, name));
    let conditions: Vec<Typed> = conditions.collect::<Result<_>>()?;
    let call: ComputeN = Box::new(move |operands, rows| {
        let full = |operand: &Operand| match operand {
            // A constant condition is rare; to repeat it costs less than a variant of every loop.
            Operand::Scalar(array) => Operand::Scalar(array).broadcast(rows),
            other => Ok(Arc::clone(other.array())),
        };
        let mut result = full(&operands[0])?;
        for operand in &operands[1..] {
            let (left, right) = (Operand::Array(result), Operand::Array(full(operand)?));
            result = Arc::new(compute(left.boolean(), right.boolean())?);
        }
        Ok(result)
    });
    Typed::call_n(call, conditions, ValueType::Bool)
}

pub fn not(name: &str, mut arguments: Vec<Typed>) -> Result<Typed> {
    let condition = arguments.remove(0).expect(ValueType::Bool, name)?;
    Typed::call1(Box::new(|operand| Ok(Arc::new(compute::not(operand.boolean())?))), condition, ValueType::Bool)
}

pub fn nullity(name: &str, arguments: Vec<Typed>) -> Result<Typed> {
    let call: ComputeN = if name == "is_null" {
        Box::new(|operands, _| Ok(Arc::new(compute::is_null(operands[0].array())?)))
    } else {
        Box::new(|operands, _| Ok(Arc::new(compute::is_not_null(operands[0].array())?)))
    };
    Typed::call_n(call, arguments, ValueType::Bool)
}

/// `coalesce` and `fill_null`: the first argument that is not null.
pub fn coalesce(name: &str, arguments: Vec<Typed>) -> Result<Typed> {
    let (mut arguments, common) = unify(arguments, name)?;
    let Some(mut result) = arguments.pop() else { return refused(format!("{name} needs an argument")) };
    let data_type = common.arrow();
    while let Some(argument) = arguments.pop() {
        let data_type = data_type.clone();
        let call: ComputeN = Box::new(move |operands, rows| {
            let [first, rest] = operands else { unreachable!("coalesce is compiled in pairs") };
            match first.array().nulls() {
                None => Operand::broadcast(share(first), rows),
                Some(nulls) if !first.is_scalar() => {
                    let mask = BooleanArray::new(nulls.inner().clone(), None);
                    select(&mask, first, rest, &data_type)
                }
                Some(_) => share(rest).broadcast(rows),
            }
        });
        result = Typed::call_n(call, vec![argument, result], common)?;
    }
    Ok(result)
}

fn share<'a>(operand: &Operand<'a>) -> Operand<'a> {
    match operand {
        Operand::Column(array) => Operand::Column(array),
        Operand::Scalar(array) => Operand::Scalar(array),
        Operand::Array(array) => Operand::Array(Arc::clone(array)),
    }
}

/// `when(…).then(…)…otherwise(…)`: the value of the first branch whose condition is true; null counts as false.
pub fn case(branches: Vec<Vec<Typed>>, otherwise: Typed) -> Result<Typed> {
    let (mut conditions, mut values) = (Vec::new(), Vec::new());
    for branch in branches {
        let [condition, value] =
            <[Typed; 2]>::try_from(branch).or_else(|_| refused("a branch is [condition, value]"))?;
        conditions.push(condition.expect(ValueType::Bool, "when")?);
        values.push(value);
    }
    if conditions.is_empty() {
        return refused("a case needs a branch");
    }
    values.push(otherwise);
    let (mut values, common) = unify(values, "when")?;
    if common == ValueType::Null {
        return refused("every branch is null, so that the result has no type");
    }
    let data_type = common.arrow();
    let Some(mut result) = values.pop() else { return refused("a case needs a value") };
    while let (Some(condition), Some(value)) = (conditions.pop(), values.pop()) {
        result = branch(condition, value, result, &data_type, common)?;
    }
    Ok(result)
}

fn branch(condition: Typed, value: Typed, rest: Typed, data_type: &DataType, common: ValueType) -> Result<Typed> {
    if let Node::Constant(constant) = &condition.node {
        let chosen = constant.is_valid(0) && Operand::Column(constant).boolean().value(0);
        return Ok(if chosen { value } else { rest });
    }
    let data_type = data_type.clone();
    let call: ComputeN = Box::new(move |operands, _| {
        let mask = operands[0].boolean();
        if mask.null_count() == 0 {
            select(mask, &operands[1], &operands[2], &data_type)
        } else {
            select(&prep_null_mask_filter(mask), &operands[1], &operands[2], &data_type)
        }
    });
    Typed::call_n(call, vec![condition, value, rest], common)
}

/// Take the first operand where the mask, which has no nulls, is true, and the second elsewhere.
fn select(mask: &BooleanArray, yes: &Operand, no: &Operand, data_type: &DataType) -> Result<ArrayRef> {
    match data_type {
        DataType::Int64 => Ok(select_primitive::<Int64Type>(mask.values(), yes, no, data_type)),
        DataType::Float64 => Ok(select_primitive::<Float64Type>(mask.values(), yes, no, data_type)),
        DataType::Timestamp(..) => Ok(select_primitive::<TimestampMicrosecondType>(mask.values(), yes, no, data_type)),
        DataType::Decimal128(..) => Ok(select_primitive::<Decimal128Type>(mask.values(), yes, no, data_type)),
        _ => Ok(zip(mask, yes, no)?),
    }
}

fn select_primitive<T: ArrowPrimitiveType>(
    mask: &BooleanBuffer,
    yes: &Operand,
    no: &Operand,
    data_type: &DataType,
) -> ArrayRef {
    let at = |values: &Values<'_, T::Native>, row: usize| match values {
        Values::Rows(rows) => rows[row],
        Values::One(value) => *value,
    };
    let (a, b) = (yes.values::<T>(), no.values::<T>());
    let values = (0..mask.len()).map(|row| if mask.value(row) { at(&a, row) } else { at(&b, row) }).collect();
    primitive_array::<T>(values, select_nulls(mask, yes, no), data_type)
}

fn select_nulls(mask: &BooleanBuffer, yes: &Operand, no: &Operand) -> Option<NullBuffer> {
    if yes.array().null_count() == 0 && no.array().null_count() == 0 {
        return None;
    }
    let valid = |operand: &Operand| match operand.array().nulls() {
        None => BooleanBuffer::new_set(mask.len()),
        Some(_) if operand.is_scalar() => BooleanBuffer::new_unset(mask.len()),
        Some(nulls) => nulls.inner().clone(),
    };
    Some(NullBuffer::new(&(mask & &valid(yes)) | &(&!mask & &valid(no))))
}
