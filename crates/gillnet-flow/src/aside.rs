//! Records that are not scored, and copies of late ones: as they came, with the reason in headers (I3).

use gillnet_formats::Rejected;
use gillnet_kernel::engine::Outcome;

use crate::error::Result;
use crate::frame::{with_headers, InRecord, OutRecords};
use crate::program::{Program, ASIDE};

/// Numbers of the side outputs in [`ASIDE`].
pub const MALFORMED: usize = 0;
const DUPLICATE: usize = 1;
const TOO_LATE: usize = 2;
const LATE: usize = 3;

/// A record on its way to a side output.
pub struct Aside {
    /// Its place in the chunk.
    pub place: usize,
    pub kind: usize,
    pub reason: &'static str,
    pub detail: String,
}

impl From<Rejected> for Aside {
    fn from(rejected: Rejected) -> Self {
        let (place, reason) = (rejected.index as usize, rejected.reason.code());
        Self { place, kind: MALFORMED, reason, detail: rejected.detail }
    }
}

/// Where a record of an outcome goes; none for one that is simply scored.
pub fn judged(place: usize, outcome: Outcome) -> Option<Aside> {
    let (kind, reason, detail) = match outcome {
        Outcome::Accepted => return None,
        Outcome::Duplicate => (DUPLICATE, ASIDE[DUPLICATE], "a record with this id was read before"),
        Outcome::TooLate => (TOO_LATE, ASIDE[TOO_LATE], "further behind the watermark than the allowed lateness"),
        Outcome::BeforeEarliest => (MALFORMED, "event_time_too_early", "before the stream's earliest event time"),
        Outcome::AheadOfArrival => (MALFORMED, "event_time_ahead", "too far ahead of its arrival"),
        Outcome::Late => (LATE, ASIDE[LATE], "behind the watermark, inside the allowed lateness"),
    };
    Some(Aside { place, kind, reason, detail: detail.to_owned() })
}

/// Write records to their side outputs, each output's in the order of arrival.
///
/// # Errors
/// Headers that are none.
pub fn write(
    program: &Program,
    stream: usize,
    arrival: i64,
    records: &[InRecord<'_>],
    mut aside: Vec<Aside>,
    out: &mut OutRecords,
) -> Result<()> {
    aside.sort_by_key(|record| (record.kind, record.place));
    for record in aside {
        let raw = &records[record.place];
        let (partition, arrival) = (raw.partition.to_string(), arrival.to_string());
        let offset = raw.offset.map(|offset| offset.to_string());
        let name = program.streams[stream].name.as_bytes();
        let mut why: Vec<(&str, &[u8])> = vec![
            ("gillnet.reason", record.reason.as_bytes()),
            ("gillnet.detail", record.detail.as_bytes()),
            ("gillnet.stream", name),
            ("gillnet.partition", partition.as_bytes()),
        ];
        why.extend(offset.as_ref().map(|offset| ("gillnet.offset", offset.as_bytes())));
        why.push(("gillnet.arrival_time_us", arrival.as_bytes()));
        let headers = with_headers(raw.headers, &why)?;
        out.push(program.aside(stream, record.kind), raw.key, Some(&headers), raw.value);
    }
    Ok(())
}
