//! What a window keeps of its events. Every accumulator can take an event in and out again at either end, exactly,
//! so its value is a function of the set of events and a window may slide both ways.

use std::collections::BTreeMap;

use hashbrown::HashMap;
use num_bigint::{BigInt, BigUint};

use super::row;
use crate::exact::{ratio_big, ratio_i128, FloatSum};

/// Which end of the window an event enters or leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    Old,
    New,
}

/// What an accumulator does; chosen by the aggregate's function and its input's type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    Count,
    IntegerSum,
    IntegerSquares,
    FloatSum,
    FloatSquares,
    Distinct,
    Entropy,
    /// Extremes of lane words mapped by [`order_word`], of integers or of floats.
    Extremes,
    /// The first and the last event.
    Ends,
    /// The gaps between neighbours: their squares and their histogram.
    Gaps,
}

/// Time and lane word of an event at an end of the window.
#[derive(Debug, Clone, Copy, Default)]
pub struct End {
    pub time: i64,
    pub word: u64,
}

/// First and last event, and how many there are.
#[derive(Debug, Clone, Copy, Default)]
pub struct Ends {
    pub count: u64,
    pub first: End,
    pub last: End,
}

/// The gaps between neighbouring events, in microseconds.
#[derive(Debug, Clone, Default)]
pub struct Gaps {
    pub ends: Ends,
    squares: Squares,
    bins: BTreeMap<i16, u32>,
}

/// A sum of squares of i64 values: 192 bits, so that 2^64 of the largest fit.
#[derive(Debug, Clone, Copy, Default)]
pub struct Squares {
    low: [u64; 2],
    high: i64,
}

/// Distinct words and how often each stands in the window.
#[derive(Debug, Clone, Default)]
pub struct Distinct {
    counts: HashMap<u64, u32>,
    /// For the entropy: how many words occur c times.
    multiplicities: Option<BTreeMap<u32, u32>>,
}

/// The ordered multiset behind min and max; while a window is only folded once, just the two ends.
#[derive(Debug, Clone)]
pub enum Extremes {
    Fold(Option<(u64, u64)>),
    Multiset(BTreeMap<u64, u32>),
}

/// One accumulator.
#[derive(Debug, Clone)]
pub enum Accumulator {
    Count(u64),
    IntegerSum([u64; 2]),
    IntegerSquares(Box<Squares>),
    FloatSum(Box<FloatSum>),
    FloatSquares(Box<FloatSum>),
    Distinct(Box<Distinct>),
    Extremes(Box<Extremes>),
    Ends(Box<Ends>),
    Gaps(Box<Gaps>),
}

/// Finds the neighbour of an event that leaves: the next selected event inside the window, seen from the end it left by.
pub type Neighbour<'a> = &'a mut dyn FnMut() -> Option<End>;

impl Accumulator {
    /// An empty accumulator. `fold`: events will only enter, in order.
    pub fn new(kind: Kind, fold: bool) -> Self {
        match kind {
            Kind::Count => Self::Count(0),
            Kind::IntegerSum => Self::IntegerSum([0, 0]),
            Kind::IntegerSquares => Self::IntegerSquares(Box::default()),
            Kind::FloatSum => Self::FloatSum(Box::default()),
            Kind::FloatSquares => Self::FloatSquares(Box::default()),
            Kind::Distinct => Self::Distinct(Box::default()),
            Kind::Entropy => {
                Self::Distinct(Box::new(Distinct { multiplicities: Some(BTreeMap::new()), ..Distinct::default() }))
            }
            Kind::Extremes if fold => Self::Extremes(Box::new(Extremes::Fold(None))),
            Kind::Extremes => Self::Extremes(Box::new(Extremes::Multiset(BTreeMap::new()))),
            Kind::Ends => Self::Ends(Box::default()),
            Kind::Gaps => Self::Gaps(Box::default()),
        }
    }

    /// Empty it, keeping memory where that is cheap.
    pub fn clear(&mut self) {
        match self {
            Self::Count(n) => *n = 0,
            Self::IntegerSum(sum) => *sum = [0, 0],
            Self::IntegerSquares(squares) => **squares = Squares::default(),
            Self::FloatSum(sum) | Self::FloatSquares(sum) => sum.clear(),
            Self::Distinct(distinct) => {
                distinct.counts.clear();
                if let Some(m) = &mut distinct.multiplicities {
                    m.clear();
                }
            }
            Self::Extremes(extremes) => match extremes.as_mut() {
                Extremes::Fold(ends) => *ends = None,
                Extremes::Multiset(set) => set.clear(),
            },
            Self::Ends(ends) => **ends = Ends::default(),
            Self::Gaps(gaps) => {
                gaps.ends = Ends::default();
                gaps.squares = Squares::default();
                gaps.bins.clear();
            }
        }
    }

