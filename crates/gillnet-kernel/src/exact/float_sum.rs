//! An exact, invertible sum of f64 values or of their squares.

use num_bigint::{BigInt, BigUint, Sign};

use super::ratio::ratio_big;

/// Bits of one limb; 31 spare bits in the i64 hold the carries of 2^30 additions.
const LIMB_BITS: i64 = 32;
/// The weight of bit 0 of limb 0 is 2^-BIAS: below the square of the smallest subnormal.
const BIAS: i64 = 2_176;
const NORMALISE_AFTER: u32 = 1 << 29;

/// The exact sum of finite floats (or of their squares), as a superaccumulator that holds only the limbs in use.
///
/// Values can be taken out again. The result is the correctly rounded exact sum, so it depends on the set of values only,
/// not on their order. A sum of ordinary amounts uses two to four limbs.
#[derive(Debug, Clone, Default)]
pub struct FloatSum {
    limbs: Vec<i64>,
    base: i64,
    pending: u32,
    nan: i64,
    positive_infinity: i64,
    negative_infinity: i64,
}

impl FloatSum {
    /// Empty it, keeping its memory.
    pub fn clear(&mut self) {
        self.limbs.clear();
        (self.pending, self.nan, self.positive_infinity, self.negative_infinity) = (0, 0, 0, 0);
    }

    /// Add `x` (`sign` = 1) or take it out again (`sign` = -1).
    pub fn add(&mut self, x: f64, sign: i64) {
        if !x.is_finite() {
            return self.add_special(x, sign);
        }
        let (mantissa, exponent) = decompose(x);
        let sign = if x.is_sign_negative() { -sign } else { sign };
        self.add_scaled(u128::from(mantissa), exponent, sign);
    }

    /// Add the square of `x`, or take it out again.
    pub fn add_square(&mut self, x: f64, sign: i64) {
        if !x.is_finite() {
            return self.add_special(x * x, sign);
        }
        let (mantissa, exponent) = decompose(x);
        self.add_scaled(u128::from(mantissa) * u128::from(mantissa), 2 * exponent, sign);
    }

    fn add_special(&mut self, x: f64, sign: i64) {
        if x.is_nan() {
            self.nan += sign;
        } else if x > 0.0 {
            self.positive_infinity += sign;
        } else {
            self.negative_infinity += sign;
        }
    }

    fn add_scaled(&mut self, mantissa: u128, exponent: i64, sign: i64) {
        if mantissa == 0 {
            return;
        }
        let bit = exponent + BIAS;
        let (mut limb, offset) = (bit / LIMB_BITS, (bit % LIMB_BITS) as u32);
        // At most 106 + 31 bits, so at most five limbs: the low 96 bits are shifted first, the rest follows.
        self.reserve(limb, limb + 5);
        let mut rest = mantissa;
        let mut part = ((rest as u64 & 0xFFFF_FFFF) << offset) as u128;
        rest >>= 32;
        while part != 0 || rest != 0 {
            self.limbs[(limb - self.base) as usize] += sign * (part as i64 & 0xFFFF_FFFF);
            part = (part >> 32) + (((rest as u64 & 0xFFFF_FFFF) << offset) as u128);
            rest >>= 32;
            limb += 1;
        }
        self.pending += 1;
        if self.pending >= NORMALISE_AFTER {
            self.normalise();
        }
    }

    /// Make limbs `first..last` (absolute numbers) addressable.
    fn reserve(&mut self, first: i64, last: i64) {
        if self.limbs.is_empty() {
            self.base = first;
        }
        if first < self.base {
            let missing = (self.base - first) as usize;
            self.limbs.splice(0..0, std::iter::repeat_n(0, missing));
            self.base = first;
        }
        let needed = (last - self.base) as usize;
        if self.limbs.len() < needed {
            self.limbs.resize(needed, 0);
        }
    }

    /// Carry, so that every limb but the last is within 0..2^32.
    fn normalise(&mut self) {
        let mut carry = 0i64;
        for limb in &mut self.limbs {
            let value = *limb + carry;
            carry = value >> LIMB_BITS;
            *limb = value & 0xFFFF_FFFF;
        }
        if carry != 0 {
            self.limbs.push(carry);
        }
        self.pending = 0;
    }

    /// The exact value as `(integer, exponent)`: integer * 2^exponent. `None` if a NaN or an infinity is in it.
    pub fn exact(&self) -> Option<(BigInt, i64)> {
        if self.special().is_some() {
            return None;
        }
        let mut copy = self.clone();
        copy.normalise();
        let negative = copy.limbs.last().is_some_and(|&limb| limb < 0);
        if negative {
            copy.limbs.iter_mut().for_each(|limb| *limb = -*limb);
            copy.normalise();
        }
        let digits = copy.limbs.iter().flat_map(|&limb| [limb as u32, (limb >> LIMB_BITS) as u32]);
        // A limb beyond 32 bits can only be the last one, which normalise leaves unsplit.
        let mut magnitude = BigUint::ZERO;
        for (i, pair) in digits.collect::<Vec<_>>().chunks(2).enumerate().rev() {
            let limb = u64::from(pair[0]) | (u64::from(pair[1]) << 32);
            magnitude += BigUint::from(limb) << (i as u64 * LIMB_BITS as u64);
        }
        let sign = if negative { Sign::Minus } else { Sign::Plus };
        Some((BigInt::from_biguint(sign, magnitude), copy.base * LIMB_BITS - BIAS))
    }

