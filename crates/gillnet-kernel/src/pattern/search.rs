//! The search in one key: its runs, and the matches that they came to, from event to event.

use super::condition::is_true;
use super::definition::Definition;
use super::plan::Skip;
use super::run::{Advance, Run};
use crate::error::Result;
use crate::keyed::interner::Interner;
use crate::keyed::row::{self, OrderKey};

/// A complete match.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Match {
    pub start: OrderKey,
    pub last: OrderKey,
    /// Of its events, and what each was taken for.
    pub digest: u64,
    /// How often it went out before.
    pub revision: u32,
}

impl Match {
    /// Where in the order it is complete: at its last event, or when the time after that has passed, behind all events then.
    #[inline]
    pub fn completed(&self, definition: &Definition) -> OrderKey {
        match definition.tail_us {
            0 => self.last,
            tail => (self.last.0.saturating_add(tail), u128::MAX),
        }
    }

    /// Matches are listed in this order.
    #[inline]
    pub fn rank(&self, definition: &Definition) -> (OrderKey, OrderKey, OrderKey) {
        (self.completed(definition), self.start, self.last)
    }
}

/// A run was given up, since its key had too many.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Loss {
    pub at: OrderKey,
    /// It could have been complete before this time.
    pub until: i64,
}

/// What a search works with, beside its own state.
pub struct Tools<'a> {
    pub definition: &'a Definition,
    pub texts: &'a Interner,
    pub most_runs: usize,
    /// Runs that were given up at the limit.
    pub dropped: &'a mut u64,
    /// For each run, the tests that hold of the event that is looked at.
    pub holds: &'a mut Vec<u64>,
}

/// Whether matches and losses are noted, or known from before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    Find,
    Rebuild,
}

/// Runs in the order of their starts; matches in the order of completion; losses in the order of events.
#[derive(Debug, Default)]
pub struct Search {
    pub runs: Vec<Run>,
    pub matches: Vec<Match>,
    pub losses: Vec<Loss>,
}

impl Search {
    /// Look at the next event of the key.
    ///
    /// # Errors
    /// A condition that fails.
    pub fn step(&mut self, tools: &mut Tools<'_>, event: &[u64], mode: Mode) -> Result<()> {
        let definition = tools.definition;
        let order = row::order_key(event);
        match mode {
            Mode::Find => self.confirm(definition, order.0),
            Mode::Rebuild => self.follow(definition, order),
        }
        let oldest = order.0.saturating_sub(definition.within_us);
        self.runs.retain(|run| run.waiting || run.start.0 > oldest);
        let (hold, open) = definition.judge(row::mask(event));
        let done = !self.runs.is_empty() && self.advance(tools, event, (hold, open), mode)?;
        if done && definition.skip == Skip::PastLastEvent {
            self.runs.clear();
            return Ok(());
        }
        if (hold | open) & definition.starts != 0 {
            self.begin(tools, event, (hold, open), mode)?;
        }
        Ok(())
    }

    /// Let every run look at the event; whether a match is complete with it.
    fn advance(&mut self, tools: &mut Tools<'_>, event: &[u64], (hold, open): (u64, u64), mode: Mode) -> Result<bool> {
        let definition = tools.definition;
        judge_runs(tools, event, &self.runs, hold, open)?;
        let (mut done, mut place) = (false, 0);
        let mut waiting: Vec<Run> = Vec::new();
        let matches = &mut self.matches;
        self.runs.retain_mut(|run| {
            let holds = tools.holds[place];
            place += 1;
            match run.advance(definition, event, holds) {
                Advance::Dead => false,
                Advance::Passed | Advance::Taken { complete: false, .. } => true,
                Advance::Taken { complete: true, .. } => {
                    let goes_on = definition.skip == Skip::NoSkip && run.may_stay(definition);
                    if definition.tail_us > 0 {
                        if goes_on {
                            waiting.push(run.to_wait());
                        } else {
                            *run = run.to_wait();
                        }
                        return true;
                    }
                    // Non-overlapping matches: of those that are complete with one event, the one that began first.
                    if mode == Mode::Find && !(done && definition.skip == Skip::PastLastEvent) {
                        matches.push(found(run));
                    }
                    done = true;
                    goes_on
                }
            }
        });
        for run in waiting {
            self.insert(tools, run, event, mode);
        }
        Ok(done)
    }

