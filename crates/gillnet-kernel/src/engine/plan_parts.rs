//! What of a plan gives an engine's state its meaning, part by part: so that state of another plan is refused by the name of
//! what differs, and a part whose state cannot be written yet by its own.
//!
//! Not among them: the pipeline's name, its model and its limits, which a restored engine may have others of; of the rules,
//! only the columns that they read, which are kept with each row that can be revised.

use serde_json::Value as Json;
use sha2::{Digest, Sha256};

use crate::bytes::{ByteReader, ByteWriter};
use crate::error::{KernelError, Result};
use crate::expr::collect_columns;

/// Keys of the plan that give no state its meaning.
const WITHOUT_STATE: [&str; 5] = ["version", "name", "model", "policy", "limits"];
/// Keys whose state a snapshot writes. A new kind of state is added here when [`super::snapshot`] writes it.
const WRITTEN: [&str; 7] = ["root", "streams", "features", "sessions", "emission", "revisions", "joins"];
/// Kinds of features whose state a snapshot writes.
const WRITTEN_FEATURES: [&str; 4] = ["aggregate", "expression", "baseline", "pattern"];

/// The parts of a plan by name, each with the first 64 bits of the SHA-256 of its JSON, keys sorted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PlanParts {
    parts: Vec<(String, u64)>,
    /// The first part whose state cannot be written yet.
    unwritten: Option<String>,
}

impl PlanParts {
    /// The parts of a plan's JSON.
    pub fn of(plan: &Json) -> Self {
        let mut found = Self::default();
        for (key, value) in plan.as_object().into_iter().flatten() {
            match (key.as_str(), value) {
                ("streams", Json::Array(streams)) => found.add_all("stream", streams),
                ("features", Json::Array(features)) => found.add_all("feature", features),
                ("joins", Json::Array(joins)) => found.add_all("join", joins),
                (key, value) if !WITHOUT_STATE.contains(&key) && !is_absent(value) => found.add(key, value),
                _ => {}
            }
        }
        if plan.get("revisions") == Some(&Json::Bool(true)) {
            found.add("columns of the policy", &columns_of(plan.get("policy")));
        }
        found
    }

    fn add_all(&mut self, what: &str, values: &[Json]) {
        for value in values {
            let name = format!("{what} '{}'", value["name"].as_str().unwrap_or_default());
            let kind = value["kind"].as_str().unwrap_or_default();
            if what == "feature" && !WRITTEN_FEATURES.contains(&kind) {
                self.unwritten.get_or_insert(format!("{name} (of kind '{kind}')"));
            }
            self.push(name, value);
        }
    }

    fn add(&mut self, key: &str, value: &Json) {
        if !WRITTEN.contains(&key) && key != "columns of the policy" {
            self.unwritten.get_or_insert(format!("'{key}'"));
        }
        self.push(key.to_owned(), value);
    }

    fn push(&mut self, name: String, value: &Json) {
        let digest = Sha256::digest(value.to_string());
        self.parts.push((name, u64::from_be_bytes(*digest.first_chunk().expect("a digest has 32 bytes"))));
    }

    /// Whether a snapshot can hold the state of every part.
    ///
    /// # Errors
    /// [`KernelError::State`], naming a part that it cannot.
    pub fn check_written(&self) -> Result<()> {
        match &self.unwritten {
            None => Ok(()),
            Some(part) => Err(KernelError::State(format!(
                "the plan has {part}, whose state cannot be written to a snapshot yet; run the pipeline without snapshots, or \
                 without that part"
            ))),
        }
    }

    /// Whether state of the plan with the parts `stored` is state of this plan.
    ///
    /// # Errors
    /// [`KernelError::Definition`], naming the first part that differs.
    pub fn check_same(&self, stored: &Self) -> Result<()> {
        let Some(difference) = self.difference(stored) else { return Ok(()) };
        Err(KernelError::Definition(format!(
            "engine snapshot was written under another plan: {difference}; restore it with the definition that wrote it, or \
             build the state anew by reading the sources again"
        )))
    }

    /// Whether both have the part of that name, and it is the same.
    pub(super) fn same(&self, other: &Self, name: &str) -> bool {
        let find = |parts: &Self| parts.parts.iter().find(|(part, _)| part == name).map(|(_, sum)| *sum);
        find(self).is_some_and(|sum| find(other) == Some(sum))
    }

    fn difference(&self, stored: &Self) -> Option<String> {
        let find = |parts: &Self, name: &str| parts.parts.iter().find(|(other, _)| other == name).map(|(_, sum)| *sum);
        for (name, sum) in &stored.parts {
            match find(self, name) {
                None => return Some(format!("this plan has no {name}")),
                Some(own) if own != *sum => return Some(format!("{name} is another one")),
                Some(_) => {}
            }
        }
        let new = self.parts.iter().find(|(name, _)| find(stored, name).is_none());
        match new {
            Some((name, _)) => Some(format!("it had no {name}")),
            None => (self.parts != stored.parts).then(|| "streams or features are in another order".into()),
        }
    }

    /// Write names and fingerprints.
    pub fn write_state(&self, out: &mut ByteWriter) {
        out.count(self.parts.len());
        for (name, sum) in &self.parts {
            out.text(name);
            out.u64(*sum);
        }
    }

    /// Read what [`Self::write_state`] wrote.
    ///
    /// # Errors
    /// Bytes that are no parts.
    pub fn read_state(from: &mut ByteReader<'_>) -> Result<Self> {
        let parts = from.list(|from| Ok((from.text()?.to_owned(), from.u64()?)))?;
        Ok(Self { parts, unwritten: None })
    }
}

/// Whether a plan says with this value that it does not have the part.
fn is_absent(value: &Json) -> bool {
    match value {
        Json::Null | Json::Bool(false) => true,
        Json::Array(items) => items.is_empty(),
        _ => false,
    }
}

fn columns_of(policy: Option<&Json>) -> Json {
    let mut names = Vec::new();
    policy.into_iter().for_each(|policy| collect_columns(policy, &mut names));
    names.sort_unstable();
    names.dedup();
    Json::from(names)
}
