//! One key's state.
//!
//! While a key is small it is nothing but its sorted events, and a reading folds over them: no accumulators to keep, to save
//! or to get wrong. Beyond [`PROMOTE_ROWS`] events it becomes a [`LargeKey`]: a chunked log with a cursor and accumulators for
//! each window. A reading in order of arrival then costs O(1) amortised (O(log n) for min and max); an event that arrives d
//! events behind the newest one of its key costs O(min(d, w)) for windows of w events, never O(events kept).

mod sizes;

use super::accumulator::{end_of, Accumulator, Side};
use super::large::{Cursor, LargeKey};
use super::layout::{AccumulatorPlan, Floor, Layout};
use super::log::{EventLog, CHUNK_ROWS};
use super::reading::{chain_floor, enter_all, read_output};
pub use super::reading::{Scratch, Value};
use super::row::{self, OrderKey};
use super::window::{SessionChain, Window};

/// A key with more events than this gets cursors and accumulators.
pub const PROMOTE_ROWS: usize = 48;
/// A large key with as few events as this becomes a plain list again.
pub const DEMOTE_ROWS: usize = 16;
/// State of one key.
#[derive(Debug)]
pub struct KeyState {
    events: Events,
    /// What dropped events leave behind: see [`Floor`]; then, of a key that was over its limit, the event time of the newest
    /// event that went for it. Empty while nothing of it can matter.
    floors: Box<[i64]>,
}

#[derive(Debug)]
enum Events {
    Small(Vec<u64>),
    Large(Box<LargeKey>),
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

    /// A key from sorted rows in chunks of these lengths; a plain list where there are none.
    pub(super) fn from_chunks(layout: &Layout, rows: Vec<u64>, floors: Box<[i64]>, lengths: &[u16]) -> Self {
        if lengths.is_empty() {
            return Self::small(rows, floors);
        }
        let log = EventLog::from_chunks(layout.stride(), &rows, lengths);
        Self { events: Events::Large(Box::new(LargeKey::over(layout, log))), floors }
    }

