//! The aggregates of one entity, compiled: which lanes an event carries, which windows stand over the key's events,
//! what each window accumulates, and how outputs are read from the accumulators.

use serde::Deserialize;
use sha2::{Digest, Sha256};

use super::accumulator::{Accumulator, Kind};
use super::row;
use super::window::Window;
use crate::error::{KernelError, Result};

/// Selections of one entity at the most: each is a bit of the row's mask.
pub const MAX_SELECTIONS: usize = 64;

/// What an aggregate computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Function {
    Count,
    Sum,
    Mean,
    Min,
    Max,
    Variance,
    Std,
    NUnique,
    First,
    Last,
    SecondsSinceLast,
    MeanGapSeconds,
    StdGapSeconds,
    ModalGapShare,
    Entropy,
}

/// How a lane's word is to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LaneType {
    /// int64, timestamps in µs, and booleans as 0 and 1.
    Integer,
    /// A scaled integer.
    Decimal(u32),
    Float,
    /// A code of the entity's interner.
    Text,
}

/// One accumulator of a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AccumulatorPlan {
    pub kind: Kind,
    pub bit: u8,
    pub lane: Option<u8>,
    /// Words are mapped so that their order is the order of values (extremes only).
    pub order: Option<LaneType>,
}

/// One window and its accumulators, a range of the key's accumulators.
#[derive(Debug, Clone)]
pub struct WindowPlan {
    pub window: Window,
    pub accumulators: Vec<AccumulatorPlan>,
    /// Index of the window's first accumulator among all of the entity.
    pub first: usize,
    /// Index of the window's first word among a key's floors, for sessions.
    pub floor: usize,
}

/// How one output is read. Indices are of the entity's accumulators.
#[derive(Debug, Clone, Copy)]
pub enum Reading {
    Count(usize),
    IntegerSum(usize),
    DecimalSum(usize),
    FloatSum(usize),
    IntegerMean {
        sum: usize,
        count: usize,
        scale: u32,
    },
    FloatMean {
        sum: usize,
        count: usize,
    },
    IntegerVariance {
        sum: usize,
        count: usize,
        squares: usize,
        scale: u32,
        root: bool,
    },
    FloatVariance {
        sum: usize,
        count: usize,
        squares: usize,
        root: bool,
    },
    Distinct(usize),
    Entropy(usize),
    Extreme {
        accumulator: usize,
        greatest: bool,
        lane: LaneType,
    },
    End {
        accumulator: usize,
        last: bool,
        lane: LaneType,
    },
    /// Read before the event itself enters; `floor` is the latest time among dropped events.
    SinceLast {
        accumulator: usize,
        floor: usize,
        size_us: i64,
    },
    MeanGap(usize),
    StdGap(usize),
    ModalGapShare(usize),
}

/// One output of the entity.
#[derive(Debug, Clone, Copy)]
pub struct OutputPlan {
    pub window: usize,
    pub reading: Reading,
}

/// The compiled aggregates of one entity.
#[derive(Debug, Clone, Default)]
pub struct Layout {
    pub lanes: Vec<LaneType>,
    pub windows: Vec<WindowPlan>,
    pub outputs: Vec<OutputPlan>,
    pub accumulators: usize,
    /// Words of a key's floors: what outlives dropped events.
    pub floors: Vec<Floor>,
    pub selections: usize,
    /// What the state's bytes mean, named for errors and hashed to tell them apart.
    pub identity: Identity,
}

/// The definition that a key's state bytes belong to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Identity {
    /// The entity's name, such as `payments.card_id`.
    pub entity: String,
    /// The first 64 bits of the SHA-256 of [`Layout::description`]: the same in every build and on every machine.
    pub fingerprint: u64,
}

/// What a floor word keeps of dropped events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Floor {
    /// The latest time of a dropped event of selection `bit`; it matters for `size_us`.
    Latest {
        bit: u8,
        size_us: i64,
    },
    /// The chain of sessions at the last dropped event: its start; the next word is its last time.
    SessionStart {
        gap_us: i64,
        max_length_us: i64,
    },
    SessionLast,
}

impl Layout {
    /// Words of one row.
    pub fn stride(&self) -> usize {
        row::HEADER + self.lanes.len()
    }

    /// How far back of the latest possible reading events must be kept.
    pub fn retention_us(&self) -> i64 {
        self.windows.iter().map(|w| w.window.retention_us()).max().unwrap_or(0)
    }

    /// How long what dropped events leave behind can be read after they were dropped.
    pub fn floors_outlive_us(&self) -> i64 {
        let sizes = self.floors.iter().filter_map(|floor| match *floor {
            Floor::Latest { size_us, .. } => Some(size_us),
            _ => None,
        });
        sizes.max().map_or(0, |size| size.saturating_sub(self.retention_us()).max(0))
    }

    /// How far ahead an event can change readings other than those of window `except`; without bound where that is by a
    /// session, which may move every later one of an unbroken chain.
    pub fn influence_us(&self, except: usize) -> i64 {
        let others = self.windows.iter().enumerate().filter(|(window, _)| *window != except);
        others
            .map(|(_, plan)| match plan.window {
                Window::Session { .. } => i64::MAX,
                Window::Latest { size_us, delay_us } => size_us + delay_us,
                window => window.retention_us(),
            })
            .max()
            .unwrap_or(0)
    }

