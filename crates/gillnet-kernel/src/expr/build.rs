//! From JSON to compiled nodes: names and types are resolved, literals coerced, constants folded.

use std::sync::Arc;

use arrow::array::{
    new_null_array, ArrayRef, BooleanArray, Decimal128Array, Float64Array, Int64Array, StringArray,
    TimestampMicrosecondArray,
};
use arrow::datatypes::Schema;
use serde_json::Value;

use super::node::{Compute1, Compute2, ComputeN, Node};
use super::types::{ValueType, MAX_DECIMAL_DIGITS};
use super::{cast, decimal, functions, logic};
use crate::{KernelError, Result};

/// Levels that an expression may nest; Python refuses deeper ones at definition time, with the mend.
const MAX_DEPTH: usize = 64;
/// Digits on either side of the point up to which a float literal is read as the exact decimal that it is written as.
const MAX_LITERAL_DIGITS: i32 = 18;

/// A compiled node with its type, and the literal that it was written as, if it was one.
pub struct Typed {
    pub node: Node,
    pub value_type: ValueType,
    pub literal: Option<Literal>,
}

/// A literal as written: the text of a string, a float or a decimal, or an integer.
#[derive(Clone)]
pub enum Literal {
    Text(String),
    Integer(i64),
}

pub fn refused<T>(message: impl Into<String>) -> Result<T> {
    Err(KernelError::Plan(message.into()))
}

/// Compile the JSON of one expression.
pub fn expression(json: &Value, schema: &Schema) -> Result<Typed> {
    compile(json, schema, 0)
}

fn compile(json: &Value, schema: &Schema, depth: usize) -> Result<Typed> {
    if depth > MAX_DEPTH {
        return refused(format!("an expression nests deeper than {MAX_DEPTH} levels"));
    }
    let list = |value: &Value| -> Result<Vec<Typed>> {
        let Some(items) = value.as_array() else { return refused(format!("{value} is not a list of arguments")) };
        items.iter().map(|item| compile(item, schema, depth + 1)).collect()
    };
    if let Some(name) = json.get("column").and_then(Value::as_str) {
        return column(name, schema);
    }
    if let (Some(value), Some(name)) = (json.get("literal"), json.get("type").and_then(Value::as_str)) {
        return literal(value, name.parse()?);
    }
    if let (Some(name), Some(arguments)) = (json.get("call").and_then(Value::as_str), json.get("args")) {
        return functions::call(name, list(arguments)?);
    }
    if let (Some(branches), Some(otherwise)) = (json.get("case").and_then(Value::as_array), json.get("otherwise")) {
        let branches: Vec<_> = branches.iter().map(list).collect::<Result<_>>()?;
        return logic::case(branches, compile(otherwise, schema, depth + 1)?);
    }
    refused(format!("unknown expression node {json}"))
}

fn column(name: &str, schema: &Schema) -> Result<Typed> {
    let Some((index, field)) = schema.column_with_name(name) else {
        return refused(format!("unknown column {name:?}"));
    };
    let Some(value_type) = ValueType::from_arrow(field.data_type()) else {
        return refused(format!("column {name:?} has type {}, which expressions do not have", field.data_type()));
    };
    Ok(Typed { node: Node::Column(index), value_type, literal: None })
}

fn literal(value: &Value, value_type: ValueType) -> Result<Typed> {
    let wrong = || KernelError::Plan(format!("{value} is not a literal of type {value_type}"));
    let text = || value.as_str().ok_or_else(wrong);
    let integer = || value.as_i64().ok_or_else(wrong);
    let (array, literal): (ArrayRef, Option<Literal>) = match value_type {
        _ if value.is_null() => (new_null_array(&value_type.arrow(), 1), None),
        ValueType::Null => return Err(wrong()),
        ValueType::String => (Arc::new(StringArray::from(vec![text()?])), Some(Literal::Text(text()?.into()))),
        ValueType::Int64 => (Arc::new(Int64Array::from(vec![integer()?])), Some(Literal::Integer(integer()?))),
        ValueType::Float64 => {
            let number: f64 = text()?.parse().map_err(|_| wrong())?;
            (Arc::new(Float64Array::from(vec![number])), Some(Literal::Text(text()?.into())))
        }
        ValueType::Bool => (Arc::new(BooleanArray::from(vec![value.as_bool().ok_or_else(wrong)?])), None),
        ValueType::Timestamp => {
            (Arc::new(TimestampMicrosecondArray::from(vec![integer()?]).with_timezone("UTC")), None)
        }
        ValueType::Decimal(scale) => {
            let number = decimal::parse(text()?, scale).ok_or_else(wrong)?;
            (decimal_constant(number, scale), None)
        }
    };
    Ok(Typed { node: Node::Constant(array), value_type, literal })
}

fn decimal_constant(value: i128, scale: u8) -> ArrayRef {
    Arc::new(Decimal128Array::from(vec![value]).with_data_type(ValueType::Decimal(scale).arrow()))
}

