//! A program: a plan with its model, compiled by Python to JSON, and here to what runs it.

use std::collections::BTreeMap;

use gillnet_formats::{DecoderOptions, JsonDecoder, JsonEncoder};
use gillnet_kernel::engine::plan::Plan;
use gillnet_kernel::forest::Forest;
use gillnet_kernel::policy::RulePlan;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{json, Value};

use crate::error::{FlowError, Result};

/// The version of the JSON that is read here.
pub const VERSION: u32 = 1;

/// Outputs that every program has, in the order of their numbers; those of joins and of streams come behind.
pub const DECISIONS: u16 = 0;
pub const ALERTS: u16 = 1;
pub const REVISIONS: u16 = 2;
pub const SESSIONS: u16 = 3;
pub const MATCHES: u16 = 4;
const NAMES: [&str; 5] = ["decisions", "alerts", "decisions.revisions", "sessions", "matches"];

/// Side outputs of each stream, in the order of their numbers.
pub const ASIDE: [&str; 4] = ["malformed", "duplicate", "too_late", "late"];

/// What is read before the rest is known to be readable.
#[derive(Deserialize)]
struct VersionJson {
    version: Option<u32>,
}

#[derive(Deserialize)]
struct ProgramJson {
    plan: Box<RawValue>,
    policy: Vec<RulePlan>,
    streams: Vec<StreamJson>,
    key: Option<String>,
    emit_all: bool,
    top_reasons: usize,
    decisions: Explained,
    revisions: Box<RawValue>,
    matches: Box<RawValue>,
    sessions: Option<SessionsJson>,
    joins: Vec<JoinJson>,
    model: Option<ModelJson>,
}

#[derive(Deserialize)]
struct StreamJson {
    name: String,
    schema: Box<RawValue>,
    id: String,
    event_time: String,
    keys: Vec<String>,
    /// The column that records are shared out by; none where the plan cannot be.
    shard_by: Option<String>,
    earliest_us: i64,
    max_ahead_us: i64,
    max_record_bytes: usize,
    max_depth: usize,
}

#[derive(Deserialize)]
struct Explained {
    plain: Box<RawValue>,
    explained: Box<RawValue>,
}

#[derive(Deserialize)]
struct SessionsJson {
    key: String,
    head: Vec<String>,
}

#[derive(Deserialize)]
struct JoinJson {
    name: String,
    fields: Box<RawValue>,
}

#[derive(Deserialize)]
struct ModelJson {
    signature: Vec<(String, String)>,
    reference: BTreeMap<String, f64>,
    rounds: Option<usize>,
    trees: Box<RawValue>,
}

/// What is done with the records of a stream before the engine.
pub struct Stream {
    pub name: String,
    pub decoder: JsonDecoder,
    pub event_time: String,
    pub shard_by: Option<String>,
    pub earliest_us: i64,
    pub max_ahead_us: i64,
}

/// A model as it is scored, and as its reasons are told.
pub struct Model {
    pub forest: Forest,
    pub names: Vec<String>,
    pub types: Vec<String>,
    /// A typical value of each feature, where the model has one.
    pub typical: Vec<Option<f64>>,
}

/// How rows are written.
pub struct Encoders {
    pub plain: JsonEncoder,
    pub explained: JsonEncoder,
    pub revisions: JsonEncoder,
    pub matches: JsonEncoder,
    pub joins: Vec<JsonEncoder>,
}

/// Sessions: the column of their key, and the names of the columns that stand before their features.
pub struct Sessions {
    pub key: String,
    head: Vec<String>,
}

/// Everything that the flows of a job share, compiled once.
pub struct Program {
    pub plan: Plan,
    pub policy: Vec<RulePlan>,
    pub streams: Vec<Stream>,
    pub key: Option<String>,
    pub emit_all: bool,
    pub top_reasons: usize,
    pub encoders: Encoders,
    pub sessions: Option<Sessions>,
    pub model: Option<Model>,
    /// Names of the plan's features, in its order.
    pub features: Vec<String>,
    joins: Vec<String>,
}

