//! One event of a key as a run of words: `[event time, id high, id low, mask, lane 0, lane 1, …]`.

/// Words before the first lane.
pub const HEADER: usize = 4;
const TIME: usize = 0;
const ID_HIGH: usize = 1;
const ID_LOW: usize = 2;
const MASK: usize = 3;

/// The place of an event in the order of I1: event time in µs, then id key.
pub type OrderKey = (i64, u128);

/// Event time in microseconds UTC.
#[inline]
pub fn time(row: &[u64]) -> i64 {
    row[TIME] as i64
}

/// The 16-byte id key.
#[inline]
pub fn id(row: &[u64]) -> u128 {
    (u128::from(row[ID_HIGH]) << 64) | u128::from(row[ID_LOW])
}

/// Where the event stands in the order of I1.
#[inline]
pub fn order_key(row: &[u64]) -> OrderKey {
    (time(row), id(row))
}

/// All selections that the event belongs to, a bit each.
#[inline]
pub fn mask(row: &[u64]) -> u64 {
    row[MASK]
}

/// Whether the event belongs to selection `bit`: its `where` holds and its input is not null.
#[inline]
pub fn selected(row: &[u64], bit: u8) -> bool {
    row[MASK] >> bit & 1 == 1
}

/// The word of a lane.
#[inline]
pub fn lane(row: &[u64], lane: u8) -> u64 {
    row[HEADER + lane as usize]
}

/// Set a lane's word.
#[inline]
pub fn set_lane(row: &mut [u64], lane: u8, word: u64) {
    row[HEADER + lane as usize] = word;
}

/// Write the header of a row.
#[inline]
pub fn set_header(row: &mut [u64], time: i64, id: u128, mask: u64) {
    row[TIME] = time as u64;
    row[ID_HIGH] = (id >> 64) as u64;
    row[ID_LOW] = id as u64;
    row[MASK] = mask;
}
