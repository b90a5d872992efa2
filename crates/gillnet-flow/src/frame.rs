//! What crosses the border to the host: frames of bytes, little-endian, so that a batch costs one call and one copy.
//!
//! A *chunk* goes in: `u16` stream, `i64` arrival in µs, `u32` records, each `i32` partition, `i64` offset (-1: none), then key,
//! headers and value as strings; `u32` partitions that were heard, each `u16` stream, `i32` number, `i64` newest event time, `i64`
//! when. *Records* come out: `u32` of them, each `u16` output, then key, headers and value. A string is an `i32` length, -1 for
//! none, and its bytes. Headers are passed on as they are: `u16` of them, each a `u16` length, its name, and its value as a string.

use gillnet_kernel::bytes::{ByteReader, ByteWriter};

use crate::error::{FlowError, Result};

/// One record as it came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InRecord<'a> {
    pub partition: i32,
    pub offset: Option<i64>,
    pub key: Option<&'a [u8]>,
    pub headers: Option<&'a [u8]>,
    pub value: &'a [u8],
}

/// How far a source partition was read, by one who reads all of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Heard {
    pub stream: u16,
    pub partition: i32,
    pub newest: i64,
    pub at: i64,
}

/// Records of one stream that arrived together.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Chunk<'a> {
    pub stream: u16,
    pub arrival: i64,
    pub records: Vec<InRecord<'a>>,
    pub heard: Vec<Heard>,
}

impl<'a> Chunk<'a> {
    /// Read a chunk.
    ///
    /// # Errors
    /// Bytes that are none.
    pub fn read(bytes: &'a [u8]) -> Result<Self> {
        let mut from = ByteReader::new(bytes);
        let chunk = Self::read_parts(&mut from).map_err(FlowError::Frame)?;
        from.end().map_err(FlowError::Frame)?;
        Ok(chunk)
    }

    fn read_parts(from: &mut ByteReader<'a>) -> gillnet_kernel::Result<Self> {
        let (stream, arrival, count) = (from.u16()?, from.i64()?, from.u32()?);
        let mut records = Vec::new();
        for _ in 0..count {
            let (partition, offset) = (from.i32()?, from.i64()?);
            let (key, headers, value) = (string(from)?, string(from)?, string(from)?.unwrap_or_default());
            records.push(InRecord { partition, offset: (offset >= 0).then_some(offset), key, headers, value });
        }
        let count = from.u32()?;
        let mut heard = Vec::new();
        for _ in 0..count {
            heard.push(Heard { stream: from.u16()?, partition: from.i32()?, newest: from.i64()?, at: from.i64()? });
        }
        Ok(Self { stream, arrival, records, heard })
    }

    /// The chunk's bytes.
    pub fn write(&self) -> Vec<u8> {
        let mut out = ByteWriter::default();
        out.u16(self.stream);
        out.i64(self.arrival);
        out.u32(self.records.len() as u32);
        for record in &self.records {
            out.i32(record.partition);
            out.i64(record.offset.unwrap_or(-1));
            write_string(&mut out, record.key);
            write_string(&mut out, record.headers);
            write_string(&mut out, Some(record.value));
        }
        out.u32(self.heard.len() as u32);
        for heard in &self.heard {
            out.u16(heard.stream);
            out.i32(heard.partition);
            out.i64(heard.newest);
            out.i64(heard.at);
        }
        out.finish()
    }
}

/// Records on their way out.
#[derive(Debug, Default)]
pub struct OutRecords {
    count: u32,
    bytes: Vec<u8>,
}

impl OutRecords {
    /// Add a record of an output.
    pub fn push(&mut self, output: u16, key: Option<&[u8]>, headers: Option<&[u8]>, value: &[u8]) {
        self.count += 1;
        self.bytes.extend_from_slice(&output.to_le_bytes());
        for part in [key, headers, Some(value)] {
            let length = part.map_or(-1, |bytes| bytes.len() as i32);
            self.bytes.extend_from_slice(&length.to_le_bytes());
            self.bytes.extend_from_slice(part.unwrap_or_default());
        }
    }

    /// The frame; empty where there are no records.
    pub fn finish(self) -> Vec<u8> {
        if self.count == 0 {
            return Vec::new();
        }
        let mut frame = Vec::with_capacity(4 + self.bytes.len());
        frame.extend_from_slice(&self.count.to_le_bytes());
        frame.extend_from_slice(&self.bytes);
        frame
    }
}

/// Headers with more of them behind: a later one wins where a name is there twice.
///
/// # Errors
/// Bytes that are no headers.
pub fn with_headers(headers: Option<&[u8]>, more: &[(&str, &[u8])]) -> Result<Vec<u8>> {
    let (count, rest) = match headers {
        None => (0, [].as_slice()),
        Some(bytes) => {
            let mut from = ByteReader::new(bytes);
            (from.u16().map_err(FlowError::Frame)?, &bytes[2..])
        }
    };
    let mut out = ByteWriter::default();
    out.u16(count.saturating_add(more.len() as u16));
    out.raw(rest);
    for (name, value) in more {
        out.u16(name.len() as u16);
        out.raw(name.as_bytes());
        write_string(&mut out, Some(value));
    }
    Ok(out.finish())
}

fn string<'a>(from: &mut ByteReader<'a>) -> gillnet_kernel::Result<Option<&'a [u8]>> {
    match from.i32()? {
        length if length < 0 => Ok(None),
        length => from.take(length as usize).map(Some),
    }
}

fn write_string(out: &mut ByteWriter<'_>, string: Option<&[u8]>) {
    out.i32(string.map_or(-1, |bytes| bytes.len() as i32));
    out.raw(string.unwrap_or_default());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chunk_is_read_as_it_was_written_and_a_torn_one_is_refused() {
        let record = |key, value| InRecord { partition: 3, offset: Some(7), key, headers: None, value };
        let records = vec![record(Some(b"k".as_slice()), b"{}".as_slice()), record(None, b"")];
        let heard = vec![Heard { stream: 1, partition: 3, newest: -5, at: 9 }];
        let chunk = Chunk { stream: 1, arrival: 12, records, heard };
        let bytes = chunk.write();
        assert_eq!(Chunk::read(&bytes).expect("a chunk"), chunk);
        for end in 0..bytes.len() {
            assert!(Chunk::read(&bytes[..end]).is_err(), "{end}");
        }
    }

    #[test]
    fn headers_are_kept_and_the_added_ones_stand_last() {
        let once = with_headers(None, &[("a", b"1")]).expect("headers");
        let twice = with_headers(Some(&once), &[("a", b"2")]).expect("headers");
        assert_eq!(twice[..2], 2_u16.to_le_bytes());
        assert!(twice.ends_with(b"a\x01\0\0\x002"));
        assert!(with_headers(Some(b"x"), &[]).is_err());
    }
}
