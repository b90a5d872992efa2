//! A run: one partial match, and what it makes of the next event of its key.

use super::definition::{Definition, Place, BEFORE_FIRST};
use crate::keyed::row::{self, OrderKey};

/// A partial match. It is never copied to try two ways: an event is taken for the first step in order of preference.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    pub start: OrderKey,
    /// The event that was taken last.
    pub last: OrderKey,
    /// Of all events taken, with the alternative that each was taken for.
    pub digest: u64,
    /// Complete but for the time after the last event.
    pub waiting: bool,
    step: usize,
    /// Events that the step has taken.
    count: u32,
    /// An event was passed by since the last one taken.
    passed: bool,
    /// Guards that an event passed by has broken.
    broken: u32,
    /// Alternatives that took an event.
    seen: u64,
    /// Which of the values are not null.
    valid: u64,
    values: Box<[u64]>,
}

/// What became of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Advance {
    /// The event was taken, for the alternative of this number; the match may be complete.
    Taken { name: usize, complete: bool },
    /// The event was passed by.
    Passed,
    /// No later event can complete it.
    Dead,
}

impl Run {
    /// A run that has taken nothing yet.
    pub fn new(definition: &Definition) -> Self {
        Self {
            start: (i64::MIN, 0),
            last: (i64::MIN, 0),
            digest: 0xCBF2_9CE4_8422_2325,
            waiting: false,
            step: BEFORE_FIRST,
            count: 0,
            passed: false,
            broken: 0,
            seen: 0,
            valid: 0,
            values: vec![0; definition.references.len()].into(),
        }
    }

    /// The same, waiting for the time after its last event.
    pub fn to_wait(&self) -> Self {
        Self { waiting: true, ..self.clone() }
    }

    /// A value of an earlier event; none where it is null or there is no such event.
    #[inline]
    pub fn remembered(&self, reference: usize) -> Option<u64> {
        (self.valid >> reference & 1 == 1).then(|| self.values[reference])
    }

    /// Bytes of heap memory in use.
    pub fn heap_bytes(&self) -> usize {
        self.values.len() * 8
    }

    /// Tests that the next event must be put to.
    #[inline]
    pub fn asks(&self, definition: &Definition) -> u64 {
        if self.waiting {
            return definition.absent.map_or(0, |test| 1 << test);
        }
        if self.step == BEFORE_FIRST {
            return definition.starts;
        }
        definition.steps[self.step].asks
    }

    /// Take the event, or pass it by; `holds` are the tests that hold of it for this run.
    #[inline]
    pub fn advance(&mut self, definition: &Definition, event: &[u64], holds: u64) -> Advance {
        if self.waiting {
            let undone = definition.absent.is_some_and(|test| holds >> test & 1 == 1);
            return if undone { Advance::Dead } else { Advance::Passed };
        }
        if let Some((step, name)) = self.place(definition, holds) {
            self.take(definition, event, step, name);
            let complete = step + 1 == definition.steps.len() && self.count >= definition.steps[step].least;
            return Advance::Taken { name, complete };
        }
        self.passed = true;
        for (guard, &test) in definition.guards.iter().enumerate() {
            self.broken |= ((holds >> test & 1) as u32) << guard;
        }
        if self.step != BEFORE_FIRST && self.lives(definition) {
            Advance::Passed
        } else {
            Advance::Dead
        }
    }

    /// Whether the step that it is at could take one more event.
    #[inline]
    pub fn may_stay(&self, definition: &Definition) -> bool {
        let Some(step) = definition.steps.get(self.step) else { return false };
        self.count < step.most && !(step.strict && self.passed)
    }

    /// The step and alternative that the event is taken for.
    #[inline]
    fn place(&self, definition: &Definition, holds: u64) -> Option<(usize, usize)> {
        let fits = |step: usize| {
            let alternatives = &definition.steps[step].alternatives;
            alternatives.iter().find(|(_, test)| holds >> test & 1 == 1).map(|&(name, _)| (step, name))
        };
        let stay = || self.may_stay(definition).then(|| fits(self.step)).flatten();
        let step = definition.steps.get(self.step);
        if step.is_some_and(|step| self.count < step.least) {
            return stay();
        }
        let mut ways = definition.moves_from(self.step).iter().filter(|way| self.open(definition, way.to, way.guards));
        if step.is_some_and(|step| step.greedy) {
            return stay().or_else(|| ways.find_map(|way| fits(way.to)));
        }
        ways.find_map(|way| fits(way.to)).or_else(stay)
    }

    #[inline]
    fn open(&self, definition: &Definition, to: usize, guards: u32) -> bool {
        self.broken & guards == 0 && !(definition.steps[to].strict && self.passed)
    }

    /// Whether some later event could still be taken.
    #[inline]
    fn lives(&self, definition: &Definition) -> bool {
        self.may_stay(definition)
            || (self.count >= definition.steps[self.step].least
                && definition.moves_from(self.step).iter().any(|way| self.open(definition, way.to, way.guards)))
    }

    fn take(&mut self, definition: &Definition, event: &[u64], step: usize, name: usize) {
        let order = row::order_key(event);
        if self.step == BEFORE_FIRST {
            self.start = order;
        }
        self.count = if self.step == step { self.count + 1 } else { 1 };
        (self.step, self.last, self.passed, self.broken) = (step, order, false, 0);
        for word in [order.0 as u64, (order.1 >> 64) as u64, order.1 as u64, name as u64] {
            self.digest = (self.digest ^ word).wrapping_mul(0x0100_0000_01B3).rotate_left(23);
        }
        for (number, reference) in definition.references.iter().enumerate() {
            let remembers = match reference.place {
                Place::First(of) => of == name && self.seen >> name & 1 == 0,
                Place::Last(of) => of == name,
                Place::Previous => true,
            };
            if remembers {
                let valid = row::selected(event, definition.valid_bit(reference.lane));
                self.values[number] = row::lane(event, reference.lane as u8);
                self.valid = self.valid & !(1 << number) | u64::from(valid) << number;
            }
        }
        self.seen |= 1 << name;
    }
}
