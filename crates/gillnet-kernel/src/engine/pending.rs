//! Rows that wait before they are computed (I8): until the other streams have caught up, or until the watermark says that
//! nothing more will come; always bounded.
//!
//! Their events are in the state already: what comes meanwhile reads them. A row that leaves is read as of its own event.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::compute::interleave_record_batch;

use super::entity::Reader;
use super::plan::EmissionPlan;
use super::stream::{Accepted, StreamState};
use super::{Engine, Turn};
use crate::bytes::{broken, ByteReader, ByteWriter};
use crate::error::Result;
use crate::keyed::row::OrderKey;

/// Rows that wait at the most; beyond it the oldest leave, with what is known.
pub const MAX_PENDING_ROWS: usize = 1_000_000;

/// Rows that wait, in the order of I1.
pub struct Pending {
    emission: EmissionPlan,
    rows: BTreeMap<OrderKey, Waiting>,
    /// In the order of arrival; rows that have left are passed over.
    queue: VecDeque<(i64, OrderKey)>,
    limit: usize,
    pushed_out: u64,
}

struct Waiting {
    batch: Arc<RecordBatch>,
    row: usize,
    arrival: i64,
    late: bool,
}

/// Rows that leave, with when each arrived.
struct Released {
    accepted: Accepted,
    arrivals: Vec<i64>,
}

impl Pending {
    /// None where rows leave on arrival.
    pub fn new(emission: EmissionPlan, limit: usize) -> Option<Self> {
        let waits = !matches!(emission, EmissionPlan::OnArrival);
        waits.then(|| Self { emission, rows: BTreeMap::new(), queue: VecDeque::new(), limit, pushed_out: 0 })
    }

    /// Let rows wait.
    fn hold(&mut self, accepted: &Accepted, arrival: i64) {
        let batch = Arc::new(accepted.batch.clone());
        for row in 0..accepted.len() {
            let order = (accepted.times[row], accepted.ids[row]);
            self.rows.insert(order, Waiting { batch: batch.clone(), row, arrival, late: accepted.late[row] });
            self.queue.push_back((arrival, order));
        }
    }

    /// Take the rows that need not wait any longer: those up to event time `complete_to`, those that have waited for as long
    /// as they may by processing time `now`, and the oldest beyond the limit. None if there are none. They are computed under
    /// `watermark`, their stream's.
    ///
    /// # Errors
    /// None but arrow's own.
    fn take(&mut self, complete_to: i64, watermark: i64, now: i64) -> Result<Option<Released>> {
        let mut leaving: Vec<(OrderKey, Waiting)> = Vec::new();
        while let Some(entry) = self.rows.first_entry().filter(|entry| entry.key().0 <= complete_to) {
            leaving.push(entry.remove_entry());
        }
        let longest = match self.emission {
            EmissionPlan::MaxWait { max_wait_us } => max_wait_us,
            _ => i64::MAX,
        };
        while let Some(&(arrival, order)) = self.queue.front() {
            let over_limit = self.rows.len() > self.limit;
            if self.rows.contains_key(&order) && now.saturating_sub(arrival) < longest && !over_limit {
                break;
            }
            self.queue.pop_front();
            if let Some(waiting) = self.rows.remove(&order) {
                self.pushed_out += u64::from(over_limit);
                leaving.push((order, waiting));
            }
        }
        leaving.sort_unstable_by_key(|(order, _)| *order);
        if leaving.is_empty() {
            return Ok(None);
        }
        released(leaving, watermark).map(Some)
    }

    /// When the row that has waited longest arrived.
    pub fn since(&mut self) -> Option<i64> {
        while self.queue.front().is_some_and(|(_, order)| !self.rows.contains_key(order)) {
            self.queue.pop_front();
        }
        self.queue.front().map(|&(arrival, _)| arrival)
    }

    /// The earliest event time that waits; what is read as of it must not be forgotten.
    pub fn earliest(&self) -> i64 {
        self.rows.first_key_value().map_or(i64::MAX, |(order, _)| order.0)
    }

    /// Write the rows that wait, in the order of arrival.
    ///
    /// # Errors
    /// None but arrow's own.
    pub fn write_state(&self, out: &mut ByteWriter) -> Result<()> {
        out.u64(self.pushed_out);
        let waiting = self.queue.iter().filter_map(|(_, order)| Some((*order, self.rows.get(order)?)));
        let waiting: Vec<(OrderKey, &Waiting)> = waiting.collect();
        out.count(waiting.len());
        for (order, row) in &waiting {
            out.i64(order.0);
            out.u128(order.1);
            out.i64(row.arrival);
            out.flag(row.late);
        }
        match waiting.is_empty() {
            true => Ok(()),
            false => out.batch(&gathered(waiting.iter().map(|&(_, row)| row))?),
        }
    }

    /// Read what [`Self::write_state`] wrote.
    ///
    /// # Errors
    /// Bytes that are no rows that wait.
    pub fn read_state(&mut self, from: &mut ByteReader<'_>) -> Result<()> {
        self.pushed_out = from.u64()?;
        let waiting = from.list(|from| Ok(((from.i64()?, from.u128()?), from.i64()?, from.flag()?)))?;
        if waiting.is_empty() {
            return Ok(());
        }
        let batch = Arc::new(from.batch()?);
        if batch.num_rows() != waiting.len() {
            return Err(broken("another number of rows that wait"));
        }
        for (row, (order, arrival, late)) in waiting.into_iter().enumerate() {
            self.rows.insert(order, Waiting { batch: batch.clone(), row, arrival, late });
            self.queue.push_back((arrival, order));
        }
        Ok(())
    }

