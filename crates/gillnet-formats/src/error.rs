//! The one error type of the formats.

use thiserror::Error;

/// What a format can refuse besides single records.
#[derive(Debug, Error)]
pub enum FormatError {
    /// The schema or one of the decoder's options is wrong.
    #[error("schema: {0}")]
    Schema(String),
    /// The encoder's specification is wrong.
    #[error("encoder: {0}")]
    Spec(String),
    /// The batch does not fit the specification, or is too large for Arrow's 32-bit string offsets.
    #[error("batch: {0}")]
    Batch(String),
    /// The arrow crates refused to build an array.
    #[error("arrow: {0}")]
    Arrow(#[from] arrow::error::ArrowError),
}

/// The result type of the formats.
pub type Result<T> = std::result::Result<T, FormatError>;
