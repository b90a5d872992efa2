//! Patterns: sequences of events of a key, found in the order of I1 whatever the order of arrival.
//!
//! From the inside out:
//! - [`plan`]: a pattern as its user wrote it
//! - [`definition`]: the same, compiled: tests, moves between steps, what runs remember of earlier events
//! - [`condition`]: conditions over earlier events of a match, evaluated for several runs at a time
//! - [`run`]: one partial match, and what it makes of an event
//! - [`search`]: the runs and matches of a key, from event to event
//! - [`key`]: one key: its events and its search; a late event runs a part of it again
//! - [`store`]: all keys of one pattern, their TTL and what changed among their matches
//! - [`stored`]: the same as bytes
//!
//! # Which matches there are
//!
//! An event that fits the first step starts a *run*, which looks at each later event of the key once, in order, and takes it or
//! passes it by. A run never branches and never looks back: so there are at most as many runs as events, and a run's fate
//! depends on nothing but its start and the events since. An event is taken for the step that the run is at, or for the next one
//! (optional steps may be left out); where it fits several, a greedy step keeps it, and otherwise the run goes on. A match is
//! complete with the event that gives the last step its least number; with `not_within`, when the time after it has passed.
//!
//! **Causality** makes late events cheap: whether a match is complete at a place in the order depends on the events up to there.
//! So a late event leaves the matches before it as they are; the runs at its place are found again from the events of
//! `within` (and `not_within`) before it, and only what comes after it is run again.

pub mod condition;
pub mod definition;
pub mod key;
pub mod plan;
pub mod run;
pub mod search;
mod sizes;
pub mod store;
mod stored;
