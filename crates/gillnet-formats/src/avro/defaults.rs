//! A field's default, which a schema has as JSON, as the bytes of a value.

use serde_json::Value;

use super::schema::{Kind, NodeId, Schema};

/// Encode a default of a type that a column can hold; None if it is none of its type.
pub(super) fn encode(schema: &Schema, node: NodeId, json: &Value, depth: usize) -> Option<Vec<u8>> {
    let deeper = depth.checked_sub(1)?;
    let mut out = Vec::new();
    match (&schema.nodes[node], json) {
        (Kind::Null, Value::Null) => {}
        (Kind::Boolean, Value::Bool(value)) => out.push(u8::from(*value)),
        (Kind::Integer { bits, .. }, Value::Number(number)) => {
            let value = number.as_i64().filter(|&value| *bits == 64 || i32::try_from(value).is_ok())?;
            long(value, &mut out);
        }
        (Kind::Float, Value::Number(number)) => out.extend((number.as_f64()? as f32).to_le_bytes()),
        (Kind::Double, Value::Number(number)) => out.extend(number.as_f64()?.to_le_bytes()),
        (Kind::String, Value::String(text)) => counted(text.as_bytes(), &mut out),
        (Kind::Bytes | Kind::DecimalBytes(_), Value::String(text)) => counted(&latin1(text)?, &mut out),
        (Kind::Fixed(size) | Kind::DecimalFixed(size, _), Value::String(text)) => {
            out = latin1(text).filter(|bytes| bytes.len() == *size)?;
        }
        (Kind::UuidFixed, Value::String(text)) => out = latin1(text).filter(|bytes| bytes.len() == 16)?,
        (Kind::Enum(symbols), Value::String(text)) => {
            long(symbols.iter().position(|symbol| symbol == text)? as i64, &mut out);
        }
        (Kind::Union(branches), json) => {
            let of = |branch: &NodeId| encode(schema, *branch, json, deeper);
            let (index, value) = branches.iter().enumerate().find_map(|(at, branch)| Some((at, of(branch)?)))?;
            long(index as i64, &mut out);
            out.extend(value);
        }
        _ => return None,
    }
    Some(out)
}

/// Bytes in JSON are text whose characters are the bytes.
fn latin1(text: &str) -> Option<Vec<u8>> {
    text.chars().map(|c| u8::try_from(u32::from(c)).ok()).collect()
}

fn long(value: i64, out: &mut Vec<u8>) {
    let mut zigzag = ((value << 1) ^ (value >> 63)) as u64;
    while zigzag >= 0x80 {
        out.push(zigzag as u8 | 0x80);
        zigzag >>= 7;
    }
    out.push(zigzag as u8);
}

fn counted(bytes: &[u8], out: &mut Vec<u8>) {
    long(bytes.len() as i64, out);
    out.extend_from_slice(bytes);
}
