//! The bounds of an interval join: a pair has `right.time` in `[left.time + lower, left.time + upper]`, both included.

/// A side of a join.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    Left = 0,
    Right = 1,
}

impl Side {
    pub const BOTH: [Self; 2] = [Self::Left, Self::Right];

    /// The side that it is joined with.
    pub fn other(self) -> Self {
        match self {
            Self::Left => Self::Right,
            Self::Right => Self::Left,
        }
    }
}

/// How far from a left event its right partners lie, in µs; `lower` is at most `upper`, and either may be negative.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    pub lower: i64,
    pub upper: i64,
}

impl Bounds {
    /// First and last event time at which an event of the other side is a partner of one of `side` at `time`.
    #[inline]
    pub fn reach(&self, side: Side, time: i64) -> (i64, i64) {
        match side {
            Side::Left => (time.saturating_add(self.lower), time.saturating_add(self.upper)),
            Side::Right => (time.saturating_sub(self.upper), time.saturating_sub(self.lower)),
        }
    }

    /// How far from an event its partners lie at the most.
    pub fn reach_us(&self) -> i64 {
        self.lower.saturating_abs().max(self.upper.saturating_abs())
    }

    /// Before which event time an event of `side` has no partner at `mark` or later; `i64::MIN` where nothing is known.
    pub fn horizon(&self, side: Side, mark: i64) -> i64 {
        match (side, mark) {
            (_, i64::MIN) => i64::MIN,
            (Side::Left, _) => mark.saturating_sub(self.upper),
            (Side::Right, _) => mark.saturating_add(self.lower),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_sides_agree_on_who_is_a_partner() {
        for (lower, upper) in [(-10, 0), (0, 10), (-3, 4), (2, 5), (-5, -2), (0, 0)] {
            let bounds = Bounds { lower, upper };
            for left in -20..20 {
                for right in -20..20 {
                    let within = |(first, last): (i64, i64), time| (first..=last).contains(&time);
                    let pair = right - left >= lower && right - left <= upper;
                    assert_eq!(within(bounds.reach(Side::Left, left), right), pair);
                    assert_eq!(within(bounds.reach(Side::Right, right), left), pair);
                }
            }
        }
    }

    #[test]
    fn the_horizon_is_the_first_time_that_still_has_a_partner() {
        let bounds = Bounds { lower: -3, upper: 4 };
        for side in Side::BOTH {
            let horizon = bounds.horizon(side, 100);
            assert!(bounds.reach(side, horizon).1 >= 100 && bounds.reach(side, horizon - 1).1 < 100);
            assert_eq!(bounds.horizon(side, i64::MIN), i64::MIN);
        }
    }
}
