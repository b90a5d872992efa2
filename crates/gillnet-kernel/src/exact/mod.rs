//! Exact arithmetic: every aggregate is the correctly rounded value of the exact result over the events in its window.
//!
//! This is what makes float aggregates independent of the order of arrival (I4), lets accumulators take events out again
//! without drift, and gives the Python oracle (`fractions.Fraction`, `math.fsum`) the same answer bit for bit.

mod float_sum;
mod ratio;

pub use float_sum::FloatSum;
pub use ratio::{ratio_big, ratio_i128};
