//! The rows that went out and can still change: their columns as last emitted, by id.
//!
//! Rows are kept by the batch, small batches joined to larger ones, so that a slow stream does not pay for the frame of a batch
//! with every row, and large ones packed. A row that is revised is put in again, and its earlier version is dead weight until
//! its segment expires. A segment goes when all of its rows are out of reach.

use std::collections::VecDeque;
use std::sync::Arc;

use arrow::array::{new_null_array, Array, ArrayRef, RecordBatch, UInt32Array};
use arrow::compute::{concat_batches, take_record_batch};
use arrow::datatypes::{Field, Schema, SchemaRef};
use hashbrown::hash_table::{Entry, HashTable};

use super::packed::{pack, unpack};
use crate::bytes::{broken, ByteReader, ByteWriter};
use crate::error::Result;

/// Rows of one segment at the most, unless one batch brings more.
const SEGMENT_ROWS: usize = 4_096;
/// A segment of so many rows is not joined any more, and is packed.
const SEALED_ROWS: usize = SEGMENT_ROWS / 2;
/// Segments of about one size that are joined, unless fewer make a full one.
const JOINED_AT_ONCE: usize = 8;

/// Segments by which the bytes of all are estimated.
const ESTIMATED_BY: usize = 32;

/// Number of a row: counts up over the life of the store.
pub type RowNumber = u64;

#[derive(Debug)]
struct Segment {
    first: RowNumber,
    newest: i64,
    batch: RecordBatch,
    ids: Vec<u128>,
    /// Of each row; empty while all are 0.
    revisions: Vec<u32>,
}

impl Segment {
    fn heap_bytes(&self) -> usize {
        // Columns that were read from a snapshot are parts of one buffer, which each of them would count whole.
        let column = |array: &ArrayRef| {
            array.to_data().get_slice_memory_size().unwrap_or_else(|_| array.get_array_memory_size())
        };
        let columns: usize = self.batch.columns().iter().map(column).sum();
        columns + self.ids.capacity() * 16 + self.revisions.capacity() * 4
    }
}

fn join(segments: VecDeque<Segment>) -> Result<Segment> {
    let rows = segments.iter().map(|segment| segment.ids.len()).sum();
    let first = segments.front().expect("at least one segment");
    let mut joined = Segment {
        first: first.first,
        newest: first.newest,
        batch: concat_batches(&first.batch.schema(), segments.iter().map(|segment| &segment.batch))?,
        ids: Vec::with_capacity(rows),
        revisions: Vec::new(),
    };
    let revised = segments.iter().any(|segment| !segment.revisions.is_empty());
    for segment in segments {
        joined.newest = joined.newest.max(segment.newest);
        joined.ids.extend_from_slice(&segment.ids);
        if revised {
            joined.revisions.extend_from_slice(&segment.revisions);
            joined.revisions.resize(joined.ids.len(), 0);
        }
    }
    Ok(joined)
}

/// Emitted rows by id key.
#[derive(Debug, Default)]
pub struct RowStore {
    segments: VecDeque<Segment>,
    schema: Option<SchemaRef>,
    index: HashTable<(RowNumber, u64)>,
    next: RowNumber,
}

impl RowStore {
    /// Keep rows; a row whose id is kept already takes the place of that one. `revisions` is empty where all are 0.
    ///
    /// # Errors
    /// Batches of different schemas.
    pub fn keep(&mut self, batch: RecordBatch, times: &[i64], ids: &[u128], revisions: &[u32]) -> Result<()> {
        let Some(&newest) = times.iter().max() else { return Ok(()) };
        let first = self.next;
        self.next += ids.len() as u64;
        self.schema.get_or_insert_with(|| batch.schema());
        self.segments.push_back(Segment { first, newest, batch, ids: ids.to_vec(), revisions: revisions.to_vec() });
        for (number, &id) in (first..).zip(ids) {
            self.point(id, number);
        }
        self.join_small()
    }

    fn point(&mut self, id: u128, number: RowNumber) {
        let hash = mix(id);
        // The whole hash is kept: ids whose hashes are equal in all 64 bits are told apart by the row itself.
        let Self { segments, index, .. } = self;
        let same = |&(at, kept): &(RowNumber, u64)| kept == hash && id_at(segments, at) == Some(id);
        match index.entry(hash, same, |&(_, kept)| kept) {
            Entry::Occupied(mut entry) => entry.get_mut().0 = number,
            Entry::Vacant(place) => {
                place.insert((number, hash));
            }
        }
    }

    /// Join the newest segments once there are some of about one size: each row is copied a few times, and a small batch seldom.
    fn join_small(&mut self) -> Result<()> {
        while let Some(many) = self.newest_of_one_size() {
            let joined = self.segments.split_off(self.segments.len() - many);
            self.segments.push_back(join(joined)?);
        }
        match self.segments.back_mut() {
            Some(last) if last.ids.len() >= SEALED_ROWS => last.batch = pack(&last.batch)?,
            _ => {}
        }
        Ok(())
    }

