//! Emitted rows, and what has disturbed them, as bytes.

use compact_str::CompactString;

use super::{Affected, Cause, Named, Revisions};
use crate::bytes::{broken, ByteReader, ByteWriter};
use crate::error::Result;

impl Revisions {
    /// Write the rows that can still change, and what was noted and gathered and not followed up yet.
    ///
    /// # Errors
    /// None but arrow's own.
    pub fn write_state(&self, out: &mut ByteWriter) -> Result<()> {
        out.i64(self.newest_root);
        out.i64(self.earliest_pending);
        out.i64(self.expired_to);
        out.u64(self.unrevised);
        self.write_disturbed(out);
        self.write_work(out);
        self.rows.write_state(out)
    }

    fn write_disturbed(&self, out: &mut ByteWriter) {
        let mut disturbed: Vec<_> = self.disturbed.iter().collect();
        disturbed.sort_unstable_by_key(|(place, _)| *place);
        out.count(disturbed.len());
        for ((entity, key), causes) in disturbed {
            out.u32(*entity as u32);
            out.text(key);
            out.count(causes.len());
            for cause in causes {
                out.i64(cause.order.0);
                out.u128(cause.order.1);
                out.flag(cause.same_time);
                out.flag(cause.until.is_some());
                out.i64(cause.until.unwrap_or_default());
                write_named(&cause.named, out);
            }
        }
    }

    fn write_work(&self, out: &mut ByteWriter) {
        // Keys and causes of work that is done are dead weight until the next is gathered.
        let keys: &[CompactString] = if self.work.is_empty() { &[] } else { &self.work_keys };
        let causes: &[Named] = if self.work.is_empty() { &[] } else { &self.work_causes };
        out.count(keys.len());
        keys.iter().for_each(|key| out.text(key));
        out.count(causes.len());
        causes.iter().for_each(|named| write_named(named, out));
        out.count(self.work.len());
        for affected in &self.work {
            out.u64(affected.row);
            out.i64(affected.order.0);
            out.u128(affected.order.1);
            out.u32(affected.entity as u32);
            out.u32(affected.key);
            out.u32(affected.cause);
        }
    }

    /// Read what [`Self::write_state`] wrote, for a plan of so many entities and streams.
    ///
    /// # Errors
    /// Bytes that are no revisions' state.
    pub fn read_state(&mut self, from: &mut ByteReader<'_>, entities: usize, streams: usize) -> Result<()> {
        (self.newest_root, self.earliest_pending) = (from.i64()?, from.i64()?);
        (self.expired_to, self.unrevised) = (from.i64()?, from.u64()?);
        self.disturbed = from.list(|from| read_disturbed(from, streams))?.into_iter().collect();
        self.causes = self.disturbed.values().map(Vec::len).sum();
        self.work_keys = from.list(|from| Ok(from.text()?.into()))?;
        self.work_causes = from.list(|from| read_named(from, streams))?;
        self.work = from.list(read_affected)?.into();
        self.rows.read_state(from)?;
        let sound = |affected: &Affected| {
            affected.entity < entities
                && (affected.key as usize) < self.work_keys.len()
                && (affected.cause as usize) < self.work_causes.len()
                && self.rows.holds(affected.row)
        };
        if !self.work.iter().all(sound) || self.disturbed.keys().any(|(entity, _)| *entity >= entities) {
            return Err(broken("work on rows, keys or entities that are not there"));
        }
        Ok(())
    }
}

fn read_disturbed(from: &mut ByteReader<'_>, streams: usize) -> Result<((usize, CompactString), Vec<Cause>)> {
    let place = (from.u32()? as usize, from.text()?.into());
    let causes = from.list(|from| {
        let (order, same_time) = ((from.i64()?, from.u128()?), from.flag()?);
        let (bounded, until) = (from.flag()?, from.i64()?);
        Ok(Cause { order, same_time, until: bounded.then_some(until), named: read_named(from, streams)? })
    })?;
    if causes.is_empty() {
        return Err(broken("a key that nothing disturbed"));
    }
    Ok((place, causes))
}

fn read_affected(from: &mut ByteReader<'_>) -> Result<Affected> {
    let (row, order) = (from.u64()?, (from.i64()?, from.u128()?));
    Ok(Affected { row, order, entity: from.u32()? as usize, key: from.u32()?, cause: from.u32()? })
}

fn write_named(named: &Named, out: &mut ByteWriter) {
    out.u32(named.stream as u32);
    out.text(&named.id);
}

fn read_named(from: &mut ByteReader<'_>, streams: usize) -> Result<Named> {
    let (stream, id) = (from.u32()? as usize, from.text()?.into());
    if stream >= streams {
        return Err(broken("a cause in a stream that is not there"));
    }
    Ok(Named { stream, id })
}
