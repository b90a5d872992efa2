//! Watermarks: one per source partition, merged by minimum, idle partitions left out (I8).

use crate::bytes::{ByteReader, ByteWriter};
use crate::error::Result;

/// The watermark of one stream. It never goes back.
#[derive(Debug, Clone)]
pub struct Watermark {
    delay_us: i64,
    idle_after_us: i64,
    partitions: Vec<Partition>,
    current: i64,
    /// Processing time at which the stream was first waited for, while no partition of it is known.
    awaited_since: Option<i64>,
    /// No partition was ever known, for longer than `idle_after_us`.
    unheard: bool,
}

/// What is known of one source partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Partition {
    pub number: i32,
    /// Its newest event time, none of them counted beyond its arrival; [`NONE`] before its first event.
    pub newest: i64,
    /// Processing time at which it was heard last, or assigned.
    pub heard: i64,
    /// Silent for so long that the watermark does not wait for it.
    pub idle: bool,
}

/// No event was seen yet.
pub const NONE: i64 = i64::MIN;

impl Watermark {
    /// A watermark that trails the newest event of each partition by `delay_us`; a partition that was silent for
    /// `idle_after_us` of processing time does not hold it back.
    pub fn new(delay_us: i64, idle_after_us: i64) -> Self {
        Self { delay_us, idle_after_us, partitions: Vec::new(), current: NONE, awaited_since: None, unheard: false }
    }

    /// An event of `partition` at event time `time` was read at processing time `now`.
    ///
    /// A time ahead of its arrival counts as the arrival: one device whose clock is fast says nothing of what the others
    /// have still to send, and would make every honest event late.
    #[inline]
    pub fn observe(&mut self, partition: i32, time: i64, now: i64) {
        let time = time.min(now);
        let place = match self.partitions.iter().position(|p| p.number == partition) {
            Some(place) => place,
            None => {
                self.partitions.push(Partition { number: partition, newest: NONE, heard: now, idle: false });
                self.partitions.len() - 1
            }
        };
        let entry = &mut self.partitions[place];
        entry.heard = now;
        let advanced = time > entry.newest || entry.idle || self.current == NONE;
        entry.newest = entry.newest.max(time);
        entry.idle = false;
        if advanced {
            self.merge();
        }
    }

    /// Another reader says that an event of `partition` at event time `time` was the newest at processing time `at`. What is known
    /// already is no sign of life.
    pub fn hear(&mut self, partition: i32, time: i64, at: i64) {
        let known = self.partitions.iter().find(|p| p.number == partition);
        if !known.is_some_and(|p| p.heard >= at && p.newest >= time) {
            self.observe(partition, time, at);
        }
    }

    /// A partition was assigned and nothing of it was read yet: it holds the watermark until it is heard or idle.
    pub fn register(&mut self, partition: i32, now: i64) {
        if !self.partitions.iter().any(|p| p.number == partition) {
            self.partitions.push(Partition { number: partition, newest: NONE, heard: now, idle: false });
        }
    }

    /// Processing time is `now`: leave out partitions that fell silent. Whether anything is another than before.
    pub fn pass_time(&mut self, now: i64) -> bool {
        let first = self.awaited_since.is_none();
        let since = *self.awaited_since.get_or_insert(now);
        let unheard = self.partitions.is_empty() && now.saturating_sub(since) > self.idle_after_us;
        let was_unheard = std::mem::replace(&mut self.unheard, unheard);
        let mut fell_idle = false;
        for entry in &mut self.partitions {
            if !entry.idle && now.saturating_sub(entry.heard) > self.idle_after_us {
                entry.idle = true;
                fell_idle = true;
            }
        }
        if fell_idle {
            self.merge();
        }
        first || unheard != was_unheard || fell_idle
    }

    /// A run goes on at processing time `now` after it was away: nobody was silent meanwhile. Every partition holds the watermark
    /// again until it is heard or idle, so that what the first of them has to catch up with does not make the others late.
    pub fn resume(&mut self, now: i64) {
        self.awaited_since = None;
        self.unheard = false;
        for entry in &mut self.partitions {
            (entry.heard, entry.idle) = (now, false);
        }
    }

    /// The input has ended: everything has arrived.
    pub fn finish(&mut self) {
        self.current = i64::MAX;
    }

    /// The watermark in µs, or [`NONE`].
    #[inline]
    pub fn current(&self) -> i64 {
        self.current
    }

    /// Whether every partition is idle. A stream without any known partition is waited for just as long as a silent one:
    /// that it was not heard yet does not say that nothing will come.
    pub fn idle(&self) -> bool {
        if self.partitions.is_empty() {
            self.unheard
        } else {
            self.partitions.iter().all(|entry| entry.idle)
        }
    }

    /// Whether the input has ended.
    pub fn finished(&self) -> bool {
        self.current == i64::MAX
    }

    /// The partition that holds the watermark back, with its newest event time.
    pub fn slowest(&self) -> Option<(i32, i64)> {
        let live = self.partitions.iter().filter(|entry| !entry.idle);
        live.min_by_key(|entry| entry.newest).map(|entry| (entry.number, entry.newest))
    }