    /// How many of the newest segments are to be joined now.
    fn newest_of_one_size(&self) -> Option<usize> {
        let most = self.segments.back()?.ids.len() * 2;
        let (mut many, mut rows) = (0, 0);
        for segment in self.segments.iter().rev() {
            let own = segment.ids.len();
            if own >= SEALED_ROWS || own > most || rows + own > SEGMENT_ROWS {
                break;
            }
            (many, rows) = (many + 1, rows + own);
        }
        (many >= JOINED_AT_ONCE || many > 1 && rows >= SEALED_ROWS).then_some(many)
    }

    /// The row of an id, if it is kept.
    pub fn find(&self, id: u128) -> Option<RowNumber> {
        let hash = mix(id);
        let same = |&(at, kept): &(RowNumber, u64)| kept == hash && id_at(&self.segments, at) == Some(id);
        self.index.find(hash, same).map(|&(number, _)| number)
    }

    /// How often a row was revised.
    pub fn revision(&self, number: RowNumber) -> u32 {
        let (segment, row) = place(&self.segments, number).expect("a row that is kept");
        self.segments[segment].revisions.get(row).copied().unwrap_or(0)
    }

    /// Rows as last emitted, in the order of `numbers`.
    ///
    /// # Errors
    /// None but arrow's own.
    pub fn take(&self, numbers: &[RowNumber]) -> Result<RecordBatch> {
        let mut places: Vec<(usize, u32, usize)> = Vec::with_capacity(numbers.len());
        for (wanted, &number) in numbers.iter().enumerate() {
            let (segment, row) = place(&self.segments, number).expect("a row that is kept");
            places.push((segment, row as u32, wanted));
        }
        places.sort_unstable();
        let schema = self.schema.as_ref().expect("known with the first row");
        let mut parts = Vec::new();
        for of_segment in places.chunk_by(|a, b| a.0 == b.0) {
            let rows = UInt32Array::from_iter_values(of_segment.iter().map(|&(_, row, _)| row));
            parts.push(unpack(&take_record_batch(&self.segments[of_segment[0].0].batch, &rows)?, schema)?);
        }
        let mut order = vec![0; numbers.len()];
        for (at, &(_, _, wanted)) in places.iter().enumerate() {
            order[wanted] = at as u32;
        }
        Ok(take_record_batch(&concat_batches(schema, &parts)?, &UInt32Array::from(order))?)
    }

    /// Forget rows that no event can change any more: segments whose rows all lie before `horizon`.
    pub fn expire(&mut self, horizon: i64) {
        let Self { segments, index, .. } = self;
        while segments.front().is_some_and(|segment| segment.newest < horizon) {
            let gone = segments.pop_front().expect("just seen");
            for (number, id) in (gone.first..).zip(gone.ids) {
                let hash = mix(id);
                if let Ok(entry) = index.find_entry(hash, |&(at, _)| at == number) {
                    entry.remove();
                }
            }
        }
        if index.capacity() > 1_024 && index.len() * 4 < index.capacity() {
            let len = index.len();
            index.shrink_to(len * 2, |&(_, hash)| hash);
        }
    }

    /// Take rows over with other columns: those of the same name and type, and null in place of the others.
    ///
    /// # Errors
    /// None but arrow's own.
    pub fn take_over(&mut self, old: &Self, fields: &[Field]) -> Result<()> {
        self.next = old.next;
        let Some(before) = &old.schema else { return Ok(()) };
        let schema = Arc::new(row_schema(before, fields));
        for segment in &old.segments {
            let batch = unpack(&segment.batch, before)?;
            let column = |field: &Arc<Field>| match batch.column_by_name(field.name()) {
                Some(column) if column.data_type() == field.data_type() => Arc::clone(column),
                _ => new_null_array(field.data_type(), batch.num_rows()),
            };
            let batch = RecordBatch::try_new(Arc::clone(&schema), schema.fields().iter().map(column).collect())?;
            let batch = if segment.ids.len() >= SEALED_ROWS { pack(&batch)? } else { batch };
            let Segment { first, newest, ids, revisions, .. } = segment;
            let (ids, revisions) = (ids.clone(), revisions.clone());
            self.segments.push_back(Segment { first: *first, newest: *newest, batch, ids, revisions });
        }
        self.schema = Some(schema);
        for number in 0..self.segments.len() {
            let first = self.segments[number].first;
            for row in 0..self.segments[number].ids.len() {
                self.point(self.segments[number].ids[row], first + row as u64);
            }
        }
        Ok(())
    }

