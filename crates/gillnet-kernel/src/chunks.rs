//! Bytes in chunks, each compressed (zstd) and with a checksum of its own, so that nobody needs to hold all of them.
//!
//! ```text
//! chunk: length u32 | stored u32 | checksum u64 | bytes        (little-endian; an empty one is the last)
//! ```
//! A chunk whose bytes do not become fewer is stored as it is: then both lengths are the same.

use std::io::Write;

use zstd::bulk::{Compressor, Decompressor};

use crate::bytes::{broken, checksum, ByteReader};
use crate::error::{KernelError, Result};

/// The level that costs least; the next ones save a few percent for twice the time.
const LEVEL: i32 = 1;

/// Writes chunks, and keeps the first error for the end, so that whoever writes state need not ask after each number.
pub struct ChunkWriter<'a> {
    out: &'a mut dyn Write,
    compressor: Compressor<'static>,
    compressed: Vec<u8>,
    written: std::io::Result<()>,
}

impl<'a> ChunkWriter<'a> {
    /// A chunk has so many bytes, but for the last; no reader takes more.
    pub const BYTES: usize = 1 << 18;

    /// Chunks that go to `out`.
    ///
    /// # Errors
    /// No memory for the compressor.
    pub fn new(out: &'a mut dyn Write) -> Result<Self> {
        let compressor = Compressor::new(LEVEL).map_err(not_written)?;
        Ok(Self { out, compressor, compressed: vec![0; zstd::zstd_safe::compress_bound(Self::BYTES)], written: Ok(()) })
    }

    /// Write every whole chunk of `bytes`, and leave the rest there.
    pub fn write(&mut self, bytes: &mut Vec<u8>) {
        let whole = bytes.len() / Self::BYTES * Self::BYTES;
        for chunk in bytes[..whole].chunks(Self::BYTES) {
            self.put(chunk);
        }
        bytes.drain(..whole);
    }

    /// Write the rest, less than a chunk, and the end.
    ///
    /// # Errors
    /// [`KernelError::State`] with the first error of `out`.
    pub fn end(mut self, rest: &[u8]) -> Result<()> {
        if !rest.is_empty() {
            self.put(rest);
        }
        self.put(&[]);
        self.written.map_err(not_written)
    }

    fn put(&mut self, chunk: &[u8]) {
        if self.written.is_ok() {
            self.written = self.try_put(chunk);
        }
    }

    fn try_put(&mut self, chunk: &[u8]) -> std::io::Result<()> {
        let length = self.compressor.compress_to_buffer(chunk, &mut self.compressed[..])?;
        let stored = if length < chunk.len() { &self.compressed[..length] } else { chunk };
        let lengths = lengths(chunk.len(), stored.len());
        self.out.write_all(&lengths)?;
        self.out.write_all(&checksum(&[&lengths, stored]).to_le_bytes())?;
        self.out.write_all(stored)
    }
}

/// The bytes that chunks from here to their end hold.
///
/// # Errors
/// [`KernelError::State`] for bytes that are torn or were changed.
pub fn read_chunks(from: &mut ByteReader<'_>) -> Result<Vec<u8>> {
    let mut decompressor = Decompressor::new().map_err(|error| broken(&error.to_string()))?;
    let mut bytes = Vec::new();
    loop {
        let (length, stored, sum) = (from.u32()? as usize, from.u32()? as usize, from.u64()?);
        if stored > length || length > ChunkWriter::BYTES {
            return Err(broken("torn or changed (a chunk is longer than any)"));
        }
        let chunk = from.take(stored)?;
        if checksum(&[&lengths(length, stored), chunk]) != sum {
            return Err(broken("torn or changed (the checksum of a chunk differs)"));
        }
        if length == 0 {
            return Ok(bytes);
        }
        if stored == length {
            bytes.extend_from_slice(chunk);
            continue;
        }
        let plain =
            decompressor.decompress(chunk, length).map_err(|_| broken("a chunk that cannot be decompressed"))?;
        if plain.len() != length {
            return Err(broken("a chunk of another length than it says"));
        }
        bytes.extend_from_slice(&plain);
    }
}

fn lengths(length: usize, stored: usize) -> [u8; 8] {
    (length as u64 | (stored as u64) << 32).to_le_bytes()
}

fn not_written(error: std::io::Error) -> KernelError {
    KernelError::State(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bytes::ByteWriter;

    fn written(items: &[Vec<u8>]) -> Vec<u8> {
        let mut out = Vec::new();
        let mut writer = ByteWriter::chunked(ChunkWriter::new(&mut out).expect("a compressor"));
        items.iter().for_each(|item| writer.raw(item));
        writer.end().expect("memory takes all");
        out
    }

    /// Bytes that no compressor makes fewer.
    fn noise(length: usize) -> Vec<u8> {
        let mut word = 1u64;
        (0..length)
            .map(|_| {
                word = word.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                (word >> 56) as u8
            })
            .collect()
    }

    #[test]
    fn what_is_written_in_pieces_is_read_in_one() {
        let whole = ChunkWriter::BYTES;
        for items in [
            vec![],
            vec![vec![7]],
            vec![vec![1; whole]],
            vec![vec![1; whole - 1], vec![2; 2], noise(whole), vec![3; 3 * whole + 5]],
            vec![noise(5), noise(whole * 2)],
        ] {
            let bytes = written(&items);
            let mut from = ByteReader::new(&bytes);
            assert_eq!(read_chunks(&mut from).expect("what was written"), items.concat());
            assert!(from.end().is_ok());
        }
    }

    #[test]
    fn what_repeats_becomes_less_and_noise_hardly_more() {
        assert!(written(&[vec![7; 1 << 20]]).len() < 1 << 12);
        assert!(written(&[noise(1 << 20)]).len() < (1 << 20) + 100);
    }

    #[test]
    fn every_flipped_byte_and_every_torn_end_is_found() {
        let bytes = written(&[vec![5; 3_000], noise(50)]);
        for at in 0..bytes.len() {
            let mut flipped = bytes.clone();
            flipped[at] ^= 0x11;
            assert!(read_chunks(&mut ByteReader::new(&flipped)).is_err(), "byte {at}");
            assert!(read_chunks(&mut ByteReader::new(&bytes[..at])).is_err(), "torn at {at}");
        }
    }

    #[test]
    fn lengths_that_lie_take_no_memory() {
        for (length, stored) in [(u32::MAX, 8), (8, u32::MAX), (ChunkWriter::BYTES as u32 + 1, 8), (9, 8), (0, 8)] {
            let mut forged = lengths(length as usize, stored as usize).to_vec();
            let sum = checksum(&[&forged, &[0; 8]]);
            forged.extend_from_slice(&sum.to_le_bytes());
            forged.extend_from_slice(&[0; 8]);
            assert!(read_chunks(&mut ByteReader::new(&forged)).is_err(), "{length} {stored}");
        }
    }

    /// A place that takes so many bytes.
    struct Full(usize);

    impl Write for Full {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            let taken = bytes.len().min(self.0);
            self.0 -= taken;
            if taken == 0 {
                Err(std::io::Error::other("full"))
            } else {
                Ok(taken)
            }
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_place_that_is_full_is_told_at_the_end() {
        let mut place = Full(1 << 18);
        let mut writer = ByteWriter::chunked(ChunkWriter::new(&mut place).expect("a compressor"));
        (0..4).for_each(|_| writer.raw(&noise(1 << 18)));
        assert_eq!(writer.end().expect_err("it is full").to_string(), "state: full");
    }
}