    /// Take a selected event in.
    #[inline]
    pub fn enter(&mut self, time: i64, word: u64, side: Side) {
        match self {
            Self::Count(n) => *n += 1,
            Self::IntegerSum(sum) => add_i128(sum, i128::from(word as i64)),
            Self::IntegerSquares(squares) => squares.add(word as i64, 1),
            Self::FloatSum(sum) => sum.add(f64::from_bits(word), 1),
            Self::FloatSquares(sum) => sum.add_square(f64::from_bits(word), 1),
            Self::Distinct(distinct) => distinct.enter(word),
            Self::Extremes(extremes) => extremes.enter(word),
            Self::Ends(ends) => {
                ends.enter(End { time, word }, side);
            }
            Self::Gaps(gaps) => {
                if let Some(gap) = gaps.ends.enter(End { time, word }, side) {
                    gaps.change(gap, 1);
                }
            }
        }
    }

    /// Take a selected event out again.
    #[inline]
    pub fn leave(&mut self, time: i64, word: u64, side: Side, neighbour: Neighbour<'_>) {
        match self {
            Self::Count(n) => *n -= 1,
            Self::IntegerSum(sum) => add_i128(sum, -i128::from(word as i64)),
            Self::IntegerSquares(squares) => squares.add(word as i64, -1),
            Self::FloatSum(sum) => sum.add(f64::from_bits(word), -1),
            Self::FloatSquares(sum) => sum.add_square(f64::from_bits(word), -1),
            Self::Distinct(distinct) => distinct.leave(word),
            Self::Extremes(extremes) => extremes.leave(word),
            Self::Ends(ends) => ends.leave(side, neighbour),
            Self::Gaps(gaps) => {
                gaps.ends.leave(side, neighbour);
                if gaps.ends.count > 0 {
                    let end = if side == Side::Old { gaps.ends.first } else { gaps.ends.last };
                    gaps.change(end.time.abs_diff(time), -1);
                }
            }
        }
    }

    /// Bytes of heap memory in use, roughly.
    pub fn heap_bytes(&self) -> usize {
        match self {
            Self::Count(_) | Self::IntegerSum(_) => 0,
            Self::IntegerSquares(_) => 24,
            Self::FloatSum(_) | Self::FloatSquares(_) => 120,
            Self::Distinct(distinct) => 80 + distinct.counts.allocation_size(),
            Self::Extremes(extremes) => match extremes.as_ref() {
                Extremes::Fold(_) => 32,
                Extremes::Multiset(set) => 32 + set.len() * 18,
            },
            Self::Ends(_) => 40,
            Self::Gaps(gaps) => 96 + gaps.bins.len() * 12,
        }
    }
}

fn add_i128(sum: &mut [u64; 2], value: i128) {
    store_i128(sum, load_i128(sum).wrapping_add(value));
}

/// The i128 in two words (kept so that an accumulator needs no 16-byte alignment).
pub fn load_i128(words: &[u64; 2]) -> i128 {
    ((u128::from(words[1]) << 64) | u128::from(words[0])) as i128
}

fn store_i128(words: &mut [u64; 2], value: i128) {
    *words = [value as u64, (value as u128 >> 64) as u64];
}

impl Squares {
    fn add(&mut self, x: i64, sign: i64) {
        let square = u128::from(x.unsigned_abs()) * u128::from(x.unsigned_abs());
        let low = (u128::from(self.low[1]) << 64) | u128::from(self.low[0]);
        let (low, wrapped) = if sign > 0 { low.overflowing_add(square) } else { low.overflowing_sub(square) };
        self.low = [low as u64, (low >> 64) as u64];
        self.high += if wrapped { sign } else { 0 };
    }

    fn small(&self) -> Option<i128> {
        let low = (u128::from(self.low[1]) << 64) | u128::from(self.low[0]);
        (self.high == 0).then(|| i128::try_from(low).ok()).flatten()
    }

    fn big(&self) -> BigInt {
        let low = (u128::from(self.low[1]) << 64) | u128::from(self.low[0]);
        BigInt::from(low) + (BigInt::from(self.high) << 128u32)
    }
}

