//! The events of one large key, sorted by (event time, id), in chunks.
//!
//! Appending is O(1); an insertion behind the newest event moves at most one chunk (O(`CHUNK_ROWS`)), and finding its place
//! costs O(log n). Dropping expired events frees whole chunks, so memory comes back while the key lives on.

use std::collections::VecDeque;

use super::row::{self, OrderKey};

/// Events of one chunk at the most.
pub const CHUNK_ROWS: usize = 256;

/// A place between two events: before event `index` of chunk `chunk`. The end is (last chunk, its length).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Position {
    pub chunk: u32,
    pub index: u32,
}

/// Sorted rows of one key.
#[derive(Debug)]
pub struct EventLog {
    stride: usize,
    chunks: VecDeque<Vec<u64>>,
    rows: usize,
}

impl EventLog {
    /// Take over rows that are sorted already.
    pub fn from_sorted(stride: usize, rows: &[u64]) -> Self {
        let mut log = Self { stride, chunks: VecDeque::new(), rows: rows.len() / stride };
        // Two thirds full, so that the next late event does not split a chunk at once.
        for part in rows.chunks(CHUNK_ROWS * 2 / 3 * stride) {
            log.chunks.push_back(part.to_vec());
        }
        if log.chunks.is_empty() {
            log.chunks.push_back(Vec::new());
        }
        log
    }

    /// Take over sorted rows in chunks of these lengths.
    pub fn from_chunks(stride: usize, mut rows: &[u64], lengths: &[u16]) -> Self {
        let mut log = Self { stride, chunks: VecDeque::new(), rows: rows.len() / stride };
        for &length in lengths {
            let (chunk, rest) = rows.split_at(usize::from(length) * stride);
            log.chunks.push_back(chunk.to_vec());
            rows = rest;
        }
        log
    }

