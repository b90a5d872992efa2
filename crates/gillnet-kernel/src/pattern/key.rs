//! One key of a pattern: its events in the order of I1, and the search in them.
//!
//! An event in order goes to the runs, and that is all. A late one runs a part of the search again: see [`super`].

use std::ops::Range;

use super::definition::Definition;
use super::run::{Advance, Run};
use super::search::{judge_runs, Loss, Match, Mode, Search, Tools};
use super::stored::{read_loss, read_match, read_optional, write_loss, write_match, write_optional};
use crate::bytes::{broken, ByteReader, ByteWriter};
use crate::error::Result;
use crate::keyed::row::{self, OrderKey};

/// Pruned events stay until they are this share of a key's, so that moving the others costs little.
const PRUNED_SHARE: usize = 4;

/// What became of a key's matches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// It is there, or its events are others.
    Found(Match),
    /// It is no match any more.
    Withdrawn(Match),
}

/// The state of one key.
#[derive(Debug, Default)]
pub struct Key {
    rows: Vec<u64>,
    search: Search,
    /// Matches that were withdrawn and may come back.
    gone: Vec<Match>,
    /// Events and matches up to this time were dropped over a limit.
    dropped_to: Option<i64>,
    /// Up to where a match was confirmed since no event came.
    confirmed_to: Option<i64>,
    /// Matches up to here went out.
    told: usize,
}

/// A reading: matches completed within a window, and whether some may be missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reading {
    pub count: i64,
    pub saturated: bool,
}

impl Key {
    /// An event arrives. What became of matches is added to `changes`.
    ///
    /// # Errors
    /// A condition that fails.
    pub fn arrive(&mut self, tools: &mut Tools<'_>, event: &[u64], changes: &mut Vec<Change>) -> Result<()> {
        let (stride, order) = (event.len(), row::order_key(event));
        let newest = self.rows.len().checked_sub(stride).map(|last| row::order_key(&self.rows[last..]));
        let matched = self.search.matches.last().map(|last| last.completed(tools.definition));
        if newest.is_none_or(|newest| newest < order) && matched.is_none_or(|matched| matched < order) {
            self.rows.extend_from_slice(event);
            self.search.step(tools, event, Mode::Find)?;
            self.tell(changes);
            return Ok(());
        }
        let place = self.place_after(stride, order);
        self.rows.splice(place * stride..place * stride, event.iter().copied());
        self.run_again(tools, stride, place, changes)
    }

    /// Matches that were found since the last call went out with their first revision.
    fn tell(&mut self, changes: &mut Vec<Change>) {
        changes.extend(self.search.matches[self.told..].iter().copied().map(Change::Found));
        self.told = self.search.matches.len();
    }

    /// Run the search again from the event at `place`, which is new.
    fn run_again(
        &mut self,
        tools: &mut Tools<'_>,
        stride: usize,
        place: usize,
        changes: &mut Vec<Change>,
    ) -> Result<()> {
        let definition = tools.definition;
        let from = row::order_key(&self.rows[place * stride..]);
        let kept = self.search.matches.partition_point(|m| m.completed(definition) < from);
        let before = self.search.matches.split_off(kept);
        self.search.losses.truncate(self.search.losses.partition_point(|loss| loss.at < from));
        self.search.runs.clear();
        let begin = self.place_after(stride, (from.0.saturating_sub(definition.lookback_us()), u128::MAX));
        for event in self.rows[begin * stride..place * stride].chunks_exact(stride) {
            self.search.step(tools, event, Mode::Rebuild)?;
        }
        self.search.follow(definition, from);
        for event in self.rows[place * stride..].chunks_exact(stride) {
            self.search.step(tools, event, Mode::Find)?;
        }
        if let Some(time) = self.confirmed_to {
            self.search.confirm(definition, time);
        }
        self.compare(definition, kept, &before, changes);
        self.told = self.search.matches.len();
        Ok(())
    }

    /// Matches from number `kept` on took the place of those `before`: both are in the same order.
    fn compare(&mut self, definition: &Definition, kept: usize, before: &[Match], changes: &mut Vec<Change>) {
        let mut old = before.iter().peekable();
        for now in &mut self.search.matches[kept..] {
            let rank = now.rank(definition);
            while let Some(lost) = old.next_if(|m| m.rank(definition) < rank) {
                withdraw(&mut self.gone, changes, *lost);
            }
            if let Some(same) = old.next_if(|m| m.rank(definition) == rank) {
                now.revision = same.revision + u32::from(same.digest != now.digest);
                if same.digest != now.digest {
                    changes.push(Change::Found(*now));
                }
                continue;
            }
            if let Some(back) = self.gone.iter().position(|m| m.rank(definition) == rank) {
                now.revision = self.gone.swap_remove(back).revision + 1;
            }
            changes.push(Change::Found(*now));
        }
        old.for_each(|lost| withdraw(&mut self.gone, changes, *lost));
    }

