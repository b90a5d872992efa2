//! Interval joins over a part: each key on one shard, the events of both sides in the order of time.
//!
//! The joins are the live engine's. Fed in order, under a watermark that is the part's end, they never take a row back: an
//! event's partners have all come before it is said to have none. Rows are taken by [`BatchJoins::joined`], so that no batch of
//! them grows without bound.

use std::hash::BuildHasher;

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use hashbrown::DefaultHashBuilder;

use super::super::joins::{JoinShape, Joins};
use super::parallel::in_parallel;
use super::Events;
use crate::error::Result;
use crate::join::{Arrival, IntervalJoin, Marks, Side};

/// The joins of a plan.
pub struct BatchJoins(Vec<ShardedJoin>);

struct ShardedJoin {
    shape: JoinShape,
    shards: Vec<IntervalJoin>,
}

impl BatchJoins {
    /// Joins without state, each for `shards` parts of the keys.
    pub fn new(joins: Joins, shards: usize) -> Self {
        let sharded = |(shape, join): (JoinShape, IntervalJoin)| {
            let shards = (0..shards).map(|_| join.for_sorted()).collect();
            ShardedJoin { shape, shards }
        };
        Self(joins.into_parts().map(sharded).collect())
    }

    /// How far back of a row events can change it.
    pub fn lookback_us(&self) -> i64 {
        self.0.iter().map(|join| join.shards[0].reach_us()).max().unwrap_or(0)
    }

    /// Keys and events held.
    pub fn held(&self) -> (usize, usize) {
        let held = self.0.iter().flat_map(|join| &join.shards).map(IntervalJoin::held);
        held.fold((0, 0), |(keys, events), (more_keys, more_events, _)| (keys + more_keys, events + more_events))
    }

    /// The events of a part arrive; `hasher` says at which shard.
    ///
    /// # Errors
    /// None but arrow's own.
    pub fn arrive(&mut self, events: &[Events], hasher: &DefaultHashBuilder, threads: usize) -> Result<()> {
        let tasks: Vec<_> = self.0.iter().flat_map(|join| Side::BOTH.map(|side| (&join.shape, side))).collect();
        let arrivals = in_parallel(threads, tasks, |(shape, side)| {
            let Events { batch, times, ids, .. } = &events[shape.stream(side)];
            shape.arrivals(side, batch, times, ids)
        })?;
        let mut sides = arrivals.into_iter();
        let tasks: Vec<_> =
            self.0.iter_mut().zip(std::iter::from_fn(|| Some([sides.next()?, sides.next()?]))).collect();
        in_parallel(threads, tasks, |(join, sides)| {
            deal(sides, hasher, &mut join.shards);
            Ok(())
        })?;
        Ok(())
    }

    /// The next rows of a join, about `most`, with its number in the plan, every event before `until` being known; none if there
    /// are no more of this part.
    ///
    /// # Errors
    /// An expression that fails.
    pub fn joined(&mut self, most: usize, until: i64, threads: usize) -> Result<Option<(usize, RecordBatch)>> {
        let marks = Marks { current: [until; 2], earliest: [until; 2] };
        for (number, ShardedJoin { shape, shards }) in self.0.iter_mut().enumerate() {
            let share = most.div_ceil(shards.len());
            let rows = in_parallel(threads, shards.iter_mut().collect(), |join| shape.next(join, share, &marks))?;
            let rows: Vec<RecordBatch> = rows.into_iter().flatten().collect();
            if let Some(first) = rows.first() {
                return Ok(Some((number, concat_batches(&first.schema(), &rows)?)));
            }
        }
        Ok(None)
    }
}

/// Hand the events of both sides to the shards of their keys. Of equal times the left side's come first, so that which pairs
/// are left out at the limit does not depend on parts.
fn deal(sides: [Vec<Arrival>; 2], hasher: &DefaultHashBuilder, shards: &mut [IntervalJoin]) {
    let mut arrivals: Vec<Arrival> = sides.into_iter().flatten().collect();
    arrivals.sort_by_key(|arrival| arrival.order.0);
    for arrival in arrivals {
        let shard = arrival.key.as_ref().map_or(0, |key| (hasher.hash_one(key.as_str()) >> 7) as usize % shards.len());
        shards[shard].arrive(std::iter::once(arrival));
    }
}
