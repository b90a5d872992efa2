//! Steps in, records out: the same for the same steps, as with the embedded runtime's `Flow`.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{AsArray, RecordBatch};
use gillnet_formats::{encode_keys, JsonEncoder};
use gillnet_kernel::bytes::{ByteReader, ByteWriter};
use gillnet_kernel::engine::{Engine, Outcome};
use gillnet_kernel::KernelError;

use crate::aside::{self, Aside};
use crate::error::Result;
use crate::frame::{Chunk, OutRecords};
use crate::program::{Program, ALERTS, DECISIONS, MATCHES, REVISIONS, SESSIONS};
use crate::revising::revise;
use crate::scoring::{explained, take_rows, Alerts, Scoring};

/// The version of a flow's stored bytes.
const STATE: u32 = 1;

/// Rows that one call gives at the most, so that no batch grows without bound.
const AT_ONCE: usize = 4_096;

/// What became of the records of a stream.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct StreamCounts {
    pub read: u64,
    pub scored: u64,
    pub malformed: u64,
    pub duplicate: u64,
    pub too_late: u64,
    /// Of those scored.
    pub late: u64,
}

/// What a flow did since it was made.
#[derive(Debug, Default, Clone)]
pub struct Counts {
    pub streams: Vec<StreamCounts>,
    pub decisions: BTreeMap<String, u64>,
    pub alerts: u64,
    pub revisions: u64,
    pub flipped: u64,
    pub sessions: u64,
    pub matches: u64,
    pub withdrawn: u64,
}

/// A pipeline, or one shard of it.
pub struct Flow {
    program: Arc<Program>,
    engine: Engine,
    scoring: Scoring,
    revising: Scoring,
    alerts: Alerts,
    sessions: Option<JsonEncoder>,
    counts: Counts,
}

impl Flow {
    /// A flow that has seen nothing.
    ///
    /// # Errors
    /// A plan that cannot be executed.
    pub fn new(program: &Arc<Program>) -> Result<Self> {
        Ok(Self::with(program, Engine::new(&program.plan)?))
    }

    fn with(program: &Arc<Program>, engine: Engine) -> Self {
        let streams = vec![StreamCounts::default(); program.streams.len()];
        Self {
            program: Arc::clone(program),
            engine,
            scoring: Scoring::default(),
            revising: Scoring::default(),
            alerts: Alerts::default(),
            sessions: None,
            counts: Counts { streams, ..Counts::default() },
        }
    }

    /// A flow that goes on where another one stood when it wrote `state`.
    ///
    /// # Errors
    /// Bytes that are torn, or of another plan.
    pub fn restore(program: &Arc<Program>, state: &[u8]) -> Result<Self> {
        let mut from = ByteReader::new(state);
        let version = from.u32()?;
        if version != STATE {
            let told = format!("a flow of version {version}, and this Gillnet reads version {STATE}");
            return Err(KernelError::State(told).into());
        }
        let mut alerts = Alerts::default();
        alerts.read_state(&mut from)?;
        let engine = Engine::restore(&program.plan, from.bytes()?)?;
        from.end()?;
        Ok(Self { alerts, ..Self::with(program, engine) })
    }

    /// The whole state.
    ///
    /// # Errors
    /// Rows that cannot be written.
    pub fn snapshot(&self) -> Result<Vec<u8>> {
        let mut out = ByteWriter::default();
        out.u32(STATE);
        self.alerts.write_state(&mut out);
        out.bytes(&self.engine.snapshot()?);
        Ok(out.finish())
    }

    /// What was done since the flow was made.
    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    /// A stream's watermark in µs, none before its first event.
    ///
    /// # Errors
    /// A number that no stream has.
    pub fn watermark(&self, stream: u16) -> Result<Option<i64>> {
        Ok(self.engine.watermark(&self.program.stream(stream)?.name)?.0)
    }

    /// Let an assigned partition hold the watermark, before its first record.
    ///
    /// # Errors
    /// A number that no stream has.
    pub fn register(&mut self, stream: u16, partition: i32, now_us: i64) -> Result<()> {
        Ok(self.engine.register_partition(&self.program.stream(stream)?.name, partition, now_us)?)
    }

    /// Go on at processing time `now_us` after the run was away: nobody was silent meanwhile.
    pub fn resume(&mut self, now_us: i64) {
        self.engine.resume(now_us);
    }

    /// Take a chunk of records.
    ///
    /// # Errors
    /// Whatever the kernel refuses: a fault of Gillnet or of the program, never of a record.
    pub fn take(&mut self, chunk: &Chunk<'_>, out: &mut OutRecords) -> Result<()> {
        let program = Arc::clone(&self.program);
        if !chunk.records.is_empty() {
            let stream = program.stream(chunk.stream)?;
            let values: Vec<&[u8]> = chunk.records.iter().map(|record| record.value).collect();
            let decoded = stream.decoder.decode(&values)?;
            let partition = |row: &u32| chunk.records[*row as usize].partition;
            let partitions: Vec<i32> = decoded.rows.iter().map(partition).collect();
            let done = self.engine.process(&stream.name, &decoded.batch, Some(&partitions), chunk.arrival)?;
            let refused = decoded.rejected.into_iter().map(Aside::from);
            let judged = decoded.rows.iter().zip(&done.outcomes);
            let judged = judged.filter_map(|(row, outcome)| aside::judged(*row as usize, *outcome));
            let aside: Vec<Aside> = refused.chain(judged).collect();
            self.count(chunk, &aside, &done.outcomes);
            aside::write(&program, chunk.stream.into(), chunk.arrival, &chunk.records, aside, out)?;
            if let Some(rows) = done.rows.filter(|rows| rows.num_rows() > 0) {
                self.emit(rows, out)?;
            }
        }
        for heard in &chunk.heard {
            self.engine.observe(&program.stream(heard.stream)?.name, heard.partition, heard.newest, heard.at)?;
        }
        self.engine.pass_time(chunk.arrival);
        self.tell(out)
    }

