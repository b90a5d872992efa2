//! Record formats of Gillnet: bytes to Arrow arrays and back. No I/O, no clock, no randomness.
//!
//! A bad *record* is never an error here: it comes back as a [`Rejected`] with a stable [`Reason`], next to the rows that
//! are good, so that the caller can account for every record it read (invariant I3). Only a wrong schema, a wrong encoder
//! specification or a batch that does not fit it is a [`FormatError`].

mod avro;
mod columns;
pub mod error;
pub mod json;
mod protobuf;
pub mod reason;
pub mod record;
mod scalar;
pub mod schema;
pub mod timestamp;

pub use error::{FormatError, Result};
pub use json::{encode_keys, Decoded, DecoderOptions, Encoded, JsonDecoder, JsonEncoder};
pub use reason::{Reason, Rejected};
pub use record::{Format, Framing, RecordDecoder, Schemas};