    /// Event time of each row that waits, and the bytes that all of them hold.
    pub(super) fn held(&self) -> (impl Iterator<Item = i64> + '_, usize) {
        let mut batches: Vec<&Arc<RecordBatch>> = self.rows.values().map(|waiting| &waiting.batch).collect();
        batches.sort_unstable_by_key(|batch| Arc::as_ptr(batch));
        batches.dedup_by_key(|batch| Arc::as_ptr(batch));
        let bytes: usize = batches.iter().map(|batch| batch.get_array_memory_size()).sum();
        let own = self.rows.len() * std::mem::size_of::<(OrderKey, Waiting)>() * 3 / 2;
        (
            self.rows.keys().map(|order| order.0),
            bytes + own + self.queue.capacity() * std::mem::size_of::<(i64, OrderKey)>(),
        )
    }

    /// Rows that wait, and those that had to leave because too many did.
    pub fn stats(&self) -> (usize, u64) {
        (self.rows.len(), self.pushed_out)
    }
}

impl Engine {
    /// Let the events of rows into the state, and the rows wait.
    pub(super) fn hold(&mut self, accepted: &Accepted, arrival: i64) -> Result<()> {
        for (number, entity) in self.entities.iter_mut().enumerate().filter(|(_, e)| e.reader == Reader::Own) {
            let before_others = entity.insert(&accepted.batch, &accepted.times, &accepted.ids)?;
            if let Some(revisions) = &mut self.revisions {
                revisions.arrived(self.root, number, entity, &before_others, accepted)?;
            }
        }
        let (root, Accepted { batch, times, ids, .. }) = (&self.streams[self.root], accepted);
        let changed = self.patterns.keep(&root.name, batch, times, ids)?;
        if let Some(revisions) = &mut self.revisions {
            let changed: Vec<&[(u32, i64)]> = changed.iter().map(Vec::as_slice).collect();
            revisions.patterns_changed(self.root, root.id(), &mut self.entities, &changed, accepted)?;
        }
        if let Some(pending) = &mut self.pending {
            pending.hold(accepted, arrival);
        }
        Ok(())
    }

    /// Rows that need not wait any longer at processing time `now`, in the order of I1; `all` of them where the run ends. None
    /// if there are none.
    ///
    /// # Errors
    /// An expression that fails.
    pub fn release(&mut self, now: i64, all: bool) -> Result<Option<RecordBatch>> {
        self.check_complete()?;
        let rows = self.released(now, all)?;
        self.spill(rows.as_ref().map_or(0, RecordBatch::num_rows))?;
        Ok(rows)
    }

    pub(super) fn released(&mut self, now: i64, all: bool) -> Result<Option<RecordBatch>> {
        let Some(mut pending) = self.pending.take() else { return Ok(None) };
        let watermark = self.streams[self.root].watermark.current();
        let complete_to = if all { i64::MAX } else { self.complete_to(pending.emission) };
        let released = pending.take(complete_to, watermark, now);
        self.pending = Some(pending);
        match released? {
            None => Ok(None),
            Some(Released { accepted, arrivals }) => self.rows(&accepted, arrivals, Turn::Held).map(Some),
        }
    }

    /// When the row that has waited longest arrived; none if no row waits.
    pub fn waiting_since(&mut self) -> Option<i64> {
        self.pending.as_mut().and_then(Pending::since)
    }

    /// Up to which event time rows need not wait for more. A stream that is idle is not waited for.
    fn complete_to(&self, emission: EmissionPlan) -> i64 {
        let entities = self.entities.iter().map(|entity| (&entity.id, &entity.reader));
        let patterns = self.patterns.iter().map(|pattern| (&pattern.id, &pattern.reader));
        let lookups = entities.chain(patterns).filter(|(_, reader)| **reader != Reader::Own);
        match emission {
            EmissionPlan::OnWatermark => self.streams.iter().map(passed).min().unwrap_or(i64::MAX),
            _ => lookups.map(|(id, reader)| self.known_until(id, reader)).min().unwrap_or(i64::MAX),
        }
    }
}

/// The last event time that no event in order can have any more.
fn passed(stream: &StreamState) -> i64 {
    if stream.watermark.idle() {
        return i64::MAX;
    }
    stream.watermark.current().saturating_sub(1)
}

/// The records of rows, in their order, as one batch.
fn gathered<'a>(rows: impl Iterator<Item = &'a Waiting>) -> Result<RecordBatch> {
    let mut numbers: HashMap<*const RecordBatch, usize> = HashMap::new();
    let mut batches: Vec<&RecordBatch> = Vec::new();
    let mut places = Vec::new();
    for waiting in rows {
        let number = *numbers.entry(Arc::as_ptr(&waiting.batch)).or_insert_with(|| {
            batches.push(&waiting.batch);
            batches.len() - 1
        });
        places.push((number, waiting.row));
    }
    Ok(interleave_record_batch(&batches, &places)?)
}

fn released(leaving: Vec<(OrderKey, Waiting)>, watermark: i64) -> Result<Released> {
    let accepted = Accepted {
        outcomes: Vec::new(),
        batch: gathered(leaving.iter().map(|(_, waiting)| waiting))?,
        times: leaving.iter().map(|(order, _)| order.0).collect(),
        ids: leaving.iter().map(|(order, _)| order.1).collect(),
        watermarks: vec![watermark; leaving.len()],
        late: leaving.iter().map(|(_, waiting)| waiting.late).collect(),
    };
    Ok(Released { accepted, arrivals: leaving.iter().map(|(_, waiting)| waiting.arrival).collect() })
}