    /// Write every segment as it is.
    ///
    /// # Errors
    /// None but arrow's own.
    pub fn write_state(&self, out: &mut ByteWriter) -> Result<()> {
        out.u64(self.next);
        out.flag(self.schema.is_some());
        if let Some(schema) = &self.schema {
            out.batch(&RecordBatch::new_empty(Arc::clone(schema)))?;
        }
        out.count(self.segments.len());
        for segment in &self.segments {
            out.u64(segment.first);
            out.i64(segment.newest);
            out.count(segment.ids.len());
            segment.ids.iter().for_each(|&id| out.u128(id));
            out.count(segment.revisions.len());
            segment.revisions.iter().for_each(|&revision| out.u32(revision));
            out.batch(&segment.batch)?;
        }
        Ok(())
    }

    /// Read what [`Self::write_state`] wrote.
    ///
    /// # Errors
    /// Bytes that are no rows.
    pub fn read_state(&mut self, from: &mut ByteReader<'_>) -> Result<()> {
        self.next = from.u64()?;
        self.schema = if from.flag()? { Some(from.batch()?.schema()) } else { None };
        self.segments = from.list(read_segment)?.into();
        let mut end = 0;
        for number in 0..self.segments.len() {
            let (first, rows) = (self.segments[number].first, self.segments[number].ids.len());
            if first < end || first.checked_add(rows as u64).is_none_or(|end| end > self.next) {
                return Err(broken("rows out of order"));
            }
            end = first + rows as u64;
            // Later rows take the place of earlier ones of the same id, as when they were kept.
            for row in 0..rows {
                self.point(self.segments[number].ids[row], first + row as u64);
            }
        }
        Ok(())
    }

    /// Whether a row is kept.
    pub fn holds(&self, number: RowNumber) -> bool {
        place(&self.segments, number).is_some()
    }

    /// Rows that can be found.
    pub fn len(&self) -> usize {
        self.index.len()
    }

    /// Bytes of heap memory in use.
    pub fn heap_bytes(&self) -> usize {
        self.segments.iter().map(Segment::heap_bytes).sum::<usize>() + self.index.allocation_size()
    }

    /// The same by a few of the segments, so that it costs as much however many there are.
    pub fn estimated_bytes(&self) -> usize {
        let step = self.segments.len().div_ceil(ESTIMATED_BY).max(1);
        let looked_at = self.segments.iter().step_by(step);
        let (number, bytes) = looked_at.fold((0, 0), |(n, bytes), segment| (n + 1, bytes + segment.heap_bytes()));
        bytes * self.segments.len() / number.max(1) + self.index.allocation_size()
    }

    /// Of each segment, the event time of its newest row, its rows and its bytes.
    pub fn segments(&self) -> impl Iterator<Item = (i64, usize, usize)> + '_ {
        self.segments.iter().map(|segment| (segment.newest, segment.ids.len(), segment.heap_bytes()))
    }

    /// Bytes of the index of rows by id.
    pub fn index_bytes(&self) -> usize {
        self.index.allocation_size()
    }
}

/// The columns of a row under another plan: those of the same name and type are as they were, the others may be null.
fn row_schema(old: &Schema, fields: &[Field]) -> Schema {
    let field = |field: &Field| {
        let same = old.field_with_name(field.name()).ok().filter(|other| other.data_type() == field.data_type());
        let nullable = field.is_nullable() || same.is_none_or(Field::is_nullable);
        Arc::new(field.clone().with_nullable(nullable))
    };
    Schema::new(fields.iter().map(field).collect::<Vec<_>>())
}

fn read_segment(from: &mut ByteReader<'_>) -> Result<Segment> {
    let (first, newest) = (from.u64()?, from.i64()?);
    let (ids, revisions) = (from.list(ByteReader::u128)?, from.list(ByteReader::u32)?);
    let batch = from.batch()?;
    if batch.num_rows() != ids.len() || !(revisions.is_empty() || revisions.len() == ids.len()) {
        return Err(broken("a segment whose rows, ids and revisions differ in number"));
    }
    Ok(Segment { first, newest, batch, ids, revisions })
}

/// The segment of a row, and its place there.
fn place(segments: &VecDeque<Segment>, number: RowNumber) -> Option<(usize, usize)> {
    let segment = segments.partition_point(|segment| segment.first <= number).checked_sub(1)?;
    let row = (number - segments[segment].first) as usize;
    (row < segments[segment].ids.len()).then_some((segment, row))
}

fn id_at(segments: &VecDeque<Segment>, number: RowNumber) -> Option<u128> {
    place(segments, number).map(|(segment, row)| segments[segment].ids[row])
}

fn mix(id: u128) -> u64 {
    let mixed = ((id >> 64) as u64 ^ 0x9E37_79B9_7F4A_7C15).wrapping_mul(0xBF58_476D_1CE4_E5B9) ^ id as u64;
    let mixed = (mixed ^ mixed >> 31).wrapping_mul(0x94D0_49BB_1331_11EB);
    mixed ^ mixed >> 29
}
