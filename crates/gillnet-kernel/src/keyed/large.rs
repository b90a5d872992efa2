//! A key that has grown: its log in chunks, and for each window a cursor with accumulators that slides both ways.

use super::accumulator::{end_of, Accumulator, Side};
use super::layout::{Layout, Reading, WindowPlan};
use super::log::{moved_by_drop, moved_by_split, EventLog, Position};
use super::reading::{chain_floor, enter_all, read_output, word_of, Scratch, Value};
use super::row::{self, OrderKey};
use super::window::{SessionChain, Window};

#[derive(Debug)]
pub struct LargeKey {
    pub(super) log: EventLog,
    pub(super) cursors: Box<[Cursor]>,
    pub(super) accumulators: Box<[Accumulator]>,
}

/// A window's place in the log: it holds the events from `low` up to, not including, `high`.
#[derive(Debug, Clone, Copy, Default)]
pub struct Cursor {
    low: Position,
    high: Position,
    chain: SessionChain,
}
impl LargeKey {
    pub fn from_sorted(layout: &Layout, rows: &[u64]) -> Self {
        Self::over(layout, EventLog::from_sorted(layout.stride(), rows))
    }

    pub fn over(layout: &Layout, log: EventLog) -> Self {
        Self {
            log,
            cursors: vec![Cursor::default(); layout.windows.len()].into(),
            accumulators: layout.accumulators(false),
        }
    }

    /// Touch the newest event and the oldest one of each window.
    pub fn warm(&self) -> u64 {
        let newest = self.log.last().map_or(0, |row| row[0]);
        self.cursors
            .iter()
            .filter(|cursor| cursor.low < cursor.high)
            .fold(newest, |all, cursor| all ^ self.log.row(cursor.low)[0])
    }

    /// Whether events lie after the place where `event` belongs.
    pub fn is_before_others(&self, event: &[u64]) -> bool {
        self.log.last().is_some_and(|last| row::order_key(last) > row::order_key(event))
    }

    pub fn arrive(&mut self, layout: &Layout, event: &[u64], floors: &[i64], scratch: &mut Scratch, out: &mut [Value]) {
        let time = row::time(event);
        let at = self.log.lower_bound(row::order_key(event));
        for window in 0..layout.windows.len() {
            self.seek(layout, window, time, at, floors);
        }
        self.read_where(layout, time, floors, true, scratch, out);
        let at = self.insert(layout, at, event, floors);
        let after = self.log.next(at);
        for (window, plan) in layout.windows.iter().enumerate() {
            if plan.window.delay_us() == 0 && !matches!(plan.window, Window::Latest { .. }) {
                self.seek(layout, window, time, after, floors);
            }
        }
        self.read_where(layout, time, floors, false, scratch, out);
    }

    /// Read as of the event at `order`, as [`Self::arrive`] did, over all that is known now.
    pub fn read_event(
        &mut self,
        layout: &Layout,
        order: OrderKey,
        floors: &[i64],
        scratch: &mut Scratch,
        out: &mut [Value],
    ) {
        let (time, at) = (order.0, self.log.lower_bound(order));
        for (window, plan) in layout.windows.iter().enumerate() {
            if plan.window.delay_us() != 0 || matches!(plan.window, Window::Latest { .. }) {
                self.seek(layout, window, time, at, floors);
            }
        }
        self.read_where(layout, time, floors, true, scratch, out);
        let held = at != self.log.end() && row::order_key(self.log.row(at)) == order;
        let after = if held { self.log.next(at) } else { at };
        for (window, plan) in layout.windows.iter().enumerate() {
            if plan.window.delay_us() == 0 && !matches!(plan.window, Window::Latest { .. }) {
                self.seek(layout, window, time, after, floors);
            }
        }
        self.read_where(layout, time, floors, false, scratch, out);
    }

    pub fn read(&mut self, layout: &Layout, time: i64, floors: &[i64], scratch: &mut Scratch, out: &mut [Value]) {
        let upto = self.log.first_at_or_after(time.saturating_add(1));
        for window in 0..layout.windows.len() {
            self.seek(layout, window, time, upto, floors);
        }
        self.read_where(layout, time, floors, true, scratch, out);
        self.read_where(layout, time, floors, false, scratch, out);
    }

    /// Readings of the latest event before come first, while the event itself is not in.
    fn read_where(
        &self,
        layout: &Layout,
        time: i64,
        floors: &[i64],
        latest: bool,
        scratch: &mut Scratch,
        out: &mut [Value],
    ) {
        for (slot, output) in out.iter_mut().zip(&layout.outputs) {
            if matches!(output.reading, Reading::SinceLast { .. }) == latest {
                let plan = &layout.windows[output.window];
                *slot = if self.session_over(plan, output.window, time) {
                    // No session is open: the window holds nothing.
                    scratch.accumulators.iter_mut().for_each(Accumulator::clear);
                    read_output(output, &scratch.accumulators, floors, time)
                } else {
                    read_output(output, &self.accumulators, floors, time)
                };
            }
        }
    }