    /// Write what does not follow from the events, which [`super::store`] writes.
    pub fn write_state(&self, out: &mut ByteWriter) {
        for matches in [&self.search.matches, &self.gone] {
            out.count(matches.len());
            matches.iter().for_each(|found| write_match(found, out));
        }
        out.count(self.search.losses.len());
        self.search.losses.iter().for_each(|loss| write_loss(loss, out));
        write_optional(self.dropped_to, out);
        write_optional(self.confirmed_to, out);
    }

    /// Read what [`Self::write_state`] wrote, of a key with the events `rows`.
    ///
    /// # Errors
    /// Bytes that are no key's, or matches out of order.
    pub fn read_state(from: &mut ByteReader<'_>, definition: &Definition, rows: Vec<u64>) -> Result<Self> {
        let (matches, gone) = (from.list(read_match)?, from.list(read_match)?);
        if !matches.is_sorted_by_key(|found| found.rank(definition)) {
            return Err(broken("matches out of order"));
        }
        let losses = from.list(read_loss)?;
        let (dropped_to, confirmed_to) = (read_optional(from)?, read_optional(from)?);
        let told = matches.len();
        let search = Search { runs: Vec::new(), matches, losses };
        Ok(Self { rows, search, gone, dropped_to, confirmed_to, told })
    }

    /// Find the partial matches again, where events and matches were read back.
    ///
    /// # Errors
    /// A condition that fails.
    pub fn rebuild(&mut self, tools: &mut Tools<'_>) -> Result<()> {
        let stride = tools.definition.stride();
        let Some(last) = self.rows.len().checked_sub(stride).map(|last| row::time(&self.rows[last..])) else {
            return Ok(());
        };
        let begin = self.place_after(stride, (last.saturating_sub(tools.definition.lookback_us()), u128::MAX));
        for event in self.rows[begin * stride..].chunks_exact(stride) {
            self.search.step(tools, event, Mode::Rebuild)?;
        }
        let passed = self.confirmed_to.map_or(last, |to| to.max(last));
        self.search.follow(tools.definition, (passed, 0));
        self.search.follow(tools.definition, (last, u128::MAX));
        Ok(())
    }

    /// Event time has passed `time`: matches that waited for it are complete.
    pub fn confirm(&mut self, definition: &Definition, time: i64, changes: &mut Vec<Change>) {
        self.search.confirm(definition, time);
        self.confirmed_to = self.confirmed_to.max(Some(time));
        self.tell(changes);
    }

    /// Matches completed in (time − over, time], and up to `order` in the order of events.
    pub fn read(&self, definition: &Definition, order: OrderKey, over_us: i64) -> Reading {
        let (matches, floor) = (&self.search.matches, order.0.saturating_sub(over_us));
        let until = matches.partition_point(|m| m.completed(definition) <= order);
        let from = matches.partition_point(|m| m.completed(definition).0 <= floor);
        let mut count = until.saturating_sub(from);
        if definition.tail_us > 0 {
            // Behind all events of a time, what waited up to it is complete.
            let before = if order.1 == u128::MAX { (order.0.saturating_add(1), 0) } else { order };
            let due = self.search.due(definition, before);
            count += due.iter().filter(|m| m.completed(definition).0 > floor).count();
        }
        let lost = self.search.losses.partition_point(|loss| loss.at <= order).checked_sub(1);
        let lost = lost.is_some_and(|last| self.search.losses[last].until > floor);
        let dropped = self.dropped_to.is_some_and(|to| to.saturating_add(definition.lookback_us()) > floor);
        Reading { count: count as i64, saturated: lost || dropped }
    }

    /// The events of a match with the alternative that each was taken for, as ranges of [`Self::rows`].
    ///
    /// # Errors
    /// A condition that fails.
    pub fn events_of(&self, tools: &mut Tools<'_>, stride: usize, of: &Match) -> Result<Vec<(usize, Range<usize>)>> {
        let mut taken = Vec::new();
        let Some(first) = self.find(stride, of.start) else { return Ok(taken) };
        let mut run = Run::new(tools.definition);
        for place in first..self.rows.len() / stride {
            let range = place * stride..(place + 1) * stride;
            let event = &self.rows[range.clone()];
            let (hold, open) = tools.definition.judge(row::mask(event));
            judge_runs(tools, event, std::slice::from_ref(&run), hold, open)?;
            if let Advance::Taken { name, .. } = run.advance(tools.definition, event, tools.holds[0]) {
                taken.push((name, range));
                if run.last == of.last {
                    break;
                }
            }
        }
        Ok(taken)
    }

    /// The words of all events.
    pub fn rows(&self) -> &[u64] {
        &self.rows
    }

    /// The place of the event at `order`.
    pub fn find(&self, stride: usize, order: OrderKey) -> Option<usize> {
        let place = self.place_after(stride, order).checked_sub(1)?;
        (row::order_key(&self.rows[place * stride..]) == order).then_some(place)
    }