impl Typed {
    fn computed(node: Node, value_type: ValueType) -> Result<Self> {
        Ok(Self { node: node.fold()?, value_type, literal: None })
    }

    /// A function of one argument whose result is null where the argument is.
    pub fn call1(compute: Compute1, argument: Self, result: ValueType) -> Result<Self> {
        if argument.node.is_null_constant() {
            return Ok(Self::null(result));
        }
        Self::computed(Node::Call1(compute, Box::new(argument.node)), result)
    }

    /// A function of two arguments whose result is null where either is.
    pub fn call2(compute: Compute2, left: Self, right: Self, result: ValueType) -> Result<Self> {
        if left.node.is_null_constant() || right.node.is_null_constant() {
            return Ok(Self::null(result));
        }
        Self::computed(Node::Call2(compute, Box::new([left.node, right.node])), result)
    }

    /// A function that looks at its arguments' nulls itself.
    pub fn call_n(compute: ComputeN, arguments: Vec<Self>, result: ValueType) -> Result<Self> {
        Self::computed(Node::CallN(compute, arguments.into_iter().map(|argument| argument.node).collect()), result)
    }

    pub fn null(value_type: ValueType) -> Self {
        Self { node: Node::Constant(new_null_array(&value_type.arrow(), 1)), value_type, literal: None }
    }

    /// Convert to another type where that loses nothing but a float's last digits.
    pub fn coerce(self, to: ValueType) -> Result<Self> {
        if self.value_type == to {
            return Ok(self);
        }
        if self.value_type == ValueType::Null {
            return Ok(Self::null(to));
        }
        cast::cast(self, to)
    }

    /// Refuse an argument that is not of the type, and say for which function.
    pub fn expect(self, value_type: ValueType, function: &str) -> Result<Self> {
        if self.value_type == value_type {
            return Ok(self);
        }
        refused(format!("{function} takes {value_type}, not {}", self.value_type))
    }

    pub fn expect_number(self, function: &str) -> Result<Self> {
        if self.value_type.is_number() {
            return Ok(self);
        }
        refused(format!("{function} takes numbers, not {}", self.value_type))
    }

    pub fn literal_text(&self, function: &str) -> Result<&str> {
        match (&self.literal, self.value_type) {
            (Some(Literal::Text(text)), ValueType::String) => Ok(text),
            _ => refused(format!("{function} takes a text literal here")),
        }
    }

    pub fn literal_integer(&self, function: &str) -> Result<i64> {
        match self.literal {
            Some(Literal::Integer(value)) => Ok(value),
            _ => refused(format!("{function} takes an integer literal here")),
        }
    }

    /// The exact decimal that a float or text literal is written as.
    fn as_exact_literal(&self) -> Result<Option<Self>> {
        let Some(Literal::Text(text)) = &self.literal else { return Ok(None) };
        let limit =
            if self.value_type == ValueType::String { i32::from(MAX_DECIMAL_DIGITS) } else { MAX_LITERAL_DIGITS };
        let parsed = decimal::parse_shortest(text, self.value_type == ValueType::Float64).filter(|(value, scale)| {
            *scale <= limit && value.abs() / decimal::power_of_ten(*scale as u8) < 10_i128.pow(limit as u32)
        });
        match parsed {
            Some((value, scale)) => Ok(Some(Self {
                node: Node::Constant(decimal_constant(value, scale as u8)),
                value_type: ValueType::Decimal(scale as u8),
                literal: None,
            })),
            None if self.value_type == ValueType::String => refused(format!("{text:?} is not a decimal number")),
            None => Ok(None),
        }
    }
}

/// Bring arguments that must match to one type.
///
/// Next to a decimal a float or text literal is the exact decimal that it is written as, so that
/// `col("amount") == 0.1` means what it says; a float column makes floats of all.
pub fn unify(mut arguments: Vec<Typed>, function: &str) -> Result<(Vec<Typed>, ValueType)> {
    read_literals_beside_decimals(&mut arguments)?;
    let common = common_type(&arguments, function)?;
    let arguments = arguments.into_iter().map(|argument| argument.coerce(common)).collect::<Result<_>>()?;
    Ok((arguments, common))
}

/// Read float and text literals as exact decimals, where they stand beside a decimal and beside no float column.
pub fn read_literals_beside_decimals(arguments: &mut [Typed]) -> Result<()> {
    let decimal = arguments.iter().any(|a| matches!(a.value_type, ValueType::Decimal(_)));
    let float = arguments.iter().any(|a| a.value_type == ValueType::Float64 && a.literal.is_none());
    if decimal && !float {
        for argument in arguments {
            if let Some(exact) = argument.as_exact_literal()? {
                *argument = exact;
            }
        }
    }
    Ok(())
}

pub fn common_type(arguments: &[Typed], function: &str) -> Result<ValueType> {
    let mut common = ValueType::Null;
    for argument in arguments {
        common = match common.common(argument.value_type) {
            Some(found) => found,
            None => return refused(format!("{function} cannot match {common} with {}", argument.value_type)),
        };
    }
    Ok(common)
}
