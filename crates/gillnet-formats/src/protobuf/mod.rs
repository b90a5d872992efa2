//! Protobuf messages to Arrow columns: one pass over the fields of a message, then one over the columns.
//!
//! As parsers have it, the last of several values of a field counts, a member of a oneof takes the place of the others, and
//! what has another wire type than its field is as unknown as a number that the message does not have.

mod descriptor;
mod wire;

pub(crate) use descriptor::{Files, Program};

use descriptor::{Absent, Form};
use wire::{Cursor, WireType};

use crate::columns::{refuse, ColumnBuilder};
use crate::reason::{fault, Fault, Parse, Reason};
use crate::scalar::Scalar;
use crate::schema::Kind as ColumnKind;

/// What a record has of a field so far.
#[derive(Debug, Clone, Copy, Default)]
enum Slot<'a> {
    #[default]
    Absent,
    /// A varint, or the bits of a fixed value.
    Number(u64),
    Bytes(&'a [u8]),
    Timestamp {
        seconds: i64,
        nanos: i32,
    },
    /// Of another type than any column's: it is there.
    Other,
}

impl Program {
    /// Read a record, the whole of `bytes`, into the builders.
    pub fn record(&self, bytes: &[u8], builders: &mut [ColumnBuilder<'_>], max_depth: usize) -> Parse<()> {
        let mut few = [Slot::Absent; 24];
        let mut many;
        let slots = if self.fields.len() <= few.len() {
            &mut few[..self.fields.len()]
        } else {
            many = vec![Slot::Absent; self.fields.len()];
            &mut many[..]
        };
        let mut cursor = Cursor::new(bytes);
        while let Some((number, wire)) = cursor.tag()? {
            match self.by_number.get(&number) {
                None => cursor.skip(number, wire, max_depth)?,
                Some((own, others)) => self.field(*own, others, number, wire, &mut cursor, slots, max_depth)?,
            }
        }
        let mut first = None;
        for (slot, field) in slots.iter().zip(&self.fields) {
            let builder = &mut builders[field.column];
            let slot = match (slot, &field.absent) {
                (Slot::Absent, Absent::Number(number)) => Slot::Number(*number),
                (Slot::Absent, Absent::Text(text)) => Slot::Bytes(text),
                (slot, _) => *slot,
            };
            if let Err(found) = append(&field.form, slot, builder) {
                first.get_or_insert(found);
            }
        }
        for &column in &self.missing {
            if let Err(found) = absent(&mut builders[column]) {
                first.get_or_insert(found);
            }
        }
        first.map_or(Ok(()), Err)
    }

    #[allow(clippy::too_many_arguments)]
    fn field<'a>(
        &self,
        own: Option<usize>,
        others: &[usize],
        number: u32,
        wire: WireType,
        cursor: &mut Cursor<'a>,
        slots: &mut [Slot<'a>],
        max_depth: usize,
    ) -> Parse<()> {
        match own {
            Some(own) if expected(&self.fields[own].form).is_none_or(|due| due == wire) => {
                slots[own] = read(&self.fields[own].form, slots[own], number, wire, cursor, max_depth)?;
            }
            _ => cursor.skip(number, wire, max_depth)?,
        }
        for &other in others {
            slots[other] = Slot::Absent;
        }
        Ok(())
    }
}

/// A form's wire type; None where any will do.
fn expected(form: &Form) -> Option<WireType> {
    Some(match form {
        Form::Fixed32 | Form::Sfixed32 | Form::Float => WireType::Fixed32,
        Form::Fixed64 | Form::Sfixed64 | Form::Double => WireType::Fixed64,
        Form::Text | Form::Bytes | Form::Timestamp | Form::Wrapper(_) => WireType::Bytes,
        Form::Other(_) => return None,
        _ => WireType::Varint,
    })
}

/// Read a field's value of the wire type that it should have; `before` is what the record said of it already.
fn read<'a>(
    form: &Form,
    before: Slot<'a>,
    number: u32,
    wire: WireType,
    cursor: &mut Cursor<'a>,
    max_depth: usize,
) -> Parse<Slot<'a>> {
    Ok(match form {
        Form::Other(_) => {
            cursor.skip(number, wire, max_depth)?;
            Slot::Other
        }
        Form::Timestamp => {
            // Two of one message are one with the fields of both.
            let (mut seconds, mut nanos) = match before {
                Slot::Timestamp { seconds, nanos } => (seconds, nanos),
                _ => (0, 0),
            };
            let mut inner = cursor.inside()?;
            while let Some((number, wire)) = inner.tag()? {
                match (number, wire) {
                    (1, WireType::Varint) => seconds = inner.varint()? as i64,
                    (2, WireType::Varint) => nanos = inner.varint()? as i32,
                    _ => inner.skip(number, wire, max_depth)?,
                }
            }
            Slot::Timestamp { seconds, nanos }
        }
        Form::Wrapper(form) => {
            let empty = if matches!(**form, Form::Text | Form::Bytes) { Slot::Bytes(b"") } else { Slot::Number(0) };
            let mut slot = if matches!(before, Slot::Absent) { empty } else { before };
            let mut inner = cursor.inside()?;
            while let Some((number, wire)) = inner.tag()? {
                if number == 1 && expected(form) == Some(wire) {
                    slot = read(form, slot, number, wire, &mut inner, max_depth)?;
                } else {
                    inner.skip(number, wire, max_depth)?;
                }
            }
            slot
        }
        Form::Enum { names, closed: true } => {
            let value = cursor.varint()?;
            if names.contains_key(&(value as i32)) {
                Slot::Number(value)
            } else {
                before
            }
        }
        _ => match wire {
            WireType::Varint => Slot::Number(cursor.varint()?),
            WireType::Fixed32 => Slot::Number(u64::from(u32::from_le_bytes(cursor.array()?))),
            WireType::Fixed64 => Slot::Number(u64::from_le_bytes(cursor.array()?)),
            _ => Slot::Bytes(cursor.bytes()?),
        },
    })
}