    /// Number of events in each chunk: where they end decides which expired events go first.
    pub fn chunk_lengths(&self) -> impl Iterator<Item = u16> + '_ {
        (0..self.chunks.len()).map(|chunk| self.chunk_len(chunk) as u16)
    }

    /// Number of events.
    pub fn len(&self) -> usize {
        self.rows
    }

    /// Whether it holds no event.
    pub fn is_empty(&self) -> bool {
        self.rows == 0
    }

    /// Bytes of heap memory in use.
    pub fn heap_bytes(&self) -> usize {
        self.chunks.iter().map(|chunk| chunk.capacity() * 8).sum::<usize>() + self.chunks.capacity() * 24
    }

    /// Before the first event.
    pub fn begin(&self) -> Position {
        Position::default()
    }

    /// After the last event.
    pub fn end(&self) -> Position {
        let chunk = self.chunks.len() - 1;
        Position { chunk: chunk as u32, index: self.chunk_len(chunk) as u32 }
    }

    /// The event at a position that is not the end.
    #[inline]
    pub fn row(&self, at: Position) -> &[u64] {
        let start = at.index as usize * self.stride;
        &self.chunks[at.chunk as usize][start..start + self.stride]
    }

    /// The next position; `at` must not be the end.
    #[inline]
    pub fn next(&self, at: Position) -> Position {
        self.normal(Position { chunk: at.chunk, index: at.index + 1 })
    }

    /// The same place in the form that positions have: the end of a chunk is the beginning of the next.
    pub fn normal(&self, at: Position) -> Position {
        if at.index as usize == self.chunk_len(at.chunk as usize) && (at.chunk as usize) + 1 < self.chunks.len() {
            Position { chunk: at.chunk + 1, index: 0 }
        } else {
            at
        }
    }

    /// The position before; `at` must not be the beginning.
    #[inline]
    pub fn previous(&self, at: Position) -> Position {
        if at.index > 0 {
            Position { chunk: at.chunk, index: at.index - 1 }
        } else {
            let chunk = at.chunk - 1;
            Position { chunk, index: self.chunk_len(chunk as usize) as u32 - 1 }
        }
    }

    /// The newest event.
    pub fn last(&self) -> Option<&[u64]> {
        (self.rows > 0).then(|| self.row(self.previous(self.end())))
    }

    /// The oldest event.
    pub fn first(&self) -> Option<&[u64]> {
        (self.rows > 0).then(|| self.row(self.begin()))
    }

    /// The first position whose event is at `key` or after it.
    pub fn lower_bound(&self, key: OrderKey) -> Position {
        // In order of arrival the answer is nearly always the end.
        if self.last().is_none_or(|last| row::order_key(last) < key) {
            return self.end();
        }
        self.partition_point(|row| row::order_key(row) < key)
    }

    /// The first position whose event has event time `time` or later.
    pub fn first_at_or_after(&self, time: i64) -> Position {
        if self.last().is_none_or(|last| row::time(last) < time) {
            return self.end();
        }
        self.partition_point(|row| row::time(row) < time)
    }

    /// How many events lie before `time`.
    pub fn count_before(&self, time: i64) -> usize {
        if self.is_empty() {
            return 0;
        }
        let at = self.first_at_or_after(time);
        let whole: usize = (0..at.chunk as usize).map(|chunk| self.chunk_len(chunk)).sum();
        whole + at.index as usize
    }

    fn partition_point(&self, before: impl Fn(&[u64]) -> bool) -> Position {
        let chunk = self.chunks.partition_point(|chunk| before(&chunk[chunk.len() - self.stride..]));
        let rows = &self.chunks[chunk];
        let (mut low, mut high) = (0, rows.len() / self.stride);
        while low < high {
            let middle = (low + high) / 2;
            if before(&rows[middle * self.stride..(middle + 1) * self.stride]) {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        Position { chunk: chunk as u32, index: low as u32 }
    }

    /// Insert `row` before `at`, and tell how other positions move.
    pub fn insert(&mut self, at: Position, row: &[u64]) -> Inserted {
        debug_assert_eq!(row.len(), self.stride);
        self.rows += 1;
        let chunk = at.chunk as usize;
        let length = self.chunk_len(chunk);
        if length < CHUNK_ROWS {
            insert_words(&mut self.chunks[chunk], at.index as usize * self.stride, row);
            return Inserted { at, split: None };
        }
        if at == self.end() {
            let mut fresh = Vec::with_capacity(CHUNK_ROWS * self.stride);
            fresh.extend_from_slice(row);
            self.chunks.push_back(fresh);
            let at = Position { chunk: at.chunk + 1, index: 0 };
            return Inserted { at, split: Some(Position { chunk: at.chunk - 1, index: length as u32 }) };
        }
        let middle = length / 2;
        let upper = self.chunks[chunk].split_off(middle * self.stride);
        self.chunks[chunk].shrink_to_fit();
        self.chunks.insert(chunk + 1, upper);
        let split = Position { chunk: at.chunk, index: middle as u32 };
        let at = moved_by_split(at, split);
        insert_words(&mut self.chunks[at.chunk as usize], at.index as usize * self.stride, row);
        Inserted { at, split: Some(split) }
    }

    /// The rows of the oldest chunk that may go now: all of it, if it lies before `horizon`, or its expired beginning once that
    /// is half of it, so that the copying is paid for by the rows that go.
    pub fn expired(&self, horizon: i64) -> &[u64] {
        let Some(front) = self.chunks.front() else { return &[] };
        let rows = front.len() / self.stride;
        let (mut low, mut high) = (0, rows);
        while low < high {
            let middle = (low + high) / 2;
            if row::time(&front[middle * self.stride..]) < horizon {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        if low * 2 >= rows {
            &front[..low * self.stride]
        } else {
            &[]
        }
    }

    /// The rows of the oldest chunk, whatever their age.
    pub fn oldest_chunk(&self) -> &[u64] {
        &self.chunks[0]
    }

    /// Event times of the run of events with gaps of at most `gap` that the first event at or after `anchor` stands in, and
    /// whether the run begins with the oldest event. None if there is no such event.
    pub fn run_times(&self, anchor: i64, gap: i64) -> Option<(bool, Vec<i64>)> {
        let at = self.first_at_or_after(anchor);
        if at == self.end() {
            return None;
        }
        let time_at = |at: Position| row::time(self.row(at));
        let mut low = at;
        while low > self.begin() && time_at(low) - time_at(self.previous(low)) <= gap {
            low = self.previous(low);
        }
        let mut times = vec![time_at(low)];
        let mut next = self.next(low);
        while next != self.end() && time_at(next) - times[times.len() - 1] <= gap {
            times.push(time_at(next));
            next = self.next(next);
        }
        Some((low == self.begin(), times))
    }

    /// Places in the order of I1 of the events after `after`, up to event time `until`.
    pub fn orders_after(&self, after: OrderKey, until: i64) -> Vec<OrderKey> {
        let mut found = Vec::new();
        let mut at = self.lower_bound((after.0, after.1.saturating_add(1)));
        let end = self.end();
        while at != end && row::time(self.row(at)) <= until {
            found.push(row::order_key(self.row(at)));
            at = self.next(at);
        }
        found
    }

    /// Drop the oldest `rows` events, which are all in the oldest chunk. Positions move: see [`moved_by_drop`]. True if the
    /// chunk went with them.
    pub fn drop_front(&mut self, rows: usize) -> bool {
        self.rows -= rows;
        if self.chunk_len(0) == rows && self.chunks.len() > 1 {
            self.chunks.pop_front();
            return true;
        }
        let front = &mut self.chunks[0];
        front.drain(..rows * self.stride);
        if front.capacity() > 3 * front.len() {
            front.shrink_to(front.len() * 3 / 2);
        }
        false
    }

    /// All rows in order, copied into one run of words.
    pub fn to_words(&self) -> Vec<u64> {
        self.chunks.iter().flatten().copied().collect()
    }

    fn chunk_len(&self, chunk: usize) -> usize {
        self.chunks[chunk].len() / self.stride
    }
}

/// What an insertion did: where the row is now, and the position at which a full chunk was split, if one was.
#[derive(Debug, Clone, Copy)]
pub struct Inserted {
    pub at: Position,
    pub split: Option<Position>,
}

/// Where a position that was taken before a split lies after it.
#[inline]
pub fn moved_by_split(position: Position, split: Position) -> Position {
    if position.chunk > split.chunk {
        Position { chunk: position.chunk + 1, index: position.index }
    } else if position.chunk == split.chunk && position.index >= split.index {
        Position { chunk: position.chunk + 1, index: position.index - split.index }
    } else {
        position
    }
}

/// Where a position lies after `rows` events were dropped before it, and their chunk with them where `chunk_gone`.
#[inline]
pub fn moved_by_drop(position: Position, rows: usize, chunk_gone: bool) -> Position {
    match (position.chunk, chunk_gone) {
        (0, false) => Position { chunk: 0, index: position.index - rows as u32 },
        (chunk, true) => Position { chunk: chunk - 1, index: position.index },
        (_, false) => position,
    }
}

fn insert_words(words: &mut Vec<u64>, at: usize, row: &[u64]) {
    if at == words.len() {
        words.extend_from_slice(row);
    } else {
        let end = words.len();
        words.extend_from_slice(row);
        words.copy_within(at..end, at + row.len());
        words[at..at + row.len()].copy_from_slice(row);
    }
}
