//! Avro records to Arrow columns: the writer's schema resolved to the columns once, then one pass over each record.

mod defaults;
mod fingerprint;
mod schema;
mod wire;

use std::sync::Arc;

pub(crate) use fingerprint::fingerprint;
use schema::{Kind, NodeId, Read, Schema, Time};
use wire::Cursor;

use crate::columns::{refuse, ColumnBuilder};
use crate::reason::{fault, Fault, Parse, Reason};
use crate::scalar::{days, Scalar};
use crate::schema::{Column, Kind as ColumnKind};

pub(crate) use schema::MAX_SCHEMA_BYTES;

/// The reader's own schema: names of columns in older writers' schemas (aliases), and what stands for a missing field.
#[derive(Debug)]
pub(crate) struct Reader {
    schema: Arc<Schema>,
}

impl Reader {
    pub fn read(definition: &[u8]) -> Read<Self> {
        Ok(Self { schema: Arc::new(Schema::read(definition, &[])?) })
    }
}

/// How records of one writer's schema are read into the columns.
#[derive(Debug)]
pub(crate) struct Program {
    schema: Schema,
    /// For each field of the writer's, its type and its column.
    steps: Vec<(NodeId, Option<usize>)>,
    missing: Vec<(usize, Missing)>,
    max_depth: usize,
}

/// What a column gets that the writer knows nothing of.
#[derive(Debug)]
enum Missing {
    Null,
    Default { schema: Arc<Schema>, node: NodeId, bytes: Vec<u8> },
}

impl Program {
    /// Resolve a writer's schema to the columns.
    pub fn new(
        definition: &[u8],
        references: &[Vec<u8>],
        reader: Option<&Reader>,
        columns: &[Column],
        max_depth: usize,
    ) -> Read<Self> {
        let schema = Schema::read(definition, references)?;
        let mut of_field = vec![None; schema.fields.len()];
        let mut missing = vec![];
        for (index, column) in columns.iter().enumerate() {
            let own = reader.and_then(|reader| reader.schema.fields.iter().find(|field| field.name == column.name));
            let aliases = own.map_or(&[][..], |field| &field.aliases);
            let named = |name: &str| schema.fields.iter().position(|field| field.name == name);
            let place = named(&column.name).or_else(|| aliases.iter().find_map(|alias| named(alias)));
            match (place, own.zip(reader)) {
                (Some(place), _) => of_field[place] = Some(index),
                (None, Some((field, reader))) if field.default.is_some() => {
                    let default = field.default.as_ref().expect("it is there");
                    let bytes = defaults::encode(&reader.schema, field.node, default, 8)
                        .ok_or_else(|| format!("the default of '{}' is not of its type", field.name))?;
                    let schema = reader.schema.clone();
                    missing.push((index, Missing::Default { schema, node: field.node, bytes }));
                }
                (None, _) => missing.push((index, Missing::Null)),
            }
        }
        let steps = schema.fields.iter().map(|field| field.node).zip(of_field).collect();
        Ok(Self { schema, steps, missing, max_depth })
    }

