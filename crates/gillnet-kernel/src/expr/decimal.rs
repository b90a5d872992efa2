//! Exact decimal arithmetic on scaled `i128`s. Every operation is checked: what does not fit 38 digits is None.

/// 10³⁸: scaled integers of a valid decimal are below it in magnitude.
const LIMIT: i128 = 10_i128.pow(38);

/// `10^exponent`; the exponent is at most 38.
pub fn power_of_ten(exponent: u8) -> i128 {
    10_i128.pow(u32::from(exponent))
}

/// Return the value if it has at most 38 digits.
#[inline]
pub fn bounded(value: i128) -> Option<i128> {
    (-LIMIT < value && value < LIMIT).then_some(value)
}

/// Divide, rounding halves to the even neighbour. The divisor is positive.
#[inline]
pub fn divide_half_even(value: i128, divisor: i128) -> i128 {
    let (floor, rest) = (value.div_euclid(divisor), value.rem_euclid(divisor));
    let above_half = rest.cmp(&(divisor - rest));
    floor + i128::from(above_half.is_gt() || (above_half.is_eq() && floor & 1 == 1))
}

/// Change the scale: exact when it grows, rounded half to even when it shrinks.
#[inline]
pub fn rescale(value: i128, from: u8, to: u8) -> Option<i128> {
    if to >= from {
        value.checked_mul(power_of_ten(to - from)).and_then(bounded)
    } else {
        Some(divide_half_even(value, power_of_ten(from - to)))
    }
}

/// Grow the scale for a comparison. What does not fit becomes the extreme of its sign, which lies beyond every valid
/// decimal, so that the comparison stays right.
#[inline]
pub fn rescale_saturating(value: i128, factor: i128) -> i128 {
    value.saturating_mul(factor)
}

/// The nearest float, correctly rounded.
#[inline]
pub fn to_f64(value: i128, scale: u8) -> f64 {
    // Both operands are exact floats here, so that the one division rounds once.
    if value.unsigned_abs() <= 1 << 53 && scale <= 22 {
        return value as f64 / power_of_ten(scale) as f64;
    }
    format!("{value}e-{scale}").parse().expect("an integer with an exponent is a float")
}

/// Round `value × 10^scale` to the nearest integer, halves away from zero; None for NaN and what does not fit.
#[inline]
pub fn from_f64(value: f64, scale: u8) -> Option<i128> {
    let scaled = (value * power_of_ten(scale) as f64).round();
    // The comparison is false for NaN.
    if scaled.abs() < 1e38 {
        bounded(scaled as i128)
    } else {
        None
    }
}

/// Floor division and its remainder, which has the divisor's sign. None for a divisor of zero or an overflow.
#[inline]
pub fn floor_div_mod(value: i128, divisor: i128) -> Option<(i128, i128)> {
    let (quotient, rest) = (value.checked_div(divisor)?, value.checked_rem(divisor)?);
    let step = i128::from(rest != 0 && (rest < 0) != (divisor < 0));
    Some((quotient - step, rest + step * divisor))
}

/// Write a scaled integer with exactly `scale` digits after the point.
pub fn format(value: i128, scale: u8) -> String {
    if scale == 0 {
        return value.to_string();
    }
    let (factor, magnitude) = (power_of_ten(scale) as u128, value.unsigned_abs());
    let sign = if value < 0 { "-" } else { "" };
    format!("{sign}{}.{:0width$}", magnitude / factor, magnitude % factor, width = usize::from(scale))
}

/// Parse plain decimal text (`-12.50`, no exponent) as a scaled integer; None where it is no decimal or has more than
/// `scale` significant digits after the point.
pub fn parse(text: &str, scale: u8) -> Option<i128> {
    let (value, digits_after_point) = parse_shortest(text, false)?;
    (digits_after_point <= i32::from(scale)).then(|| rescale(value, digits_after_point as u8, scale)).flatten()
}

/// Parse decimal text, with an exponent where `exponent` allows it, to (integer, scale) with the smallest scale.
pub fn parse_shortest(text: &str, exponent: bool) -> Option<(i128, i32)> {
    let (mantissa, power) = match text.find(['e', 'E']) {
        Some(at) if exponent => (&text[..at], text[at + 1..].parse::<i32>().ok()?),
        Some(_) => return None,
        None => (text, 0),
    };
    let unsigned = mantissa.strip_prefix(['-', '+']).unwrap_or(mantissa);
    let (whole, fraction) = unsigned.split_once('.').unwrap_or((unsigned, ""));
    if whole.len() + fraction.len() == 0 || !whole.bytes().chain(fraction.bytes()).all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let fraction = fraction.trim_end_matches('0');
    let mut value = 0_i128;
    for digit in whole.bytes().chain(fraction.bytes()) {
        value = value.checked_mul(10)?.checked_add(i128::from(digit - b'0')).and_then(bounded)?;
    }
    let mut scale = i32::try_from(fraction.len()).ok()?.checked_sub(power)?;
    while scale < 0 {
        value = value.checked_mul(10).and_then(bounded)?;
        scale = if value == 0 { 0 } else { scale + 1 };
    }
    Some((if mantissa.starts_with('-') { -value } else { value }, scale))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_go_to_the_even_neighbour_on_both_sides_of_zero() {
        assert_eq!([-25, -15, -5, 5, 15, 25].map(|v| divide_half_even(v, 10)), [-2, -2, 0, 0, 2, 2]);
    }

    #[test]
    fn floats_are_correctly_rounded_beyond_53_bits() {
        assert_eq!(to_f64(123_456_789_012_345_678_901, 10), 12_345_678_901.234_568);
        assert_eq!(to_f64(125, 2), 1.25);
    }

    #[test]
    fn text_is_parsed_exactly_or_not_at_all() {
        assert_eq!(parse("-12.50", 2), Some(-1250));
        assert_eq!(parse("12.505", 2), None);
        assert_eq!(parse("12.500", 2), Some(1250));
        for bad in ["", ".", "1e3", "1_0", " 1", "+-1", "1.2.3", "nan"] {
            assert_eq!(parse(bad, 2), None, "{bad:?}");
        }
        assert_eq!(parse_shortest("1e-05", true), Some((1, 5)));
        assert_eq!(parse_shortest("2.50e+3", true), Some((2500, 0)));
    }
}
