//! Ids as 16-byte keys that keep their order.
//!
//! Integers, texts of up to 15 bytes and canonical lower-case UUIDs (RFC 9562) map one to one and keep their own order. A
//! longer text is represented by 126 bits of its SHA-256: equal texts stay equal, different ones differ, and among events of
//! one key at the very same microsecond such ids are ordered by that hash. Texts order short < long < UUID.

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::{DataType, Int64Type};
use sha2::{Digest, Sha256};

use crate::error::{KernelError, Result};

const LONG: u128 = 1 << 126;
const UUID: u128 = 2 << 126;
/// Texts up to this many bytes are kept whole.
pub const SHORT_BYTES: usize = 15;

/// The keys of an id column of type string or int64 without nulls.
///
/// # Errors
/// A column of another type.
pub fn id_keys(column: &ArrayRef) -> Result<Vec<u128>> {
    match column.data_type() {
        DataType::Int64 => Ok(column.as_primitive::<Int64Type>().values().iter().map(|&id| of_integer(id)).collect()),
        DataType::Utf8 => {
            let texts = column.as_string::<i32>();
            Ok((0..texts.len()).map(|i| of_text(texts.value(i))).collect())
        }
        other => Err(KernelError::Batch(format!("an id column is string or int64, not {other}"))),
    }
}

/// The key of an integer id.
pub fn of_integer(id: i64) -> u128 {
    u128::from(id as u64 ^ 1 << 63)
}

/// The key of a text id.
pub fn of_text(id: &str) -> u128 {
    let bytes = id.as_bytes();
    if bytes.len() <= SHORT_BYTES {
        let mut padded = [0u8; 16];
        padded[..bytes.len()].copy_from_slice(bytes);
        // 120 bits of text, then its length, so that "a" and "a\0" differ; the two top bits are the class 00.
        return (u128::from_be_bytes(padded) >> 8 << 4) | bytes.len() as u128;
    }
    uuid(bytes).unwrap_or_else(|| {
        let digest = Sha256::digest(bytes);
        let head: [u8; 16] = digest[..16].try_into().expect("a digest has 32 bytes");
        LONG | (u128::from_be_bytes(head) >> 2)
    })
}

/// An id as it was, from its key: a number, a short text or a UUID; of a longer text the head of its SHA-256, `sha256:…`.
pub fn to_text(key: u128, integer: bool) -> String {
    if integer {
        return (key as u64 ^ 1 << 63).cast_signed().to_string();
    }
    match key >> 126 {
        0 => {
            let length = (key & 15) as usize;
            let bytes = (key >> 4 << 8).to_be_bytes();
            String::from_utf8_lossy(&bytes[..length]).into_owned()
        }
        2 => {
            let (high, low) = (key >> 62 & ((1 << 64) - 1), key & ((1 << 62) - 1));
            let hex = format!("{:032x}", high << 64 | 2 << 62 | low);
            [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-")
        }
        _ => format!("sha256:{:032x}", (key & (LONG - 1)) << 2),
    }
}

/// 126 bits of a canonical UUID: the two variant bits are the same in each, and make room for the class.
fn uuid(bytes: &[u8]) -> Option<u128> {
    if bytes.len() != 36 {
        return None;
    }
    let mut value = 0u128;
    for (i, &byte) in bytes.iter().enumerate() {
        match (i, byte) {
            (8 | 13 | 18 | 23, b'-') => {}
            (8 | 13 | 18 | 23, _) => return None,
            (_, b'0'..=b'9') => value = value << 4 | u128::from(byte - b'0'),
            (_, b'a'..=b'f') => value = value << 4 | u128::from(byte - b'a' + 10),
            _ => return None,
        }
    }
    if value >> 62 & 3 != 2 {
        return None;
    }
    let (high, low) = (value >> 64, value & ((1 << 62) - 1));
    Some(UUID | high << 62 | low)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_texts_keep_their_order() {
        let mut texts = ["", "a", "a\0", "aa", "ab", "b", "t000000000123", "t000000000124", "zzzzzzzzzzzzzzz"];
        texts.sort_unstable();
        let keys: Vec<u128> = texts.iter().map(|t| of_text(t)).collect();
        assert!(keys.windows(2).all(|pair| pair[0] < pair[1]), "{keys:?}");
    }

    #[test]
    fn uuids_keep_their_order_and_long_texts_differ() {
        let a = of_text("0190163d-8694-739b-aea5-966c26f8ad91");
        let b = of_text("0190163d-8694-739b-aea5-966c26f8ad92");
        assert!(a < b && a >> 126 == 2);
        assert_ne!(of_text("a text of more than fifteen bytes, 1"), of_text("a text of more than fifteen bytes, 2"));
        assert_eq!(of_text("0190163D-8694-739b-aea5-966c26f8ad91") >> 126, 1);
    }

    #[test]
    fn what_maps_one_to_one_is_read_back() {
        for text in ["", "a", "a\0", "t000000000123", "zzzzzzzzzzzzzzz", "0190163d-8694-739b-aea5-966c26f8ad91"] {
            assert_eq!(to_text(of_text(text), false), text);
        }
        for number in [i64::MIN, -1, 0, 7, i64::MAX] {
            assert_eq!(to_text(of_integer(number), true), number.to_string());
        }
        let long = "a text of more than fifteen bytes";
        let digest: [u8; 16] = Sha256::digest(long)[..16].try_into().expect("sixteen bytes");
        let head = u128::from_be_bytes(digest) >> 2 << 2;
        assert_eq!(to_text(of_text(long), false), format!("sha256:{head:032x}"));
    }

    #[test]
    fn integers_keep_their_order() {
        assert!(of_integer(i64::MIN) < of_integer(-1) && of_integer(-1) < of_integer(0));
        assert!(of_integer(0) < of_integer(i64::MAX));
    }
}