    fn place_after(&self, stride: usize, order: OrderKey) -> usize {
        let (mut low, mut high) = (0, self.rows.len() / stride);
        while low < high {
            let middle = low + (high - low) / 2;
            if row::order_key(&self.rows[middle * stride..]) <= order {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        low
    }

    /// Give memory back: no event before `reach` will come, and nothing be read as of a time before it.
    pub fn prune(&mut self, definition: &Definition, reach: i64, over_us: i64, drop_event: impl FnMut(&[u64])) {
        let (stride, lookback) = (definition.stride(), definition.lookback_us());
        let expired = self.place_after(stride, (reach.saturating_sub(lookback), u128::MAX));
        self.search.runs.retain(|run| run.waiting || run.start.0 > reach.saturating_sub(definition.within_us));
        if expired * PRUNED_SHARE >= (self.rows.len() / stride).max(1) {
            self.drop_first(stride, expired, drop_event);
        }
        let floor = reach.saturating_sub(over_us.max(lookback));
        let expired = self.search.matches.partition_point(|m| m.completed(definition).0 <= floor);
        if expired * PRUNED_SHARE >= self.search.matches.len().max(1) {
            self.search.matches.drain(..expired);
            self.told -= expired;
        }
        self.gone.retain(|m| m.completed(definition).0 >= reach);
        let expired = self.search.losses.partition_point(|loss| loss.until <= reach.saturating_sub(over_us));
        self.search.losses.drain(..expired);
        self.dropped_to = self.dropped_to.filter(|to| to.saturating_add(lookback) > reach.saturating_sub(over_us));
    }

    /// Whether a match waits for its time.
    pub fn waits(&self) -> bool {
        self.search.runs.iter().any(|run| run.waiting)
    }

    /// When the first match that waits is complete.
    pub fn due_at(&self, definition: &Definition) -> Option<i64> {
        let waiting = self.search.runs.iter().filter(|run| run.waiting);
        waiting.map(|run| run.last.0.saturating_add(definition.tail_us)).min()
    }

    /// When the last match that waits is complete.
    pub fn due_last(&self, definition: &Definition) -> Option<i64> {
        let waiting = self.search.runs.iter().filter(|run| run.waiting);
        waiting.map(|run| run.last.0.saturating_add(definition.tail_us)).max()
    }

    /// Matches that waited for a time before `reach` are complete; to be called before [`Self::prune`].
    pub fn confirm_passed(&mut self, definition: &Definition, reach: i64, changes: &mut Vec<Change>) {
        if self.waits() {
            self.confirm(definition, reach, changes);
        }
    }

    /// Whether [`Self::trim`] drops something.
    pub fn exceeds(&self, stride: usize, limit: usize) -> bool {
        self.rows.len() > limit * stride || self.search.matches.len() > limit
    }

    /// Drop the oldest events and matches beyond `limit`.
    pub fn trim(&mut self, definition: &Definition, limit: usize, drop_event: impl FnMut(&[u64])) {
        let stride = definition.stride();
        let events = self.rows.len() / stride;
        if events > limit {
            // A share more than needed, so that a key at its limit does not move all its events for each that comes.
            let excess = (events - limit).max(limit / 64).min(events);
            let last = row::time(&self.rows[(excess - 1) * stride..]);
            self.dropped_to = self.dropped_to.max(Some(last));
            self.search.runs.retain(|run| run.start.0 > last);
            self.drop_first(stride, excess, drop_event);
        }
        if self.search.matches.len() > limit {
            let excess = (self.search.matches.len() - limit).max(limit / 64).min(self.told);
            let last = self.search.matches[excess - 1].completed(definition).0;
            self.dropped_to = self.dropped_to.max(Some(last));
            self.search.matches.drain(..excess);
            self.told -= excess;
        }
    }

    fn drop_first(&mut self, stride: usize, events: usize, mut drop_event: impl FnMut(&[u64])) {
        self.rows[..events * stride].chunks_exact(stride).for_each(&mut drop_event);
        self.rows.drain(..events * stride);
        if self.rows.capacity() > 4 * self.rows.len() + 64 {
            self.rows.shrink_to(self.rows.len() * 2);
        }
    }

    /// Whether nothing is kept that a reading or a late event could need.
    pub fn forgettable(&self) -> bool {
        let Search { runs, matches, losses } = &self.search;
        let nothing = self.rows.is_empty() && runs.is_empty() && matches.is_empty() && losses.is_empty();
        nothing && self.gone.is_empty() && self.dropped_to.is_none()
    }

    /// Partial matches that are alive.
    pub fn runs(&self) -> usize {
        self.search.runs.len()
    }

    /// Whether readings may miss something that was dropped over a limit.
    pub fn saturated(&self) -> bool {
        !self.search.losses.is_empty() || self.dropped_to.is_some()
    }

    /// Bytes of heap memory in use.
    pub fn heap_bytes(&self) -> usize {
        let Search { runs, matches, losses } = &self.search;
        self.rows.capacity() * 8
            + runs.iter().map(Run::heap_bytes).sum::<usize>()
            + runs.capacity() * std::mem::size_of::<Run>()
            + (matches.capacity() + self.gone.capacity()) * std::mem::size_of::<Match>()
            + losses.capacity() * std::mem::size_of::<Loss>()
    }
}

fn withdraw(gone: &mut Vec<Match>, changes: &mut Vec<Change>, lost: Match) {
    let lost = Match { revision: lost.revision + 1, ..lost };
    gone.push(lost);
    changes.push(Change::Withdrawn(lost));
}
