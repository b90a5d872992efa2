//! The part of the plan that the kernel executes, as Python writes it: see `gillnet.plan.serde`.

use arrow::datatypes::{DataType, Field, Schema, TimeUnit};
use serde::Deserialize;
use serde_json::Value as Json;

use super::plan_parts::PlanParts;
use crate::error::{KernelError, Result};
use crate::keyed::layout::Function;
use crate::keyed::window::{Window, FURTHEST_US};
use crate::pattern::plan::PatternPlan;

/// The plan's version that this kernel reads.
pub const VERSION: u32 = 1;

#[derive(Debug, Clone, Deserialize)]
pub struct Plan {
    pub version: u32,
    pub root: String,
    pub streams: Vec<StreamPlan>,
    pub features: Vec<FeaturePlan>,
    #[serde(default)]
    pub sessions: Option<SessionsPlan>,
    #[serde(default)]
    pub policy: Vec<RulePlan>,
    #[serde(default)]
    pub emission: EmissionPlan,
    #[serde(default)]
    pub joins: Vec<super::joins::JoinPlan>,
    /// Whether rows that went out are computed again when a later arrival changes them.
    #[serde(default)]
    pub revisions: bool,
    #[serde(default)]
    pub limits: Limits,
    /// What gives the state its meaning: see [`PlanParts`].
    #[serde(skip)]
    pub parts: PlanParts,
}

/// When a row leaves (I8).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum EmissionPlan {
    /// At once, with what is known.
    #[default]
    OnArrival,
    /// When the streams that it looks up have caught up with it, or after `max_wait_us` of processing time.
    MaxWait { max_wait_us: i64 },
    /// When the watermark of every stream has passed it.
    OnWatermark,
}

/// What the engine needs to know of a rule: which columns it judges by.
#[derive(Debug, Clone, Deserialize)]
pub struct RulePlan {
    pub when: Json,
}

#[derive(Debug, Clone, Deserialize)]
pub struct StreamPlan {
    pub name: String,
    pub schema: Vec<ColumnPlan>,
    pub id: String,
    pub event_time: String,
    pub watermark_delay_us: i64,
    pub allowed_lateness_us: i64,
    pub idle_after_us: i64,
    pub earliest_us: i64,
    pub max_ahead_us: i64,
}

#[derive(Debug, Clone, Deserialize)]
pub struct ColumnPlan {
    pub name: String,
    #[serde(rename = "type")]
    pub value_type: String,
    #[serde(default)]
    pub nullable: bool,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum FeaturePlan {
    Aggregate {
        name: String,
        #[serde(rename = "type")]
        value_type: String,
        stream: String,
        /// The key column; none for the whole stream as one key.
        key: Option<String>,
        /// The column of the root stream whose value is looked up, where `stream` is not the root.
        at: Option<String>,
        function: Function,
        input: Option<Json>,
        #[serde(rename = "where")]
        condition: Option<Json>,
        window: Window,
    },
    Expression {
        name: String,
        expression: Json,
    },
    Baseline(BaselinePlan),
    Pattern(PatternFeaturePlan),
}

/// Matches of a pattern: whether one was completed within the time before the reading, or how many (`int64`).
#[derive(Debug, Clone, Deserialize)]
pub struct PatternFeaturePlan {
    pub name: String,
    #[serde(rename = "type")]
    pub value_type: String,
    pub stream: String,
    pub key: Option<String>,
    pub at: Option<String>,
    pub over_us: i64,
    pub pattern: PatternPlan,
}

/// A robust quantile of a feature over the population of closed sessions.
#[derive(Debug, Clone, Deserialize)]
pub struct BaselinePlan {
    pub name: String,
    pub of: String,
    pub quantile: f64,
    pub over_us: i64,
    pub step_us: i64,
    pub min_count: u64,
}

#[derive(Debug, Clone, Deserialize)]
pub struct SessionsPlan {
    pub key: String,
    pub gap_us: i64,
    pub max_length_us: i64,
}

/// Named limits of the state (I7).
#[derive(Debug, Clone, Deserialize)]
#[serde(default)]
pub struct Limits {
    pub max_events_per_key: usize,
    pub max_partial_matches: usize,
    pub max_pending_rows: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_events_per_key: crate::keyed::store::MAX_EVENTS_PER_KEY,
            max_partial_matches: crate::pattern::store::MAX_PARTIAL_MATCHES,
            max_pending_rows: super::pending::MAX_PENDING_ROWS,
        }
    }
}

impl FeaturePlan {
    /// The feature's name.
    pub fn name(&self) -> &str {
        match self {
            Self::Aggregate { name, .. } | Self::Expression { name, .. } => name,
            Self::Baseline(plan) => &plan.name,
            Self::Pattern(plan) => &plan.name,
        }
    }
}