    /// NaN or an infinity, where the values hold one.
    pub fn special(&self) -> Option<f64> {
        match (self.nan, self.positive_infinity, self.negative_infinity) {
            (0, 0, 0) => None,
            (0, _, 0) => Some(f64::INFINITY),
            (0, 0, _) => Some(f64::NEG_INFINITY),
            _ => Some(f64::NAN),
        }
    }

    /// The nearest f64 to the exact sum divided by `divisor`.
    pub fn divided_by(&self, divisor: u64) -> f64 {
        if let Some(special) = self.special() {
            return special;
        }
        if divisor == 1 {
            if let Some(value) = self.short() {
                return value;
            }
        }
        let (integer, exponent) = self.exact().expect("no special value");
        ratio_big(&integer, &BigUint::from(divisor), exponent)
    }

    /// The sum where it fits 128 bits, without big integers: the common case.
    fn short(&self) -> Option<f64> {
        let used = self.limbs.iter().position(|&limb| limb != 0).unwrap_or(self.limbs.len());
        let top = self.limbs.iter().rposition(|&limb| limb != 0).map_or(used, |i| i + 1);
        if top - used > 2 {
            return None;
        }
        let mut value = 0i128;
        for (i, &limb) in self.limbs[used..top].iter().enumerate() {
            value += i128::from(limb) << (i as i64 * LIMB_BITS);
        }
        let exponent = (self.base + used as i64) * LIMB_BITS - BIAS;
        // i128 as f64 rounds to nearest even; the scaling is exact only in the normal range.
        let magnitude_bits = 128 - i64::from(value.unsigned_abs().leading_zeros());
        let top_bit = magnitude_bits + exponent;
        if !(-1000..=1000).contains(&top_bit) || exponent < -1000 {
            return if value == 0 { Some(0.0) } else { None };
        }
        Some(value as f64 * 2f64.powi(exponent as i32))
    }
}

/// `|x| = mantissa * 2^exponent`, exactly.
fn decompose(x: f64) -> (u64, i64) {
    let bits = x.to_bits();
    let exponent = ((bits >> 52) & 0x7FF) as i64;
    let fraction = bits & ((1 << 52) - 1);
    if exponent == 0 {
        (fraction, -1074)
    } else {
        (fraction | (1 << 52), exponent - 1075)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sum(values: &[f64]) -> f64 {
        let mut sum = FloatSum::default();
        values.iter().for_each(|&x| sum.add(x, 1));
        sum.divided_by(1)
    }

    #[test]
    fn exact_where_plain_addition_is_not() {
        assert_eq!(sum(&[0.1; 10]), 1.0);
        assert_eq!(sum(&[1e100, 1.0, -1e100]), 1.0);
        assert_eq!(sum(&[1e308, 1e308, -1e308]), 1e308);
        assert_eq!(sum(&[1e308, 1e308]), f64::INFINITY);
        assert_eq!(sum(&[5e-324, 5e-324]), 1e-323);
        assert_eq!(sum(&[]), 0.0);
        assert_eq!(sum(&[-0.5, 0.25]), -0.25);
    }

    #[test]
    fn taking_out_restores_the_sum() {
        let mut sum = FloatSum::default();
        for x in [0.1, 1e300, -7.25, 3e-200] {
            sum.add(x, 1);
            sum.add_square(x, 1);
        }
        for x in [1e300, -7.25, 3e-200] {
            sum.add(x, -1);
            sum.add_square(x, -1);
        }
        let mut only = FloatSum::default();
        only.add(0.1, 1);
        only.add_square(0.1, 1);
        assert_eq!(sum.divided_by(1), only.divided_by(1));
        assert_eq!(sum.divided_by(3), only.divided_by(3));
    }

    #[test]
    fn specials_come_and_go() {
        let mut sum = FloatSum::default();
        sum.add(f64::INFINITY, 1);
        sum.add(2.0, 1);
        assert_eq!(sum.divided_by(1), f64::INFINITY);
        sum.add(f64::NEG_INFINITY, 1);
        assert!(sum.divided_by(1).is_nan());
        sum.add(f64::NEG_INFINITY, -1);
        sum.add(f64::INFINITY, -1);
        assert_eq!(sum.divided_by(1), 2.0);
    }
}
