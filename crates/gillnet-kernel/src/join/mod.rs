//! Interval joins: pairs of events of two streams that share a key and lie within bounds of each other in event time.
//!
//! - [`bounds`]: which event times of one side an event of the other side matches, and when that is over
//! - [`events`]: the events of one key on one side, in the order of I1
//! - [`store`]: all keys, their sweep and their sizes
//! - [`interval`]: arrivals in, rows out: pairs, unmatched rows of outer sides, and rows that a late match withdraws
//!
//! What is kept of an event is a string of bytes that only the caller can read. Nothing here knows a stream, a watermark or
//! an expression: the caller says how far each side has come, and which of the pairs meet the condition.

pub mod bounds;
pub mod events;
pub mod interval;
pub mod store;

pub use bounds::{Bounds, Side};
pub use interval::{Arrival, IntervalJoin, JoinCounts, JoinedRow, Limits, Marks, Pair};
