//! What the joins of a plan tell of their state: each side by itself, with its events' columns in clear.

use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::Schema;
use std::sync::Arc;

use super::{marks, Joins, PlannedJoin};
use crate::engine::stream::StreamState;
use crate::error::Result;
use crate::join::events::Payload;
use crate::join::{IntervalJoin, Side};

/// One side of a join.
pub struct JoinSide<'a> {
    pub name: &'a str,
    pub side: Side,
    pub join: &'a IntervalJoin,
    pub stream: usize,
    /// Before which event time the other side brings nothing more.
    pub reach: i64,
    planned: &'a PlannedJoin,
}

impl Joins {
    /// Both sides of every join.
    pub fn sides<'a>(&'a self, streams: &[StreamState]) -> Vec<JoinSide<'a>> {
        let sides = self.0.iter().flat_map(|planned| {
            let PlannedJoin { name, shape, join } = planned;
            let marks = marks(Side::BOTH.map(|side| &streams[shape.stream(side)]));
            Side::BOTH.map(|side| JoinSide {
                name,
                side,
                join,
                stream: shape.stream(side),
                reach: marks.earliest[side.other() as usize],
                planned,
            })
        });
        sides.collect()
    }
}

impl JoinSide<'_> {
    /// The columns that are kept of some events; the first is the id.
    ///
    /// # Errors
    /// None but arrow's own.
    pub fn columns<'a>(
        &self,
        streams: &[StreamState],
        payloads: impl Iterator<Item = &'a Payload>,
    ) -> Result<RecordBatch> {
        let input = &self.planned.shape.inputs[self.side as usize];
        let arrays: Vec<ArrayRef> = input.unpack(payloads.map(Some))?;
        Ok(RecordBatch::try_new(Arc::new(Schema::new(input.fields(&streams[self.stream]))), arrays)?)
    }
}
