//! Features as integers that compare as the floats do, twice: once for each default direction.
//!
//! XGBoost asks `x < threshold`, and sends a missing `x` in the split's default direction. Here every value becomes
//! a `u32` *key* with `key(x) < key(t)` exactly when `x < t`, and every feature gets two *slots*: in the first a
//! missing value is below every threshold, in the second above every one. A split reads the slot of its own default
//! direction, so that the descent is one unsigned comparison, without a branch for NaN.

use super::layout::LANES;

/// Map a number that is not NaN to a key: `key(a) < key(b)` if and only if `a < b`.
pub fn key(value: f32) -> u32 {
    let bits = value.to_bits();
    // IEEE 754 says -0.0 == 0.0, so both need the same key.
    let bits = if bits == 0x8000_0000 { 0 } else { bits };
    // Sign and magnitude → offset binary: negative numbers are mirrored, positive ones move above them.
    bits ^ (((bits as i32 >> 31) as u32) | 0x8000_0000)
}

/// The slot that a split reads, by its feature and its default direction.
pub fn slot(feature: usize, default_left: bool) -> usize {
    2 * feature + usize::from(!default_left)
}

/// Below the key of every number, so that a missing value goes left.
const MISSING_LEFT: u32 = 0;
/// Above the key of every number, so that a missing value goes right.
const MISSING_RIGHT: u32 = u32::MAX;

/// The keys of up to a chunk of rows, in blocks of [`LANES`] rows: `keys[block][slot][lane]`.
pub struct KeyBlocks {
    keys: Vec<u32>,
    slots: usize,
    rows: usize,
}

impl KeyBlocks {
    /// Room for `capacity` rows of `features` features.
    pub fn new(features: usize, capacity: usize) -> Self {
        let slots = 2 * features;
        Self { keys: vec![0; capacity.div_ceil(LANES) * slots * LANES], slots, rows: capacity }
    }

    /// Say how many rows the next fill brings; at most the capacity.
    pub fn set_rows(&mut self, rows: usize) {
        debug_assert!(rows.div_ceil(LANES) * self.slots * LANES <= self.keys.len());
        self.rows = rows;
    }

    /// How many rows are held.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// The keys of block `index`, `slots × LANES` long.
    pub fn block(&self, index: usize) -> &[u32] {
        let length = self.slots * LANES;
        &self.keys[index * length..(index + 1) * length]
    }

    /// Set one feature of all rows.
    pub fn fill_column(&mut self, feature: usize, values: &[f32]) {
        let stride = self.slots * LANES;
        for (block, chunk) in values.chunks(LANES).enumerate() {
            let at = block * stride + 2 * feature * LANES;
            let (left, right) = self.keys[at..at + 2 * LANES].split_at_mut(LANES);
            for ((value, left), right) in chunk.iter().zip(left).zip(right) {
                (*left, *right) = both_keys(*value);
            }
        }
    }

    /// Set all features of all rows from a row-major matrix.
    pub fn fill_rows(&mut self, matrix: &[f32], width: usize) {
        let stride = self.slots * LANES;
        for (row, values) in matrix.chunks_exact(width).enumerate() {
            let (block, lane) = (row / LANES, row % LANES);
            let keys = &mut self.keys[block * stride..(block + 1) * stride];
            for (pair, value) in keys.chunks_exact_mut(2 * LANES).zip(values) {
                (pair[lane], pair[LANES + lane]) = both_keys(*value);
            }
        }
    }
}

fn both_keys(value: f32) -> (u32, u32) {
    let key = key(value);
    if value.is_nan() {
        (MISSING_LEFT, MISSING_RIGHT)
    } else {
        (key, key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_compare_as_floats_do() {
        let tiny = f32::from_bits(1);
        let numbers = [
            f32::NEG_INFINITY,
            f32::MIN,
            -1.0,
            -f32::MIN_POSITIVE,
            -tiny,
            -0.0,
            0.0,
            tiny,
            f32::MIN_POSITIVE,
            1.0,
            1.0 + f32::EPSILON,
            f32::MAX,
            f32::INFINITY,
        ];
        for a in numbers {
            for b in numbers {
                assert_eq!(key(a) < key(b), a < b, "{a:e} < {b:e}");
            }
            assert!(MISSING_LEFT < key(a) && MISSING_RIGHT > key(a));
        }
    }
}
