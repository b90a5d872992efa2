//! One key's state.
//!
//! While a key is small it is nothing but its sorted events, and a reading folds over them: no accumulators to keep, to save
//! or to get wrong. Beyond [`PROMOTE_ROWS`] events it becomes a [`LargeKey`]: a chunked log with a cursor and accumulators for
//! each window. A reading in order of arrival then costs O(1) amortised (O(log n) for min and max); an event that arrives d
//! events behind the newest one of its key costs O(min(d, w)) for windows of w events, never O(events kept).

use super::accumulator::{end_of, load_i128, variance_float, variance_integer, Accumulator, Side};
use super::accumulator::{float_of_order_word, order_word_float, order_word_integer};
use super::layout::{AccumulatorPlan, Floor, LaneType, Layout, OutputPlan, Reading, WindowPlan};
use super::log::{moved_by_drop, moved_by_split, EventLog, Position};
use super::row;
use super::window::{SessionChain, Window};
use crate::exact::ratio_i128;

/// A key with more events than this gets cursors and accumulators.
pub const PROMOTE_ROWS: usize = 48;
/// A large key with as few events as this becomes a plain list again.
pub const DEMOTE_ROWS: usize = 16;

/// One value that was read.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Value {
    Null,
    Integer(i64),
    Decimal(i128),
    Float(f64),
    /// A code of the entity's interner.
    Text(u64),
}

/// State of one key.
#[derive(Debug)]
pub struct KeyState {
    events: Events,
    /// What dropped events leave behind: see [`Floor`]. Empty until an event is dropped.
    floors: Box<[i64]>,
}

#[derive(Debug)]
enum Events {
    Small(Vec<u64>),
    Large(Box<LargeKey>),
}

#[derive(Debug)]
struct LargeKey {
    log: EventLog,
    cursors: Box<[Cursor]>,
    accumulators: Box<[Accumulator]>,
    /// Event time of the newest event dropped because the key was over its limit; readings that reach back to it are saturated.
    saturated_until: i64,
}

/// A window's place in the log: it holds the events from `low` up to, not including, `high`.
#[derive(Debug, Clone, Copy, Default)]
struct Cursor {
    low: Position,
    high: Position,
    chain: SessionChain,
}

/// What a reading needs beside the key: the layout, accumulators to fold with, and the limit of events.
#[derive(Debug)]
pub struct Scratch {
    accumulators: Box<[Accumulator]>,
}

impl Scratch {
    /// Accumulators for folding over small keys.
    pub fn new(layout: &Layout) -> Self {
        Self { accumulators: layout.accumulators(true) }
    }
}

impl Default for KeyState {
    fn default() -> Self {
        Self { events: Events::Small(Vec::new()), floors: Box::default() }
    }
}

impl KeyState {
    /// A key from sorted rows and floors, as the codec reads them.
    pub fn from_parts(layout: &Layout, rows: Vec<u64>, floors: Box<[i64]>) -> Self {
        let mut key = Self { events: Events::Small(rows), floors };
        key.promote_if_grown(layout);
        key
    }

    /// A key as a plain list, whatever its length.
    pub(super) fn small(rows: Vec<u64>, floors: Box<[i64]>) -> Self {
        Self { events: Events::Small(rows), floors }
    }