    /// Up to which reading time an event at `time` can change a reading. `run_end` gives, for a gap, the last event time of the
    /// session-like run that the event stands in.
    pub fn changes_until(&self, time: i64, run_end: impl Fn(i64) -> i64) -> i64 {
        let until = self.windows.iter().map(|plan| match plan.window {
            Window::Sliding { size_us, delay_us } | Window::Latest { size_us, delay_us } => time + delay_us + size_us,
            Window::Tumbling { size_us, delay_us } => (time.div_euclid(size_us) + 1) * size_us + delay_us,
            Window::Session { gap_us, delay_us, .. } => run_end(gap_us) + gap_us + delay_us,
        });
        until.max().unwrap_or(i64::MIN)
    }

    /// Fresh accumulators for a key (or for the shared fold, which events only enter).
    pub fn accumulators(&self, fold: bool) -> Box<[Accumulator]> {
        self.windows.iter().flat_map(|w| &w.accumulators).map(|plan| Accumulator::new(plan.kind, fold)).collect()
    }

    /// Add a lane.
    pub fn add_lane(&mut self, lane: LaneType) -> u8 {
        self.lanes.push(lane);
        (self.lanes.len() - 1) as u8
    }

    /// Add a selection; its number is the bit of the row's mask.
    ///
    /// # Errors
    /// More than [`MAX_SELECTIONS`] different (where, input) pairs in one entity.
    pub fn add_selection(&mut self) -> Result<u8> {
        if self.selections == MAX_SELECTIONS {
            return Err(KernelError::Plan(format!(
                "an entity has more than {MAX_SELECTIONS} different pairs of where and input; define some of them as columns"
            )));
        }
        self.selections += 1;
        Ok((self.selections - 1) as u8)
    }

    /// Add an aggregate and return the number of its output. Equal windows and accumulators are shared.
    pub fn add(&mut self, function: Function, window: Window, bit: u8, lane: Option<u8>) -> Result<usize> {
        let window_index = self.window(window);
        let lane_type = lane.map(|lane| self.lanes[lane as usize]);
        let reading = self.reading(function, window_index, bit, lane, lane_type)?;
        self.outputs.push(OutputPlan { window: window_index, reading });
        Ok(self.outputs.len() - 1)
    }

    /// Everything that decides what a row's words, its mask and the floors mean, and how far back events are kept. Aggregates
    /// are not in it: what they accumulate is computed from the rows. `inputs` and `selections` are the plan's own words.
    fn description(&self, entity: &str, inputs: &[String], selections: &[String]) -> String {
        let mut lines = vec![format!("entity {entity}")];
        for (lane, input) in self.lanes.iter().zip(inputs) {
            lines.push(match lane {
                LaneType::Integer => format!("lane integer {input}"),
                LaneType::Decimal(scale) => format!("lane decimal({scale}) {input}"),
                LaneType::Float => format!("lane float {input}"),
                LaneType::Text => format!("lane text {input}"),
            });
        }
        lines.extend(selections.iter().map(|selection| format!("selection {selection}")));
        lines.extend(self.windows.iter().map(|plan| plan.window.description()));
        lines.extend(self.floors.iter().map(|floor| match floor {
            Floor::Latest { bit, size_us } => format!("floor latest {bit} {size_us}"),
            Floor::SessionStart { gap_us, max_length_us } => format!("floor session {gap_us} {max_length_us}"),
            Floor::SessionLast => "floor session last".into(),
        }));
        lines.join("\n")
    }

    /// Number the accumulators and fix the identity. Call once, after the last `add`.
    pub fn finish(mut self, entity: &str, inputs: &[String], selections: &[String]) -> Self {
        let digest = Sha256::digest(self.description(entity, inputs, selections));
        let fingerprint = u64::from_be_bytes(*digest.first_chunk().expect("a digest has 32 bytes"));
        self.identity = Identity { entity: entity.to_owned(), fingerprint };
        self.number_accumulators();
        self
    }

    fn number_accumulators(&mut self) {
        // While building, an accumulator's index is window * STEP + its place in the window.
        let mut starts = Vec::new();
        let mut total = 0;
        for window in &mut self.windows {
            window.first = total;
            starts.push(total);
            total += window.accumulators.len();
        }
        self.accumulators = total;
        let place = |index: &mut usize| *index = starts[*index / STEP] + *index % STEP;
        for output in &mut self.outputs {
            match &mut output.reading {
                Reading::Count(a)
                | Reading::IntegerSum(a)
                | Reading::DecimalSum(a)
                | Reading::FloatSum(a)
                | Reading::Distinct(a)
                | Reading::Entropy(a)
                | Reading::MeanGap(a)
                | Reading::StdGap(a)
                | Reading::ModalGapShare(a) => place(a),
                Reading::Extreme { accumulator, .. }
                | Reading::End { accumulator, .. }
                | Reading::SinceLast { accumulator, .. } => place(accumulator),
                Reading::IntegerMean { sum, count, .. } | Reading::FloatMean { sum, count } => {
                    place(sum);
                    place(count);
                }
                Reading::IntegerVariance { sum, count, squares, .. }
                | Reading::FloatVariance { sum, count, squares, .. } => {
                    place(sum);
                    place(count);
                    place(squares);
                }
            }
        }
    }

