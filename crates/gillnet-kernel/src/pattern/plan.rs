//! A pattern as Python writes it: see `gillnet.plan.patterns`.

use serde::Deserialize;
use serde_json::Value as Json;

/// A sequence of steps within a time.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct PatternPlan {
    pub steps: Vec<StepPlan>,
    /// From a match's first event to its last: less than this.
    pub within_us: i64,
    /// What must not follow the last event.
    pub absent: Option<AbsentPlan>,
    pub skip: Skip,
}

/// A step: which events it takes, and how many.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct StepPlan {
    pub alternatives: Vec<AlternativePlan>,
    pub least: u32,
    /// None: any number.
    pub most: Option<u32>,
    /// It may be left out.
    pub optional: bool,
    pub greedy: bool,
    /// No event of the key lies between one that this step takes and the one before it in the match.
    pub strict: bool,
    /// Events of which none lies between this step and the one before it.
    pub unless: Vec<Json>,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct AlternativePlan {
    pub name: String,
    #[serde(rename = "where")]
    pub condition: Option<Json>,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct AbsentPlan {
    #[serde(rename = "where")]
    pub condition: Json,
    pub for_us: i64,
}

/// Where the search goes on after a match.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Skip {
    /// Behind the match's last event: matches do not overlap.
    PastLastEvent,
    /// At the event after the match's first: each event starts at most one match.
    ToNext,
    /// Nowhere: a run whose last step can take more goes on, and each event that it takes is one more match.
    NoSkip,
}
