//! Records of binary formats: which schema a record was written with, and its bytes to columns by that.

use std::sync::{Arc, RwLock};

use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::datatypes::SchemaRef;
use hashbrown::HashMap;
use serde::Deserialize;

use crate::avro;
use crate::columns::ColumnBuilder;
use crate::error::{FormatError, Result};
use crate::json::{Decoded, DecoderOptions};
use crate::protobuf;
use crate::reason::{excerpt, fault, Fault, Parse, Reason, Rejected};
use crate::schema::{arrow_schema, read_columns, Column};

/// Programs of one Protobuf schema, one for each of its messages that records were of.
const MAX_MESSAGES: usize = 1_000;
/// A message's place in its file: messages nest no deeper.
const MAX_INDICES: usize = 100;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    Avro,
    Protobuf,
}

/// What stands before a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Framing {
    /// A zero byte and four of the schema's id in a registry; for Protobuf, also the message's indices.
    Confluent,
    /// Avro: C3 01 and the fingerprint of the schema.
    SingleObject,
    /// Nothing.
    Plain,
}

/// The schemas that records were written with.
#[derive(Debug, Clone)]
pub struct Schemas {
    pub format: Format,
    pub framing: Framing,
    /// Avro schemas, or one Protobuf descriptor set.
    ///
    /// With `Confluent` framing one Avro schema or none: the reader's own, for its aliases and defaults. With `SingleObject` those that
    /// records may be of, the first of which is also the reader's. With `Plain` the one that they are of.
    pub definitions: Vec<Vec<u8>>,
    /// The Protobuf message that plain records are.
    pub message: Option<String>,
}

/// What is known of a schema's id.
enum Writer {
    Avro(avro::Program),
    Protobuf(Messages),
    /// Records with it are rejected.
    Refused(Reason, String),
}

/// How a message is read, or why it cannot be.
type MessageProgram = std::result::Result<protobuf::Program, String>;

/// A Protobuf schema, with the programs of its messages that were met.
struct Messages {
    files: protobuf::Files,
    programs: RwLock<HashMap<Vec<u32>, Arc<MessageProgram>>>,
}

/// Decodes Avro or Protobuf records into the Arrow columns of a schema.
pub struct RecordDecoder {
    columns: Vec<Column>,
    schema: SchemaRef,
    options: DecoderOptions,
    format: Format,
    framing: Framing,
    reader: Option<avro::Reader>,
    plain: Option<Plain>,
    fingerprints: HashMap<[u8; 8], avro::Program>,
    by_id: RwLock<HashMap<u32, Writer>>,
}

enum Plain {
    Avro(avro::Program),
    Protobuf(protobuf::Program),
}

impl RecordDecoder {
    /// Make a decoder for the JSON that `gillnet.core.schema.schema_to_json` wrote, and records of some schemas.
    pub fn new(schema_json: &[u8], options: DecoderOptions, schemas: &Schemas) -> Result<Self> {
        let columns = read_columns(schema_json, &options.keys, options.id.as_deref())?;
        if options.max_depth < 1 || options.max_record_bytes < 2 {
            return Err(FormatError::Schema("max_depth is at least 1 and max_record_bytes at least 2".into()));
        }
        let mut decoder = Self {
            schema: arrow_schema(&columns),
            columns,
            options,
            format: schemas.format,
            framing: schemas.framing,
            reader: None,
            plain: None,
            fingerprints: HashMap::new(),
            by_id: RwLock::default(),
        };
        match schemas.format {
            Format::Avro => decoder.take_avro(&schemas.definitions)?,
            Format::Protobuf => decoder.take_protobuf(schemas)?,
        }
        Ok(decoder)
    }

    fn take_avro(&mut self, definitions: &[Vec<u8>]) -> Result<()> {
        let wrong = |error: String| FormatError::Schema(format!("Avro: {error}"));
        if let Some(first) = definitions.first() {
            self.reader = Some(avro::Reader::read(first).map_err(wrong)?);
        }
        let program = |definition: &[u8]| {
            avro::Program::new(definition, &[], self.reader.as_ref(), &self.columns, self.options.max_depth)
                .map_err(wrong)
        };
        match (self.framing, definitions) {
            (Framing::Confluent, [] | [_]) => Ok(()),
            (Framing::Plain, [only]) => {
                self.plain = Some(Plain::Avro(program(only)?));
                Ok(())
            }
            (Framing::SingleObject, [_, ..]) => {
                let one =
                    |definition: &Vec<u8>| Ok((avro::fingerprint(definition).map_err(wrong)?, program(definition)?));
                self.fingerprints = definitions.iter().map(one).collect::<Result<_>>()?;
                Ok(())
            }
            _ => Err(FormatError::Schema("Avro: one schema, or several with single-object encoding".into())),
        }
    }

