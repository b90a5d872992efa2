//! What a flow can refuse. Bad records are never errors: they are records of a side output.

use gillnet_formats::FormatError;
use gillnet_kernel::KernelError;
use thiserror::Error;

/// Why a program cannot be run, or a step not be taken.
#[derive(Debug, Error)]
pub enum FlowError {
    /// The program's JSON is none, or of another version of Gillnet.
    #[error("program: {0}. Submit the job again with the Gillnet that its jar is of")]
    Program(String),
    /// Bytes that are no frame: the two sides of the border are of different versions.
    #[error("frame: {0}")]
    Frame(KernelError),
    #[error(transparent)]
    Kernel(#[from] KernelError),
    #[error(transparent)]
    Format(#[from] FormatError),
}

impl From<arrow::error::ArrowError> for FlowError {
    fn from(error: arrow::error::ArrowError) -> Self {
        Self::Kernel(error.into())
    }
}

/// A flow's result type.
pub type Result<T> = std::result::Result<T, FlowError>;
