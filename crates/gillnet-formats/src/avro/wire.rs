//! The bytes of Avro values, and how to step over them.

use super::schema::{Kind, NodeId, Schema};
use crate::reason::{fault, Parse, Reason};

/// Where the reading of a record is.
pub(crate) struct Cursor<'a> {
    rest: &'a [u8],
    size: usize,
}

#[cold]
fn broken(what: &str, at: usize) -> Box<crate::reason::Fault> {
    fault(Reason::NotAvro, format!("{what} at byte {at}"))
}

impl<'a> Cursor<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes, size: bytes.len() }
    }

    fn at(&self) -> usize {
        self.size - self.rest.len()
    }

    /// Refuse what is left behind the record.
    pub fn finish(&self) -> Parse<()> {
        match self.rest.len() {
            0 => Ok(()),
            left => Err(broken(&format!("{left} bytes more than the schema has"), self.at())),
        }
    }

    #[inline]
    pub fn take(&mut self, count: usize) -> Parse<&'a [u8]> {
        match self.rest.split_at_checked(count) {
            Some((taken, rest)) => {
                self.rest = rest;
                Ok(taken)
            }
            None => Err(broken(&format!("{count} bytes are due and {} are there,", self.rest.len()), self.at())),
        }
    }

    pub fn array<const N: usize>(&mut self) -> Parse<[u8; N]> {
        Ok(self.take(N)?.try_into().expect("as many bytes as were asked for"))
    }

    /// A zigzag number of at most ten bytes.
    #[inline]
    pub fn long(&mut self) -> Parse<i64> {
        let mut value = 0u64;
        for (index, &byte) in self.rest.iter().enumerate().take(10) {
            value |= u64::from(byte & 0x7f) << (7 * index);
            if byte < 0x80 {
                if index == 9 && byte > 1 {
                    break;
                }
                self.rest = &self.rest[index + 1..];
                return Ok((value >> 1) as i64 ^ -((value & 1) as i64));
            }
        }
        Err(broken("no number that ends and fits 64 bits", self.at()))
    }

    #[inline]
    pub fn integer(&mut self, bits: u32) -> Parse<i64> {
        let at = self.at();
        let value = self.long()?;
        if bits == 32 && i32::try_from(value).is_err() {
            return Err(broken("an int of more than 32 bits", at));
        }
        Ok(value)
    }

    pub fn boolean(&mut self) -> Parse<bool> {
        match self.take(1)?[0] {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(broken("a boolean that is neither 0 nor 1", self.at() - 1)),
        }
    }

    /// Bytes or text: a length, and as many bytes.
    #[inline]
    pub fn bytes(&mut self) -> Parse<&'a [u8]> {
        let at = self.at();
        let length = self.long()?;
        let length = usize::try_from(length).map_err(|_| broken("a negative length", at))?;
        self.take(length)
    }

    /// The number of a union's branch or an enum's symbol.
    #[inline]
    pub fn choice(&mut self, of: usize) -> Parse<usize> {
        let at = self.at();
        let index = self.long()?;
        usize::try_from(index)
            .ok()
            .filter(|&index| index < of)
            .ok_or_else(|| broken(&format!("choice {index} of {of}"), at))
    }

    /// Step over a value. `depth` is how many more levels it may nest.
    pub fn skip(&mut self, schema: &Schema, node: NodeId, depth: usize) -> Parse<()> {
        if schema.empty[node] {
            return Ok(());
        }
        let Some(deeper) = depth.checked_sub(1) else {
            return Err(fault(Reason::TooDeep, "values nest deeper than is allowed"));
        };
        match &schema.nodes[node] {
            Kind::Null => {}
            Kind::Boolean => drop(self.boolean()?),
            Kind::Integer { bits, .. } => drop(self.integer(*bits)?),
            Kind::Float => drop(self.take(4)?),
            Kind::Double => drop(self.take(8)?),
            Kind::Bytes | Kind::String | Kind::DecimalBytes(_) => drop(self.bytes()?),
            Kind::Fixed(size) | Kind::DecimalFixed(size, _) => drop(self.take(*size)?),
            Kind::UuidFixed => drop(self.take(16)?),
            Kind::Enum(symbols) => drop(self.choice(symbols.len())?),
            Kind::Array(item) => self.blocks(schema, *item, false, deeper)?,
            Kind::Map(value) => self.blocks(schema, *value, true, deeper)?,
            Kind::Union(branches) => {
                let branch = self.choice(branches.len())?;
                self.skip(schema, branches[branch], deeper)?;
            }
            Kind::Record(fields) => {
                for field in fields {
                    self.skip(schema, field.node, deeper)?;
                }
            }
        }
        Ok(())
    }

    /// Step over the blocks of an array or a map: a count, for a negative one the block's size, and the items.
    fn blocks(&mut self, schema: &Schema, item: NodeId, named: bool, depth: usize) -> Parse<()> {
        loop {
            let at = self.at();
            match self.long()? {
                0 => return Ok(()),
                count @ 1.. => {
                    // Items without a byte could be any number of them; with one, each costs a byte of the record.
                    let items = if schema.empty[item] && !named { 0 } else { count };
                    for _ in 0..items {
                        if named {
                            self.bytes()?;
                        }
                        self.skip(schema, item, depth)?;
                    }
                }
                _ => {
                    let size = self.long()?;
                    let size = usize::try_from(size).map_err(|_| broken("a block of a negative size", at))?;
                    self.take(size)?;
                }
            }
        }
    }
}