    /// The sorted rows in one run of words.
    pub fn rows(&self) -> std::borrow::Cow<'_, [u64]> {
        match &self.events {
            Events::Small(rows) => rows.into(),
            Events::Large(large) => large.log.to_words().into(),
        }
    }

    /// What dropped events left behind; empty if none was dropped.
    pub fn floors(&self) -> &[i64] {
        &self.floors
    }

    /// Number of events.
    pub fn len(&self, layout: &Layout) -> usize {
        match &self.events {
            Events::Small(rows) => rows.len() / layout.stride(),
            Events::Large(large) => large.log.len(),
        }
    }

    /// Bytes of heap memory in use.
    pub fn heap_bytes(&self) -> usize {
        let events = match &self.events {
            Events::Small(rows) => rows.capacity() * 8,
            Events::Large(large) => {
                large.log.heap_bytes()
                    + std::mem::size_of::<LargeKey>()
                    + large.cursors.len() * std::mem::size_of::<Cursor>()
                    + large
                        .accumulators
                        .iter()
                        .map(|a| std::mem::size_of::<Accumulator>() + a.heap_bytes())
                        .sum::<usize>()
            }
        };
        events + self.floors.len() * 8
    }

    /// Insert an event and read every output as of it.
    pub fn arrive(&mut self, layout: &Layout, event: &[u64], scratch: &mut Scratch, out: &mut [Value]) {
        match &mut self.events {
            Events::Small(rows) => {
                let at = insert_small(rows, layout.stride(), event);
                read_small(layout, rows, &self.floors, row::time(event), at, at + 1, scratch, out);
            }
            Events::Large(large) => large.arrive(layout, event, &self.floors, scratch, out),
        }
        self.promote_if_grown(layout);
    }

    /// Insert an event without reading.
    pub fn insert(&mut self, layout: &Layout, event: &[u64]) {
        match &mut self.events {
            Events::Small(rows) => {
                insert_small(rows, layout.stride(), event);
            }
            Events::Large(large) => {
                let at = large.log.lower_bound(row::order_key(event));
                large.insert(layout, at, event, &self.floors);
            }
        }
        self.promote_if_grown(layout);
    }

    /// Read every output as of `time`: every event at or before it counts.
    pub fn read(&mut self, layout: &Layout, time: i64, scratch: &mut Scratch, out: &mut [Value]) {
        match &mut self.events {
            Events::Small(rows) => {
                let upto = count_until(rows, layout.stride(), time);
                read_small(layout, rows, &self.floors, time, upto, upto, scratch, out);
            }
            Events::Large(large) => large.read(layout, time, &self.floors, scratch, out),
        }
    }

    /// Whether a reading at `time` would miss events that were dropped because the key was over its limit.
    pub fn saturated(&self, lower_time: i64) -> bool {
        matches!(&self.events, Events::Large(large) if large.saturated_until >= lower_time)
    }

    /// Drop events before `horizon`, and the oldest ones beyond `limit` events. `dropped` sees each row that goes.
    pub fn prune(&mut self, layout: &Layout, horizon: i64, limit: usize, mut dropped: impl FnMut(&[u64])) {
        let stride = layout.stride();
        match &mut self.events {
            Events::Small(rows) => {
                let expired = count_until(rows, stride, horizon.saturating_sub(1));
                if expired > 0 {
                    fold_floors(layout, &mut self.floors, &rows[..expired * stride]);
                    rows[..expired * stride].chunks_exact(stride).for_each(&mut dropped);
                    rows.drain(..expired * stride);
                    if rows.capacity() > 4 * rows.len() {
                        rows.shrink_to(rows.len() + stride);
                    }
                }
            }
            Events::Large(large) => {
                loop {
                    let expired = large.log.expired(horizon);
                    let rows = expired.len() / stride;
                    if rows == 0 {
                        break;
                    }
                    fold_floors(layout, &mut self.floors, expired);
                    expired.chunks_exact(stride).for_each(&mut dropped);
                    large.drop_front(layout, rows);
                }
                while large.log.len() > limit {
                    let Some(chunk) = large.log.oldest_chunk() else { break };
                    let rows = chunk.len() / stride;
                    large.saturated_until = row::time(&chunk[chunk.len() - stride..]);
                    fold_floors(layout, &mut self.floors, chunk);
                    chunk.chunks_exact(stride).for_each(&mut dropped);
                    large.drop_front(layout, rows);
                }
                let alive = large.log.last().is_some_and(|row| row::time(row) >= horizon);
                if large.log.len() <= DEMOTE_ROWS || !alive {
                    self.events = Events::Small(large.log.to_words());
                    self.prune(layout, horizon, limit, dropped);
                }
            }
        }
    }

    /// Whether nothing of the key can matter any more for a reading at `earliest` or later.
    pub fn forgettable(&self, layout: &Layout, earliest: i64) -> bool {
        let empty = matches!(&self.events, Events::Small(rows) if rows.is_empty());
        empty
            && self.floors.iter().zip(&layout.floors).all(|(&word, floor)| match floor {
                Floor::Latest { size_us, .. } => word == i64::MIN || earliest - word > *size_us,
                Floor::SessionStart { .. } => true,
                Floor::SessionLast => true,
            })
    }

    /// The session, under window `window`, that holds the event at `time`.
    pub fn session_span(&self, layout: &Layout, window: usize, time: i64) -> Option<SessionSpan> {
        let plan = &layout.windows[window];
        let Window::Session { gap_us, max_length_us, .. } = plan.window else { return None };
        let mut chain = chain_floor(&self.floors, plan);
        let mut span: Option<SessionSpan> = None;
        for event in self.rows().chunks_exact(layout.stride()) {
            let fresh = chain.advance(row::time(event), gap_us, max_length_us);
            if fresh && span.is_some_and(|span| span.holds(time)) {
                return span;
            }
            span = Some(SessionSpan { start: chain.start, last: chain.last });
        }
        span.filter(|span| span.holds(time))
    }

    fn promote_if_grown(&mut self, layout: &Layout) {
        if let Events::Small(rows) = &self.events {
            if rows.len() > PROMOTE_ROWS * layout.stride() {
                self.events = Events::Large(Box::new(LargeKey::from_sorted(layout, rows)));
            }
        }
    }
}

