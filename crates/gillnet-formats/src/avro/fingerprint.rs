//! What names a schema in single-object encoding: the 64-bit Rabin fingerprint of its Parsing Canonical Form.

use std::fmt::Write;

use serde_json::{Map, Value};

use super::schema::{full_name, parse_json, Read, MAX_SCHEMA_BYTES};

const EMPTY: u64 = 0xc15d_213a_a4d7_a795;

const TABLE: [u64; 256] = {
    let mut table = [0; 256];
    let mut index = 0;
    while index < 256 {
        let (mut value, mut bit) = (index as u64, 0);
        while bit < 8 {
            value = (value >> 1) ^ (EMPTY & (value & 1).wrapping_neg());
            bit += 1;
        }
        table[index] = value;
        index += 1;
    }
    table
};

/// The fingerprint, as its bytes stand in a record.
pub(crate) fn fingerprint(definition: &[u8]) -> Read<[u8; 8]> {
    if definition.len() > MAX_SCHEMA_BYTES {
        return Err(format!("{} bytes of schema, at most {MAX_SCHEMA_BYTES} are allowed", definition.len()));
    }
    let mut form = String::new();
    write_form(&parse_json(definition)?, "", &mut form)?;
    let mut value = EMPTY;
    for byte in form.bytes() {
        value = (value >> 8) ^ TABLE[((value ^ u64::from(byte)) & 0xff) as usize];
    }
    Ok(value.to_le_bytes())
}

const PRIMITIVES: [&str; 8] = ["null", "boolean", "int", "long", "float", "double", "bytes", "string"];

fn write_form(json: &Value, namespace: &str, out: &mut String) -> Read<()> {
    match json {
        Value::String(name) if PRIMITIVES.contains(&name.as_str()) => quoted(name, out),
        Value::String(name) => quoted(&full_name(name, namespace), out),
        Value::Array(branches) => listed(branches, out, |branch, out| write_form(branch, namespace, out))?,
        Value::Object(object) => write_object(object, namespace, out)?,
        _ => return Err("a type is a name, a list or an object".into()),
    }
    Ok(())
}

/// Only what decoding needs, in the standard's order: name, type, fields, symbols, items, values, size.
fn write_object(object: &Map<String, Value>, namespace: &str, out: &mut String) -> Read<()> {
    let kind = match object.get("type") {
        Some(Value::String(kind)) => kind.as_str(),
        Some(inner) => return write_form(inner, namespace, out),
        None => return Err("a type without 'type'".into()),
    };
    let get = |part: &str| object.get(part).ok_or_else(|| format!("{kind} without '{part}'"));
    match kind {
        "array" | "map" => {
            let part = if kind == "array" { "items" } else { "values" };
            let _ = write!(out, "{{\"type\":\"{kind}\",\"{part}\":");
            write_form(get(part)?, namespace, out)?;
        }
        "record" | "error" | "enum" | "fixed" => {
            let own = object.get("namespace").and_then(Value::as_str).unwrap_or(namespace);
            let full = full_name(get("name")?.as_str().unwrap_or_default(), own);
            let inside = full.rsplit_once('.').map_or("", |(namespace, _)| namespace);
            out.push_str("{\"name\":");
            quoted(&full, out);
            let _ = write!(out, ",\"type\":\"{kind}\",");
            match kind {
                "enum" => {
                    out.push_str("\"symbols\":");
                    listed(get("symbols")?.as_array().map_or(&[][..], Vec::as_slice), out, |symbol, out| {
                        quoted(symbol.as_str().unwrap_or_default(), out);
                        Ok(())
                    })?;
                }
                "fixed" => {
                    let _ = write!(out, "\"size\":{}", get("size")?.as_u64().unwrap_or_default());
                }
                _ => {
                    out.push_str("\"fields\":");
                    listed(get("fields")?.as_array().map_or(&[][..], Vec::as_slice), out, |field, out| {
                        out.push_str("{\"name\":");
                        quoted(field.get("name").and_then(Value::as_str).unwrap_or_default(), out);
                        out.push_str(",\"type\":");
                        write_form(field.get("type").ok_or("a field without a type")?, inside, out)?;
                        out.push('}');
                        Ok(())
                    })?;
                }
            }
        }
        // A primitive with attributes is the primitive.
        _ => return write_form(&Value::String(kind.into()), namespace, out),
    }
    out.push('}');
    Ok(())
}

fn listed(items: &[Value], out: &mut String, write: impl Fn(&Value, &mut String) -> Read<()>) -> Read<()> {
    out.push('[');
    for (index, item) in items.iter().enumerate() {
        if index > 0 {
            out.push(',');
        }
        write(item, out)?;
    }
    out.push(']');
    Ok(())
}

fn quoted(text: &str, out: &mut String) {
    out.push_str(&Value::String(text.into()).to_string());
}

#[cfg(test)]
mod tests {
    use super::*;

    /// From the standard's own examples (share/test/data/schema-tests.txt of apache/avro).
    #[test]
    fn the_standards_fingerprints() {
        for (schema, expected) in
            [(r#""null""#, 7_195_948_357_588_979_594_i64), (r#"{"type":"boolean"}"#, -6_970_731_678_124_411_036)]
        {
            let found = fingerprint(schema.as_bytes()).unwrap();
            assert_eq!(i64::from_le_bytes(found), expected, "{schema}");
        }
    }
}