    /// Number of events in each chunk; none of a plain list.
    pub(super) fn chunk_lengths(&self) -> Vec<u16> {
        match &self.events {
            Events::Small(_) => Vec::new(),
            Events::Large(large) => large.log.chunk_lengths().collect(),
        }
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

    /// Touch the events that an arrival looks at first: see [`super::store::KeyedStore::warm`].
    #[inline]
    pub fn warm(&self) -> u64 {
        match &self.events {
            Events::Small(rows) => rows.first().copied().unwrap_or(0) ^ rows.last().copied().unwrap_or(0),
            Events::Large(large) => large.warm(),
        }
    }

    /// Insert an event and read every output as of it. True if events of the key lie behind it: their readings may change.
    pub fn arrive(&mut self, layout: &Layout, event: &[u64], scratch: &mut Scratch, out: &mut [Value]) -> bool {
        let before_others = match &mut self.events {
            Events::Small(rows) => {
                let at = insert_small(rows, layout.stride(), event);
                read_small(layout, rows, &self.floors, row::time(event), at, at + 1, scratch, out);
                (at + 1) * layout.stride() < rows.len()
            }
            Events::Large(large) => {
                let before_others = large.is_before_others(event);
                large.arrive(layout, event, &self.floors, scratch, out);
                before_others
            }
        };
        self.promote_if_grown(layout);
        before_others
    }

    /// Insert an event without reading. True if events of the key lie behind it.
    pub fn insert(&mut self, layout: &Layout, event: &[u64]) -> bool {
        let before_others = match &mut self.events {
            Events::Small(rows) => (insert_small(rows, layout.stride(), event) + 1) * layout.stride() < rows.len(),
            Events::Large(large) => {
                let before_others = large.is_before_others(event);
                let at = large.log.lower_bound(row::order_key(event));
                large.insert(layout, at, event, &self.floors);
                before_others
            }
        };
        self.promote_if_grown(layout);
        before_others
    }

    /// Read every output as of the event at `order`, which the key holds: as at its arrival, over all that is known now.
    pub fn read_event(&mut self, layout: &Layout, order: OrderKey, scratch: &mut Scratch, out: &mut [Value]) {
        match &mut self.events {
            Events::Small(rows) => {
                let at = count_before(rows, layout.stride(), order);
                read_small(layout, rows, &self.floors, order.0, at, at + 1, scratch, out);
            }
            Events::Large(large) => large.read_event(layout, order, &self.floors, scratch, out),
        }
    }

    /// Places in the order of I1 of the events after `after`, up to event time `until`.
    pub fn orders_after(&self, layout: &Layout, after: OrderKey, until: i64) -> Vec<OrderKey> {
        match &self.events {
            Events::Small(rows) => {
                let orders = rows.chunks_exact(layout.stride()).map(row::order_key);
                orders.skip_while(|&order| order <= after).take_while(|order| order.0 <= until).collect()
            }
            Events::Large(large) => large.log.orders_after(after, until),
        }
    }

    /// Event time of the last event of the run, without a gap longer than `gap`, that begins at the first event at or after
    /// `time`; `time` itself where there is none within `gap`.
    pub fn run_end(&self, layout: &Layout, time: i64, gap: i64) -> i64 {
        let mut last = time;
        for (next, _) in self.orders_after(layout, (time - 1, u128::MAX), i64::MAX) {
            if next - last > gap {
                break;
            }
            last = next;
        }
        last
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

    /// Whether a reading back to `lower_time` would miss events that were dropped because the key was over its limit.
    #[inline]
    pub fn saturated(&self, layout: &Layout, lower_time: i64) -> bool {
        self.floors.get(layout.floors.len()).is_some_and(|&until| until >= lower_time)
    }

    /// Whether the key holds more than `limit` events.
    #[inline]
    pub fn exceeds(&self, layout: &Layout, limit: usize) -> bool {
        match &self.events {
            Events::Small(rows) => rows.len() > limit.saturating_mul(layout.stride()),
            Events::Large(large) => large.log.len() > limit,
        }
    }

    /// Drop events before `horizon`. `dropped` sees each row that goes.
    pub fn prune(&mut self, layout: &Layout, horizon: i64, mut dropped: impl FnMut(&[u64])) {
        let stride = layout.stride();
        match &mut self.events {
            Events::Small(rows) => {
                let expired = count_until(rows, stride, horizon.saturating_sub(1));
                drop_small(layout, rows, &mut self.floors, expired, &mut dropped);
            }
            Events::Large(large) => {
                loop {
                    let rows = large.log.expired(horizon).len() / stride;
                    if rows == 0 {
                        break;
                    }
                    drop_large(layout, large, &mut self.floors, rows, &mut dropped);
                }
                let alive = large.log.last().is_some_and(|row| row::time(row) >= horizon);
                if large.log.len() <= DEMOTE_ROWS || !alive {
                    self.events = Events::Small(large.log.to_words());
                    return self.prune(layout, horizon, dropped);
                }
            }
        }
        self.settle_floors(layout, horizon);
    }

    /// Drop the oldest events beyond `limit`; some more of a large key, so that not every event moves those that stay.
    pub fn trim(&mut self, layout: &Layout, limit: usize, mut dropped: impl FnMut(&[u64])) {
        let stride = layout.stride();
        let excess = self.len(layout).saturating_sub(limit);
        if excess == 0 {
            return;
        }
        let newest_gone = match &mut self.events {
            Events::Small(rows) => {
                let newest = row::time(&rows[(excess - 1) * stride..]);
                drop_small(layout, rows, &mut self.floors, excess, &mut dropped);
                newest
            }
            Events::Large(large) => {
                let target = limit - (limit / 8).min(CHUNK_ROWS);
                let mut newest = i64::MIN;
                while large.log.len() > target {
                    let rows = (large.log.len() - target).min(large.log.oldest_chunk().len() / stride);
                    newest = row::time(&large.log.oldest_chunk()[(rows - 1) * stride..]);
                    drop_large(layout, large, &mut self.floors, rows, &mut dropped);
                }
                if large.log.len() <= DEMOTE_ROWS {
                    self.events = Events::Small(large.log.to_words());
                }
                newest
            }
        };
        let own = layout.floors.len();
        if self.floors.len() <= own {
            let mut floors = std::mem::take(&mut self.floors).into_vec();
            floors.resize(own + 1, i64::MIN);
            self.floors = floors.into();
        }
        self.floors[own] = self.floors[own].max(newest_gone);
    }

    /// Forget floors that no reading can need any more, so that they do not depend on when events were dropped.
    fn settle_floors(&mut self, layout: &Layout, horizon: i64) {
        if self.floors.is_empty() {
            return;
        }
        let reach = horizon.saturating_add(layout.retention_us());
        let first = self.first_time();
        for (i, floor) in layout.floors.iter().enumerate() {
            match *floor {
                Floor::Latest { size_us, .. } if reach.saturating_sub(self.floors[i]) > size_us => {
                    self.floors[i] = i64::MIN;
                }
                // What may still arrive lies more than a gap after the last dropped event: see `Window::retention_us`.
                Floor::SessionStart { gap_us, .. }
                    if first.is_none_or(|first| first.saturating_sub(self.floors[i + 1]) > gap_us) =>
                {
                    (self.floors[i], self.floors[i + 1]) = (i64::MIN, i64::MIN);
                }
                _ => {}
            }
        }
        let own = layout.floors.len();
        if self.floors.get(own).is_some_and(|&saturated_until| saturated_until < horizon) {
            self.floors = self.floors[..own].into();
        }
        if self.floors.iter().all(|&word| word == i64::MIN) {
            self.floors = Box::default();
        }
    }

    /// Event time of the newest event that is kept.
    pub fn last_time(&self, layout: &Layout) -> Option<i64> {
        match &self.events {
            Events::Small(rows) => rows.chunks_exact(layout.stride()).next_back().map(row::time),
            Events::Large(large) => large.log.last().map(row::time),
        }
    }

    fn first_time(&self) -> Option<i64> {
        match &self.events {
            Events::Small(rows) => rows.first().map(|_| row::time(rows)),
            Events::Large(large) => large.log.first().map(row::time),
        }
    }

    /// Whether nothing of the key can matter any more: no event is left, and no floor.
    pub fn forgettable(&self) -> bool {
        self.floors.is_empty() && matches!(&self.events, Events::Small(rows) if rows.is_empty())
    }

    /// The sessions, under window `window`, of the run of events without a longer gap that the event at `anchor` stands in
    /// (or the next event, if that one was dropped). None if no event is left there.
    pub fn session_run(&self, layout: &Layout, window: usize, anchor: i64) -> Option<Vec<SessionSpan>> {
        let plan = &layout.windows[window];
        let Window::Session { gap_us, max_length_us, .. } = plan.window else { return None };
        let (whole, times) = self.run_times(layout, anchor, gap_us)?;
        let mut chain = if whole { chain_floor(&self.floors, plan) } else { SessionChain::default() };
        let mut sessions: Vec<SessionSpan> = Vec::new();
        for time in times {
            let fresh = chain.advance(time, gap_us, max_length_us);
            match sessions.last_mut() {
                Some(span) if !fresh => span.last = time,
                _ => sessions.push(SessionSpan { start: chain.start, last: time }),
            }
        }
        Some(sessions)
    }

    /// Event times of the run around `anchor`, and whether it begins with the first event that is kept.
    fn run_times(&self, layout: &Layout, anchor: i64, gap: i64) -> Option<(bool, Vec<i64>)> {
        match &self.events {
            Events::Large(large) => large.log.run_times(anchor, gap),
            Events::Small(rows) => {
                let times: Vec<i64> = rows.chunks_exact(layout.stride()).map(row::time).collect();
                let at = times.partition_point(|&time| time < anchor);
                if at == times.len() {
                    return None;
                }
                let parted = |pair: &[i64]| pair[1] - pair[0] > gap;
                let low = times[..=at].windows(2).rposition(parted).map_or(0, |i| i + 1);
                let high = times[at..].windows(2).position(parted).map_or(times.len(), |i| at + i + 1);
                Some((low == 0, times[low..high].to_vec()))
            }
        }
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

/// Drop the first `count` rows of a small key.
fn drop_small(
    layout: &Layout,
    rows: &mut Vec<u64>,
    floors: &mut Box<[i64]>,
    count: usize,
    dropped: &mut impl FnMut(&[u64]),
) {
    if count == 0 {
        return;
    }
    let stride = layout.stride();
    let gone = &rows[..count * stride];
    fold_floors(layout, floors, gone);
    gone.chunks_exact(stride).for_each(dropped);
    rows.drain(..count * stride);
    if rows.capacity() > 4 * rows.len() {
        rows.shrink_to(if rows.is_empty() { 0 } else { rows.len() + stride });
    }
}

/// Drop the first `count` rows of a large key, all in its oldest chunk.
fn drop_large(
    layout: &Layout,
    large: &mut LargeKey,
    floors: &mut Box<[i64]>,
    count: usize,
    dropped: &mut impl FnMut(&[u64]),
) {
    let gone = &large.log.oldest_chunk()[..count * layout.stride()];
    fold_floors(layout, floors, gone);
    gone.chunks_exact(layout.stride()).for_each(dropped);
    large.drop_front(layout, count);
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
                // A key over its limit may drop events that others come in behind of later: floors never go back.
                Floor::Latest { bit, .. } if row::selected(event, bit) => floors[i] = floors[i].max(time),
                Floor::SessionStart { gap_us, max_length_us } if time >= floors[i + 1] => {
                    let mut chain = SessionChain { start: floors[i], last: floors[i + 1] };
                    chain.advance(time, gap_us, max_length_us);
                    (floors[i], floors[i + 1]) = (chain.start, chain.last);
                }
                _ => {}
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

/// How many events lie before `order`.
fn count_before(rows: &[u64], stride: usize, order: OrderKey) -> usize {
    rows.chunks_exact(stride).take_while(|event| row::order_key(event) < order).count()
}

/// How many events lie at or before `time`.
fn count_until(rows: &[u64], stride: usize, time: i64) -> usize {
    let (mut low, mut high) = (0, rows.len() / stride);
    // Mostly all of them do, or none does.
    if high == 0 || row::time(&rows[(high - 1) * stride..]) <= time {
        return high;
    }
    if row::time(rows) > time {
        return 0;
    }
    while low < high {
        let middle = (low + high) / 2;
        if row::time(&rows[middle * stride..]) <= time {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    low
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
