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

/// Text that is nothing but a JSON number, as an integer scaled by `10**scale`; None for other text.
pub(crate) fn scaled_text(text: &[u8], scale: u8) -> Option<Result<i64, crate::reason::Reason>> {
    let mut cursor = scan::Cursor::new(text);
    let number = cursor.number().ok().filter(|_| cursor.at == text.len())?;
    Some(number.as_scaled(scale))
}

pub use decode::{Decoded, DecoderOptions, JsonDecoder};
pub use encode::{encode_keys, Encoded, JsonEncoder};
