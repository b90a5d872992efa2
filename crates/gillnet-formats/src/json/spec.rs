//! What an encoder writes: the fields of the object, in order, each from a column, a constant, or a group of fields.

use serde::{Deserialize, Deserializer};

use super::text;
use crate::error::{FormatError, Result};

/// How a timestamp is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum TimestampForm {
    /// Text with six digits of fraction and `Z`.
    #[default]
    Rfc3339,
    /// An integer of seconds, cut down.
    S,
    /// An integer of milliseconds, cut down.
    Ms,
    /// An integer of microseconds.
    Us,
}

/// A field of the object, compiled.
pub(crate) struct Field {
    /// `,"name":`; the first comma of an object becomes its brace.
    pub prefix: Vec<u8>,
    pub content: Content,
}

pub(crate) enum Content {
    Column { name: String, timestamp: TimestampForm },
    Constant(Vec<u8>),
    Group(Vec<Field>),
}

/// The compiled specification.
pub(crate) struct Spec {
    pub fields: Vec<Field>,
    pub omit_nulls: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SpecJson {
    fields: Vec<FieldJson>,
    #[serde(default)]
    omit_nulls: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FieldJson {
    name: String,
    column: Option<String>,
    timestamp: Option<TimestampForm>,
    #[serde(default, deserialize_with = "present")]
    constant: Option<serde_json::Value>,
    fields: Option<Vec<FieldJson>>,
}

/// A constant that is there, even if it is `null`.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Option<serde_json::Value>, D::Error> {
    serde_json::Value::deserialize(deserializer).map(Some)
}

impl Spec {
    pub fn read(spec_json: &[u8]) -> Result<Self> {
        let parsed: SpecJson =
            serde_json::from_slice(spec_json).map_err(|error| FormatError::Spec(format!("not readable: {error}")))?;
        Ok(Self { fields: compile(parsed.fields)?, omit_nulls: parsed.omit_nulls })
    }
}

fn compile(fields: Vec<FieldJson>) -> Result<Vec<Field>> {
    for (index, field) in fields.iter().enumerate() {
        if fields[..index].iter().any(|earlier| earlier.name == field.name) {
            return Err(FormatError::Spec(format!("field {:?} is there twice in one object", field.name)));
        }
    }
    fields.into_iter().map(compile_field).collect()
}

fn compile_field(field: FieldJson) -> Result<Field> {
    let prefix = name_prefix(&field.name);
    let content = match (field.column, field.constant, field.fields, field.timestamp) {
        (None, Some(value), None, None) => Content::Constant(value.to_string().into_bytes()),
        (None, None, Some(fields), None) => Content::Group(compile(fields)?),
        (column, None, None, timestamp) => {
            Content::Column { name: column.unwrap_or(field.name), timestamp: timestamp.unwrap_or_default() }
        }
        _ => {
            let name = field.name;
            return Err(FormatError::Spec(format!("field {name:?}: give one of column, constant and fields")));
        }
    };
    Ok(Field { prefix, content })
}

/// `,"name":`
pub(crate) fn name_prefix(name: &str) -> Vec<u8> {
    let mut prefix = vec![b','];
    text::write_string(name.as_bytes(), &mut prefix);
    prefix.push(b':');
    prefix
}