/// A session: the event times of its first and its last event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionSpan {
    pub start: i64,
    pub last: i64,
}

impl SessionSpan {
    fn holds(&self, time: i64) -> bool {
        self.start <= time && time <= self.last
    }
}

fn chain_floor(floors: &[i64], plan: &WindowPlan) -> SessionChain {
    match floors.get(plan.floor..plan.floor + 2) {
        Some(&[start, last]) => SessionChain { start, last },
        _ => SessionChain::default(),
    }
}

/// Keep of dropped rows what readings may still need.
fn fold_floors(layout: &Layout, floors: &mut Box<[i64]>, rows: &[u64]) {
    if layout.floors.is_empty() {
        return;
    }
    if floors.is_empty() {
        *floors = vec![i64::MIN; layout.floors.len()].into();
    }
    for event in rows.chunks_exact(layout.stride()) {
        let time = row::time(event);
        for (i, floor) in layout.floors.iter().enumerate() {
            match *floor {
                Floor::Latest { bit, .. } if row::selected(event, bit) => floors[i] = time,
                Floor::SessionStart { gap_us, max_length_us } => {
                    let mut chain = SessionChain { start: floors[i], last: floors[i + 1] };
                    chain.advance(time, gap_us, max_length_us);
                    (floors[i], floors[i + 1]) = (chain.start, chain.last);
                }
                Floor::Latest { .. } | Floor::SessionLast => {}
            }
        }
    }
}

fn insert_small(rows: &mut Vec<u64>, stride: usize, event: &[u64]) -> usize {
    let key = row::order_key(event);
    let mut at = rows.len() / stride;
    while at > 0 && row::order_key(&rows[(at - 1) * stride..at * stride]) > key {
        at -= 1;
    }
    if rows.len() == rows.capacity() {
        // Growth by half, from one row on: most keys stay small, and there are many of them.
        rows.reserve_exact((rows.len() / stride / 2).max(1) * stride);
    }
    let (start, end) = (at * stride, rows.len());
    rows.extend_from_slice(event);
    if start < end {
        rows.copy_within(start..end, start + stride);
        rows[start..start + stride].copy_from_slice(event);
    }
    at
}

