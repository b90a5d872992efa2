//! A population's recent baseline: a streaming quantile over closed sessions, by steps of event time.
//!
//! Values are counted in logarithmic bins (relative error at most 1 %, after DDSketch: Masson, Rim and Lee, VLDB 2019),
//! one histogram for each step; counts add up in any order, so the answer depends on the set of sessions only. A reading at
//! time t, under a watermark m, uses the whole steps before the one that min(t, m) lies in: nothing later than the event itself
//! (I6), and only steps whose sessions have all closed, so that the answer does not depend on when each was.

use std::collections::{BTreeMap, HashMap};

use crate::bytes::{ByteReader, ByteWriter};
use crate::error::Result;

/// Bins grow by this factor: twice the relative error of 1 %.
const GAMMA: f64 = 1.02;
/// Readings are remembered for so many steps.
const REMEMBERED: usize = 64;

/// One baseline.
#[derive(Debug)]
pub struct Baseline {
    quantile: f64,
    over_us: i64,
    step_us: i64,
    min_count: u64,
    steps: BTreeMap<i64, BTreeMap<i32, u64>>,
    readings: HashMap<i64, Option<f64>>,
}

impl Baseline {
    /// The `quantile` over the last `over_us`, in whole steps; null until `min_count` values are in it.
    pub fn new(quantile: f64, over_us: i64, step_us: i64, min_count: u64) -> Self {
        Self { quantile, over_us, step_us, min_count, steps: BTreeMap::new(), readings: HashMap::new() }
    }

    /// Count a session that closed at event time `time`. Values that are not finite or negative are left out.
    pub fn add(&mut self, time: i64, value: f64) {
        if !value.is_finite() || value < 0.0 {
            return;
        }
        *self.steps.entry(time.div_euclid(self.step_us)).or_default().entry(bin(value)).or_insert(0) += 1;
        self.readings.clear();
    }

    /// The end of the step that `time` lies in.
    pub fn step_end(&self, time: i64) -> i64 {
        (time.div_euclid(self.step_us) + 1).saturating_mul(self.step_us)
    }

    /// The baseline as of `time`: the event's own, or the watermark where that is earlier.
    pub fn read(&mut self, time: i64) -> Option<f64> {
        let step = time.div_euclid(self.step_us);
        if let Some(&known) = self.readings.get(&step) {
            return known;
        }
        if self.readings.len() >= REMEMBERED {
            self.readings.clear();
        }
        let value = self.compute(step);
        self.readings.insert(step, value);
        value
    }

    fn compute(&self, step: i64) -> Option<f64> {
        let first = step - (self.over_us / self.step_us).max(1);
        let mut merged: BTreeMap<i32, u64> = BTreeMap::new();
        for histogram in self.steps.range(first..step).map(|(_, histogram)| histogram) {
            for (&bin, &count) in histogram {
                *merged.entry(bin).or_insert(0) += count;
            }
        }
        let total: u64 = merged.values().sum();
        if total < self.min_count.max(1) {
            return None;
        }
        // The smallest value with at least that share at or below it.
        let rank = ((self.quantile * total as f64).ceil() as u64).clamp(1, total);
        let mut below = 0;
        merged.iter().find_map(|(&bin, &count)| {
            below += count;
            (below >= rank).then(|| middle(bin))
        })
    }

    /// Write the histograms; readings follow from them.
    pub fn write_state(&self, out: &mut ByteWriter) {
        out.count(self.steps.len());
        for (&step, histogram) in &self.steps {
            out.i64(step);
            out.count(histogram.len());
            for (&bin, &count) in histogram {
                out.i32(bin);
                out.u64(count);
            }
        }
    }

    /// Read what [`Self::write_state`] wrote.
    ///
    /// # Errors
    /// Bytes that are no baseline.
    pub fn read_state(&mut self, from: &mut ByteReader<'_>) -> Result<()> {
        let bins = |from: &mut ByteReader<'_>| Ok((from.i32()?, from.u64()?));
        let step = |from: &mut ByteReader<'_>| Ok((from.i64()?, from.list(bins)?.into_iter().collect()));
        self.steps = from.list(step)?.into_iter().collect();
        self.readings.clear();
        Ok(())
    }

    /// How far back a reading goes.
    pub fn over_us(&self) -> i64 {
        self.over_us
    }

    /// For each step, the time up to which it is needed where nothing before `over` after it is read, and its bins.
    pub fn steps(&self) -> impl Iterator<Item = (i64, usize)> + '_ {
        let needed = |step: i64| step.saturating_add(2).saturating_mul(self.step_us).saturating_sub(1);
        self.steps.iter().map(move |(&step, histogram)| (needed(step), histogram.len()))
    }

    /// Forget steps that no reading at `earliest` or later can use.
    pub fn forget_before(&mut self, earliest: i64) {
        let first = earliest.saturating_sub(self.over_us).div_euclid(self.step_us) - 1;
        self.steps = self.steps.split_off(&first);
    }
}

// libm and not the machine's own functions, whose last bits differ between platforms.
fn bin(value: f64) -> i32 {
    if value < 1e-9 {
        i32::MIN
    } else {
        (libm::log(value) / libm::log(GAMMA)).floor() as i32
    }
}

fn middle(bin: i32) -> f64 {
    if bin == i32::MIN {
        0.0
    } else {
        libm::pow(GAMMA, f64::from(bin)) * (1.0 + GAMMA) / 2.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_within_one_per_cent_and_only_of_the_past() {
        let mut baseline = Baseline::new(0.9, 1_000, 100, 10);
        for i in 0..1_000 {
            baseline.add(50, f64::from(i + 1));
        }
        assert_eq!(baseline.read(99), None, "the step of the event itself does not count");
        let value = baseline.read(100).expect("a thousand values");
        assert!((value / 900.0 - 1.0).abs() < 0.011, "{value}");
        assert!(baseline.read(1_050).is_some());
        assert_eq!(baseline.read(1_100), None, "over is past");
    }
}