    /// Read a record, the whole of `bytes`, into the builders.
    pub fn record(&self, bytes: &[u8], builders: &mut [ColumnBuilder<'_>]) -> Parse<()> {
        let mut cursor = Cursor::new(bytes);
        // The record is lost with its first fault, but whether it is Avro at all is the more basic news: read on.
        let mut first = None;
        for &(node, column) in &self.steps {
            match column {
                None => cursor.skip(&self.schema, node, self.max_depth)?,
                Some(column) => {
                    let read = value(&self.schema, node, &mut cursor, &mut builders[column], self.max_depth);
                    keep_first(read, &mut first)?;
                }
            }
        }
        cursor.finish()?;
        for (column, missing) in &self.missing {
            let builder = &mut builders[*column];
            let filled = match missing {
                Missing::Null if builder.column.nullable => builder.append_null(),
                Missing::Null => {
                    let name = &builder.column.name;
                    Err(fault(Reason::MissingField, format!("column '{name}' is not in the writer's schema")))
                }
                Missing::Default { schema, node, bytes } => {
                    value(schema, *node, &mut Cursor::new(bytes), builder, self.max_depth)
                }
            };
            keep_first(filled, &mut first)?;
        }
        first.map_or(Ok(()), Err)
    }
}

#[inline]
fn keep_first(read: Parse<()>, first: &mut Option<Box<Fault>>) -> Parse<()> {
    match read {
        Ok(()) => Ok(()),
        Err(found) if matches!(found.reason, Reason::NotAvro | Reason::TooDeep) => Err(found),
        Err(found) => {
            first.get_or_insert(found);
            Ok(())
        }
    }
}

/// Read a value into a column. Whatever the column says to it, the cursor is behind it then.
fn value(
    schema: &Schema,
    node: NodeId,
    cursor: &mut Cursor<'_>,
    builder: &mut ColumnBuilder<'_>,
    depth: usize,
) -> Parse<()> {
    match &schema.nodes[node] {
        Kind::String => builder.append(Scalar::Text(cursor.bytes()?)),
        Kind::Integer { bits, time } => {
            let number = cursor.integer(*bits)?;
            let plain = matches!(builder.column.kind, ColumnKind::Integer { .. });
            builder.append(match time {
                Some(Time::Days) if !plain => days(number),
                Some(Time::Millis) if !plain => Scalar::Instant(number.saturating_mul(1_000)),
                Some(Time::Micros) if !plain => Scalar::Instant(number),
                Some(Time::Nanos) if !plain => Scalar::Instant(number.div_euclid(1_000)),
                _ => Scalar::Integer(number),
            })
        }
        Kind::Union(branches) => {
            let branch = cursor.choice(branches.len())?;
            match depth.checked_sub(1) {
                Some(deeper) => value(schema, branches[branch], cursor, builder, deeper),
                None => Err(fault(Reason::TooDeep, "values nest deeper than is allowed")),
            }
        }
        Kind::Null => builder.append_null(),
        Kind::Boolean => builder.append(Scalar::Boolean(cursor.boolean()?)),
        Kind::Float => builder.append(Scalar::Single(f32::from_le_bytes(cursor.array()?))),
        Kind::Double => builder.append(Scalar::Float(f64::from_le_bytes(cursor.array()?))),
        Kind::DecimalBytes(scale) => builder.append(Scalar::Decimal { unscaled: cursor.bytes()?, scale: *scale }),
        Kind::DecimalFixed(size, scale) => {
            builder.append(Scalar::Decimal { unscaled: cursor.take(*size)?, scale: *scale })
        }
        Kind::Enum(symbols) => builder.append(Scalar::Text(symbols[cursor.choice(symbols.len())?].as_bytes())),
        Kind::UuidFixed => builder.append(Scalar::Text(&uuid(cursor.array()?))),
        Kind::Bytes => {
            let bytes = cursor.bytes()?;
            match builder.column.kind {
                ColumnKind::Text { .. } => builder.append(Scalar::Text(bytes)),
                _ => Err(refuse(builder.column, Reason::WrongType, "bytes", bytes)),
            }
        }
        other => {
            let found = match other {
                Kind::Fixed(_) => "fixed",
                Kind::Array(_) => "array",
                Kind::Map(_) => "map",
                _ => "record",
            };
            cursor.skip(schema, node, depth)?;
            Err(refuse(builder.column, Reason::WrongType, found, b""))
        }
    }
}

/// Sixteen bytes as RFC 9562 writes them.
fn uuid(bytes: [u8; 16]) -> [u8; 36] {
    let mut text = [b'-'; 36];
    let mut at = 0;
    for (index, byte) in bytes.into_iter().enumerate() {
        if matches!(index, 4 | 6 | 8 | 10) {
            at += 1;
        }
        text[at] = b"0123456789abcdef"[usize::from(byte >> 4)];
        text[at + 1] = b"0123456789abcdef"[usize::from(byte & 15)];
        at += 2;
    }
    text
}