impl Program {
    /// Compile a program.
    ///
    /// # Errors
    /// JSON that is no program, of another version, or whose plan or model the kernel cannot execute.
    pub fn from_json(text: &[u8]) -> Result<Self> {
        let told = |error: serde_json::Error| FlowError::Program(format!("its JSON cannot be read ({error})"));
        let VersionJson { version } = serde_json::from_slice(text).map_err(told)?;
        if version != Some(VERSION) {
            let it = version.map_or("none".to_owned(), |version| version.to_string());
            return Err(FlowError::Program(format!("it is of version {it}, and this Gillnet reads version {VERSION}")));
        }
        let read: ProgramJson = serde_json::from_slice(text).map_err(told)?;
        let encoder = |spec: &RawValue| JsonEncoder::new(spec.get().as_bytes());
        let encoders = Encoders {
            plain: encoder(&read.decisions.plain)?,
            explained: encoder(&read.decisions.explained)?,
            revisions: encoder(&read.revisions)?,
            matches: encoder(&read.matches)?,
            joins: read.joins.iter().map(|join| encoder(&join.fields)).collect::<std::result::Result<_, _>>()?,
        };
        let plan = Plan::from_json(read.plan.get())?;
        Ok(Self {
            features: plan.features.iter().map(|feature| feature.name().to_owned()).collect(),
            plan,
            policy: read.policy,
            streams: read.streams.into_iter().map(stream).collect::<Result<_>>()?,
            key: read.key,
            emit_all: read.emit_all,
            top_reasons: read.top_reasons,
            encoders,
            sessions: read.sessions.map(|sessions| Sessions { key: sessions.key, head: sessions.head }),
            model: read.model.map(model).transpose()?,
            joins: read.joins.into_iter().map(|join| join.name).collect(),
        })
    }

    /// The names of all outputs, by their number.
    pub fn outputs(&self) -> Vec<String> {
        let joins = self.joins.iter().map(|join| format!("joins.{join}"));
        let aside = self.streams.iter().flat_map(|stream| ASIDE.map(|kind| format!("{}.{kind}", stream.name)));
        NAMES.iter().map(|name| (*name).to_owned()).chain(joins).chain(aside).collect()
    }

    /// The number of a join's output.
    pub fn joined(&self, join: usize) -> u16 {
        (NAMES.len() + join) as u16
    }

    /// The number of a stream's side output.
    pub fn aside(&self, stream: usize, kind: usize) -> u16 {
        (NAMES.len() + self.joins.len() + stream * ASIDE.len() + kind) as u16
    }

    /// The stream of a number that came in a frame.
    ///
    /// # Errors
    /// A number that no stream has.
    pub fn stream(&self, number: u16) -> Result<&Stream> {
        let missing = || FlowError::Program(format!("it has no stream number {number}"));
        self.streams.get(usize::from(number)).ok_or_else(missing)
    }
}

impl Sessions {
    /// The encoder of closed sessions, whose columns the kernel names.
    ///
    /// # Errors
    /// A name that is there twice.
    pub fn encoder(&self, columns: &[String]) -> Result<JsonEncoder> {
        let rest = columns.iter().filter(|name| **name != self.key && !self.head.contains(name));
        let features: Vec<Value> = rest.map(|name| json!({"name": name})).collect();
        let mut fields = vec![json!({"name": self.key})];
        fields.extend(self.head.iter().map(|name| json!({"name": name})));
        fields.push(json!({"name": "features", "fields": features}));
        Ok(JsonEncoder::new(json!({"fields": fields, "omit_nulls": true}).to_string().as_bytes())?)
    }
}

fn stream(read: StreamJson) -> Result<Stream> {
    let options = DecoderOptions {
        keys: read.keys,
        id: Some(read.id),
        max_record_bytes: read.max_record_bytes,
        max_depth: read.max_depth,
    };
    Ok(Stream {
        decoder: JsonDecoder::new(read.schema.get().as_bytes(), options)?,
        name: read.name,
        event_time: read.event_time,
        shard_by: read.shard_by,
        earliest_us: read.earliest_us,
        max_ahead_us: read.max_ahead_us,
    })
}

fn model(read: ModelJson) -> Result<Model> {
    let (names, types): (Vec<String>, Vec<String>) = read.signature.into_iter().unzip();
    Ok(Model {
        forest: Forest::from_json(read.trees.get().as_bytes(), names.clone(), read.rounds)?,
        typical: names.iter().map(|name| read.reference.get(name).copied()).collect(),
        names,
        types,
    })
}
