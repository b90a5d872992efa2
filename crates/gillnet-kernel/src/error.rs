//! The one error type of the kernel.

use thiserror::Error;

/// What the kernel can refuse. Bad *records* are never errors here: they are side outputs of the caller.
#[derive(Debug, Error)]
pub enum KernelError {
    /// The plan asks for something that the kernel does not know or cannot type.
    #[error("plan: {0}")]
    Plan(String),
    /// The batch handed in does not have the columns or types that the plan was compiled for.
    #[error("batch: {0}")]
    Batch(String),
    /// Stored bytes cannot be decoded: of another version, or torn.
    #[error("state: {0}")]
    State(String),
    /// Stored bytes are whole, and of another plan.
    #[error("definition: {0}")]
    Definition(String),
    /// A compute function of the arrow crates failed.
    #[error("arrow: {0}")]
    Arrow(#[from] arrow::error::ArrowError),
}

/// The kernel's result type.
pub type Result<T> = std::result::Result<T, KernelError>;
