//! Instants as text: RFC 3339 to microseconds since 1970-01-01 UTC, and back.
//!
//! The civil-date arithmetic is Howard Hinnant's (<https://howardhinnant.github.io/date_algorithms.html>).

/// 0001-01-01T00:00:00Z, the first instant that a timestamp column holds.
pub const MIN_US: i64 = -62_135_596_800_000_000;
/// 9999-12-31T23:59:59.999999Z, the last.
pub const MAX_US: i64 = 253_402_300_799_999_999;

const DAY_S: i64 = 86_400;

/// Why a text is no instant that Gillnet holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BadInstant {
    /// Not RFC 3339, or a date or time that does not exist.
    Malformed,
    /// Before year 1 or after year 9999 in UTC.
    OutOfRange,
}

/// Read RFC 3339 text, such as `2026-01-31T23:59:59.123456Z` or `2026-01-31 23:59:59+05:30`.
///
/// An offset is required. Fractions of one to nine digits are accepted and cut to microseconds. A leap second is accepted
/// where one can be, at 23:59:60 UTC, and is the same instant as the second after it, as in POSIX time.
pub fn parse_rfc3339(text: &[u8]) -> Result<i64, BadInstant> {
    use BadInstant::Malformed;
    if text.len() < 20 || text[4] != b'-' || text[7] != b'-' || text[13] != b':' || text[16] != b':' {
        return Err(Malformed);
    }
    if !matches!(text[10], b'T' | b't' | b' ') {
        return Err(Malformed);
    }
    let year = two(text, 0)? * 100 + two(text, 2)?;
    let (month, day) = (two(text, 5)?, two(text, 8)?);
    let (hour, minute, second) = (two(text, 11)?, two(text, 14)?, two(text, 17)?);
    if !(1..=12).contains(&month) || day < 1 || day > days_in_month(year, month) {
        return Err(Malformed);
    }
    if hour > 23 || minute > 59 || second > 60 {
        return Err(Malformed);
    }
    let (fraction_us, rest) = fraction(&text[19..])?;
    let whole = days_from_civil(year, month, day) * DAY_S + hour * 3_600 + minute * 60 + second - offset_s(rest)?;
    // With second 60, the sum is already the start of the next minute; in UTC that has to be midnight.
    if second == 60 && whole.rem_euclid(DAY_S) != 0 {
        return Err(Malformed);
    }
    let instant = whole * 1_000_000 + fraction_us;
    if (MIN_US..=MAX_US).contains(&instant) {
        Ok(instant)
    } else {
        Err(BadInstant::OutOfRange)
    }
}

/// Two digits at `at`.
fn two(text: &[u8], at: usize) -> Result<i64, BadInstant> {
    let (tens, ones) = (text[at].wrapping_sub(b'0'), text[at + 1].wrapping_sub(b'0'));
    if tens > 9 || ones > 9 {
        return Err(BadInstant::Malformed);
    }
    Ok(i64::from(tens) * 10 + i64::from(ones))
}

/// An optional `.digits`, in microseconds, and what follows.
fn fraction(text: &[u8]) -> Result<(i64, &[u8]), BadInstant> {
    let Some(digits) = text.strip_prefix(b".") else { return Ok((0, text)) };
    let count = digits.iter().take_while(|byte| byte.is_ascii_digit()).count();
    if !(1..=9).contains(&count) {
        return Err(BadInstant::Malformed);
    }
    let mut micros = 0;
    for place in 0..6 {
        micros = micros * 10 + digits[..count].get(place).map_or(0, |digit| i64::from(digit - b'0'));
    }
    Ok((micros, &digits[count..]))
}

/// `Z` or `±HH:MM`, in seconds east of UTC.
fn offset_s(text: &[u8]) -> Result<i64, BadInstant> {
    if matches!(text, b"Z" | b"z") {
        return Ok(0);
    }
    if text.len() != 6 || text[3] != b':' {
        return Err(BadInstant::Malformed);
    }
    let (hours, minutes) = (two(text, 1)?, two(text, 4)?);
    if hours > 23 || minutes > 59 {
        return Err(BadInstant::Malformed);
    }
    match text[0] {
        b'+' => Ok(hours * 3_600 + minutes * 60),
        b'-' => Ok(-(hours * 3_600 + minutes * 60)),
        _ => Err(BadInstant::Malformed),
    }
}

fn days_in_month(year: i64, month: i64) -> i64 {
    match month {
        4 | 6 | 9 | 11 => 30,
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        _ => 31,
    }
}

/// Days since 1970-01-01 of a date of the proleptic Gregorian calendar.
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

