//! The bounds of windows, all in microseconds of event time.
//!
//! For a reading at event time t (I1): sliding holds (t-delay-size, t-delay]; tumbling holds the part of the calendar-aligned
//! pane of t-delay that lies at or before t-delay; session holds the events of the session that is open at t-delay.
//! With delay 0 the reading event itself is the last one in, and events after it in (time, id) are out.

use serde::Deserialize;

/// Event times and durations lie within this distance of zero (36,500 years), so that sums of a few of them fit an i64.
pub const FURTHEST_US: i64 = 1 << 60;

/// A window's kind and bounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Window {
    Sliding {
        size_us: i64,
        #[serde(default)]
        delay_us: i64,
    },
    Tumbling {
        size_us: i64,
        #[serde(default)]
        delay_us: i64,
    },
    Session {
        gap_us: i64,
        max_length_us: i64,
        #[serde(default)]
        delay_us: i64,
    },
    /// Not a range but a look back for the latest event, at most `size_us` before the reading.
    Latest {
        size_us: i64,
        #[serde(default)]
        delay_us: i64,
    },
}

impl Window {
    /// How long before the reading event the window ends.
    pub fn delay_us(&self) -> i64 {
        match *self {
            Self::Sliding { delay_us, .. }
            | Self::Tumbling { delay_us, .. }
            | Self::Session { delay_us, .. }
            | Self::Latest { delay_us, .. } => delay_us,
        }
    }

    /// The window in words that never change, for fingerprints of state.
    pub fn description(&self) -> String {
        match *self {
            Self::Sliding { size_us, delay_us } => format!("window sliding {size_us} {delay_us}"),
            Self::Tumbling { size_us, delay_us } => format!("window tumbling {size_us} {delay_us}"),
            Self::Latest { size_us, delay_us } => format!("window latest {size_us} {delay_us}"),
            Self::Session { gap_us, max_length_us, delay_us } => {
                format!("window session {gap_us} {max_length_us} {delay_us}")
            }
        }
    }

    /// The earliest event time inside, for a reading at `time`. A session's depends on its events: see [`SessionChain`].
    pub fn lower_time(&self, time: i64) -> i64 {
        match *self {
            Self::Sliding { size_us, delay_us } => time - delay_us - size_us + 1,
            Self::Tumbling { size_us, delay_us } => (time - delay_us).div_euclid(size_us) * size_us,
            Self::Session { .. } | Self::Latest { .. } => i64::MIN,
        }
    }

    /// How far back of a reading its events must be kept.
    pub fn retention_us(&self) -> i64 {
        match *self {
            Self::Sliding { size_us, delay_us } | Self::Tumbling { size_us, delay_us } => size_us + delay_us,
            Self::Session { gap_us, max_length_us, delay_us } => gap_us + max_length_us + delay_us,
            // The latest event's time outlives the event: see the floors of a key.
            Self::Latest { delay_us, .. } => delay_us,
        }
    }
}

/// Where in a chain of sessions one stands: walks over the events in order and says where a new session begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionChain {
    /// Event time of the session's first event; `i64::MIN` before the first event.
    pub start: i64,
    /// Event time of its last event so far.
    pub last: i64,
}

impl Default for SessionChain {
    fn default() -> Self {
        Self { start: i64::MIN, last: i64::MIN }
    }
}

impl SessionChain {
    /// Go on to the event at `time`. True where it begins a new session: after a gap of more than `gap_us`, or when the
    /// session would last `max_length_us` or longer.
    pub fn advance(&mut self, time: i64, gap_us: i64, max_length_us: i64) -> bool {
        let fresh = self.start == i64::MIN || time - self.last > gap_us || time - self.start >= max_length_us;
        if fresh {
            self.start = time;
        }
        self.last = time;
        fresh
    }

    /// Whether the session is still open for a reading at `time`.
    pub fn open_at(&self, time: i64, gap_us: i64) -> bool {
        self.start != i64::MIN && time - self.last <= gap_us
    }
}