    /// Whether the session under a session window's cursor is no longer open at the reading.
    fn session_over(&self, plan: &WindowPlan, window: usize, time: i64) -> bool {
        match plan.window {
            Window::Session { gap_us, delay_us, .. } => !self.cursors[window].chain.open_at(time - delay_us, gap_us),
            _ => false,
        }
    }

    /// Insert before `at`. Cursors keep their events: those behind the insertion move, those at it stay before it.
    pub fn insert(&mut self, layout: &Layout, at: Position, event: &[u64], floors: &[i64]) -> Position {
        // A cursor that has passed the place would miss the event: bring it back first.
        for window in 0..layout.windows.len() {
            if self.cursors[window].high > at {
                self.retreat(layout, window, at, floors);
            }
        }
        let inserted = self.log.insert(at, event);
        if let Some(split) = inserted.split {
            for cursor in &mut self.cursors {
                cursor.low = moved_by_split(cursor.low, split);
                cursor.high = moved_by_split(cursor.high, split);
            }
        }
        inserted.at
    }

    /// Move a window to the reading at `time` whose event stands at `upto`.
    fn seek(&mut self, layout: &Layout, window: usize, time: i64, upto: Position, floors: &[i64]) {
        let plan = &layout.windows[window];
        let delay = plan.window.delay_us();
        let high = if delay == 0 { upto } else { self.log.first_at_or_after(time - delay + 1).min(upto) };
        if let Window::Session { gap_us, max_length_us, .. } = plan.window {
            return self.seek_session(plan, window, high, floors, gap_us, max_length_us);
        }
        let lower = plan.window.lower_time(time);
        let cursor = self.cursors[window];
        let jump = cursor.high > cursor.low && row::time(self.log.row(self.log.previous(cursor.high))) < lower;
        if high <= cursor.low || jump || cursor.low == cursor.high {
            // Nothing in common with where it stands: start afresh at the new place.
            self.restart(plan, window, high, lower);
            return;
        }
        while self.cursors[window].high < high {
            self.step_high_up(plan, window);
        }
        while self.cursors[window].high > high {
            self.step_high_down(plan, window);
        }
        while self.low_time(window).is_some_and(|time| time < lower) {
            self.step_low_up(plan, window);
        }
        while self.time_before_low(window).is_some_and(|time| time >= lower) {
            self.step_low_down(plan, window);
        }
    }

    /// Empty the window and fill it anew with the events from `lower` on, up to `high`.
    fn restart(&mut self, plan: &WindowPlan, window: usize, high: Position, lower: i64) {
        self.clear(plan);
        let low = if lower == i64::MIN { self.log.begin() } else { self.log.first_at_or_after(lower).min(high) };
        self.cursors[window] = Cursor { low, high: low, chain: SessionChain::default() };
        while self.cursors[window].high < high {
            self.step_high_up(plan, window);
        }
    }

    fn seek_session(&mut self, plan: &WindowPlan, window: usize, high: Position, floors: &[i64], gap: i64, max: i64) {
        let cursor = self.cursors[window];
        if cursor.chain.start == i64::MIN || (cursor.high > high && cursor.low >= high) {
            self.restart_session(plan, window, high, floors, gap);
        }
        // Back inside the session: its start stands, since nothing at or before its first event has changed.
        while self.cursors[window].high > high {
            self.step_high_down(plan, window);
            let before = self.log.previous(self.cursors[window].high);
            self.cursors[window].chain.last = row::time(self.log.row(before));
        }
        while self.cursors[window].high < high {
            let time = row::time(self.log.row(self.cursors[window].high));
            if self.cursors[window].chain.advance(time, gap, max) {
                self.clear(plan);
                self.cursors[window].low = self.cursors[window].high;
            }
            self.step_high_up(plan, window);
        }
    }

    /// Stand at the beginning of the session chain that reaches `high`: back to the last gap before it.
    fn restart_session(&mut self, plan: &WindowPlan, window: usize, high: Position, floors: &[i64], gap: i64) {
        let mut low = high;
        let mut chain = SessionChain::default();
        loop {
            if low == self.log.begin() {
                chain = chain_floor(floors, plan);
                break;
            }
            let previous = self.log.previous(low);
            if low != high && row::time(self.log.row(low)) - row::time(self.log.row(previous)) > gap {
                break;
            }
            low = previous;
        }
        self.clear(plan);
        self.cursors[window] = Cursor { low, high: low, chain };
    }

