//! Number tokens, converted exactly: 64-bit integers, correctly rounded floats, scaled decimals without a float between.

use super::scan::Cursor;
use crate::reason::{Parse, Reason};
use crate::schema::MAX_DECIMAL_DIGITS;

/// A number as it stands in the record, with its digits gathered while the grammar was checked.
pub(crate) struct Number<'a> {
    pub text: &'a [u8],
    negative: bool,
    /// All digits as one integer; only meaningful unless `long`.
    mantissa: u64,
    /// More than 19 significant digits: the mantissa may have wrapped.
    long: bool,
    /// Power of ten that the mantissa is multiplied with.
    exponent: i64,
    /// Neither fraction nor exponent.
    pub integer: bool,
}

const POWERS: [u64; 20] = {
    let mut powers = [1; 20];
    let mut i = 1;
    while i < 20 {
        powers[i] = powers[i - 1] * 10;
        i += 1;
    }
    powers
};

/// Powers of ten that a double holds exactly.
const FLOAT_POWERS: [f64; 23] = [
    1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20,
    1e21, 1e22,
];

/// An exponent beyond this is as good as infinite; adding digits to it cannot overflow.
const EXPONENT_LIMIT: i64 = 1 << 40;

/// Step over a number of the JSON grammar.
pub(crate) fn scan<'a>(cursor: &mut Cursor<'a>) -> Parse<Number<'a>> {
    let start = cursor.at;
    let negative = cursor.take(b'-');
    let first = cursor.at;
    let mut mantissa = digits(cursor, 0);
    let whole = cursor.at - first;
    if whole == 0 {
        return Err(cursor.syntax("a digit"));
    }
    if whole > 1 && cursor.bytes[first] == b'0' {
        cursor.at = first + 1;
        return Err(cursor.syntax("no digit after a leading zero"));
    }
    let (mut fraction, mut exponent) = (0, 0);
    let mut integer = true;
    if cursor.take(b'.') {
        integer = false;
        let begin = cursor.at;
        mantissa = digits(cursor, mantissa);
        fraction = cursor.at - begin;
        if fraction == 0 {
            return Err(cursor.syntax("a digit"));
        }
    }
    if let Some(b'e' | b'E') = cursor.peek() {
        integer = false;
        exponent = scan_exponent(cursor)?;
    }
    let text = &cursor.bytes[start..cursor.at];
    // Leading zeros count here, which only sends a few numbers such as 0.00000000000000000001 the slow, equal way.
    let long = whole + fraction > 19;
    Ok(Number { text, negative, mantissa, long, exponent: exponent - fraction as i64, integer })
}

#[inline]
fn digits(cursor: &mut Cursor<'_>, mut value: u64) -> u64 {
    while let Some(digit @ 0..=9) = cursor.peek().map(|byte| byte.wrapping_sub(b'0')) {
        value = value.wrapping_mul(10).wrapping_add(u64::from(digit));
        cursor.at += 1;
    }
    value
}

fn scan_exponent(cursor: &mut Cursor<'_>) -> Parse<i64> {
    cursor.at += 1;
    let negative = cursor.take(b'-');
    if !negative {
        cursor.take(b'+');
    }
    let (begin, mut value) = (cursor.at, 0i64);
    while let Some(digit @ 0..=9) = cursor.peek().map(|byte| byte.wrapping_sub(b'0')) {
        value = (value * 10 + i64::from(digit)).min(EXPONENT_LIMIT);
        cursor.at += 1;
    }
    if cursor.at == begin {
        return Err(cursor.syntax("a digit"));
    }
    Ok(if negative { -value } else { value })
}

