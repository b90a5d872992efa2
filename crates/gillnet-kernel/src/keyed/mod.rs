//! Keyed state: the sorted events of each key, and the windows that read them.
//!
//! From the inside out:
//! - [`row`]: one event of a key, as words: event time, id key, selection mask, lanes
//! - [`log`]: the events of one key in the order of I1, in chunks
//! - [`accumulator`]: what a window keeps of its events; each takes an event in and out again, exactly
//! - [`window`]: the bounds of sliding, tumbling and session windows
//! - [`layout`]: the aggregates of one entity, compiled to windows, accumulators and outputs
//! - [`reading`]: values from accumulators
//! - [`key`]: one key: a plain list of events while it is small, and [`large`] once it has grown: cursors with accumulators
//! - [`paged`]: places that never move, for keys and for the strings of events
//! - [`store`]: all keys of one entity, their TTL and their bytes
//! - [`convert`]: a key's state under another layout
//! - [`cold`]: the host's place for keys that are not in memory

pub mod accumulator;
pub mod codec;
pub mod cold;
pub mod convert;
pub mod interner;
pub mod key;
mod large;
pub mod layout;
pub mod log;
pub(crate) mod paged;
pub mod reading;
pub mod row;
pub mod store;
pub mod window;
