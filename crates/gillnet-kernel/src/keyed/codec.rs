//! The bytes of one key's state: versioned, checked, and a function of the set of events kept (I5).
//!
//! ```text
//! "GK" | version u8 | 0 u8 | fingerprint u64 | rows u32 | floors u32 | texts u32 | checksum u64   (little-endian)
//! rows × stride words u64 | floors × i64 | texts × (length u32, UTF-8 bytes)
//! ```
//! Accumulators are not stored: they are rebuilt from the events. Text lanes hold numbers into the texts, in order of first use.
//! The fingerprint is of the definition that gives the words their meaning: see [`Identity`](super::layout::Identity).
//! Version 1 had no fingerprint and was never released.

use std::collections::HashMap;

use super::accumulator::Kind;
use super::key::KeyState;
use super::layout::{LaneType, Layout};
use super::row;
use super::store::NO_TEXT;
use super::window::FURTHEST_US;
use crate::bytes::checksum;
use crate::error::{KernelError, Result};

/// The version that [`encode`] writes.
pub const VERSION: u8 = 2;
const MAGIC: [u8; 2] = *b"GK";
const CHECKED: usize = 24;
const HEADER: usize = 32;

/// Decoded parts of a key; text lanes are numbers into `texts`.
#[derive(Debug)]
pub struct Decoded {
    pub rows: Vec<u64>,
    pub floors: Box<[i64]>,
    pub texts: Vec<String>,
}

/// Write a key, leaving out events before `horizon` (which then live on in the floors).
pub fn encode<'a>(layout: &Layout, state: &KeyState, horizon: i64, text: impl Fn(u64) -> &'a str) -> Vec<u8> {
    // A large key drops whole chunks only, but the bytes must not depend on where its chunks end.
    let mut small = KeyState::small(state.rows().into_owned(), state.floors().into());
    small.prune(layout, horizon, |_| {});
    encode_whole(layout, &small, text)
}

/// Write a key with every event that it holds, expired or not.
pub fn encode_whole<'a>(layout: &Layout, state: &KeyState, text: impl Fn(u64) -> &'a str) -> Vec<u8> {
    let stride = layout.stride();
    let mut rows = state.rows().into_owned();
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
    write(layout, &rows, state.floors(), &texts)
}

fn write(layout: &Layout, rows: &[u64], floors: &[i64], texts: &[&str]) -> Vec<u8> {
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
    bytes.extend_from_slice(&layout.identity.fingerprint.to_le_bytes());
    for number in [rows.len() / layout.stride(), floors.len(), texts.len()] {
        bytes.extend_from_slice(&(number as u32).to_le_bytes());
    }
    let sum = checksum(&[&bytes, &body]);
    bytes.extend_from_slice(&sum.to_le_bytes());
    bytes.extend_from_slice(&body);
    bytes
}

/// Read what [`encode`] wrote. Nothing is allocated that the bytes themselves do not fill.
///
/// # Errors
/// [`KernelError::State`] for another version, another definition, or bytes that are torn or changed.
pub fn decode(layout: &Layout, bytes: &[u8]) -> Result<Decoded> {
    let entity = &layout.identity.entity;
    let bad = |what: &str| {
        KernelError::State(format!("key state of entity '{entity}' {what}; restore it from another checkpoint"))
    };
    if bytes.len() < HEADER || bytes[..2] != MAGIC {
        return Err(bad("is torn or is no key state"));
    }
    if bytes[2] != VERSION {
        return Err(bad(&format!("has version {}, this build reads version {VERSION}", bytes[2])));
    }
    let number = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes")) as usize;
    let word = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"));
    let (fingerprint, rows, floors, texts) = (word(4), number(12), number(16), number(20));
    let body = &bytes[HEADER..];
    if checksum(&[&bytes[..CHECKED], body]) != word(CHECKED) {
        return Err(bad("is torn or was changed (its checksum differs)"));
    }
    if fingerprint != layout.identity.fingerprint {
        return Err(KernelError::State(format!(
            "key state was written under another definition (fingerprint {fingerprint:016x}) than the one of entity \
             '{entity}' that reads it ({:016x}): another entity, or other inputs, where, windows or types; restore it with \
             the definition that wrote it, or build the entity's state anew",
            layout.identity.fingerprint
        )));
    }
    let own = layout.floors.len();
    if !(floors == 0 || floors == own || floors == own + 1) {
        return Err(bad("has another number of floors"));
    }
    let words = rows.checked_mul(layout.stride()).and_then(|n| n.checked_add(floors));
    let words = words.filter(|&words| words <= body.len() / 8).ok_or_else(|| bad("is shorter than it says"))?;
    let word = |i: usize| u64::from_le_bytes(body[i * 8..i * 8 + 8].try_into().expect("eight bytes"));
    let decoded_rows: Vec<u64> = (0..words - floors).map(word).collect();
    let decoded_floors = (words - floors..words).map(|i| word(i) as i64).collect();
    let texts = decode_texts(&body[words * 8..], texts).ok_or_else(|| bad("has broken texts"))?;
    if !sound(layout, &decoded_rows, texts.len()) {
        return Err(bad("has rows out of order or without their texts"));
    }
    Ok(Decoded { rows: decoded_rows, floors: decoded_floors, texts })
}

/// Whether rows are in the order of I1 and every text that an aggregate would read is there.
fn sound(layout: &Layout, rows: &[u64], texts: usize) -> bool {
    let mut previous = None;
    rows.chunks_exact(layout.stride()).all(|event| {
        let key = row::order_key(event);
        let ordered = previous.replace(key).is_none_or(|previous| previous <= key);
        ordered && key.0.unsigned_abs() <= FURTHEST_US.unsigned_abs() && texts_sound(layout, event, texts)
    })
}

fn texts_sound(layout: &Layout, event: &[u64], texts: usize) -> bool {
    let missing = |lane: u8| row::lane(event, lane) == NO_TEXT;
    let mut lanes = layout.lanes.iter().zip(0u8..).filter(|(kind, _)| **kind == LaneType::Text).map(|(_, lane)| lane);
    let mut reads =
        layout.windows.iter().flat_map(|window| &window.accumulators).filter(|plan| plan.kind == Kind::Ends);
    lanes.all(|lane| missing(lane) || row::lane(event, lane) < texts as u64)
        && !reads.any(|plan| {
            plan.lane.is_some_and(|lane| {
                layout.lanes[usize::from(lane)] == LaneType::Text && row::selected(event, plan.bit) && missing(lane)
            })
        })
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
