//! Before which event time nothing can be read or changed any more, and what is forgotten of what lies before it.

use super::entity::{Entity, EntityId, Reader};
use super::pending::Pending;
use super::revise::Revisions;
use super::Engine;
use crate::error::Result;

impl Engine {
    /// Rows from this event time on wait, or can still be revised, and are read as of their own time.
    pub(super) fn still_read_from(&self) -> i64 {
        let waiting = self.pending.as_ref().map_or(i64::MAX, Pending::earliest);
        self.revisions.as_ref().map_or(i64::MAX, |_| self.revisable_from()).min(waiting)
    }

    /// Before which event time no row can change any more.
    ///
    /// A row is changed by its own stream and by those that it looks up. One that is idle, or was never heard, would keep rows
    /// without bound: it is taken to be where the root is. What it brings from further back later is counted (`unrevised`).
    pub(super) fn revisable_from(&self) -> i64 {
        let root = &self.streams[self.root];
        let others = self.streams.iter().enumerate().filter(|(number, _)| *number != self.root);
        let pending = self.revisions.as_ref().map_or(i64::MAX, Revisions::earliest_pending);
        let reach = others.map(|(_, other)| {
            let with_root = root.watermark.current().saturating_sub(other.allowed_lateness_us);
            let known = other.earliest_accepted();
            if other.watermark.idle() {
                known.max(with_root)
            } else {
                known
            }
        });
        reach.fold(root.earliest_accepted().min(pending), i64::min)
    }

    /// Give memory back: a part of the keys and ids each time, so that no call takes long.
    pub(super) fn expire(&mut self, records: usize) -> Result<()> {
        for stream in &mut self.streams {
            let earliest = stream.earliest_accepted();
            if earliest != i64::MIN {
                stream.seen.sweep(earliest, records);
            }
        }
        let revisable = self.still_read_from();
        if let Some(revisions) = self.revisions.as_mut().filter(|_| revisable != i64::MIN) {
            revisions.expire(revisable);
        }
        for number in 0..self.entities.len() {
            // Rows that wait, and those that can still be revised, are read as of their own time.
            let Entity { id, reader, .. } = &self.entities[number];
            let reach = self.reach(id, reader).min(revisable);
            let entity = &mut self.entities[number];
            match &mut self.sessions {
                Some(sessions) if sessions.entity == number => {
                    sessions.sweep(entity, records, self.streams[self.root].watermark.current(), reach);
                }
                _ if reach != i64::MIN => entity.sweep(records.max(64), reach),
                _ => {}
            }
        }
        for number in 0..self.patterns.len() {
            let pattern = &self.patterns[number];
            let reach = self.reach(&pattern.id, &pattern.reader).min(revisable);
            if reach != i64::MIN {
                self.patterns[number].sweep(records.max(64), reach)?;
            }
        }
        Ok(())
    }

    /// Before which event time nothing will read or change an entity's state any more; `i64::MIN` while that is unknown.
    ///
    /// A looked-up entity is changed by its own stream and read by the root's rows, so both must have passed; a stream that was
    /// never heard has passed nothing. While the root is idle its watermark stands still, and waiting for it would keep what
    /// the other stream brings without bound: then the root is taken to be where the other stream is, with its own allowed
    /// lateness. Should it wake further back, its rows say that they may miss events (`saturated`).
    pub(super) fn reach(&self, id: &EntityId, reader: &Reader) -> i64 {
        let own = self.streams.iter().find(|s| s.name == id.stream).expect("checked when compiled");
        if *reader == Reader::Own {
            return own.earliest_accepted();
        }
        let root = &self.streams[self.root];
        let mut read = root.earliest_accepted();
        if root.watermark.idle() && !own.watermark.finished() {
            read = read.max(own.watermark.current().saturating_sub(root.allowed_lateness_us));
        }
        own.earliest_accepted().min(read)
    }
}