    /// Begin a run with the event, if it fits.
    fn begin(&mut self, tools: &mut Tools<'_>, event: &[u64], (hold, open): (u64, u64), mode: Mode) -> Result<()> {
        let definition = tools.definition;
        let mut run = Run::new(definition);
        judge_runs(tools, event, std::slice::from_ref(&run), hold, open)?;
        let Advance::Taken { complete, .. } = run.advance(definition, event, tools.holds[0]) else { return Ok(()) };
        if complete && definition.tail_us == 0 {
            if mode == Mode::Find {
                self.matches.push(found(&run));
            }
            if definition.skip == Skip::PastLastEvent {
                self.runs.clear();
            }
            if definition.skip != Skip::NoSkip || !run.may_stay(definition) {
                return Ok(());
            }
        } else if complete {
            if definition.skip == Skip::NoSkip && run.may_stay(definition) {
                self.insert(tools, run.clone(), event, mode);
            }
            run = run.to_wait();
        }
        self.insert(tools, run, event, mode);
        Ok(())
    }

    /// Add a run; of too many, the one that began first is given up.
    fn insert(&mut self, tools: &mut Tools<'_>, run: Run, event: &[u64], mode: Mode) {
        let place = self.runs.partition_point(|other| other.start <= run.start);
        self.runs.insert(place, run);
        if self.runs.len() > tools.most_runs {
            let lost = self.runs.remove(0);
            if mode == Mode::Find {
                *tools.dropped += 1;
                let until = lost.start.0.saturating_add(tools.definition.lookback_us());
                self.losses.push(Loss { at: row::order_key(event), until });
            }
        }
    }

    /// Matches whose time after the last event is over before `time` are complete.
    pub fn confirm(&mut self, definition: &Definition, time: i64) {
        if definition.tail_us == 0 {
            return;
        }
        let due = self.due(definition, (time, 0));
        let end = due.last().map(|last| last.last).filter(|_| definition.skip == Skip::PastLastEvent);
        self.runs.retain(|run| !overdue(definition, run, time) && end.is_none_or(|end| run.start > end));
        self.matches.extend(due);
    }

    /// The same up to a place before which all matches are known: they ended the runs that they overlap.
    pub fn follow(&mut self, definition: &Definition, order: OrderKey) {
        self.runs.retain(|run| !overdue(definition, run, order.0));
        if definition.skip == Skip::PastLastEvent {
            let known = self.matches.partition_point(|m| m.completed(definition) < order);
            if let Some(end) = known.checked_sub(1).map(|last| self.matches[last].last) {
                self.runs.retain(|run| run.start > end);
            }
        }
    }

    /// Matches that wait and are complete before a place in the order, if no event comes in between.
    pub fn due(&self, definition: &Definition, before: OrderKey) -> Vec<Match> {
        let waiting = self.runs.iter().filter(|run| run.waiting).map(found);
        let mut due: Vec<Match> = waiting.filter(|m| m.completed(definition) < before).collect();
        due.sort_by_key(|m| m.rank(definition));
        if definition.skip == Skip::PastLastEvent {
            let mut end = None;
            due.retain(|m| {
                let apart = end.is_none_or(|end| m.start > end);
                if apart {
                    end = Some(m.last);
                }
                apart
            });
        }
        due
    }
}

fn overdue(definition: &Definition, run: &Run, time: i64) -> bool {
    run.waiting && found(run).completed(definition).0 < time
}

fn found(run: &Run) -> Match {
    Match { start: run.start, last: run.last, digest: run.digest, revision: 0 }
}

/// Fill `tools.holds` with the tests that hold of an event for each of `runs`.
///
/// # Errors
/// A condition that fails.
pub fn judge_runs(tools: &mut Tools<'_>, event: &[u64], runs: &[Run], hold: u64, open: u64) -> Result<()> {
    tools.holds.clear();
    tools.holds.resize(runs.len(), hold);
    let mut rest = open;
    while rest != 0 {
        let number = rest.trailing_zeros() as usize;
        rest &= rest - 1;
        let asked: Vec<usize> =
            (0..runs.len()).filter(|&run| runs[run].asks(tools.definition) >> number & 1 == 1).collect();
        if asked.is_empty() {
            continue;
        }
        let test = tools.definition.tests[number].of_run.expect("open tests ask runs");
        let chosen: Vec<&Run> = asked.iter().map(|&run| &runs[run]).collect();
        let answers = tools.definition.run_tests[test].holds(tools.definition, event, &chosen, tools.texts)?;
        for (answer, &run) in asked.iter().enumerate() {
            tools.holds[run] |= u64::from(is_true(&answers, answer)) << number;
        }
    }
    Ok(())
}
