//! The bytes of Protobuf fields, and how to step over them.

use crate::reason::{fault, Parse, Reason};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum WireType {
    Varint,
    Fixed64,
    Bytes,
    Group,
    EndGroup,
    Fixed32,
}

pub(super) struct Cursor<'a> {
    rest: &'a [u8],
}

#[cold]
fn broken(what: &str, left: usize) -> Box<crate::reason::Fault> {
    fault(Reason::NotProtobuf, format!("{what}, {left} bytes before the end"))
}

impl<'a> Cursor<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// The number and the wire type of the next field; None at the end.
    #[inline]
    pub fn tag(&mut self) -> Parse<Option<(u32, WireType)>> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let left = self.rest.len();
        let tag = self.varint()?;
        let wire = match tag & 7 {
            0 => WireType::Varint,
            1 => WireType::Fixed64,
            2 => WireType::Bytes,
            3 => WireType::Group,
            4 => WireType::EndGroup,
            5 => WireType::Fixed32,
            _ => return Err(broken("no wire type", left)),
        };
        match u32::try_from(tag >> 3) {
            Ok(number @ 1..=0x1fff_ffff) => Ok(Some((number, wire))),
            _ => Err(broken("no field number", left)),
        }
    }

    #[inline]
    pub fn varint(&mut self) -> Parse<u64> {
        let mut value = 0u64;
        for (index, &byte) in self.rest.iter().enumerate().take(10) {
            value |= u64::from(byte & 0x7f) << (7 * index);
            if byte < 0x80 {
                if index == 9 && byte > 1 {
                    break;
                }
                self.rest = &self.rest[index + 1..];
                return Ok(value);
            }
        }
        Err(broken("no number that ends and fits 64 bits", self.rest.len()))
    }

    fn take(&mut self, count: usize) -> Parse<&'a [u8]> {
        match self.rest.split_at_checked(count) {
            Some((taken, rest)) => {
                self.rest = rest;
                Ok(taken)
            }
            None => Err(broken(&format!("{count} bytes are due"), self.rest.len())),
        }
    }

    pub fn array<const N: usize>(&mut self) -> Parse<[u8; N]> {
        Ok(self.take(N)?.try_into().expect("as many bytes as were asked for"))
    }

    #[inline]
    pub fn bytes(&mut self) -> Parse<&'a [u8]> {
        let left = self.rest.len();
        let length = usize::try_from(self.varint()?).map_err(|_| broken("a length too large", left))?;
        self.take(length)
    }

    /// A message inside this one.
    pub fn inside(&mut self) -> Parse<Self> {
        self.bytes().map(Self::new)
    }

    /// Step over a field's value; a group's end is that of the group with its number.
    pub fn skip(&mut self, number: u32, wire: WireType, depth: usize) -> Parse<()> {
        match wire {
            WireType::Varint => drop(self.varint()?),
            WireType::Fixed64 => drop(self.take(8)?),
            WireType::Bytes => drop(self.bytes()?),
            WireType::Fixed32 => drop(self.take(4)?),
            WireType::EndGroup => return Err(broken("the end of a group that has not begun", self.rest.len())),
            WireType::Group => {
                let Some(deeper) = depth.checked_sub(1) else {
                    return Err(fault(Reason::TooDeep, "groups nest deeper than is allowed"));
                };
                loop {
                    match self.tag()? {
                        Some((end, WireType::EndGroup)) if end == number => break,
                        Some((inner, wire)) => self.skip(inner, wire, deeper)?,
                        None => return Err(broken("a group without an end", 0)),
                    }
                }
            }
        }
        Ok(())
    }
}