    fn count(&mut self, chunk: &Chunk<'_>, aside: &[Aside], outcomes: &[Outcome]) {
        let counts = &mut self.counts.streams[usize::from(chunk.stream)];
        let of = |kind| aside.iter().filter(|aside| aside.kind == kind).count() as u64;
        let with = |wanted| outcomes.iter().filter(|outcome| **outcome == wanted).count() as u64;
        let late = with(Outcome::Late);
        counts.read += chunk.records.len() as u64;
        counts.scored += with(Outcome::Accepted) + late;
        counts.late += late;
        counts.malformed += of(aside::MALFORMED);
        counts.duplicate += with(Outcome::Duplicate);
        counts.too_late += with(Outcome::TooLate);
    }

    /// Processing time is `now_us`: silent partitions fall idle, rows that waited long enough leave, changed rows are revised.
    ///
    /// # Errors
    /// Whatever the kernel refuses.
    pub fn pass_time(&mut self, now_us: i64, out: &mut OutRecords) -> Result<()> {
        self.engine.pass_time(now_us);
        self.release(now_us, false, out)?;
        self.look(out)?;
        self.tell(out)
    }

    /// A bounded stream has ended.
    ///
    /// # Errors
    /// A number that no stream has.
    pub fn finish(&mut self, stream: u16, out: &mut OutRecords) -> Result<()> {
        self.engine.finish(&self.program.stream(stream)?.name)?;
        self.tell(out)
    }

    /// All that waits leaves: the run ends at processing time `now_us`.
    ///
    /// # Errors
    /// Whatever the kernel refuses.
    pub fn end(&mut self, now_us: i64, out: &mut OutRecords) -> Result<()> {
        self.release(now_us, true, out)?;
        self.look(out)
    }

    fn release(&mut self, now_us: i64, everything: bool, out: &mut OutRecords) -> Result<()> {
        match self.engine.release(now_us, everything)? {
            Some(rows) => self.emit(rows, out),
            None => Ok(()),
        }
    }

    fn emit(&mut self, rows: RecordBatch, out: &mut OutRecords) -> Result<()> {
        let program = Arc::clone(&self.program);
        let mut scored = self.scoring.score(&program, rows)?;
        let alerts = self.alerts.new_ones(&program, &scored)?;
        let model = program.model.as_ref().filter(|_| program.top_reasons > 0 && !alerts.is_empty());
        if let Some(model) = model {
            scored.batch = explained(model, &scored, program.top_reasons)?;
        }
        for (decision, count) in &scored.counts {
            *self.counts.decisions.entry(decision.clone()).or_default() += *count as u64;
        }
        self.counts.alerts += alerts.len() as u64;
        let encoder = if model.is_some() { &program.encoders.explained } else { &program.encoders.plain };
        let key = program.key.as_deref();
        if program.emit_all {
            write(encoder, &scored.batch, key, DECISIONS, out)?;
        } else {
            write(encoder, &take_rows(&scored.batch, &scored.flagged)?, key, DECISIONS, out)?;
        }
        if !alerts.is_empty() {
            write(encoder, &take_rows(&scored.batch, &alerts)?, key, ALERTS, out)?;
        }
        Ok(())
    }

    fn look(&mut self, out: &mut OutRecords) -> Result<()> {
        let program = Arc::clone(&self.program);
        while let Some(rows) = self.engine.revisions(AT_ONCE)? {
            self.counts.revisions += rows.num_rows() as u64;
            let revised = revise(&program, &mut self.revising, rows)?;
            self.counts.flipped += revised.flipped as u64;
            write(&program.encoders.revisions, &revised.batch, program.key.as_deref(), REVISIONS, out)?;
        }
        Ok(())
    }

    /// Sessions that closed, matches, joined rows.
    fn tell(&mut self, out: &mut OutRecords) -> Result<()> {
        let program = Arc::clone(&self.program);
        if let Some(sessions) = &program.sessions {
            while let Some(closed) = self.engine.closed_sessions(AT_ONCE)? {
                self.counts.sessions += closed.num_rows() as u64;
                let names: Vec<String> = closed.schema().fields().iter().map(|field| field.name().clone()).collect();
                let encoder = match &mut self.sessions {
                    Some(encoder) => encoder,
                    none => none.insert(sessions.encoder(&names)?),
                };
                write(encoder, &closed, Some(&sessions.key), SESSIONS, out)?;
            }
        }
        while let Some(found) = self.engine.matches(AT_ONCE)? {
            let withdrawn = found.column_by_name("withdrawn").map_or(0, |column| column.as_boolean().true_count());
            self.counts.matches += (found.num_rows() - withdrawn) as u64;
            self.counts.withdrawn += withdrawn as u64;
            write(&program.encoders.matches, &found, Some("key"), MATCHES, out)?;
        }
        while let Some((join, rows)) = self.engine.joined(AT_ONCE)? {
            write(&program.encoders.joins[join], &rows, Some("__key"), program.joined(join), out)?;
        }
        Ok(())
    }
}

fn write(
    encoder: &JsonEncoder,
    batch: &RecordBatch,
    key: Option<&str>,
    output: u16,
    out: &mut OutRecords,
) -> Result<()> {
    let keys = key.map(|key| encode_keys(batch, key)).transpose()?;
    for (row, record) in encoder.encode(batch)?.iter().enumerate() {
        let key = keys.as_ref().and_then(|keys| keys[row].as_deref());
        out.push(output, key, None, record);
    }
    Ok(())
}