impl Plan {
    /// Read a plan.
    ///
    /// # Errors
    /// Another version, or a plan that is not of this form.
    pub fn from_json(json: &str) -> Result<Self> {
        let refused = |error: serde_json::Error| KernelError::Plan(error.to_string());
        let mut plan: Self = serde_json::from_str(json).map_err(refused)?;
        plan.parts = PlanParts::of(&serde_json::from_str(json).map_err(refused)?);
        if plan.version != VERSION {
            return Err(KernelError::Plan(format!(
                "version {} is not {VERSION}, which this kernel reads",
                plan.version
            )));
        }
        Ok(plan)
    }
}

impl Plan {
    /// Refuse durations and limits that the kernel cannot compute with.
    ///
    /// # Errors
    /// [`KernelError::Plan`], naming the place.
    pub fn check(&self) -> Result<()> {
        for stream in &self.streams {
            let place = |what: &str| format!("stream '{}': {what}", stream.name);
            at_least(0, stream.watermark_delay_us, || place("watermark delay"))?;
            at_least(0, stream.allowed_lateness_us, || place("allowed lateness"))?;
            at_least(0, stream.idle_after_us, || place("idle after"))?;
            at_least(0, stream.max_ahead_us, || place("max ahead"))?;
        }
        for feature in &self.features {
            let place = |what: &str| format!("feature '{}': {what}", feature.name());
            match feature {
                FeaturePlan::Aggregate { window, .. } => check_window(window, place)?,
                FeaturePlan::Expression { .. } => {}
                FeaturePlan::Baseline(baseline) => {
                    at_least(1, baseline.over_us, || place("over"))?;
                    at_least(1, baseline.step_us, || place("step"))?;
                }
                FeaturePlan::Pattern(pattern) => at_least(1, pattern.over_us, || place("over"))?,
            }
        }
        if let Some(sessions) = &self.sessions {
            at_least(1, sessions.gap_us, || "sessions: gap".into())?;
            at_least(1, sessions.max_length_us, || "sessions: max length".into())?;
        }
        if let EmissionPlan::MaxWait { max_wait_us } = self.emission {
            at_least(0, max_wait_us, || "emission: max wait".into())?;
        }
        if self.emission != EmissionPlan::OnArrival && self.sessions.is_some() {
            return Err(KernelError::Plan("rows of sessions leave on arrival: they are judged while they run".into()));
        }
        let limit = |limit: usize| limit.try_into().unwrap_or(i64::MAX).min(FURTHEST_US);
        at_least(1, limit(self.limits.max_partial_matches), || "limits: max partial matches".into())?;
        at_least(1, limit(self.limits.max_events_per_key), || "limits: max events per key".into())
    }
}

fn check_window(window: &Window, place: impl Fn(&str) -> String) -> Result<()> {
    at_least(0, window.delay_us(), || place("delay"))?;
    match *window {
        Window::Sliding { size_us, .. } | Window::Tumbling { size_us, .. } | Window::Latest { size_us, .. } => {
            at_least(1, size_us, || place("window"))
        }
        Window::Session { gap_us, max_length_us, .. } => {
            at_least(1, gap_us, || place("gap"))?;
            at_least(1, max_length_us, || place("max length"))
        }
    }
}

fn at_least(least: i64, value: i64, place: impl Fn() -> String) -> Result<()> {
    if (least..=FURTHEST_US).contains(&value) {
        return Ok(());
    }
    Err(KernelError::Plan(format!("{} of {value} is not within {least} and {FURTHEST_US}", place())))
}

impl StreamPlan {
    /// The Arrow schema of decoded records.
    ///
    /// # Errors
    /// An unknown type name.
    pub fn arrow_schema(&self) -> Result<Schema> {
        let fields = self
            .schema
            .iter()
            .map(|column| Ok(Field::new(&column.name, arrow_type(&column.value_type)?, column.nullable)));
        Ok(Schema::new(fields.collect::<Result<Vec<_>>>()?))
    }
}

/// The Arrow type of a value type's name.
///
/// # Errors
/// An unknown name.
pub fn arrow_type(name: &str) -> Result<DataType> {
    let decimal = |text: &str| text.strip_prefix("decimal(")?.strip_suffix(')')?.parse::<i8>().ok();
    Ok(match name {
        "string" => DataType::Utf8,
        "int64" => DataType::Int64,
        "float64" => DataType::Float64,
        "bool" => DataType::Boolean,
        "timestamp" => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
        _ => match decimal(name) {
            Some(scale) => DataType::Decimal128(38, scale),
            None => return Err(KernelError::Plan(format!("unknown value type '{name}'"))),
        },
    })
}