impl Number<'_> {
    /// The value of an `integer` number.
    pub fn as_i64(&self) -> Result<i64, Reason> {
        if self.long {
            return Err(Reason::OutOfRange);
        }
        signed(self.mantissa, self.negative).ok_or(Reason::OutOfRange)
    }

    /// The nearest double, ties to even; infinite if the number is too large for one.
    pub fn as_f64(&self) -> f64 {
        // Mantissa and power are exact doubles here, so that one rounding remains: W. D. Clinger, "How to read floating
        // point numbers accurately", 1990.
        if !self.long && self.mantissa <= 1 << 53 && self.exponent.unsigned_abs() <= 22 {
            let power = FLOAT_POWERS[self.exponent.unsigned_abs() as usize];
            let magnitude = self.mantissa as f64;
            let value = if self.exponent < 0 { magnitude / power } else { magnitude * power };
            return if self.negative { -value } else { value };
        }
        let text = std::str::from_utf8(self.text).expect("a number is ASCII");
        text.parse().expect("a JSON number is a Rust number")
    }

    /// The value times `10**scale`, if that is an integer of at most 18 digits.
    pub fn as_scaled(&self, scale: u8) -> Result<i64, Reason> {
        let (mantissa, exponent) = if self.long { self.significant(scale)? } else { (self.mantissa, self.exponent) };
        if mantissa == 0 {
            return Ok(0);
        }
        let shift = exponent + i64::from(scale);
        let magnitude = if shift >= 0 {
            let power = POWERS.get(shift as usize).ok_or(Reason::OutOfRange)?;
            mantissa.checked_mul(*power).ok_or(Reason::OutOfRange)?
        } else {
            let power = POWERS.get(shift.unsigned_abs() as usize).ok_or(Reason::InexactDecimal)?;
            if mantissa % power != 0 {
                return Err(Reason::InexactDecimal);
            }
            mantissa / power
        };
        if magnitude >= POWERS[MAX_DECIMAL_DIGITS as usize] {
            return Err(Reason::OutOfRange);
        }
        signed(magnitude, self.negative).ok_or(Reason::OutOfRange)
    }

    /// Mantissa and exponent of a number with many digits, without the zeros at both ends.
    ///
    /// With more than 19 digits left, it is finer than the scale or too large for a decimal, and refused as such.
    #[cold]
    fn significant(&self, scale: u8) -> Result<(u64, i64), Reason> {
        let token = self.text.split(|byte| matches!(byte, b'e' | b'E')).next().unwrap_or_default();
        let all: Vec<u8> = token.iter().copied().filter(u8::is_ascii_digit).collect();
        let Some(first) = all.iter().position(|&digit| digit != b'0') else { return Ok((0, 0)) };
        let last = all.iter().rposition(|&digit| digit != b'0').unwrap_or(first);
        let exponent = self.exponent + (all.len() - 1 - last) as i64;
        let kept = &all[first..=last];
        if kept.len() > 19 {
            return Err(if exponent < -i64::from(scale) { Reason::InexactDecimal } else { Reason::OutOfRange });
        }
        Ok((kept.iter().fold(0, |value, digit| value * 10 + u64::from(digit - b'0')), exponent))
    }
}

fn signed(magnitude: u64, negative: bool) -> Option<i64> {
    if negative {
        0i64.checked_sub_unsigned(magnitude)
    } else {
        i64::try_from(magnitude).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Number<'_> {
        let mut cursor = Cursor::new(text.as_bytes());
        let number = scan(&mut cursor).unwrap();
        cursor.finish().unwrap();
        number
    }

    #[test]
    fn integers_to_the_last_value() {
        assert_eq!(read("9223372036854775807").as_i64(), Ok(i64::MAX));
        assert_eq!(read("-9223372036854775808").as_i64(), Ok(i64::MIN));
        for text in ["9223372036854775808", "-9223372036854775809", "18446744073709551617", "100000000000000000000"] {
            assert_eq!(read(text).as_i64(), Err(Reason::OutOfRange), "{text}");
        }
        assert_eq!(read("-0").as_i64(), Ok(0));
    }

    #[test]
    fn floats_are_what_the_standard_library_reads() {
        for text in [
            "0.1",
            "-0.0",
            "1e22",
            "1e23",
            "9007199254740993",
            "9007199254740993.0000000000000000001",
            "4.9e-324",
            "2e-324",
            "1.7976931348623157e308",
            "1e309",
            "0.000000000000000000000000001",
            "123456.789e-3",
            "1e999999999999999999999",
        ] {
            let expected: f64 = text.parse().unwrap();
            assert_eq!(read(text).as_f64().to_bits(), expected.to_bits(), "{text}");
        }
    }

    #[test]
    fn decimals_are_exact_or_refused() {
        let cases = [
            ("12.34", 2, Ok(1234)),
            ("-12.3", 2, Ok(-1230)),
            ("12.340000000000000000000000000000", 2, Ok(1234)),
            ("1.5e2", 0, Ok(150)),
            ("1500e-2", 0, Ok(15)),
            ("0e999999999999999999999", 2, Ok(0)),
            ("0.00000000000000000000000", 2, Ok(0)),
            ("9999999999999999.99", 2, Ok(999_999_999_999_999_999)),
            ("10000000000000000.00", 2, Err(Reason::OutOfRange)),
            ("1e17", 2, Err(Reason::OutOfRange)),
            ("1e999999999999999999999", 2, Err(Reason::OutOfRange)),
            ("123456789012345678901234567890", 2, Err(Reason::OutOfRange)),
            ("12.345", 2, Err(Reason::InexactDecimal)),
            ("1e-3", 2, Err(Reason::InexactDecimal)),
            ("1e-999999999999999999999", 2, Err(Reason::InexactDecimal)),
            ("123456789012345678901234567890.001", 2, Err(Reason::InexactDecimal)),
        ];
        for (text, scale, expected) in cases {
            assert_eq!(read(text).as_scaled(scale), expected, "{text}");
        }
    }
}
