//! Parts of a timestamp, in UTC and the proleptic Gregorian calendar, by integer arithmetic on microseconds.

use arrow::datatypes::{DataType, Int64Type, TimestampMicrosecondType};

use super::build::{refused, Typed};
use super::numeric::total1;
use super::types::ValueType;
use crate::Result;

const SECOND_US: i64 = 1_000_000;
const MINUTE_US: i64 = 60 * SECOND_US;
const HOUR_US: i64 = 60 * MINUTE_US;
const DAY_US: i64 = 24 * HOUR_US;

pub fn part(name: &str, mut arguments: Vec<Typed>) -> Result<Typed> {
    let f: fn(i64) -> i64 = match name {
        "year" => |us| date(us).0,
        "month" => |us| date(us).1,
        "day" => |us| date(us).2,
        // 1970-01-01 was a Thursday, and Monday is 1.
        "weekday" => |us| (us.div_euclid(DAY_US) + 3).rem_euclid(7) + 1,
        "hour" => |us| us.rem_euclid(DAY_US) / HOUR_US,
        "minute" => |us| us.rem_euclid(HOUR_US) / MINUTE_US,
        "second" => |us| us.rem_euclid(MINUTE_US) / SECOND_US,
        _ => return refused(format!("unknown function {name:?}")),
    };
    integer_of_time(f, arguments.remove(0).expect(ValueType::Timestamp, name)?)
}

/// `epoch(ts, unit)`: whole units since 1970, rounded down.
pub fn epoch(name: &str, mut arguments: Vec<Typed>) -> Result<Typed> {
    let f: fn(i64) -> i64 = match arguments[1].literal_text(name)? {
        "us" => |us| us,
        "ms" => |us| us.div_euclid(1_000),
        "s" => |us| us.div_euclid(SECOND_US),
        unit => return refused(format!("epoch takes 's', 'ms' or 'us', not {unit:?}")),
    };
    integer_of_time(f, arguments.swap_remove(0).expect(ValueType::Timestamp, name)?)
}

fn integer_of_time(f: fn(i64) -> i64, argument: Typed) -> Result<Typed> {
    Typed::call1(total1::<TimestampMicrosecondType, Int64Type>(f, DataType::Int64), argument, ValueType::Int64)
}

/// Year, month and day of an instant.
///
/// Years are counted from March, so that the leap day is the last of its year; 400 years are 146,097 days.
/// H. Hinnant, *chrono-Compatible Low-Level Date Algorithms*, `civil_from_days`.
fn date(us: i64) -> (i64, i64, i64) {
    let days = us.div_euclid(DAY_US) + 719_468;
    let (era, day_of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    (era * 400 + year_of_era + i64::from(month <= 2), month, day)
}