impl Distinct {
    fn enter(&mut self, word: u64) {
        let count = self.counts.entry(word).or_insert(0);
        *count += 1;
        if let Some(m) = &mut self.multiplicities {
            let count = *count;
            *m.entry(count).or_insert(0) += 1;
            if count > 1 {
                decrement(m, count - 1);
            }
        }
    }

    fn leave(&mut self, word: u64) {
        let Some(count) = self.counts.get_mut(&word) else { return };
        *count -= 1;
        let left = *count;
        if left == 0 {
            self.counts.remove(&word);
            // A window that was large once must not hold its memory for ever.
            if self.counts.capacity() > 64 && self.counts.len() * 8 < self.counts.capacity() {
                self.counts.shrink_to(self.counts.len() * 2);
            }
        }
        if let Some(m) = &mut self.multiplicities {
            decrement(m, left + 1);
            if left > 0 {
                *m.entry(left).or_insert(0) += 1;
            }
        }
    }

    /// Number of distinct words.
    pub fn len(&self) -> usize {
        self.counts.len()
    }

    /// Whether the window holds no word.
    pub fn is_empty(&self) -> bool {
        self.counts.is_empty()
    }

    /// Shannon entropy in bits: exactly 0 of one value, and exact of values that are equally frequent. Summed in the order of
    /// ascending counts, so it does not depend on the order of arrival.
    pub fn entropy(&self) -> Option<f64> {
        let m = self.multiplicities.as_ref()?;
        let total: u64 = m.iter().map(|(&count, &times)| u64::from(count) * u64::from(times)).sum();
        if total == 0 {
            return None;
        }
        let total = total as f64;
        let of = |c: f64| c * (total / c).log2();
        let weighted: f64 = m.iter().map(|(&c, &times)| f64::from(times) * of(f64::from(c))).sum();
        Some(weighted / total)
    }
}

fn decrement<K: Ord>(counts: &mut BTreeMap<K, u32>, key: K) {
    if let std::collections::btree_map::Entry::Occupied(mut entry) = counts.entry(key) {
        *entry.get_mut() -= 1;
        if *entry.get() == 0 {
            entry.remove();
        }
    }
}

impl Extremes {
    fn enter(&mut self, word: u64) {
        match self {
            Self::Fold(None) => *self = Self::Fold(Some((word, word))),
            Self::Fold(Some((low, high))) => {
                *low = word.min(*low);
                *high = word.max(*high);
            }
            Self::Multiset(set) => *set.entry(word).or_insert(0) += 1,
        }
    }

    fn leave(&mut self, word: u64) {
        if let Self::Multiset(set) = self {
            decrement(set, word);
        }
    }

    /// The least and the greatest word, if there is one.
    pub fn ends(&self) -> Option<(u64, u64)> {
        match self {
            Self::Fold(ends) => *ends,
            Self::Multiset(set) => Some((*set.first_key_value()?.0, *set.last_key_value()?.0)),
        }
    }
}

impl Ends {
    /// Returns the gap that the new event opens to its neighbour.
    fn enter(&mut self, end: End, side: Side) -> Option<u64> {
        self.count += 1;
        if self.count == 1 {
            (self.first, self.last) = (end, end);
            return None;
        }
        let neighbour = if side == Side::New {
            std::mem::replace(&mut self.last, end)
        } else {
            std::mem::replace(&mut self.first, end)
        };
        Some(end.time.abs_diff(neighbour.time))
    }

    fn leave(&mut self, side: Side, neighbour: Neighbour<'_>) {
        self.count -= 1;
        if self.count == 0 {
            *self = Self::default();
            return;
        }
        let next = neighbour().expect("the window still holds a selected event");
        if side == Side::Old {
            self.first = next;
        } else {
            self.last = next;
        }
    }
}

impl Gaps {
    fn change(&mut self, gap: u64, sign: i64) {
        self.squares.add(gap.min(i64::MAX as u64) as i64, sign);
        if sign > 0 {
            *self.bins.entry(gap_bin(gap)).or_insert(0) += 1;
        } else {
            decrement(&mut self.bins, gap_bin(gap));
        }
    }

    /// Number of gaps.
    pub fn len(&self) -> u64 {
        self.ends.count.saturating_sub(1)
    }

