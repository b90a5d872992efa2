//! The columns of a record, read from what `gillnet.core.schema.schema_to_json` wrote.

use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use serde::Deserialize;
use std::sync::Arc;

use crate::error::{FormatError, Result};

/// Decimals hold at most this many digits in all, so that a scaled value always fits an `i64`.
pub(crate) const MAX_DECIMAL_DIGITS: u32 = 18;

/// One column, with what its values may be.
#[derive(Debug, Clone)]
pub(crate) struct Column {
    pub name: String,
    pub nullable: bool,
    pub is_key: bool,
    pub is_id: bool,
    pub kind: Kind,
}

/// The value type with its limits.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Kind {
    Text {
        max_bytes: usize,
    },
    Integer {
        minimum: i64,
        maximum: i64,
    },
    Float {
        minimum: f64,
        maximum: f64,
        allow_nan: bool,
    },
    Boolean,
    /// An integer in units of so many microseconds.
    Epoch {
        unit_us: i64,
    },
    Rfc3339,
    Decimal {
        scale: u8,
        minimum: i64,
        maximum: i64,
    },
}

impl Kind {
    /// The Arrow type of the column.
    pub fn arrow(&self) -> DataType {
        match self {
            Self::Text { .. } => DataType::Utf8,
            Self::Integer { .. } => DataType::Int64,
            Self::Float { .. } => DataType::Float64,
            Self::Boolean => DataType::Boolean,
            Self::Epoch { .. } | Self::Rfc3339 => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
            Self::Decimal { scale, .. } => DataType::Decimal128(38, *scale as i8),
        }
    }

    /// What a message says was expected.
    pub fn expected(&self) -> String {
        match self {
            Self::Text { .. } => "string".into(),
            Self::Integer { .. } => "int64".into(),
            Self::Float { .. } => "float64".into(),
            Self::Boolean => "bool".into(),
            Self::Epoch { unit_us: 1_000_000 } => "timestamp (integer seconds)".into(),
            Self::Epoch { unit_us: 1_000 } => "timestamp (integer milliseconds)".into(),
            Self::Epoch { .. } => "timestamp (integer microseconds)".into(),
            Self::Rfc3339 => "timestamp (RFC 3339 text)".into(),
            Self::Decimal { scale, .. } => format!("decimal({scale})"),
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ColumnJson {
    name: String,
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    nullable: bool,
    unit: Option<String>,
    max_bytes: Option<usize>,
    minimum: Option<serde_json::Number>,
    maximum: Option<serde_json::Number>,
    #[serde(default)]
    allow_nan: bool,
}

/// Read the columns; `keys` and `id` must name some of them.
pub(crate) fn read_columns(schema_json: &[u8], keys: &[String], id: Option<&str>) -> Result<Vec<Column>> {
    let parsed: Vec<ColumnJson> =
        serde_json::from_slice(schema_json).map_err(|error| FormatError::Schema(format!("not readable: {error}")))?;
    if parsed.is_empty() {
        return Err(FormatError::Schema("no column".into()));
    }
    let known = |name: &str| parsed.iter().any(|column| column.name == name);
    if let Some(unknown) = keys.iter().map(String::as_str).chain(id).find(|name| !known(name)) {
        return Err(FormatError::Schema(format!("key or id column {unknown:?} is not a column")));
    }
    for (index, column) in parsed.iter().enumerate() {
        if parsed[..index].iter().any(|earlier| earlier.name == column.name) {
            return Err(FormatError::Schema(format!("column {:?} is there twice", column.name)));
        }
    }
    let column = |column: &ColumnJson| {
        Ok(Column {
            name: column.name.clone(),
            nullable: column.nullable,
            is_key: keys.contains(&column.name),
            is_id: id == Some(column.name.as_str()),
            kind: read_kind(column)?,
        })
    };
    parsed.iter().map(column).collect()
}

fn read_kind(column: &ColumnJson) -> Result<Kind> {
    let wrong = |what: &str| FormatError::Schema(format!("column {:?}: {what}", column.name));
    let integer_bound = |bound: &Option<serde_json::Number>, default: i64| match bound {
        None => Ok(default),
        Some(number) => number.as_i64().ok_or_else(|| wrong(&format!("bound {number} does not fit int64"))),
    };
    let float_bound = |bound: &Option<serde_json::Number>, default: f64| {
        bound.as_ref().and_then(serde_json::Number::as_f64).unwrap_or(default)
    };
    let (minimum, maximum) = (&column.minimum, &column.maximum);
    match (column.kind.as_str(), column.unit.as_deref()) {
        ("string", _) => Ok(Kind::Text { max_bytes: column.max_bytes.unwrap_or(65_536) }),
        ("int64", _) => {
            Ok(Kind::Integer { minimum: integer_bound(minimum, i64::MIN)?, maximum: integer_bound(maximum, i64::MAX)? })
        }
        ("float64", _) => Ok(Kind::Float {
            minimum: float_bound(minimum, f64::NEG_INFINITY),
            maximum: float_bound(maximum, f64::INFINITY),
            allow_nan: column.allow_nan,
        }),
        ("bool", _) => Ok(Kind::Boolean),
        ("timestamp", Some("s")) => Ok(Kind::Epoch { unit_us: 1_000_000 }),
        ("timestamp", Some("ms") | None) => Ok(Kind::Epoch { unit_us: 1_000 }),
        ("timestamp", Some("us")) => Ok(Kind::Epoch { unit_us: 1 }),
        ("timestamp", Some("rfc3339")) => Ok(Kind::Rfc3339),
        (kind, _) => {
            let scale = kind.strip_prefix("decimal(").and_then(|rest| rest.strip_suffix(')'));
            match scale.and_then(|digits| digits.parse::<u8>().ok()) {
                Some(scale) if u32::from(scale) <= MAX_DECIMAL_DIGITS => Ok(Kind::Decimal {
                    scale,
                    minimum: integer_bound(minimum, i64::MIN)?,
                    maximum: integer_bound(maximum, i64::MAX)?,
                }),
                _ => Err(wrong(&format!("type {kind:?} with unit {:?} is unknown", column.unit))),
            }
        }
    }
}

/// The Arrow schema of decoded batches.
pub(crate) fn arrow_schema(columns: &[Column]) -> SchemaRef {
    // A nullable id column never holds a null: a record without an id is rejected.
    let field = |c: &Column| Field::new(&c.name, c.kind.arrow(), c.nullable && !c.is_id);
    Arc::new(Schema::new(columns.iter().map(field).collect::<Vec<_>>()))
}
