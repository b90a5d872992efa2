//! A snapshot: the whole state of an engine as bytes, one consistent cut between two calls.
//!
//! ```text
//! "GILLSNAP" | version u32                              (little-endian)
//! parts, the plan's first: name, version u8, chunks     (see [`crate::chunks`])
//! ```
//! So a snapshot is written as it is made, and whoever writes it never holds it whole. Version 1 is still read: its parts are not
//! compressed, and one checksum is of all of them.
//!
//! A restored engine goes on exactly as the one that was written: the same rows, outcomes, revisions and sessions, in the same
//! order. So everything that decides them is in it, down to places of keys and what was not swept yet; what follows from it
//! (accumulators, indices, readings) is built again. Each kind of state writes and reads itself, beside its own code.
//!
//! **Where a new kind of state goes**: a field of [`Engine`] that is named in [`Engine::snapshot`] (which does not compile without
//! it), a part of its own there and in [`Engine::read_parts`], and its word in [`super::plan_parts`]; until then a plan that has it
//! is refused by name.

mod frame;

use std::io::Write;

use self::frame::{Part, PartReader, PartWriter};
use super::plan::Plan;
use super::Engine;
use crate::error::Result;

const STREAMS: Part = ("streams", 1);
const ENTITIES: Part = ("entities", 1);
/// The same where keys are kept elsewhere too.
const DIRTY_ENTITIES: Part = ("changed keys", 1);
const SESSIONS: Part = ("sessions", 1);
const REVISIONS: Part = ("revisions", 2);
const PATTERNS: Part = ("patterns", 1);
const WAITING: Part = ("waiting rows", 1);
const JOINS: Part = ("joins", 1);

impl Engine {
    /// The whole state as bytes. O(state); nothing changes.
    ///
    /// # Errors
    /// Those of [`Self::write_snapshot`].
    pub fn snapshot(&self) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.write_snapshot(&mut bytes)?;
        Ok(bytes)
    }

    /// Write the whole state, a chunk at a time. O(state); nothing changes.
    ///
    /// # Errors
    /// [`KernelError::State`] for a plan with a part whose state cannot be written yet, and the first error of `out`.
    ///
    /// [`KernelError::State`]: crate::error::KernelError::State
    pub fn write_snapshot(&self, out: &mut dyn Write) -> Result<()> {
        // Every field is named, so that a new one is not forgotten.
        let Self {
            root: _,
            streams,
            entities,
            features: _,
            sessions,
            revisions,
            patterns,
            pending,
            joins,
            parts,
            spill,
            incomplete: _,
        } = self;
        self.check_complete()?;
        parts.check_written()?;
        let mut out = PartWriter::new(out)?;
        out.plan(parts)?;
        out.part(STREAMS, |out| {
            streams.iter().for_each(|stream| stream.write_state(out));
            Ok(())
        })?;
        let elsewhere = spill.is_some();
        out.part(if elsewhere { DIRTY_ENTITIES } else { ENTITIES }, |out| {
            entities.iter().for_each(|entity| entity.write_state(out, elsewhere));
            Ok(())
        })?;
        if !patterns.is_empty() {
            out.part(PATTERNS, |out| {
                patterns.iter().for_each(|pattern| pattern.write_state(out));
                Ok(())
            })?;
        }
        if let Some(sessions) = sessions {
            out.part(SESSIONS, |out| sessions.write_state(out))?;
        }
        if let Some(revisions) = revisions {
            out.part(REVISIONS, |out| revisions.write_state(out))?;
        }
        if let Some(pending) = pending {
            out.part(WAITING, |out| pending.write_state(out))?;
        }
        if !joins.is_empty() {
            out.part(JOINS, |out| joins.write_state(out))?;
        }
        Ok(())
    }

    /// An engine for `plan` that goes on where the one that wrote `bytes` stood.
    ///
    /// # Errors
    /// [`KernelError::Plan`] where the plan cannot be executed; [`KernelError::Definition`] for bytes of another plan;
    /// [`KernelError::State`] for those of another version, torn or changed.
    ///
    /// [`KernelError::Plan`]: crate::error::KernelError::Plan
    /// [`KernelError::Definition`]: crate::error::KernelError::Definition
    /// [`KernelError::State`]: crate::error::KernelError::State
    pub fn restore(plan: &Plan, bytes: &[u8]) -> Result<Self> {
        let mut engine = Self::new(plan)?;
        engine.parts.check_written()?;
        let mut from = PartReader::new(bytes)?;
        engine.parts.check_same(&from.plan()?)?;
        engine.read_parts(&mut from)?;
        from.end()?;
        Ok(engine)
    }

    /// Say whether the sources give again what a lost run had read since the snapshot.
    ///
    /// What that run sent of a row depends on when it looked for revisions, and this one may look at other times: a row that had
    /// changed then may have its value of the snapshot again. So while this holds, every row that an event disturbs goes out, changed
    /// or not. It may end after the first look at what disturbed rows that follows the last record read again.
    pub fn set_replaying(&mut self, replaying: bool) {
        if let Some(revisions) = &mut self.revisions {
            revisions.replaying = replaying;
        }
    }

    fn read_parts(&mut self, from: &mut PartReader<'_>) -> Result<()> {
        let (readers, streams) = (self.entities.len() + self.patterns.len(), self.streams.len());
        from.part(STREAMS, |from| self.streams.iter_mut().try_for_each(|stream| stream.read_state(from)))?;
        let elsewhere = from.is_next(DIRTY_ENTITIES);
        from.part(if elsewhere { DIRTY_ENTITIES } else { ENTITIES }, |from| {
            self.entities.iter_mut().try_for_each(|entity| entity.read_state(from, elsewhere))
        })?;
        self.incomplete = elsewhere;
        if !self.patterns.is_empty() {
            from.part(PATTERNS, |from| self.patterns.iter_mut().try_for_each(|p| p.read_state(from)))?;
        }
        if let Some(sessions) = &mut self.sessions {
            from.part(SESSIONS, |from| sessions.read_state(from))?;
        }
        if let Some(revisions) = &mut self.revisions {
            from.part(REVISIONS, |from| revisions.read_state(from, readers, streams))?;
        }
        if let Some(pending) = &mut self.pending {
            from.part(WAITING, |from| pending.read_state(from))?;
        }
        if !self.joins.is_empty() {
            from.part(JOINS, |from| self.joins.read_state(from))?;
        }
        Ok(())
    }
}