    /// Whether there are fewer than two events.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Mean gap in seconds.
    pub fn mean(&self) -> Option<f64> {
        let n = self.len();
        let total = self.ends.last.time - self.ends.first.time;
        (n > 0).then(|| ratio_i128(i128::from(total), u128::from(n) * 1_000_000))
    }

    /// Sample standard deviation of the gaps in seconds.
    pub fn deviation(&self) -> Option<f64> {
        let total = i128::from(self.ends.last.time - self.ends.first.time);
        variance_integer(self.len(), total, &self.squares, 6).map(f64::sqrt)
    }

    /// Share of the gaps in the fullest bin and its two neighbours (bins an eighth of an octave wide; on a tie the shortest).
    pub fn modal_share(&self) -> Option<f64> {
        let mut modal: Option<(i16, u32)> = None;
        for (&bin, &count) in &self.bins {
            if modal.is_none_or(|(_, most)| count > most) {
                modal = Some((bin, count));
            }
        }
        let (bin, _) = modal?;
        let near: u32 = self.bins.range(bin - 1..=bin + 1).map(|(_, &count)| count).sum();
        Some(f64::from(near) / self.len() as f64)
    }
}

/// The histogram bin of a gap: eight to the octave of microseconds; a gap of 0 has a bin of its own.
pub fn gap_bin(gap_us: u64) -> i16 {
    if gap_us == 0 {
        return -8;
    }
    ((gap_us as f64).log2() * 8.0).floor() as i16
}

/// Map a lane word of a float so that the order of words is the order of values.
pub fn order_word_float(word: u64) -> u64 {
    if word >> 63 == 1 {
        !word
    } else {
        word | 1 << 63
    }
}

/// The inverse of [`order_word_float`].
pub fn float_of_order_word(word: u64) -> u64 {
    if word >> 63 == 1 {
        word & !(1 << 63)
    } else {
        !word
    }
}

/// Map an integer's word so that the order of words is the order of values; it is its own inverse.
pub fn order_word_integer(word: u64) -> u64 {
    word ^ 1 << 63
}

/// Mean of n > 0 integers scaled by 10^scale, from their sum.
pub fn mean_integer(n: u64, sum: i128, scale: u32) -> f64 {
    match 10u128.checked_pow(scale).and_then(|unit| unit.checked_mul(u128::from(n))) {
        Some(denominator) => ratio_i128(sum, denominator),
        None => ratio_big(&BigInt::from(sum), &(BigUint::from(10u8).pow(scale) * n), 0),
    }
}

/// Sample variance of n integers scaled by 10^scale, from their sum and sum of squares.
pub fn variance_integer(n: u64, sum: i128, squares: &Squares, scale: u32) -> Option<f64> {
    if n < 2 {
        return None;
    }
    let denominator = u128::from(n) * u128::from(n - 1);
    let unit = 10u128.checked_pow(2 * scale);
    let small = squares.small().and_then(|q| {
        let numerator = q.checked_mul(i128::from(n))?.checked_sub(sum.checked_mul(sum)?)?;
        Some((numerator, denominator.checked_mul(unit?)?))
    });
    Some(match small {
        Some((numerator, denominator)) => ratio_i128(numerator, denominator),
        None => {
            let numerator = squares.big() * BigInt::from(n) - BigInt::from(sum) * BigInt::from(sum);
            ratio_big(&numerator, &(BigUint::from(denominator) * BigUint::from(10u8).pow(2 * scale)), 0)
        }
    })
}

/// Sample variance of n floats, from their exact sum and exact sum of squares.
pub fn variance_float(n: u64, sum: &FloatSum, squares: &FloatSum) -> Option<f64> {
    if n < 2 {
        return None;
    }
    let (Some((s, s_exponent)), Some((q, q_exponent))) = (sum.exact(), squares.exact()) else {
        return Some(f64::NAN);
    };
    let exponent = q_exponent.min(2 * s_exponent);
    let numerator = ((q * BigInt::from(n)) << ((q_exponent - exponent) as u64))
        - ((&s * &s) << ((2 * s_exponent - exponent) as u64));
    let denominator = BigUint::from(n) * BigUint::from(n - 1);
    Some(ratio_big(&numerator, &denominator, exponent))
}

/// The end that a row makes for an accumulator reading `lane`.
pub fn end_of(row: &[u64], lane: Option<u8>) -> End {
    End { time: row::time(row), word: lane.map_or(0, |lane| row::lane(row, lane)) }
}
