//! Bytes of state, little-endian: each part of the state writes itself, and reads itself in the same order.
//!
//! A reader never trusts a length: it takes no more than there is, and allocates nothing that the bytes themselves do not fill.

use std::io::Cursor;

use arrow::array::RecordBatch;
use arrow::ipc::reader::StreamReader;
use arrow::ipc::writer::StreamWriter;

use crate::error::{KernelError, Result};

/// Collects the bytes of a part.
#[derive(Debug, Default)]
pub struct ByteWriter(Vec<u8>);

/// Gives a part's bytes back, in the order in which they were written.
#[derive(Debug, Clone)]
pub struct ByteReader<'a>(&'a [u8]);

macro_rules! numbers {
    ($($name:ident),*) => {
        impl ByteWriter {
            $(
                /// A number.
                pub fn $name(&mut self, value: $name) {
                    self.0.extend_from_slice(&value.to_le_bytes());
                }
            )*
        }
        impl ByteReader<'_> {
            $(
                /// A number.
                ///
                /// # Errors
                /// Too few bytes.
                pub fn $name(&mut self) -> Result<$name> {
                    let bytes = self.take(size_of::<$name>())?;
                    Ok($name::from_le_bytes(bytes.try_into().expect("as many as asked for")))
                }
            )*
        }
    };
}

numbers!(u8, u16, u32, u64, u128, i32, i64);

impl ByteWriter {
    /// The bytes.
    pub fn finish(self) -> Vec<u8> {
        self.0
    }

    /// Bytes as they are: the reader must know how many.
    pub fn raw(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    /// Yes or no.
    pub fn flag(&mut self, value: bool) {
        self.u8(u8::from(value));
    }

    /// How many items follow.
    pub fn count(&mut self, count: usize) {
        self.u64(count as u64);
    }

    /// Bytes with their length.
    pub fn bytes(&mut self, bytes: &[u8]) {
        self.count(bytes.len());
        self.raw(bytes);
    }

    /// What `write` writes, with its length before it.
    ///
    /// # Errors
    /// Those of `write`.
    pub fn sized(&mut self, write: impl FnOnce(&mut Self) -> Result<()>) -> Result<()> {
        let at = self.0.len();
        self.count(0);
        write(self)?;
        let length = (self.0.len() - at - size_of::<u64>()) as u64;
        self.0[at..at + size_of::<u64>()].copy_from_slice(&length.to_le_bytes());
        Ok(())
    }

    /// A text with its length.
    pub fn text(&mut self, text: &str) {
        self.bytes(text.as_bytes());
    }

    /// A batch with its schema, as an Arrow IPC stream.
    ///
    /// # Errors
    /// None but arrow's own.
    pub fn batch(&mut self, batch: &RecordBatch) -> Result<()> {
        let mut stream = StreamWriter::try_new(Vec::new(), &batch.schema())?;
        stream.write(batch)?;
        self.bytes(&stream.into_inner()?);
        Ok(())
    }
}

impl<'a> ByteReader<'a> {
    /// A reader of all of `bytes`.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// So many bytes as they are.
    ///
    /// # Errors
    /// Too few bytes.
    pub fn take(&mut self, count: usize) -> Result<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or_else(|| broken("shorter than it says"))?;
        self.0 = rest;
        Ok(taken)
    }

    /// Yes or no.
    ///
    /// # Errors
    /// Too few bytes, or neither.
    pub fn flag(&mut self) -> Result<bool> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(broken("a flag that is neither yes nor no")),
        }
    }

    /// How many items follow; each has a byte at least, so that no count makes anyone allocate more than there is.
    ///
    /// # Errors
    /// Too few bytes for so many.
    pub fn count(&mut self) -> Result<usize> {
        let count = usize::try_from(self.u64()?).unwrap_or(usize::MAX);
        if count > self.0.len() {
            return Err(broken("shorter than it says"));
        }
        Ok(count)
    }

    /// Bytes with their length.
    ///
    /// # Errors
    /// Too few bytes.
    pub fn bytes(&mut self) -> Result<&'a [u8]> {
        let count = self.count()?;
        self.take(count)
    }

    /// A text with its length.
    ///
    /// # Errors
    /// Too few bytes, or no UTF-8.
    pub fn text(&mut self) -> Result<&'a str> {
        std::str::from_utf8(self.bytes()?).map_err(|_| broken("a text that is no UTF-8"))
    }

    /// A batch with its schema.
    ///
    /// # Errors
    /// Too few bytes, or no stream of exactly one batch.
    pub fn batch(&mut self) -> Result<RecordBatch> {
        let mut stream = StreamReader::try_new(Cursor::new(self.bytes()?), None)?;
        match (stream.next(), stream.next()) {
            (Some(batch), None) => Ok(batch?),
            _ => Err(broken("a stream that is not of one batch")),
        }
    }

    /// Items, each read by `item`, after their count.
    ///
    /// # Errors
    /// Too few bytes, or what `item` refuses.
    pub fn list<T>(&mut self, mut item: impl FnMut(&mut Self) -> Result<T>) -> Result<Vec<T>> {
        (0..self.count()?).map(|_| item(self)).collect()
    }

    /// Nothing may be left.
    ///
    /// # Errors
    /// Bytes that are left.
    pub fn end(&self) -> Result<()> {
        if self.0.is_empty() {
            return Ok(());
        }
        Err(broken("longer than it says"))
    }
}

/// The error of bytes that make no sense. Whoever knows which part they are of says so around it.
pub fn broken(what: &str) -> KernelError {
    KernelError::State(what.to_owned())
}

/// FNV-1a over words: it finds torn and flipped bytes; it is no defence against forgery.
pub fn checksum(parts: &[&[u8]]) -> u64 {
    let mut hash = 0xCBF2_9CE4_8422_2325u64;
    for part in parts {
        for chunk in part.chunks(8) {
            let mut word = [0u8; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            hash = (hash ^ u64::from_le_bytes(word)).wrapping_mul(0x0100_0000_01B3).rotate_left(23);
        }
    }
    hash
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_and_no_length_is_trusted() {
        let mut out = ByteWriter::default();
        out.text("köln");
        out.i64(-7);
        out.u128(u128::MAX - 1);
        out.flag(true);
        let bytes = out.finish();
        let mut from = ByteReader::new(&bytes);
        assert_eq!(from.text().expect("a text"), "köln");
        assert_eq!(from.i64().expect("a number"), -7);
        assert!(from.end().is_err(), "more is left");
        assert_eq!(from.u128().expect("a number"), u128::MAX - 1);
        assert!(from.flag().expect("a flag") && from.end().is_ok());
        assert!(from.u8().is_err());
        let absurd = u64::MAX.to_le_bytes();
        assert!(ByteReader::new(&absurd).list(|from| from.u8()).is_err());
        assert!(ByteReader::new(&absurd).bytes().is_err());
        assert!(ByteReader::new(&[2]).flag().is_err());
    }
}
