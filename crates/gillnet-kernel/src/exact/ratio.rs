//! Correctly rounded quotients of integers (round half to even), as IEEE 754 division would give of the exact values.

use num_bigint::{BigInt, BigUint, Sign};

/// `numerator / denominator` as the nearest f64. The denominator must be positive.
pub fn ratio_i128(numerator: i128, denominator: u128) -> f64 {
    debug_assert!(denominator > 0);
    let magnitude = numerator.unsigned_abs();
    const EXACT: u128 = 1 << 53;
    let value = if magnitude <= EXACT && denominator <= EXACT {
        // Both convert exactly, and IEEE division rounds once.
        magnitude as f64 / denominator as f64
    } else if let Some(value) = ratio_u128(magnitude, denominator) {
        value
    } else {
        ratio_big(&BigInt::from(magnitude), &BigUint::from(denominator), 0)
    };
    if numerator < 0 {
        -value
    } else {
        value
    }
}

/// The same in 128-bit arithmetic, where the shifted operands fit; `None` where they do not.
fn ratio_u128(numerator: u128, denominator: u128) -> Option<f64> {
    if numerator == 0 {
        return Some(0.0);
    }
    let bits = |x: u128| 128 - x.leading_zeros() as i32;
    // A quotient of 55 or 56 bits: 53 for the mantissa, the rest for rounding.
    let shift = 55 + bits(denominator) - bits(numerator);
    let (n, d) = if shift >= 0 {
        if bits(numerator) + shift > 128 {
            return None;
        }
        (numerator << shift, denominator)
    } else {
        if bits(denominator) - shift > 128 {
            return None;
        }
        (numerator, denominator << -shift)
    };
    let (quotient, remainder) = (n / d, n % d);
    // Converting an odd-sticky integer of at most 57 bits rounds half to even exactly once.
    let sticky = (quotient << 1) | u128::from(remainder != 0);
    // The quotients of 128-bit integers are far from the subnormal range, so the scaling is exact.
    Some(sticky as f64 * 2f64.powi(-shift - 1))
}

/// `numerator * 2^exponent / denominator` as the nearest f64, for integers of any size; overflows to infinity.
pub fn ratio_big(numerator: &BigInt, denominator: &BigUint, exponent: i64) -> f64 {
    let magnitude = numerator.magnitude();
    if magnitude.bits() == 0 {
        return 0.0;
    }
    // value = q * 2^(exponent - shift) with q of 65 or 66 bits.
    let mut shift = 65 + denominator.bits() as i64 - magnitude.bits() as i64;
    // Below the normal range fewer bits are kept: the lowest representable bit is 2^-1074.
    let lowest = exponent - shift;
    if lowest < -1076 {
        shift -= -1076 - lowest;
    }
    let (n, d) = if shift >= 0 {
        (magnitude << (shift as u64), denominator.clone())
    } else {
        (magnitude.clone(), denominator << ((-shift) as u64))
    };
    let quotient = &n / &d;
    let exact = &quotient * &d == n;
    let value = round_scaled(&quotient, !exact, exponent - shift);
    if numerator.sign() == Sign::Minus {
        -value
    } else {
        value
    }
}

/// Round `(quotient + sticky) * 2^exponent` to the nearest f64, ties to even.
fn round_scaled(quotient: &BigUint, sticky: bool, exponent: i64) -> f64 {
    let bits = quotient.bits() as i64;
    if bits == 0 {
        return 0.0;
    }
    let top = bits + exponent; // the value lies in [2^(top-1), 2^top)
    if top > 1024 {
        return f64::INFINITY;
    }
    let keep = if top > -1022 { 53 } else { 53 - (-1022 - (top - 1)) };
    if keep < 0 {
        return 0.0;
    }
    let drop = bits - keep;
    let quotient = u128::try_from(quotient).expect("a quotient has at most 66 bits");
    if drop <= 0 {
        return scale(quotient as f64, exponent);
    }
    let kept = if drop >= 128 { 0 } else { quotient >> drop };
    let rest = quotient & ((1u128 << drop) - 1);
    let half = 1u128 << (drop - 1);
    let up = rest > half || (rest == half && (sticky || kept & 1 == 1));
    scale((kept + u128::from(up)) as f64, exponent + drop)
}

/// `value * 2^exponent` for a value whose scaled form is representable; in two steps, since one factor may overflow.
fn scale(value: f64, exponent: i64) -> f64 {
    let first = (exponent / 2) as i32;
    let second = (exponent - i64::from(first)) as i32;
    value * pow2(first) * pow2(second)
}

fn pow2(exponent: i32) -> f64 {
    if (-1022..=1023).contains(&exponent) {
        f64::from_bits(((exponent + 1023) as u64) << 52)
    } else {
        2f64.powi(exponent)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_quotients_are_ieee_division() {
        assert_eq!(ratio_i128(1, 3), 1.0 / 3.0);
        assert_eq!(ratio_i128(-22, 7), -22.0 / 7.0);
        assert_eq!(ratio_i128(0, 5), 0.0);
    }

    #[test]
    fn the_three_ways_agree() {
        let mut x: u128 = 0x9E37_79B9_7F4A_7C15;
        for _ in 0..20_000 {
            x = x.wrapping_mul(0xDA94_2042_E4DD_58B5).wrapping_add(0x1234_5678_9ABC_DEF1);
            let numerator = (x >> (x % 90)) as i128 & i128::MAX;
            let denominator = ((x.rotate_left(37)) >> (x.rotate_left(11) % 100 + 20)).max(1);
            let expected = ratio_big(&BigInt::from(numerator), &BigUint::from(denominator), 0);
            assert_eq!(ratio_i128(numerator, denominator), expected, "{numerator}/{denominator}");
        }
    }

    #[test]
    fn ties_round_to_even() {
        // 2^53 + 1 lies half way between two floats.
        assert_eq!(ratio_i128((1 << 53) + 1, 1), 9_007_199_254_740_992.0);
        assert_eq!(ratio_i128((1 << 53) + 3, 1), 9_007_199_254_740_996.0);
    }

    #[test]
    fn subnormal_and_huge_results() {
        assert_eq!(ratio_big(&BigInt::from(1), &BigUint::from(1u8), -1074), 5e-324);
        assert_eq!(ratio_big(&BigInt::from(1), &BigUint::from(2u8), -1074), 0.0);
        assert_eq!(ratio_big(&BigInt::from(3), &BigUint::from(2u8), -1074), 1e-323);
        assert_eq!(ratio_big(&BigInt::from(1), &BigUint::from(1u8), 1023), 2f64.powi(1023));
        assert_eq!(ratio_big(&BigInt::from(1), &BigUint::from(1u8), 1024), f64::INFINITY);
    }
}