fn absent(builder: &mut ColumnBuilder<'_>) -> Parse<()> {
    if builder.column.nullable {
        return builder.append_null();
    }
    Err(missing(builder))
}

#[cold]
fn missing(builder: &ColumnBuilder<'_>) -> Box<Fault> {
    fault(Reason::MissingField, format!("column '{}' is not in the record", builder.column.name))
}

fn append(form: &Form, slot: Slot<'_>, builder: &mut ColumnBuilder<'_>) -> Parse<()> {
    let bits = match slot {
        Slot::Absent => return absent(builder),
        Slot::Other => {
            let Form::Other(found) = form else { unreachable!("only what no column can hold is another") };
            return Err(refuse(builder.column, Reason::WrongType, found, b""));
        }
        Slot::Timestamp { seconds, nanos } => {
            if !(0..1_000_000_000).contains(&nanos) {
                return Err(refuse(builder.column, Reason::OutOfRange, "nanoseconds", nanos.to_string().as_bytes()));
            }
            let fraction = i64::from(nanos / 1_000);
            return builder.append(Scalar::Instant(seconds.saturating_mul(1_000_000).saturating_add(fraction)));
        }
        Slot::Bytes(bytes) => return text(form, bytes, builder),
        Slot::Number(bits) => bits,
    };
    let form = if let Form::Wrapper(inner) = form { inner } else { form };
    builder.append(match form {
        Form::Boolean => Scalar::Boolean(bits != 0),
        Form::Int32 | Form::Sfixed32 => Scalar::Integer(i64::from(bits as i32)),
        Form::Int64 | Form::Sfixed64 => Scalar::Integer(bits as i64),
        Form::Uint32 | Form::Fixed32 => Scalar::Integer(i64::from(bits as u32)),
        Form::Uint64 | Form::Fixed64 => i64::try_from(bits).map_or(Scalar::Unsigned(bits), Scalar::Integer),
        Form::Sint32 => Scalar::Integer(i64::from((bits as u32 >> 1) as i32 ^ -((bits & 1) as i32))),
        Form::Sint64 => Scalar::Integer((bits >> 1) as i64 ^ -((bits & 1) as i64)),
        Form::Float => Scalar::Single(f32::from_bits(bits as u32)),
        Form::Double => Scalar::Float(f64::from_bits(bits)),
        Form::Enum { names, .. } => return symbol(names, bits as i32, builder),
        _ => unreachable!("text and messages are no numbers"),
    })
}

fn text(form: &Form, bytes: &[u8], builder: &mut ColumnBuilder<'_>) -> Parse<()> {
    let form = if let Form::Wrapper(inner) = form { inner } else { form };
    match (form, &builder.column.kind) {
        (Form::Text, _) | (_, ColumnKind::Text { .. }) => builder.append(Scalar::Text(bytes)),
        _ => Err(refuse(builder.column, Reason::WrongType, "bytes", bytes)),
    }
}

/// An enum is its name in text, and its number in an integer.
fn symbol(names: &hashbrown::HashMap<i32, String>, number: i32, builder: &mut ColumnBuilder<'_>) -> Parse<()> {
    match (&builder.column.kind, names.get(&number)) {
        (ColumnKind::Text { .. }, Some(name)) => builder.append(Scalar::Text(name.as_bytes())),
        (ColumnKind::Text { .. }, None) => {
            Err(refuse(builder.column, Reason::UnknownSymbol, "enum value", number.to_string().as_bytes()))
        }
        (ColumnKind::Integer { .. }, _) => builder.append(Scalar::Integer(i64::from(number))),
        _ => Err(refuse(builder.column, Reason::WrongType, "enum value", number.to_string().as_bytes())),
    }
}
