//! JSON records to Arrow columns and back: one object a record.
//!
//! The decoder is written by hand because it is on the hot path and every record is alike: it guesses which field comes
//! next (the one that followed the last time) and then compares the expected `"name":` with the bytes in one go.
//! `bench/json_parsers` holds it against simd-json, sonic-rs and serde_json.

mod columns;
mod decode;
mod encode;
mod fields;
mod number;
mod scan;
mod spec;
mod text;
mod write;

pub use decode::{Decoded, DecoderOptions, JsonDecoder};
pub use encode::{encode_keys, Encoded, JsonEncoder};
