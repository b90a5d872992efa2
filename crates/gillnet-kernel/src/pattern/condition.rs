//! Conditions over earlier events of a match: one event, as several runs see it, evaluated at once.
//!
//! Row expressions have one evaluator, on Arrow arrays. Here a row is a run: the event's own columns are the same in all of
//! them, and each remembers its own earlier values.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Decimal128Array, Float64Array, Int64Array, StringArray,
    TimestampMicrosecondArray,
};
use arrow::datatypes::DataType;

use super::definition::Definition;
use super::run::Run;
use crate::error::Result;
use crate::expr::Expression;
use crate::keyed::interner::Interner;
use crate::keyed::row;

/// A condition over an event and what runs remember.
pub struct RunTest {
    pub expression: Expression,
    /// Its columns, in the order of the schema that it was compiled against.
    pub inputs: Vec<(Input, DataType)>,
}

/// Where a column of a condition comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Input {
    /// A lane of the event that is looked at.
    Event(usize),
    /// One of the values that a run remembers.
    Earlier(usize),
}

impl RunTest {
    /// For which of `runs` the condition holds of an event; null is no.
    ///
    /// # Errors
    /// An expression that fails.
    pub fn holds(
        &self,
        definition: &Definition,
        event: &[u64],
        runs: &[&Run],
        texts: &Interner,
    ) -> Result<BooleanArray> {
        let word = |input: Input, run: &Run| match input {
            Input::Event(lane) => {
                row::selected(event, definition.valid_bit(lane)).then(|| row::lane(event, lane as u8))
            }
            Input::Earlier(reference) => run.remembered(reference),
        };
        let columns: Vec<ArrayRef> = self
            .inputs
            .iter()
            .map(|(input, data_type)| array_of(data_type, runs.iter().map(|run| word(*input, run)), texts))
            .collect();
        Ok(self.expression.evaluate_columns(&columns, runs.len())?.as_boolean().clone())
    }
}

/// Words as an array of a type that lanes have.
fn array_of(data_type: &DataType, words: impl Iterator<Item = Option<u64>>, texts: &Interner) -> ArrayRef {
    match data_type {
        DataType::Int64 => Arc::new(words.map(|word| word.map(|word| word as i64)).collect::<Int64Array>()),
        DataType::Boolean => Arc::new(words.map(|word| word.map(|word| word != 0)).collect::<BooleanArray>()),
        DataType::Float64 => Arc::new(words.map(|word| word.map(f64::from_bits)).collect::<Float64Array>()),
        DataType::Utf8 => {
            Arc::new(words.map(|word| word.map(|code| texts.text(code).to_owned())).collect::<StringArray>())
        }
        DataType::Decimal128(precision, scale) => Arc::new(
            words
                .map(|word| word.map(|word| i128::from(word as i64)))
                .collect::<Decimal128Array>()
                .with_precision_and_scale(*precision, *scale)
                .expect("a column's own type"),
        ),
        _ => Arc::new(
            words.map(|word| word.map(|word| word as i64)).collect::<TimestampMicrosecondArray>().with_timezone("UTC"),
        ),
    }
}

/// Whether row `i` is true.
#[inline]
pub fn is_true(array: &BooleanArray, i: usize) -> bool {
    array.is_valid(i) && array.value(i)
}