    /// Every partition that is known, in the order in which they became known.
    pub fn partitions(&self) -> &[Partition] {
        &self.partitions
    }

    /// Write where it stands, and what is known of each partition.
    pub fn write_state(&self, out: &mut ByteWriter) {
        out.i64(self.current);
        out.flag(self.unheard);
        out.flag(self.awaited_since.is_some());
        out.i64(self.awaited_since.unwrap_or_default());
        out.count(self.partitions.len());
        for partition in &self.partitions {
            out.i32(partition.number);
            out.i64(partition.newest);
            out.i64(partition.heard);
            out.flag(partition.idle);
        }
    }

    /// Read what [`Self::write_state`] wrote.
    ///
    /// # Errors
    /// Bytes that are no watermark.
    pub fn read_state(&mut self, from: &mut ByteReader<'_>) -> Result<()> {
        (self.current, self.unheard) = (from.i64()?, from.flag()?);
        let (awaited, since) = (from.flag()?, from.i64()?);
        self.awaited_since = awaited.then_some(since);
        self.partitions = from.list(|from| {
            Ok(Partition { number: from.i32()?, newest: from.i64()?, heard: from.i64()?, idle: from.flag()? })
        })?;
        Ok(())
    }

    fn merge(&mut self) {
        // With every partition idle the watermark stays: there is nothing it could wait for or run ahead of.
        if let Some((_, newest)) = self.slowest() {
            self.current = self.current.max(newest.saturating_sub(self.delay_us));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_a_pause_of_the_run_no_partition_counts_as_silent() {
        let mut watermark = Watermark::new(0, 10);
        watermark.observe(1, 90, 100);
        watermark.observe(0, 100, 100);
        watermark.pass_time(120);
        watermark.resume(5_000);
        watermark.pass_time(5_001);
        watermark.observe(0, 4_000, 5_002);
        assert_eq!(watermark.current(), 90);
        watermark.pass_time(5_011);
        assert_eq!((watermark.idle(), watermark.current()), (false, 4_000));
    }

    #[test]
    fn the_slowest_partition_holds_it_back_until_it_is_idle() {
        let mut mark = Watermark::new(5, 100);
        assert_eq!(mark.current(), NONE);
        mark.observe(0, 1_000, 10_000);
        assert_eq!(mark.current(), 995);
        mark.observe(1, 2_000, 10_050);
        mark.observe(0, 900, 10_060);
        assert_eq!(mark.current(), 995);
        mark.pass_time(10_155);
        assert_eq!(mark.current(), 995, "partition 1 is idle, partition 0 is not");
        mark.observe(1, 2_100, 10_156);
        mark.pass_time(10_161);
        assert_eq!(mark.current(), 2_095);
        mark.observe(0, 1_500, 10_162);
        assert_eq!(mark.current(), 2_095, "it never goes back");
    }

    #[test]
    fn a_time_ahead_of_its_arrival_counts_as_the_arrival() {
        let mut mark = Watermark::new(5, 100);
        mark.observe(0, 5_000, 1_000);
        assert_eq!(mark.current(), 995);
        mark.observe(0, 1_010, 1_020);
        assert_eq!(mark.current(), 1_005, "the fast clock has not moved the newest event beyond the first arrival");
        assert_eq!(mark.partitions(), [Partition { number: 0, newest: 1_010, heard: 1_020, idle: false }]);
    }

    #[test]
    fn what_is_told_again_does_not_wake_a_partition() {
        let mut mark = Watermark::new(5, 100);
        mark.hear(0, 900, 1_000);
        mark.hear(1, 2_000, 2_000);
        assert_eq!(mark.current(), 895);
        mark.pass_time(1_500);
        mark.hear(0, 900, 1_000);
        mark.hear(1, 2_100, 2_200);
        assert_eq!(mark.current(), 2_095, "partition 0 is idle still");
        mark.hear(0, 901, 2_201);
        assert!(!mark.partitions()[0].idle);
    }

    #[test]
    fn a_partition_that_was_never_heard_counts_until_it_is_idle() {
        let mut mark = Watermark::new(5, 100);
        mark.register(0, 1_000);
        mark.register(1, 1_000);
        mark.observe(0, 1_000, 1_010);
        assert_eq!(mark.current(), NONE);
        mark.pass_time(1_101);
        assert_eq!(mark.current(), 995);
    }

    #[test]
    fn a_stream_that_was_never_heard_is_idle_only_after_a_while() {
        let mut mark = Watermark::new(5, 100);
        assert!(!mark.idle());
        mark.pass_time(1_000);
        mark.pass_time(1_100);
        assert!(!mark.idle());
        mark.pass_time(1_101);
        assert!(mark.idle());
        mark.register(0, 1_102);
        assert!(!mark.idle(), "a partition was assigned: it is waited for");
        mark.pass_time(1_203);
        assert!(mark.idle() && mark.current() == NONE);
        mark.observe(0, 7, 1_204);
        assert!(!mark.idle() && mark.current() == 2);
    }
}
