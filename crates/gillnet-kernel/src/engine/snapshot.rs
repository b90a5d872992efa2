//! A snapshot: the whole state of an engine as bytes, one consistent cut between two calls.
//!
//! ```text
//! "GILLSNAP" | version u32 | 0 u32 | length of the body u64 | checksum u64     (little-endian)
//! body: the plan's parts, by name and fingerprint | parts: name, version u8, length u64, bytes
//! ```
//! A restored engine goes on exactly as the one that was written: the same rows, outcomes, revisions and sessions, in the same
//! order. So everything that decides them is in it, down to places of keys and what was not swept yet; what follows from it
//! (accumulators, indices, readings) is built again. Each kind of state writes and reads itself, beside its own code.
//!
//! **Where a new kind of state goes**: a field of [`Engine`] that is named in [`Engine::snapshot`] (which does not compile without
//! it), a part of its own there and in [`Engine::read_parts`], and its word in [`super::plan_parts`]; until then a plan that has it
//! is refused by name.

use super::plan::Plan;
use super::plan_parts::PlanParts;
use super::Engine;
use crate::bytes::{broken, checksum, ByteReader, ByteWriter};
use crate::error::{KernelError, Result};

/// The version that [`Engine::snapshot`] writes, of the frame around the parts; each part has one of its own.
pub const VERSION: u32 = 1;
const MAGIC: [u8; 8] = *b"GILLSNAP";
const CHECKED: usize = 24;
const HEADER: usize = 32;

