//! The joins of a plan as bytes. What is kept of an event is packed in a form of the arrow crates that may change with them; so
//! its columns are written, and packed again when they are read.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::{Field, Schema};

use super::{Input, Joins, PlannedJoin};
use crate::bytes::{ByteReader, ByteWriter};
use crate::engine::stream::StreamState;
use crate::engine::upgrade::{copy, refused};
use crate::error::Result;
use crate::join::events::Payload;
use crate::join::Side;

/// Events whose columns are written as one batch.
const WRITTEN_AT_ONCE: usize = 16_384;

impl Joins {
    /// Whether the plan has none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Write every join.
    ///
    /// # Errors
    /// None but arrow's own.
    pub fn write_state(&self, out: &mut ByteWriter) -> Result<()> {
        self.0.iter().try_for_each(|planned| planned.write_state(out))
    }

    /// Take the state over of those joins of `old` that are the `same` by their name. `streams`: those of `old`, and these.
    ///
    /// # Errors
    /// A column that a join keeps and that has another type.
    pub fn take_over(
        &mut self,
        old: &Self,
        same: impl Fn(&str) -> bool,
        streams: (&[StreamState], &[StreamState]),
    ) -> Result<()> {
        for planned in self.0.iter_mut().filter(|planned| same(&planned.name)) {
            let Some(before) = old.0.iter().find(|other| other.name == planned.name) else { continue };
            let mut payloads = [Vec::new(), Vec::new()];
            for side in Side::BOTH {
                let (from, to) = (&before.shape.inputs[side as usize], &planned.shape.inputs[side as usize]);
                let columns = from.fields(&streams.0[from.stream]);
                let place = |field: &Field| {
                    let same = |other: &Field| other.name() == field.name() && other.data_type() == field.data_type();
                    columns.iter().position(same).ok_or_else(|| {
                        refused(&format!("join '{}' keeps '{}', which has another type", planned.name, field.name()))
                    })
                };
                // The stream may have its columns in another order.
                let order: Vec<usize> = to.fields(&streams.1[to.stream]).iter().map(place).collect::<Result<_>>()?;
                let kept: Vec<&Payload> = before.join.payloads(side).collect();
                for part in kept.chunks(WRITTEN_AT_ONCE) {
                    let columns = from.unpack(part.iter().map(|&payload| Some(payload)))?;
                    let moved: Vec<ArrayRef> = order.iter().map(|&place| Arc::clone(&columns[place])).collect();
                    let packed = to.rows.convert_columns(&moved)?;
                    payloads[side as usize].extend(packed.iter().map(|row| Payload::from(row.as_ref())));
                }
            }
            copy(|out| before.join.write_state(out), |from| planned.join.read_state(from, payloads))?;
        }
        Ok(())
    }

    /// Read what [`Self::write_state`] wrote, into joins without events.
    ///
    /// # Errors
    /// Bytes that are no joins'.
    pub fn read_state(&mut self, from: &mut ByteReader<'_>) -> Result<()> {
        self.0.iter_mut().try_for_each(|planned| planned.read_state(from))
    }
}

impl PlannedJoin {
    fn write_state(&self, out: &mut ByteWriter) -> Result<()> {
        for side in Side::BOTH {
            self.shape.inputs[side as usize].write_payloads(self.join.payloads(side), out)?;
        }
        self.join.write_state(out);
        Ok(())
    }

    fn read_state(&mut self, from: &mut ByteReader<'_>) -> Result<()> {
        let [left, right] = &self.shape.inputs;
        let payloads = [left.read_payloads(from)?, right.read_payloads(from)?];
        self.join.read_state(from, payloads)
    }
}

impl Input {
    fn write_payloads<'a>(&self, payloads: impl Iterator<Item = &'a Payload>, out: &mut ByteWriter) -> Result<()> {
        let payloads: Vec<&Payload> = payloads.collect();
        out.count(payloads.len().div_ceil(WRITTEN_AT_ONCE));
        for part in payloads.chunks(WRITTEN_AT_ONCE) {
            let columns = self.unpack(part.iter().map(|&payload| Some(payload)))?;
            let fields = columns.iter().map(|column| Field::new("kept", column.data_type().clone(), true));
            let schema = Schema::new(fields.collect::<Vec<_>>());
            out.batch(&RecordBatch::try_new(Arc::new(schema), columns)?)?;
        }
        Ok(())
    }

    fn read_payloads(&self, from: &mut ByteReader<'_>) -> Result<Vec<Payload>> {
        let batches = from.list(ByteReader::batch)?;
        let mut payloads = Vec::new();
        for batch in batches {
            let packed = self.rows.convert_columns(batch.columns())?;
            payloads.extend(packed.iter().map(|row| Payload::from(row.as_ref())));
        }
        Ok(payloads)
    }
}
