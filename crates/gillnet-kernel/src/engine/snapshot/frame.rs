//! What is around the parts of a snapshot: magic, version, and each part's name, version and bytes.

use std::borrow::Cow;
use std::io::Write;

use super::super::plan_parts::PlanParts;
use crate::bytes::{broken, checksum, ByteReader, ByteWriter};
use crate::chunks::{read_chunks, ChunkWriter};
use crate::error::{KernelError, Result};

/// The version that is written, of the frame around the parts; each part has one of its own.
const VERSION: u32 = 2;
/// The version before: the plan without a name, parts with a length, and behind magic and version one checksum of all of it.
const WHOLE: u32 = 1;
const MAGIC: [u8; 8] = *b"GILLSNAP";
const HEADER: usize = 12;
/// Of [`WHOLE`]: what is behind it has a checksum, which ends the header.
const CHECKED: usize = 24;
const WHOLE_HEADER: usize = 32;

/// A part's name, and the version that is written and read.
pub(super) type Part = (&'static str, u8);
const PLAN: Part = ("plan", 1);

/// Writes parts.
pub(super) struct PartWriter<'a>(&'a mut dyn Write);

impl<'a> PartWriter<'a> {
    pub(super) fn new(out: &'a mut dyn Write) -> Result<Self> {
        let mut writer = Self(out);
        writer.put(&[&MAGIC[..], &VERSION.to_le_bytes()].concat())?;
        Ok(writer)
    }

    pub(super) fn plan(&mut self, parts: &PlanParts) -> Result<()> {
        self.part(PLAN, |out| {
            parts.write_state(out);
            Ok(())
        })
    }

    pub(super) fn part(
        &mut self,
        (name, version): Part,
        write: impl FnOnce(&mut ByteWriter<'_>) -> Result<()>,
    ) -> Result<()> {
        let mut head = ByteWriter::default();
        head.text(name);
        head.u8(version);
        self.put(&head.finish())?;
        let mut out = ByteWriter::chunked(ChunkWriter::new(self.0)?);
        write(&mut out)?;
        out.end()
    }

    fn put(&mut self, bytes: &[u8]) -> Result<()> {
        self.0.write_all(bytes).map_err(|error| KernelError::State(error.to_string()))
    }
}

/// Reads parts in the order in which they were written.
pub(super) struct PartReader<'a> {
    version: u32,
    from: ByteReader<'a>,
}

impl<'a> PartReader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Result<Self> {
        if bytes.len() < HEADER || bytes[..8] != MAGIC {
            return Err(bad("is torn or is no snapshot"));
        }
        let version = u32::from_le_bytes(bytes[8..HEADER].try_into().expect("four bytes"));
        let body = match version {
            VERSION => &bytes[HEADER..],
            WHOLE => unchanged(bytes)?,
            _ => return Err(bad(&format!("has version {version}, and this build reads the versions 1 to {VERSION}"))),
        };
        Ok(Self { version, from: ByteReader::new(body) })
    }

    pub(super) fn plan(&mut self) -> Result<PlanParts> {
        if self.version == WHOLE {
            return PlanParts::read_state(&mut self.from).map_err(|error| in_part(PLAN.0, error));
        }
        let mut read = None;
        self.part(PLAN, |from| {
            read = Some(PlanParts::read_state(from)?);
            Ok(())
        })?;
        Ok(read.expect("it was read, or that was an error"))
    }

    /// Whether this part is the next.
    pub(super) fn is_next(&self, (name, _): Part) -> bool {
        self.from.clone().text().is_ok_and(|next| next == name)
    }

    pub(super) fn part(
        &mut self,
        (name, version): Part,
        read: impl FnOnce(&mut ByteReader<'_>) -> Result<()>,
    ) -> Result<()> {
        let bytes = self.bytes_of((name, version)).map_err(|error| in_part(name, error))?;
        let mut part = ByteReader::new(&bytes);
        read(&mut part).and_then(|()| part.end()).map_err(|error| in_part(name, error))
    }

    fn bytes_of(&mut self, (name, version): Part) -> Result<Cow<'a, [u8]>> {
        if self.from.text()? != name {
            return Err(broken("missing"));
        }
        let found = self.from.u8()?;
        if found != version {
            return Err(broken(&format!("of version {found}, and this build reads version {version}")));
        }
        match self.version {
            WHOLE => self.from.bytes().map(Cow::Borrowed),
            _ => read_chunks(&mut self.from).map(Cow::Owned),
        }
    }

    pub(super) fn end(&self) -> Result<()> {
        self.from.end().map_err(|error| in_part("end", error))
    }
}

/// What is behind the header of [`WHOLE`] bytes.
fn unchanged(bytes: &[u8]) -> Result<&[u8]> {
    let torn = || bad("is torn or was changed (its length or checksum differs)");
    let (header, body) = bytes.split_at_checked(WHOLE_HEADER).ok_or_else(torn)?;
    let word = |at: usize| u64::from_le_bytes(header[at..at + 8].try_into().expect("eight bytes"));
    if word(16) != body.len() as u64 || checksum(&[&header[..CHECKED], body]) != word(CHECKED) {
        return Err(torn());
    }
    Ok(body)
}

fn bad(what: &str) -> KernelError {
    KernelError::State(format!("engine snapshot {what}; restore an earlier one, or read the sources again"))
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