    fn window(&mut self, window: Window) -> usize {
        if let Some(found) = self.windows.iter().position(|plan| plan.window == window) {
            return found;
        }
        let floor = self.floors.len();
        if let Window::Session { gap_us, max_length_us, .. } = window {
            self.floors.extend([Floor::SessionStart { gap_us, max_length_us }, Floor::SessionLast]);
        }
        self.windows.push(WindowPlan { window, accumulators: Vec::new(), first: 0, floor });
        self.windows.len() - 1
    }

    fn accumulator(&mut self, window: usize, plan: AccumulatorPlan) -> usize {
        let accumulators = &mut self.windows[window].accumulators;
        let place = accumulators.iter().position(|other| *other == plan).unwrap_or_else(|| {
            accumulators.push(plan);
            accumulators.len() - 1
        });
        window * STEP + place
    }

    fn reading(
        &mut self,
        function: Function,
        window: usize,
        bit: u8,
        lane: Option<u8>,
        lane_type: Option<LaneType>,
    ) -> Result<Reading> {
        let mut make = |kind, lane, order| self.accumulator(window, AccumulatorPlan { kind, bit, lane, order });
        let scale = if let Some(LaneType::Decimal(scale)) = lane_type { scale } else { 0 };
        Ok(match (function, lane_type) {
            (Function::Count, _) => Reading::Count(make(Kind::Count, None, None)),
            (Function::MeanGapSeconds, _) => Reading::MeanGap(make(Kind::Gaps, None, None)),
            (Function::StdGapSeconds, _) => Reading::StdGap(make(Kind::Gaps, None, None)),
            (Function::ModalGapShare, _) => Reading::ModalGapShare(make(Kind::Gaps, None, None)),
            (Function::SecondsSinceLast, _) => {
                let accumulator = make(Kind::Ends, None, None);
                let Window::Latest { size_us, .. } = self.windows[window].window else {
                    return Err(KernelError::Plan("seconds_since_last needs a window of kind latest".into()));
                };
                self.floors.push(Floor::Latest { bit, size_us });
                Reading::SinceLast { accumulator, floor: self.floors.len() - 1, size_us }
            }
            (Function::NUnique, Some(_)) => Reading::Distinct(make(Kind::Distinct, lane, None)),
            (Function::Entropy, Some(_)) => Reading::Entropy(make(Kind::Entropy, lane, None)),
            (Function::First | Function::Last, Some(lane_type)) => Reading::End {
                accumulator: make(Kind::Ends, lane, None),
                last: function == Function::Last,
                lane: lane_type,
            },
            (Function::Min | Function::Max, Some(lane_type)) if lane_type != LaneType::Text => Reading::Extreme {
                accumulator: make(Kind::Extremes, lane, Some(lane_type)),
                greatest: function == Function::Max,
                lane: lane_type,
            },
            (Function::Sum, Some(LaneType::Integer)) => Reading::IntegerSum(make(Kind::IntegerSum, lane, None)),
            (Function::Sum, Some(LaneType::Decimal(_))) => Reading::DecimalSum(make(Kind::IntegerSum, lane, None)),
            (Function::Sum, Some(LaneType::Float)) => Reading::FloatSum(make(Kind::FloatSum, lane, None)),
            (Function::Mean, Some(LaneType::Float)) => {
                Reading::FloatMean { sum: make(Kind::FloatSum, lane, None), count: make(Kind::Count, None, None) }
            }
            (Function::Mean, Some(LaneType::Integer | LaneType::Decimal(_))) => Reading::IntegerMean {
                sum: make(Kind::IntegerSum, lane, None),
                count: make(Kind::Count, None, None),
                scale,
            },
            (Function::Variance | Function::Std, Some(LaneType::Float)) => Reading::FloatVariance {
                sum: make(Kind::FloatSum, lane, None),
                count: make(Kind::Count, None, None),
                squares: make(Kind::FloatSquares, lane, None),
                root: function == Function::Std,
            },
            (Function::Variance | Function::Std, Some(LaneType::Integer | LaneType::Decimal(_))) => {
                Reading::IntegerVariance {
                    sum: make(Kind::IntegerSum, lane, None),
                    count: make(Kind::Count, None, None),
                    squares: make(Kind::IntegerSquares, lane, None),
                    scale,
                    root: function == Function::Std,
                }
            }
            (_, None) => return Err(KernelError::Plan(format!("{function:?} needs an input column"))),
            (_, Some(other)) => {
                return Err(KernelError::Plan(format!("{function:?} cannot read a column of {other:?}")))
            }
        })
    }
}

/// Accumulators of one window at the most, while a layout is being built.
const STEP: usize = 1 << 16;