/// How many events lie at or before `time`.
fn count_until(rows: &[u64], stride: usize, time: i64) -> usize {
    let mut count = rows.len() / stride;
    if count > 64 {
        let (mut low, mut high) = (0, count);
        while low < high {
            let middle = (low + high) / 2;
            if row::time(&rows[middle * stride..]) <= time {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        return low;
    }
    while count > 0 && row::time(&rows[(count - 1) * stride..]) > time {
        count -= 1;
    }
    count
}

/// Read every output by folding over the key's events. `before` events precede the reading event, `upto` are in its reach.
#[allow(clippy::too_many_arguments)]
fn read_small(
    layout: &Layout,
    rows: &[u64],
    floors: &[i64],
    time: i64,
    before: usize,
    upto: usize,
    scratch: &mut Scratch,
    out: &mut [Value],
) {
    let stride = layout.stride();
    let accumulators = &mut scratch.accumulators;
    accumulators.iter_mut().for_each(Accumulator::clear);
    for plan in &layout.windows {
        let delay = plan.window.delay_us();
        let latest = matches!(plan.window, Window::Latest { .. });
        let high = match (delay, latest) {
            (0, true) => before,
            (0, false) => upto,
            _ => count_until(&rows[..upto * stride], stride, time - delay),
        };
        let low = match plan.window {
            Window::Session { gap_us, max_length_us, .. } => session_low_small(
                &rows[..high * stride],
                stride,
                chain_floor(floors, plan),
                time - delay,
                gap_us,
                max_length_us,
            ),
            _ => count_until(&rows[..high * stride], stride, plan.window.lower_time(time).saturating_sub(1)),
        };
        let own = &mut accumulators[plan.first..plan.first + plan.accumulators.len()];
        if latest {
            find_latest(&rows[..high * stride], stride, &plan.accumulators, own);
            continue;
        }
        for event in rows[low * stride..high * stride].chunks_exact(stride) {
            enter_all(&plan.accumulators, own, event, Side::New);
        }
    }
    for (slot, output) in out.iter_mut().zip(&layout.outputs) {
        *slot = read_output(output, accumulators, floors, time);
    }
}

/// Index of the first event of the session that is open at `time`; the number of events where none is.
fn session_low_small(rows: &[u64], stride: usize, floor: SessionChain, time: i64, gap: i64, max_length: i64) -> usize {
    let (mut chain, mut low) = (floor, 0);
    for (i, event) in rows.chunks_exact(stride).enumerate() {
        if chain.advance(row::time(event), gap, max_length) {
            low = i;
        }
    }
    if chain.open_at(time, gap) {
        low
    } else {
        rows.len() / stride
    }
}

fn find_latest(rows: &[u64], stride: usize, plans: &[AccumulatorPlan], accumulators: &mut [Accumulator]) {
    for (plan, accumulator) in plans.iter().zip(accumulators) {
        if let Some(event) = rows.rchunks_exact(stride).find(|event| row::selected(event, plan.bit)) {
            let end = end_of(event, plan.lane);
            accumulator.enter(end.time, end.word, Side::New);
        }
    }
}

#[inline]
fn enter_all(plans: &[AccumulatorPlan], accumulators: &mut [Accumulator], event: &[u64], side: Side) {
    for (plan, accumulator) in plans.iter().zip(accumulators) {
        if row::selected(event, plan.bit) {
            accumulator.enter(row::time(event), word_of(plan, event), side);
        }
    }
}

#[inline]
fn word_of(plan: &AccumulatorPlan, event: &[u64]) -> u64 {
    let word = plan.lane.map_or(0, |lane| row::lane(event, lane));
    match plan.order {
        None => word,
        Some(LaneType::Float) => order_word_float(word),
        Some(_) => order_word_integer(word),
    }
}

impl LargeKey {
    fn from_sorted(layout: &Layout, rows: &[u64]) -> Self {
        Self {
            log: EventLog::from_sorted(layout.stride(), rows),
            cursors: vec![Cursor::default(); layout.windows.len()].into(),
            accumulators: layout.accumulators(false),
            saturated_until: i64::MIN,
        }
    }

    fn arrive(&mut self, layout: &Layout, event: &[u64], floors: &[i64], scratch: &mut Scratch, out: &mut [Value]) {
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

    fn read(&mut self, layout: &Layout, time: i64, floors: &[i64], scratch: &mut Scratch, out: &mut [Value]) {
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
    fn insert(&mut self, layout: &Layout, at: Position, event: &[u64], floors: &[i64]) -> Position {
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
        if self.cursors[window].high > high || self.cursors[window].chain.start == i64::MIN {
            self.restart_session(plan, window, high, floors, gap);
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
    fn drop_front(&mut self, layout: &Layout, rows: usize) {
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

/// Read one output from the accumulators.
fn read_output(output: &OutputPlan, accumulators: &[Accumulator], floors: &[i64], time: i64) -> Value {
    use Accumulator as A;
    let number = |value: Option<f64>| value.map_or(Value::Null, Value::Float);
    let count_of = |index: usize| if let A::Count(n) = accumulators[index] { n } else { 0 };
    match output.reading {
        Reading::Count(a) => Value::Integer(count_of(a) as i64),
        Reading::IntegerSum(a) => {
            Value::Integer(integer_sum(&accumulators[a]).clamp(i64::MIN.into(), i64::MAX.into()) as i64)
        }
        Reading::DecimalSum(a) => Value::Decimal(integer_sum(&accumulators[a])),
        Reading::FloatSum(a) => match &accumulators[a] {
            A::FloatSum(sum) => Value::Float(sum.divided_by(1)),
            _ => Value::Null,
        },
        Reading::IntegerMean { sum, count, scale } => match count_of(count) {
            0 => Value::Null,
            n => Value::Float(ratio_i128(integer_sum(&accumulators[sum]), u128::from(n) * 10u128.pow(scale))),
        },
        Reading::FloatMean { sum, count } => match (count_of(count), &accumulators[sum]) {
            (0, _) => Value::Null,
            (n, A::FloatSum(sum)) => Value::Float(sum.divided_by(n)),
            _ => Value::Null,
        },
        Reading::IntegerVariance { sum, count, squares, scale, root } => match &accumulators[squares] {
            A::IntegerSquares(squares) => {
                let variance = variance_integer(count_of(count), integer_sum(&accumulators[sum]), squares, scale);
                number(variance.map(|v| if root { v.sqrt() } else { v }))
            }
            _ => Value::Null,
        },
        Reading::FloatVariance { sum, count, squares, root } => match (&accumulators[sum], &accumulators[squares]) {
            (A::FloatSum(sum), A::FloatSquares(squares)) => {
                let variance = variance_float(count_of(count), sum, squares);
                number(variance.map(|v| if root { v.sqrt() } else { v }))
            }
            _ => Value::Null,
        },
        Reading::Distinct(a) => match &accumulators[a] {
            A::Distinct(distinct) => Value::Integer(distinct.len() as i64),
            _ => Value::Null,
        },
        Reading::Entropy(a) => match &accumulators[a] {
            A::Distinct(distinct) => number(distinct.entropy()),
            _ => Value::Null,
        },
        Reading::Extreme { accumulator, greatest, lane } => match &accumulators[accumulator] {
            A::Extremes(extremes) => extremes.ends().map_or(Value::Null, |(least, most)| {
                let word = if greatest { most } else { least };
                let float = matches!(lane, LaneType::Float);
                value_of(if float { float_of_order_word(word) } else { order_word_integer(word) }, lane)
            }),
            _ => Value::Null,
        },
        Reading::End { accumulator, last, lane } => match &accumulators[accumulator] {
            A::Ends(ends) if ends.count > 0 => value_of(if last { ends.last.word } else { ends.first.word }, lane),
            _ => Value::Null,
        },
        Reading::SinceLast { accumulator, floor, size_us } => {
            let previous = match &accumulators[accumulator] {
                A::Ends(ends) if ends.count > 0 => ends.last.time,
                _ => floors.get(floor).copied().unwrap_or(i64::MIN),
            };
            if previous == i64::MIN || time - previous > size_us {
                Value::Null
            } else {
                Value::Float(ratio_i128(i128::from(time - previous), 1_000_000))
            }
        }
        Reading::MeanGap(a) => with_gaps(&accumulators[a], super::accumulator::Gaps::mean),
        Reading::StdGap(a) => with_gaps(&accumulators[a], super::accumulator::Gaps::deviation),
        Reading::ModalGapShare(a) => with_gaps(&accumulators[a], super::accumulator::Gaps::modal_share),
    }
}

fn with_gaps(accumulator: &Accumulator, read: impl Fn(&super::accumulator::Gaps) -> Option<f64>) -> Value {
    match accumulator {
        Accumulator::Gaps(gaps) => read(gaps).map_or(Value::Null, Value::Float),
        _ => Value::Null,
    }
}

fn integer_sum(accumulator: &Accumulator) -> i128 {
    if let Accumulator::IntegerSum(words) = accumulator {
        load_i128(words)
    } else {
        0
    }
}

/// A lane's word as a value.
fn value_of(word: u64, lane: LaneType) -> Value {
    match lane {
        LaneType::Integer => Value::Integer(word as i64),
        LaneType::Decimal(_) => Value::Decimal(i128::from(word as i64)),
        LaneType::Float => Value::Float(f64::from_bits(word)),
        LaneType::Text => Value::Text(word),
    }
}
