//! The value types of row expressions, and how several types meet in one.

use std::fmt;
use std::str::FromStr;

use arrow::datatypes::{DataType, TimeUnit};

use crate::{KernelError, Result};

/// Digits that a decimal may have in all, as in Arrow's Decimal128.
pub const MAX_DECIMAL_DIGITS: u8 = 38;

/// A value type, named as plans and schemas name it. `Null` is the type of a bare null literal only.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ValueType {
    Null,
    String,
    Int64,
    Float64,
    Bool,
    Timestamp,
    Decimal(u8),
}

impl ValueType {
    /// The Arrow type in which the kernel holds values of this type.
    pub fn arrow(self) -> DataType {
        match self {
            Self::Null => DataType::Null,
            Self::String => DataType::Utf8,
            Self::Int64 => DataType::Int64,
            Self::Float64 => DataType::Float64,
            Self::Bool => DataType::Boolean,
            Self::Timestamp => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
            Self::Decimal(scale) => DataType::Decimal128(MAX_DECIMAL_DIGITS, scale as i8),
        }
    }

    /// The value type of an Arrow column, or None where expressions have no such type.
    pub fn from_arrow(data_type: &DataType) -> Option<Self> {
        match data_type {
            DataType::Utf8 => Some(Self::String),
            DataType::Int64 => Some(Self::Int64),
            DataType::Float64 => Some(Self::Float64),
            DataType::Boolean => Some(Self::Bool),
            DataType::Timestamp(TimeUnit::Microsecond, Some(zone)) if zone.as_ref() == "UTC" => Some(Self::Timestamp),
            DataType::Decimal128(MAX_DECIMAL_DIGITS, scale) if (0..=38).contains(scale) => {
                Some(Self::Decimal(*scale as u8))
            }
            _ => None,
        }
    }

    pub fn is_number(self) -> bool {
        matches!(self, Self::Int64 | Self::Float64 | Self::Decimal(_))
    }

    /// The digits after the point that an exact number of this type has; None for a float and for what is no number.
    pub fn exact_scale(self) -> Option<u8> {
        match self {
            Self::Int64 => Some(0),
            Self::Decimal(scale) => Some(scale),
            _ => None,
        }
    }

    /// The type in which both can be held: a float wins over exact numbers, the larger scale among decimals.
    pub fn common(self, other: Self) -> Option<Self> {
        if self == other {
            return Some(self);
        }
        match (self, other) {
            (Self::Null, known) | (known, Self::Null) => Some(known),
            (a, b) if !a.is_number() || !b.is_number() => None,
            (Self::Float64, _) | (_, Self::Float64) => Some(Self::Float64),
            (a, b) => Some(Self::Decimal(a.exact_scale()?.max(b.exact_scale()?))),
        }
    }
}

impl fmt::Display for ValueType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("null"),
            Self::String => f.write_str("string"),
            Self::Int64 => f.write_str("int64"),
            Self::Float64 => f.write_str("float64"),
            Self::Bool => f.write_str("bool"),
            Self::Timestamp => f.write_str("timestamp"),
            Self::Decimal(scale) => write!(f, "decimal({scale})"),
        }
    }
}

impl FromStr for ValueType {
    type Err = KernelError;

    fn from_str(name: &str) -> Result<Self> {
        let decimal_scale = || name.strip_prefix("decimal(")?.strip_suffix(')')?.parse::<u8>().ok();
        match name {
            "null" => Ok(Self::Null),
            "string" => Ok(Self::String),
            "int64" => Ok(Self::Int64),
            "float64" => Ok(Self::Float64),
            "bool" => Ok(Self::Bool),
            "timestamp" => Ok(Self::Timestamp),
            _ => match decimal_scale() {
                Some(scale) if scale <= MAX_DECIMAL_DIGITS => Ok(Self::Decimal(scale)),
                _ => Err(KernelError::Plan(format!("unknown value type {name:?}"))),
            },
        }
    }
}
