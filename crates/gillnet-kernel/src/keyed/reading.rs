//! Values read from accumulators, and how events enter them: what small and large keys share.

use super::accumulator::{
    float_of_order_word, load_i128, mean_integer, order_word_float, order_word_integer, variance_float,
    variance_integer, Accumulator, Gaps, Side,
};
use super::layout::{AccumulatorPlan, LaneType, Layout, OutputPlan, Reading, WindowPlan};
use super::row;
use super::window::SessionChain;
use crate::exact::ratio_i128;

/// One value that was read.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Value {
    Null,
    Integer(i64),
    Decimal(i128),
    Float(f64),
    /// A code of the entity's interner.
    Text(u64),
}
/// What a reading needs beside the key: the layout, accumulators to fold with, and the limit of events.
#[derive(Debug)]
pub struct Scratch {
    pub(super) accumulators: Box<[Accumulator]>,
}

impl Scratch {
    /// Accumulators for folding over small keys.
    pub fn new(layout: &Layout) -> Self {
        Self { accumulators: layout.accumulators(true) }
    }
}

/// The chain of sessions at the last dropped event, for a session window.
pub fn chain_floor(floors: &[i64], plan: &WindowPlan) -> SessionChain {
    match floors.get(plan.floor..plan.floor + 2) {
        Some(&[start, last]) => SessionChain { start, last },
        _ => SessionChain::default(),
    }
}
/// Let a row enter every accumulator of a window that selects it.
#[inline]
pub fn enter_all(plans: &[AccumulatorPlan], accumulators: &mut [Accumulator], event: &[u64], side: Side) {
    for (plan, accumulator) in plans.iter().zip(accumulators) {
        if row::selected(event, plan.bit) {
            accumulator.enter(row::time(event), word_of(plan, event), side);
        }
    }
}

/// The word that an accumulator takes of a row.
#[inline]
pub fn word_of(plan: &AccumulatorPlan, event: &[u64]) -> u64 {
    let word = plan.lane.map_or(0, |lane| row::lane(event, lane));
    match plan.order {
        None => word,
        Some(LaneType::Float) => order_word_float(word),
        Some(_) => order_word_integer(word),
    }
}
/// Read one output from the accumulators.
pub fn read_output(output: &OutputPlan, accumulators: &[Accumulator], floors: &[i64], time: i64) -> Value {
    use Accumulator as A;
    let number = |value: Option<f64>| value.map_or(Value::Null, Value::Float);
    let count_of = |index: usize| if let A::Count(n) = accumulators[index] { n } else { 0 };
    match output.reading {
        Reading::Count(a) => Value::Integer(count_of(a) as i64),
        Reading::IntegerSum(a) => {
            Value::Integer(integer_sum(&accumulators[a]).clamp(i64::MIN.into(), i64::MAX.into()) as i64)
        }
        Reading::DecimalSum(a) => Value::Decimal(integer_sum(&accumulators[a])),
        Reading::FloatSum(a) => match &accumulators[a] {
            A::FloatSum(sum) => Value::Float(sum.divided_by(1)),
            _ => Value::Null,
        },
        Reading::IntegerMean { sum, count, scale } => match count_of(count) {
            0 => Value::Null,
            n => Value::Float(mean_integer(n, integer_sum(&accumulators[sum]), scale)),
        },
        Reading::FloatMean { sum, count } => match (count_of(count), &accumulators[sum]) {
            (0, _) => Value::Null,
            (n, A::FloatSum(sum)) => Value::Float(sum.divided_by(n)),
            _ => Value::Null,
        },
        Reading::IntegerVariance { sum, count, squares, scale, root } => match &accumulators[squares] {
            A::IntegerSquares(squares) => {
                let variance = variance_integer(count_of(count), integer_sum(&accumulators[sum]), squares, scale);
                number(variance.map(|v| if root { v.sqrt() } else { v }))
            }
            _ => Value::Null,
        },
        Reading::FloatVariance { sum, count, squares, root } => match (&accumulators[sum], &accumulators[squares]) {
            (A::FloatSum(sum), A::FloatSquares(squares)) => {
                let variance = variance_float(count_of(count), sum, squares);
                number(variance.map(|v| if root { v.sqrt() } else { v }))
            }
            _ => Value::Null,
        },
        Reading::Distinct(a) => match &accumulators[a] {
            A::Distinct(distinct) => Value::Integer(distinct.len() as i64),
            _ => Value::Null,
        },
        Reading::Entropy(a) => match &accumulators[a] {
            A::Distinct(distinct) => number(distinct.entropy()),
            _ => Value::Null,
        },
        Reading::Extreme { accumulator, greatest, lane } => match &accumulators[accumulator] {
            A::Extremes(extremes) => extremes.ends().map_or(Value::Null, |(least, most)| {
                let word = if greatest { most } else { least };
                let float = matches!(lane, LaneType::Float);
                value_of(if float { float_of_order_word(word) } else { order_word_integer(word) }, lane)
            }),
            _ => Value::Null,
        },
        Reading::End { accumulator, last, lane } => match &accumulators[accumulator] {
            A::Ends(ends) if ends.count > 0 => value_of(if last { ends.last.word } else { ends.first.word }, lane),
            _ => Value::Null,
        },
        Reading::SinceLast { accumulator, floor, size_us } => {
            let previous = match &accumulators[accumulator] {
                A::Ends(ends) if ends.count > 0 => ends.last.time,
                _ => floors.get(floor).copied().unwrap_or(i64::MIN),
            };
            if previous == i64::MIN || time - previous > size_us {
                Value::Null
            } else {
                Value::Float(ratio_i128(i128::from(time - previous), 1_000_000))
            }
        }
        Reading::MeanGap(a) => with_gaps(&accumulators[a], Gaps::mean),
        Reading::StdGap(a) => with_gaps(&accumulators[a], Gaps::deviation),
        Reading::ModalGapShare(a) => with_gaps(&accumulators[a], Gaps::modal_share),
    }
}

fn with_gaps(accumulator: &Accumulator, read: impl Fn(&Gaps) -> Option<f64>) -> Value {
    match accumulator {
        Accumulator::Gaps(gaps) => read(gaps).map_or(Value::Null, Value::Float),
        _ => Value::Null,
    }
}

fn integer_sum(accumulator: &Accumulator) -> i128 {
    if let Accumulator::IntegerSum(words) = accumulator {
        load_i128(words)
    } else {
        0
    }
}

/// A lane's word as a value.
fn value_of(word: u64, lane: LaneType) -> Value {
    match lane {
        LaneType::Integer => Value::Integer(word as i64),
        LaneType::Decimal(_) => Value::Decimal(i128::from(word as i64)),
        LaneType::Float => Value::Float(f64::from_bits(word)),
        LaneType::Text => Value::Text(word),
    }
}