/// Year, month and day of a count of days since 1970-01-01.
fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let (era, day_of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    (era * 400 + year_of_era + i64::from(month <= 2), month, day)
}

/// Append an instant as RFC 3339 text with six digits of fraction and `Z`.
///
/// A year outside 0 to 9999 is written with a sign, as in ISO 8601's expanded form; decoded columns never hold one.
pub fn write_rfc3339(instant_us: i64, out: &mut Vec<u8>) {
    let (seconds, micros) = (instant_us.div_euclid(1_000_000), instant_us.rem_euclid(1_000_000));
    let (days, second_of_day) = (seconds.div_euclid(DAY_S), seconds.rem_euclid(DAY_S));
    let (year, month, day) = civil_from_days(days);
    if !(0..=9_999).contains(&year) {
        out.extend_from_slice(format!("{}{:06}", if year < 0 { '-' } else { '+' }, year.abs()).as_bytes());
    } else {
        out.extend_from_slice(&digits(year / 100));
        out.extend_from_slice(&digits(year % 100));
    }
    let mut text = *b"-00-00T00:00:00.000000Z";
    let parts =
        [(1, month), (4, day), (7, second_of_day / 3_600), (10, second_of_day / 60 % 60), (13, second_of_day % 60)];
    for (at, value) in parts.into_iter().chain([(16, micros / 10_000), (18, micros / 100 % 100), (20, micros % 100)]) {
        text[at..at + 2].copy_from_slice(&digits(value));
    }
    out.extend_from_slice(&text);
}

/// A value of 0 to 99 as two digits.
fn digits(value: i64) -> [u8; 2] {
    [b'0' + (value / 10) as u8, b'0' + (value % 10) as u8]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(instant: i64) -> String {
        let mut out = Vec::new();
        write_rfc3339(instant, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn every_day_of_ten_thousand_years_round_trips() {
        for day in MIN_US / (DAY_S * 1_000_000)..=MAX_US / (DAY_S * 1_000_000) {
            let instant = day * DAY_S * 1_000_000 + 86_399_999_999;
            assert_eq!(parse_rfc3339(written(instant).as_bytes()), Ok(instant), "day {day}");
        }
    }

    #[test]
    fn offsets_fractions_and_leap_seconds() {
        assert_eq!(parse_rfc3339(b"1970-01-01T00:00:01Z"), Ok(1_000_000));
        assert_eq!(parse_rfc3339(b"1970-01-01t05:30:00.5+05:30"), Ok(500_000));
        assert_eq!(parse_rfc3339(b"1969-12-31 18:00:00.123456789-06:00"), Ok(123_456));
        assert_eq!(parse_rfc3339(b"2016-12-31T23:59:60Z"), parse_rfc3339(b"2017-01-01T00:00:00Z"));
        assert_eq!(parse_rfc3339(b"2017-01-01T08:59:60.25+09:00"), parse_rfc3339(b"2017-01-01T00:00:00.25Z"));
        assert_eq!(parse_rfc3339(b"2000-02-29T00:00:00Z"), Ok(951_782_400_000_000));
    }

    #[test]
    fn what_is_no_instant_is_refused() {
        for text in [
            "",
            "2026-01-01",
            "2026-01-01T00:00:00",
            "2026-02-29T00:00:00Z",
            "1900-02-29T00:00:00Z",
            "2026-13-01T00:00:00Z",
            "2026-00-01T00:00:00Z",
            "2026-01-00T00:00:00Z",
            "2026-01-01T24:00:00Z",
            "2026-01-01T00:60:00Z",
            "2026-01-01T12:00:60Z",
            "2026-01-01T23:59:61Z",
            "2026-01-01T00:00:00.Z",
            "2026-01-01T00:00:00.1234567890Z",
            "2026-01-01T00:00:00+24:00",
            "2026-01-01T00:00:00+0100",
            "2026-01-01T00:00:00ZZ",
            "2026-01-01X00:00:00Z",
            "２０２６-01-01T00:00:00Z",
            "+026-01-01T00:00:00Z",
        ] {
            assert_eq!(parse_rfc3339(text.as_bytes()), Err(BadInstant::Malformed), "{text}");
        }
        assert_eq!(parse_rfc3339(b"0000-12-31T23:59:59Z"), Err(BadInstant::OutOfRange));
        assert_eq!(parse_rfc3339(b"0001-01-01T00:00:00+00:01"), Err(BadInstant::OutOfRange));
        assert_eq!(parse_rfc3339(b"9999-12-31T23:59:59-00:01"), Err(BadInstant::OutOfRange));
    }
}