    fn take_protobuf(&mut self, schemas: &Schemas) -> Result<()> {
        let wrong = |error: String| FormatError::Schema(format!("Protobuf: {error}"));
        match (self.framing, schemas.definitions.as_slice(), &schemas.message) {
            (Framing::Confluent, [], None) => Ok(()),
            (Framing::Plain, [set], Some(message)) => {
                let files = protobuf::Files::from_set(set).map_err(wrong)?;
                self.plain = Some(Plain::Protobuf(files.named(message, &self.columns).map_err(wrong)?));
                Ok(())
            }
            _ => Err(FormatError::Schema("Protobuf: a descriptor set and a message, or a registry".into())),
        }
    }

    /// The Arrow schema of the decoded batches.
    pub fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    /// The ids of these records' schemas that nothing is known of yet, each once, in the order of the records.
    pub fn unknown_ids(&self, records: &[&[u8]]) -> Vec<u32> {
        let mut unknown = vec![];
        if self.framing == Framing::Confluent {
            let known = self.by_id.read().unwrap_or_else(std::sync::PoisonError::into_inner);
            let mut last = None;
            for record in records {
                let Ok((id, _)) = confluent(record) else { continue };
                if last != Some(id) && !known.contains_key(&id) && !unknown.contains(&id) {
                    unknown.push(id);
                }
                last = Some(id);
            }
        }
        unknown
    }

    /// Learn the schema of an id. One that cannot be used makes the records with it malformed.
    pub fn add_schema(&self, id: u32, definition: &[u8], references: &[Vec<u8>]) {
        let writer = match self.format {
            Format::Avro => {
                let reader = self.reader.as_ref();
                avro::Program::new(definition, references, reader, &self.columns, self.options.max_depth)
                    .map(Writer::Avro)
            }
            Format::Protobuf => protobuf::Files::from_file(definition, references)
                .map(|files| Writer::Protobuf(Messages { files, programs: RwLock::default() })),
        };
        let refused = |error: String| Writer::Refused(Reason::BadSchema, format!("schema {id}: {error}"));
        self.know(id, writer.unwrap_or_else(refused));
    }

    /// Learn that records with an id are malformed: `bad_schema` if it is known, else `unknown_schema`.
    pub fn refuse_schema(&self, id: u32, known: bool, detail: &str) {
        let reason = if known { Reason::BadSchema } else { Reason::UnknownSchema };
        self.know(id, Writer::Refused(reason, format!("schema {id}: {detail}")));
    }

    /// Forget what is known of an id, so that it is asked for again.
    pub fn forget_schema(&self, id: u32) {
        self.by_id.write().unwrap_or_else(std::sync::PoisonError::into_inner).remove(&id);
    }

    fn know(&self, id: u32, writer: Writer) {
        self.by_id.write().unwrap_or_else(std::sync::PoisonError::into_inner).insert(id, writer);
    }

    /// Decode records; as for JSON, never an error for what a record holds. Ids that are unknown make records malformed.
    pub fn decode(&self, records: &[&[u8]]) -> Result<Decoded> {
        let bytes: usize = records.iter().map(|record| record.len()).sum();
        if bytes > i32::MAX as usize || records.len() > i32::MAX as usize {
            return Err(FormatError::Batch(format!("{bytes} bytes in one batch; at most 2 GiB: give fewer records")));
        }
        let known = self.by_id.read().unwrap_or_else(std::sync::PoisonError::into_inner);
        let mut builders: Vec<_> =
            self.columns.iter().map(|column| ColumnBuilder::new(column, records.len())).collect();
        let mut rows = Vec::with_capacity(records.len());
        let mut rejected = Vec::new();
        let mut text_bytes = 0usize;
        for (index, record) in records.iter().enumerate() {
            match self.record(record, &known, &mut builders) {
                Ok(()) => rows.push(index as u32),
                Err(found) => {
                    builders.iter_mut().for_each(|builder| builder.truncate(rows.len()));
                    let Fault { reason, detail } = *found;
                    rejected.push(Rejected { index: index as u32, reason, detail });
                }
            }
            // Names of enums and defaults are longer than what stands for them in a record.
            text_bytes = builders.iter().map(ColumnBuilder::text_bytes).max().unwrap_or(0).max(text_bytes);
            if text_bytes > i32::MAX as usize {
                return Err(FormatError::Batch("2 GiB of text in one column: give fewer records".into()));
            }
        }
        let arrays = builders.into_iter().map(ColumnBuilder::finish).collect::<Result<Vec<_>>>()?;
        let with_rows = RecordBatchOptions::new().with_row_count(Some(rows.len()));
        Ok(Decoded { batch: RecordBatch::try_new_with_options(self.schema(), arrays, &with_rows)?, rows, rejected })
    }

