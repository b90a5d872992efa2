//! A whole pipeline without Python: raw records in, encoded records out.
//!
//! Hosts that are no Python (Flink's and Spark's JVMs) run a pipeline with this. What it does is what the embedded runtime's
//! `Flow` does, on the same kernel, and `tests/cases` hold the two to the same rows. Python compiles a definition and its
//! model to a [`Program`] (`gillnet.operators.program`); nothing here knows a user's code.
//!
//! Read in this order: `program` (what is to be done), `frame` (what crosses the border), `flow` (steps in, records out),
//! `scoring`, `revising`, `aside`; `intake` shares records out among shards, before they reach a flow.

mod aside;
pub mod error;
pub mod flow;
pub mod frame;
pub mod intake;
pub mod program;
mod revising;
mod scoring;

pub use error::{FlowError, Result};
pub use flow::{Counts, Flow, StreamCounts};
pub use intake::Intake;
pub use program::Program;
