//! Bytes of state, little-endian: each part of the state writes itself, and reads itself in the same order.
//!
//! A reader never trusts a length: it takes no more than there is, and allocates nothing that the bytes themselves do not fill.

use std::io::Cursor;
use std::panic::catch_unwind;

use arrow::array::RecordBatch;
use arrow::ipc::reader::StreamReader;
use arrow::ipc::writer::StreamWriter;
use arrow::ipc::{root_as_message, RecordBatch as IpcBatch};

use crate::chunks::ChunkWriter;
use crate::error::{KernelError, Result};

/// What each message of an Arrow IPC stream begins with.
const CONTINUES: u32 = 0xFFFF_FFFF;

/// Collects the bytes of a part, or hands them on whenever there are enough for a chunk.
#[derive(Default)]
pub struct ByteWriter<'a> {
    buffer: Vec<u8>,
    chunks: Option<ChunkWriter<'a>>,
}

/// Gives a part's bytes back, in the order in which they were written.
#[derive(Debug, Clone)]
pub struct ByteReader<'a>(&'a [u8]);

macro_rules! numbers {
    ($($name:ident),*) => {
        impl ByteWriter<'_> {
            $(
                /// A number.
                pub fn $name(&mut self, value: $name) {
                    self.raw(&value.to_le_bytes());
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

impl<'a> ByteWriter<'a> {
    /// A writer that hands on what it has in chunks.
    pub fn chunked(chunks: ChunkWriter<'a>) -> Self {
        Self { buffer: Vec::with_capacity(2 * ChunkWriter::BYTES), chunks: Some(chunks) }
    }

    /// The bytes that were not handed on.
    pub fn finish(self) -> Vec<u8> {
        self.buffer
    }

    /// Hand the rest on, and say that it was the last.
    ///
    /// # Errors
    /// The first error of those who took chunks.
    pub fn end(self) -> Result<()> {
        self.chunks.map_or(Ok(()), |chunks| chunks.end(&self.buffer))
    }

    /// Bytes as they are: the reader must know how many.
    pub fn raw(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() >= ChunkWriter::BYTES {
            if let Some(chunks) = &mut self.chunks {
                chunks.write(&mut self.buffer);
            }
        }
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
        let bytes = self.bytes()?;
        check_stream(bytes)?;
        // The reader is written for what its own writer wrote. What is checked above keeps it from taking memory; whatever else it
        // stumbles over must not end the process.
        catch_unwind(|| read_stream(bytes)).unwrap_or_else(|_| Err(broken("a stream that cannot be read")))
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

fn read_stream(bytes: &[u8]) -> Result<RecordBatch> {
    let mut stream = StreamReader::try_new(Cursor::new(bytes), None)?;
    match (stream.next(), stream.next()) {
        (Some(batch), None) => Ok(batch?),
        _ => Err(broken("a stream that is not of one batch")),
    }
}

/// Whether every length in an Arrow IPC stream is one of bytes that are there: its reader takes them at their word.
fn check_stream(bytes: &[u8]) -> Result<()> {
    let mut from = ByteReader::new(bytes);
    loop {
        if from.u32()? != CONTINUES {
            return Err(broken("a stream of another form"));
        }
        let length = from.u32()? as usize;
        if length == 0 {
            return from.end();
        }
        let message = root_as_message(from.take(length)?).map_err(|_| broken("a stream with a torn message"))?;
        let body = usize::try_from(message.bodyLength()).map_err(|_| broken("a stream with a body of no length"))?;
        from.take(body)?;
        let dictionary = message.header_as_dictionary_batch();
        let batch = dictionary.and_then(|dictionary| dictionary.data()).or(message.header_as_record_batch());
        if let Some(batch) = batch {
            check_message(&batch, body)?;
        }
    }
}

fn check_message(batch: &IpcBatch<'_>, body: usize) -> Result<()> {
    // A compressed buffer has a length of its own, of what it would be.
    if batch.compression().is_some() || batch.variadicBufferCounts().is_some_and(|counts| !counts.is_empty()) {
        return Err(broken("a stream of another form"));
    }
    let inside = |offset: i64, length: i64| {
        let end = usize::try_from(offset).ok().zip(usize::try_from(length).ok()).and_then(|(at, n)| at.checked_add(n));
        end.is_some_and(|end| end <= body)
    };
    // A bit for each row of a column at the least, but for columns of nulls, of which there are none.
    let most_rows = body as i64 * 8;
    let rows = |rows: i64| (0..=most_rows).contains(&rows);
    let buffers = batch.buffers().is_none_or(|buffers| buffers.iter().all(|b| inside(b.offset(), b.length())));
    let nodes =
        batch.nodes().is_none_or(|nodes| nodes.iter().all(|node| rows(node.length()) && rows(node.null_count())));
    if !(buffers && nodes && rows(batch.length())) {
        return Err(broken("a stream whose columns are longer than it"));
    }
    Ok(())
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
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Int64Array, StringArray};
    use arrow::compute::cast;
    use arrow::datatypes::DataType;

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

    fn written(batch: &RecordBatch) -> Vec<u8> {
        let mut out = ByteWriter::default();
        out.batch(batch).expect("a batch");
        out.finish()
    }

    fn texts_and_numbers() -> RecordBatch {
        let texts: ArrayRef = Arc::new(StringArray::from(vec![Some("köln"), None, Some(""), Some("bern")]));
        let numbers: ArrayRef = Arc::new(Int64Array::from(vec![1, i64::MIN, 0, 7]));
        let narrow =
            cast(&texts, &DataType::Dictionary(DataType::Int8.into(), DataType::Utf8.into())).expect("numbered");
        RecordBatch::try_from_iter([("t", texts), ("n", numbers), ("d", narrow)]).expect("columns of one length")
    }

    /// Arrow's own reader takes offsets, lengths and numbers of rows at their word: it panicked where they lie outside.
    #[test]
    fn a_batch_comes_back_and_one_whose_lengths_lie_is_refused() {
        let batch = texts_and_numbers();
        let bytes = written(&batch);
        assert_eq!(ByteReader::new(&bytes).batch().expect("the batch"), batch);
        let mut told = 0;
        for at in (8..bytes.len() - 8).step_by(4) {
            for lie in [1u64 << 34, u64::MAX, i64::MAX as u64, 1 << 20, 0] {
                let mut forged = bytes.clone();
                forged[at..at + 8].copy_from_slice(&lie.to_le_bytes());
                if let Err(error) = ByteReader::new(&forged).batch() {
                    told += usize::from(error.to_string().contains("columns are longer than it"));
                }
            }
        }
        assert!(told > 50, "an offset, a length or a number of rows: {told}");
        for end in 0..bytes.len() {
            assert!(ByteReader::new(&bytes[..end]).batch().is_err());
        }
    }
}