    fn record(&self, record: &[u8], known: &HashMap<u32, Writer>, builders: &mut [ColumnBuilder<'_>]) -> Parse<()> {
        if record.len() > self.options.max_record_bytes {
            let limit = self.options.max_record_bytes;
            return Err(fault(Reason::TooLarge, format!("{} bytes, at most {limit} are allowed", record.len())));
        }
        if record.is_empty() {
            return Err(fault(Reason::EmptyRecord, "0 bytes"));
        }
        match self.framing {
            Framing::Plain => match &self.plain {
                Some(Plain::Avro(program)) => program.record(record, builders),
                Some(Plain::Protobuf(program)) => program.record(record, builders, self.options.max_depth),
                None => Err(fault(Reason::UnknownSchema, "no schema was given")),
            },
            Framing::SingleObject => {
                let (fingerprint, body) = single_object(record)?;
                match self.fingerprints.get(fingerprint) {
                    Some(program) => program.record(body, builders),
                    None => Err(fault(Reason::UnknownSchema, format!("fingerprint {}", excerpt(fingerprint)))),
                }
            }
            Framing::Confluent => {
                let (id, body) = confluent(record)?;
                match known.get(&id) {
                    Some(Writer::Avro(program)) => program.record(body, builders),
                    Some(Writer::Protobuf(messages)) => messages.record(id, body, builders, self.options.max_depth),
                    Some(Writer::Refused(reason, detail)) => Err(fault(*reason, detail.as_str())),
                    None => Err(fault(Reason::UnknownSchema, format!("schema {id}"))),
                }
            }
        }
    }
}

impl Messages {
    fn record(&self, id: u32, body: &[u8], builders: &mut [ColumnBuilder<'_>], max_depth: usize) -> Parse<()> {
        let (path, body) = indices(body)?;
        let found =
            self.programs.read().unwrap_or_else(std::sync::PoisonError::into_inner).get(path.as_slice()).cloned();
        let program = match found {
            Some(program) => program,
            None => {
                let columns: Vec<Column> = builders.iter().map(|builder| builder.column.clone()).collect();
                let program = Arc::new(self.files.indexed(&path, &columns));
                let mut programs = self.programs.write().unwrap_or_else(std::sync::PoisonError::into_inner);
                if programs.len() < MAX_MESSAGES {
                    programs.insert(path, program.clone());
                }
                program
            }
        };
        match &*program {
            Ok(program) => program.record(body, builders, max_depth),
            Err(error) => Err(fault(Reason::BadSchema, format!("schema {id}: {error}"))),
        }
    }
}

fn confluent(record: &[u8]) -> Parse<(u32, &[u8])> {
    match record {
        [0, a, b, c, d, body @ ..] => Ok((u32::from_be_bytes([*a, *b, *c, *d]), body)),
        _ => Err(fault(
            Reason::BadFraming,
            format!("expected a zero byte and a schema's id, found '{}'", excerpt(&record[..record.len().min(8)])),
        )),
    }
}

fn single_object(record: &[u8]) -> Parse<(&[u8; 8], &[u8])> {
    let body = record.strip_prefix(&[0xc3, 0x01]).and_then(<[u8]>::split_first_chunk::<8>);
    body.ok_or_else(|| {
        let found = excerpt(&record[..record.len().min(10)]);
        fault(Reason::BadFraming, format!("expected c3 01 and a fingerprint, found '{found}'"))
    })
}

/// The indices of a message in its file: a count and as many zigzag numbers; a count of zero stands for the first message.
fn indices(body: &[u8]) -> Parse<(Vec<u32>, &[u8])> {
    let mut rest = body;
    let broken = |_: &[u8]| fault(Reason::BadFraming, "no list of a message's indices behind the schema's id");
    let number = |rest: &mut &[u8]| -> Option<u32> {
        let mut value = 0u64;
        for (at, &byte) in rest.iter().enumerate().take(5) {
            value |= u64::from(byte & 0x7f) << (7 * at);
            if byte < 0x80 {
                *rest = &rest[at + 1..];
                return (value & 1 == 0).then(|| u32::try_from(value >> 1).ok()).flatten();
            }
        }
        None
    };
    let count = number(&mut rest).filter(|&count| count as usize <= MAX_INDICES).ok_or_else(|| broken(rest))?;
    if count == 0 {
        return Ok((vec![0], rest));
    }
    let mut path = Vec::with_capacity(count as usize);
    for _ in 0..count {
        path.push(number(&mut rest).ok_or_else(|| broken(rest))?);
    }
    Ok((path, rest))
}