/// A part's name, and the version that is written and read.
type Part = (&'static str, u8);
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
    /// [`KernelError::State`] for a plan with a part whose state cannot be written yet.
    pub fn snapshot(&self) -> Result<Vec<u8>> {
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
        let mut out = ByteWriter::default();
        out.raw(&[0; HEADER]);
        parts.write_state(&mut out);
        write_part(&mut out, STREAMS, |out| {
            streams.iter().for_each(|stream| stream.write_state(out));
            Ok(())
        })?;
        let elsewhere = spill.is_some();
        write_part(&mut out, if elsewhere { DIRTY_ENTITIES } else { ENTITIES }, |out| {
            entities.iter().for_each(|entity| entity.write_state(out, elsewhere));
            Ok(())
        })?;
        if !patterns.is_empty() {
            write_part(&mut out, PATTERNS, |out| {
                patterns.iter().for_each(|pattern| pattern.write_state(out));
                Ok(())
            })?;
        }
        if let Some(sessions) = sessions {
            write_part(&mut out, SESSIONS, |out| sessions.write_state(out))?;
        }
        if let Some(revisions) = revisions {
            write_part(&mut out, REVISIONS, |out| revisions.write_state(out))?;
        }
        if let Some(pending) = pending {
            write_part(&mut out, WAITING, |out| pending.write_state(out))?;
        }
        if !joins.is_empty() {
            write_part(&mut out, JOINS, |out| joins.write_state(out))?;
        }
        Ok(sealed(out.finish()))
    }

    /// An engine for `plan` that goes on where the one that wrote `bytes` stood.
    ///
    /// # Errors
    /// [`KernelError::Plan`] where the plan cannot be executed; [`KernelError::State`] for bytes of another version or plan, and for
    /// those that are torn or were changed.
    pub fn restore(plan: &Plan, bytes: &[u8]) -> Result<Self> {
        let mut engine = Self::new(plan)?;
        engine.parts.check_written()?;
        let mut from = ByteReader::new(opened(bytes)?);
        let stored = PlanParts::read_state(&mut from).map_err(|error| in_part("plan", error))?;
        engine.parts.check_same(&stored)?;
        engine.read_parts(&mut from)?;
        from.end().map_err(|error| in_part("end", error))?;
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

    fn read_parts(&mut self, from: &mut ByteReader<'_>) -> Result<()> {
        let (readers, streams) = (self.entities.len() + self.patterns.len(), self.streams.len());
        read_part(from, STREAMS, |from| self.streams.iter_mut().try_for_each(|stream| stream.read_state(from)))?;
        let elsewhere = from.clone().text()? == DIRTY_ENTITIES.0;
        read_part(from, if elsewhere { DIRTY_ENTITIES } else { ENTITIES }, |from| {
            self.entities.iter_mut().try_for_each(|entity| entity.read_state(from, elsewhere))
        })?;
        self.incomplete = elsewhere;
        if !self.patterns.is_empty() {
            read_part(from, PATTERNS, |from| self.patterns.iter_mut().try_for_each(|p| p.read_state(from)))?;
        }
        if let Some(sessions) = &mut self.sessions {
            read_part(from, SESSIONS, |from| sessions.read_state(from))?;
        }
        if let Some(revisions) = &mut self.revisions {
            read_part(from, REVISIONS, |from| revisions.read_state(from, readers, streams))?;
        }
        if let Some(pending) = &mut self.pending {
            read_part(from, WAITING, |from| pending.read_state(from))?;
        }
        if !self.joins.is_empty() {
            read_part(from, JOINS, |from| self.joins.read_state(from))?;
        }
        Ok(())
    }
}

fn write_part(
    out: &mut ByteWriter,
    (name, version): Part,
    write: impl FnOnce(&mut ByteWriter) -> Result<()>,
) -> Result<()> {
    out.text(name);
    out.u8(version);
    out.sized(write)
}

fn read_part(
    from: &mut ByteReader<'_>,
    (name, version): Part,
    read: impl FnOnce(&mut ByteReader<'_>) -> Result<()>,
) -> Result<()> {
    let mut inside = || {
        if from.text()? != name {
            return Err(broken("missing"));
        }
        let found = from.u8()?;
        if found != version {
            return Err(broken(&format!("of version {found}, and this build reads version {version}")));
        }
        Ok(ByteReader::new(from.bytes()?))
    };
    let mut part = inside().map_err(|error| in_part(name, error))?;
    read(&mut part).and_then(|()| part.end()).map_err(|error| in_part(name, error))
}

/// Fill the header in.
fn sealed(mut bytes: Vec<u8>) -> Vec<u8> {
    let length = (bytes.len() - HEADER) as u64;
    bytes[..8].copy_from_slice(&MAGIC);
    bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
    bytes[16..CHECKED].copy_from_slice(&length.to_le_bytes());
    let sum = checksum(&[&bytes[..CHECKED], &bytes[HEADER..]]);
    bytes[CHECKED..HEADER].copy_from_slice(&sum.to_le_bytes());
    bytes
}

/// The body of bytes that are whole and unchanged.
fn opened(bytes: &[u8]) -> Result<&[u8]> {
    let bad = |what: &str| {
        KernelError::State(format!("engine snapshot {what}; restore an earlier one, or read the sources again"))
    };
    if bytes.len() < HEADER || bytes[..8] != MAGIC {
        return Err(bad("is torn or is no snapshot"));
    }
    let (header, body) = bytes.split_at(HEADER);
    let version = u32::from_le_bytes(header[8..12].try_into().expect("four bytes"));
    if version != VERSION {
        return Err(bad(&format!("has version {version}, and this build reads version {VERSION}")));
    }
    let word = |at: usize| u64::from_le_bytes(header[at..at + 8].try_into().expect("eight bytes"));
    if word(16) != body.len() as u64 || checksum(&[&header[..CHECKED], body]) != word(CHECKED) {
        return Err(bad("is torn or was changed (its length or checksum differs)"));
    }
    Ok(body)
}

/// Where in a snapshot an error lies, and the mend.
fn in_part(part: &str, error: KernelError) -> KernelError {
    let what = match error {
        KernelError::State(what) => what,
        other => other.to_string(),
    };
    KernelError::State(format!(
        "engine snapshot, part '{part}': {what}; restore an earlier one, or read the sources again"
    ))
}