    /// Take a window back so that it ends at `at` or before.
    fn retreat(&mut self, layout: &Layout, window: usize, at: Position, floors: &[i64]) {
        let plan = &layout.windows[window];
        if let Window::Session { gap_us, max_length_us, .. } = plan.window {
            return self.seek_session(plan, window, at, floors, gap_us, max_length_us);
        }
        if self.cursors[window].low >= at {
            self.clear(plan);
            self.cursors[window].low = at;
            self.cursors[window].high = at;
            return;
        }
        while self.cursors[window].high > at {
            self.step_high_down(plan, window);
        }
    }

    /// Drop the oldest `rows` events, all in the oldest chunk; windows that still hold some of them let them go first.
    pub fn drop_front(&mut self, layout: &Layout, rows: usize) {
        let mut kept = self.log.begin();
        kept.index = rows as u32;
        let kept = self.log.normal(kept);
        for (window, plan) in layout.windows.iter().enumerate() {
            if self.cursors[window].high < kept {
                self.clear(plan);
                self.cursors[window] = Cursor { low: kept, high: kept, chain: SessionChain::default() };
            }
            while self.cursors[window].low < kept {
                self.step_low_up(plan, window);
            }
        }
        let chunk_gone = self.log.drop_front(rows);
        for cursor in &mut self.cursors {
            cursor.low = moved_by_drop(cursor.low, rows, chunk_gone);
            cursor.high = moved_by_drop(cursor.high, rows, chunk_gone);
        }
    }

    fn clear(&mut self, plan: &WindowPlan) {
        self.accumulators[plan.first..plan.first + plan.accumulators.len()].iter_mut().for_each(Accumulator::clear);
    }

    fn low_time(&self, window: usize) -> Option<i64> {
        let cursor = &self.cursors[window];
        (cursor.low < cursor.high).then(|| row::time(self.log.row(cursor.low)))
    }

    fn time_before_low(&self, window: usize) -> Option<i64> {
        let low = self.cursors[window].low;
        (low > self.log.begin()).then(|| row::time(self.log.row(self.log.previous(low))))
    }

    fn step_high_up(&mut self, plan: &WindowPlan, window: usize) {
        let cursor = &mut self.cursors[window];
        let own = &mut self.accumulators[plan.first..plan.first + plan.accumulators.len()];
        enter_all(&plan.accumulators, own, self.log.row(cursor.high), Side::New);
        cursor.high = self.log.next(cursor.high);
    }

    fn step_low_down(&mut self, plan: &WindowPlan, window: usize) {
        let cursor = &mut self.cursors[window];
        cursor.low = self.log.previous(cursor.low);
        let own = &mut self.accumulators[plan.first..plan.first + plan.accumulators.len()];
        enter_all(&plan.accumulators, own, self.log.row(cursor.low), Side::Old);
    }

    fn step_low_up(&mut self, plan: &WindowPlan, window: usize) {
        let leaving = self.cursors[window].low;
        self.cursors[window].low = self.log.next(leaving);
        let (low, high) = (self.cursors[window].low, self.cursors[window].high);
        let log = &self.log;
        let own = &mut self.accumulators[plan.first..plan.first + plan.accumulators.len()];
        for (plan, accumulator) in plan.accumulators.iter().zip(own) {
            let event = log.row(leaving);
            if row::selected(event, plan.bit) {
                let mut neighbour = || {
                    let mut at = low;
                    while at < high && !row::selected(log.row(at), plan.bit) {
                        at = log.next(at);
                    }
                    (at < high).then(|| end_of(log.row(at), plan.lane))
                };
                accumulator.leave(row::time(event), word_of(plan, event), Side::Old, &mut neighbour);
            }
        }
    }

    fn step_high_down(&mut self, plan: &WindowPlan, window: usize) {
        let leaving = self.log.previous(self.cursors[window].high);
        self.cursors[window].high = leaving;
        let low = self.cursors[window].low;
        let log = &self.log;
        let own = &mut self.accumulators[plan.first..plan.first + plan.accumulators.len()];
        for (plan, accumulator) in plan.accumulators.iter().zip(own) {
            let event = log.row(leaving);
            if row::selected(event, plan.bit) {
                let mut neighbour = || {
                    let mut at = leaving;
                    while at > low {
                        at = log.previous(at);
                        if row::selected(log.row(at), plan.bit) {
                            return Some(end_of(log.row(at), plan.lane));
                        }
                    }
                    None
                };
                accumulator.leave(row::time(event), word_of(plan, event), Side::New, &mut neighbour);
            }
        }
    }
}
