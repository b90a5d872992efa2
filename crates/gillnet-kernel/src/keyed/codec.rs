//! The bytes of one key's state: versioned, checked, and a function of the set of events kept (I5).
//!
//! ```text
//! "GK" | version u8 | flags u8 | stride u32 | rows u32 | floors u32 | texts u32 | checksum u64   (little-endian)
//! rows × stride words u64 | floors × i64 | texts × (length u32, UTF-8 bytes)
//! ```
//! Accumulators are not stored: they are rebuilt from the events. Text lanes hold numbers into the texts, in order of first use.

use std::collections::HashMap;

use super::key::KeyState;
use super::layout::{LaneType, Layout};
use super::row;
use super::store::NO_TEXT;
use crate::error::{KernelError, Result};

/// The version that [`encode`] writes.
pub const VERSION: u8 = 1;
const MAGIC: [u8; 2] = *b"GK";
const HEADER: usize = 28;

/// Decoded parts of a key; text lanes are numbers into `texts`.
#[derive(Debug)]
pub struct Decoded {
    pub rows: Vec<u64>,
    pub floors: Box<[i64]>,
    pub texts: Vec<String>,
}

/// Write a key, leaving out events before `horizon` (which then live on in the floors).
pub fn encode<'a>(layout: &Layout, state: &KeyState, horizon: i64, text: impl Fn(u64) -> &'a str) -> Vec<u8> {
    let stride = layout.stride();
    // A large key drops whole chunks only, but the bytes must not depend on where its chunks end.
    let mut small = KeyState::small(state.rows().into_owned(), state.floors().into());
    small.prune(layout, horizon, usize::MAX, |_| {});
    let mut rows = small.rows().into_owned();
    let mut numbers: HashMap<u64, u64> = HashMap::new();
    let mut texts: Vec<&str> = Vec::new();
    for event in rows.chunks_exact_mut(stride) {
        for (lane, kind) in layout.lanes.iter().enumerate() {
            let word = row::lane(event, lane as u8);
            if *kind == LaneType::Text && word != NO_TEXT {
                let number = *numbers.entry(word).or_insert_with(|| {
                    texts.push(text(word));
                    texts.len() as u64 - 1
                });
                row::set_lane(event, lane as u8, number);
            }
        }
    }
    write(stride, &rows, small.floors(), &texts)
}

fn write(stride: usize, rows: &[u64], floors: &[i64], texts: &[&str]) -> Vec<u8> {
    let mut body = Vec::with_capacity(rows.len() * 8 + floors.len() * 8);
    rows.iter().for_each(|word| body.extend_from_slice(&word.to_le_bytes()));
    floors.iter().for_each(|word| body.extend_from_slice(&word.to_le_bytes()));
    for text in texts {
        body.extend_from_slice(&(text.len() as u32).to_le_bytes());
        body.extend_from_slice(text.as_bytes());
    }
    let mut bytes = Vec::with_capacity(HEADER + body.len());
    bytes.extend_from_slice(&MAGIC);
    bytes.extend_from_slice(&[VERSION, 0]);
    for number in [stride, rows.len() / stride, floors.len(), texts.len()] {
        bytes.extend_from_slice(&(number as u32).to_le_bytes());
    }
    let sum = checksum(&bytes, &body);
    bytes.extend_from_slice(&sum.to_le_bytes());
    bytes.extend_from_slice(&body);
    bytes
}

/// Read what [`encode`] wrote.
///
/// # Errors
/// [`KernelError::State`] for another version, another layout, or bytes that are torn or changed.
pub fn decode(layout: &Layout, bytes: &[u8]) -> Result<Decoded> {
    let bad = |what: &str| KernelError::State(format!("key state {what}; restore it from another checkpoint"));
    if bytes.len() < HEADER || bytes[..2] != MAGIC {
        return Err(bad("is torn or is no key state"));
    }
    if bytes[2] != VERSION {
        return Err(bad(&format!("has version {}, this build reads version {VERSION}", bytes[2])));
    }
    let number = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes")) as usize;
    let (stride, rows, floors, texts) = (number(4), number(8), number(12), number(16));
    let stored = u64::from_le_bytes(bytes[20..28].try_into().expect("eight bytes"));
    let body = &bytes[HEADER..];
    if checksum(&bytes[..20], body) != stored {
        return Err(bad("is torn or was changed (its checksum differs)"));
    }
    if stride != layout.stride() || !(floors == 0 || floors == layout.floors.len()) {
        return Err(bad("belongs to another definition of the entity"));
    }
    let words = rows.checked_mul(stride).and_then(|n| n.checked_add(floors)).ok_or_else(|| bad("has absurd sizes"))?;
    if body.len() / 8 < words {
        return Err(bad("is shorter than it says"));
    }
    let word = |i: usize| u64::from_le_bytes(body[i * 8..i * 8 + 8].try_into().expect("eight bytes"));
    let decoded_rows: Vec<u64> = (0..rows * stride).map(word).collect();
    let decoded_floors = (rows * stride..words).map(|i| word(i) as i64).collect();
    let texts = decode_texts(&body[words * 8..], texts).ok_or_else(|| bad("has broken texts"))?;
    Ok(Decoded { rows: decoded_rows, floors: decoded_floors, texts })
}

fn decode_texts(mut bytes: &[u8], count: usize) -> Option<Vec<String>> {
    let mut texts = Vec::new();
    for _ in 0..count {
        let (length, rest) = bytes.split_first_chunk::<4>()?;
        let length = u32::from_le_bytes(*length) as usize;
        texts.push(std::str::from_utf8(rest.get(..length)?).ok()?.to_owned());
        bytes = &rest[length..];
    }
    bytes.is_empty().then_some(texts)
}

/// FNV-1a over words: it finds torn and flipped bytes; it is no defence against forgery.
fn checksum(header: &[u8], body: &[u8]) -> u64 {
    let mut hash = 0xCBF2_9CE4_8422_2325u64;
    for part in [header, body] {
        for chunk in part.chunks(8) {
            let mut word = [0u8; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            hash = (hash ^ u64::from_le_bytes(word)).wrapping_mul(0x0100_0000_01B3).rotate_left(23);
        }
    }
    hash
}
