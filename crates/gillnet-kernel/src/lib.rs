//! The keyed event-time kernel of Gillnet.
//!
//! Pure Rust on Arrow arrays: it takes (plan, keyed state, events) and gives (new state, rows). It reads no clock,
//! draws no random number and does no input or output, so that every runtime can host it and a run can be replayed.

pub mod arrival;
#[doc(hidden)]
pub mod bytes;
#[doc(hidden)]
pub mod chunks;
pub mod engine;
pub mod error;
pub mod exact;
pub mod expr;
pub mod join;
pub mod keyed;
pub mod pattern;

pub mod forest;
pub mod policy;

pub use error::{KernelError, Result};
