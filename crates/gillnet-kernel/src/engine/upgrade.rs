//! Upgrades: the state that was written under one plan, moved to another plan of the same pipeline.
//!
//! 1. beside the engine of the old plan, one of the new plan is made
//! 2. gates: watermarks and ids, by the stream's name
//! 3. entities: key by key, at the same places, see [`crate::keyed::convert`]
//! 4. sessions, patterns, joins and baselines, where their definition is the same
//! 5. rows that can still be revised, with the features of the new plan; those that are new are null until they are read again
//!
//! What a feature needs and was not kept is missing until its window has passed: each feature says from which event time on it is
//! *complete*, which is to say what it would be had the new plan run from the start. Until then it counts what is there.
//!
//! Whether a plan may follow another is for the host to say, who can name the mend; here is refused what would be wrong.

mod entities;

use super::plan::{FeaturePlan, Plan};
use super::stream::StreamState;
use super::Engine;
use crate::arrival::watermark::NONE;
use crate::bytes::{ByteReader, ByteWriter};
use crate::error::{KernelError, Result};
use crate::expr::collect_columns;

/// From when on a feature is complete.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Complete {
    /// It is.
    Now,
    /// From this event time on.
    From(i64),
    /// For each key once it has paused: a session that was under way may be cut elsewhere than it would have been.
    AfterPause,
}

/// An engine of the new plan, and how complete each of its features is, in the plan's order.
pub struct Upgraded {
    pub engine: Engine,
    pub features: Vec<(String, Complete)>,
}

/// Where the parts of the old engine went, by number.
struct Moved {
    /// Of each old entity, and behind them each old pattern, the new one.
    readers: Vec<Option<usize>>,
    streams: Vec<Option<usize>>,
}

impl Engine {
    /// The state of this engine, whose plan is `old_plan`, as that of `plan`.
    ///
    /// # Errors
    /// [`KernelError::Plan`] where `plan` cannot be executed; [`KernelError::State`] where the state cannot become that of `plan`.
    pub fn upgraded(&self, old_plan: &Plan, plan: &Plan) -> Result<Upgraded> {
        self.check_complete()?;
        let mut new = Self::new(plan)?;
        check_movable(self, &new)?;
        new.take_streams(self)?;
        let (readers, mut complete) = new.take_entities(self, plan)?;
        let patterns = new.take_patterns(self, plan, &mut complete)?;
        new.take_sessions(self, old_plan, plan, &mut complete)?;
        new.joins.take_over(
            &self.joins,
            |name| new.parts.same(&self.parts, &format!("join '{name}'")),
            (&self.streams, &new.streams),
        )?;
        let streams =
            self.streams.iter().map(|stream| new.streams.iter().position(|s| s.name == stream.name)).collect();
        let added = new.entities.len();
        let patterns = patterns.into_iter().map(|place| place.map(|place| added + place));
        let moved = Moved { readers: readers.into_iter().chain(patterns).collect(), streams };
        if let (Some(revisions), Some(old)) = (&mut new.revisions, &self.revisions) {
            revisions.take_over(old, &moved.readers, &moved.streams)?;
        }
        let features = with_expressions(plan, complete);
        Ok(Upgraded { engine: new, features })
    }

    fn take_streams(&mut self, old: &Self) -> Result<()> {
        for stream in &mut self.streams {
            let Some(before) = old.streams.iter().find(|other| other.name == stream.name) else { continue };
            if stream.allowed_lateness_us > before.allowed_lateness_us {
                return Err(refused(&format!(
                    "stream '{}' would allow more lateness than state was kept for",
                    stream.name
                )));
            }
            copy(|out| before.write_watermark(out), |from| stream.read_watermark(from))?;
            stream.seen.take_over(&before.seen);
        }
        Ok(())
    }

    fn take_patterns(&mut self, old: &Self, plan: &Plan, complete: &mut [Complete]) -> Result<Vec<Option<usize>>> {
        let mut places = vec![None; old.patterns.len()];
        for number in 0..self.patterns.len() {
            let found = old.patterns.iter().position(|other| self.patterns[number].same_as(other));
            if let Some(found) = found {
                places[found] = Some(number);
                let pattern = &mut self.patterns[number];
                copy(|out| old.patterns[found].write_state(out), |from| pattern.read_state(from))?;
            }
            let newest = self.newest_of(old, &self.patterns[number].id.stream);
            for (feature, feature_plan) in plan.features.iter().enumerate() {
                let FeaturePlan::Pattern(pattern) = feature_plan else { continue };
                let super::Feature::Pattern { column: (of, _), .. } = &self.features[feature] else { continue };
                let kept = found.is_some_and(|found| old.patterns[found].looks_back_us() >= pattern.over_us);
                if *of == number && !kept {
                    let reach = pattern.over_us.saturating_add(pattern.pattern.within_us);
                    let absent = pattern.pattern.absent.as_ref().map_or(0, |absent| absent.for_us);
                    complete[feature] = Complete::From(newest.saturating_add(reach).saturating_add(absent));
                }
            }
        }
        Ok(places)
    }

    fn take_sessions(&mut self, old: &Self, old_plan: &Plan, plan: &Plan, complete: &mut [Complete]) -> Result<()> {
        let before: Vec<&str> = baselines(old_plan).map(|(_, name, _)| name).collect();
        let mut taken = Vec::new();
        let newest = self.newest_of(old, &plan.root);
        for (feature, name, baseline) in baselines(plan) {
            let of = format!("feature '{}'", baseline.of);
            let same = self.parts.same(&old.parts, &format!("feature '{name}'")) && self.parts.same(&old.parts, &of);
            let found = before.iter().position(|other| *other == name).filter(|_| same);
            if found.is_none() {
                let steps = baseline.step_us.saturating_mul(2);
                complete[feature] = Complete::From(newest.saturating_add(baseline.over_us).saturating_add(steps));
            }
            taken.push(found);
        }
        match (&mut self.sessions, &old.sessions) {
            (Some(sessions), Some(old)) => sessions.take_over(old, &taken),
            _ => Ok(()),
        }
    }

    /// The newest event time of a stream; of the root where the old plan never heard that stream.
    fn newest_of(&self, old: &Self, stream: &str) -> i64 {
        let heard = |of: &StreamState| of.watermark.partitions().iter().map(|p| p.newest).filter(|&t| t != NONE).max();
        let newest = |of: &StreamState| {
            let heard = heard(of)?;
            // An event that is ahead of its arrival does not move its partition so far. Who keeps the stream's events knows.
            let kept = old.entities.iter().filter(|entity| entity.id.stream == of.name);
            let kept = kept.map(|entity| entity.store.newest_of_all()).reduce(i64::max);
            Some(kept.map_or_else(|| heard.saturating_add(of.max_ahead_us()), |kept| kept.max(heard)))
        };
        let named = old.streams.iter().find(|other| other.name == stream).and_then(newest);
        named.or_else(|| newest(&old.streams[old.root])).unwrap_or(0)
    }
}

/// A feature over others is as complete as they are.
fn with_expressions(plan: &Plan, mut complete: Vec<Complete>) -> Vec<(String, Complete)> {
    for (number, feature) in plan.features.iter().enumerate() {
        let mut names = Vec::new();
        match feature {
            FeaturePlan::Expression { expression, .. } => collect_columns(expression, &mut names),
            FeaturePlan::Baseline(baseline) => names.push(baseline.of.clone()),
            _ => continue,
        }
        let read = plan.features[..number].iter().zip(&complete).filter(|(f, _)| names.iter().any(|n| n == f.name()));
        let latest = read.map(|(_, &complete)| complete).max().unwrap_or(Complete::Now);
        complete[number] = match (feature, latest) {
            // A baseline is over sessions of the time before.
            (FeaturePlan::Baseline(baseline), Complete::From(time)) => {
                let over = baseline.over_us.saturating_add(baseline.step_us.saturating_mul(2));
                complete[number].max(Complete::From(time.saturating_add(over)))
            }
            (_, latest) => complete[number].max(latest),
        };
    }
    plan.features.iter().map(|feature| feature.name().to_owned()).zip(complete).collect()
}

fn baselines(plan: &Plan) -> impl Iterator<Item = (usize, &str, &super::plan::BaselinePlan)> {
    plan.features.iter().enumerate().filter_map(|(number, feature)| match feature {
        FeaturePlan::Baseline(baseline) => Some((number, baseline.name.as_str(), baseline)),
        _ => None,
    })
}

/// What nobody could go on from.
fn check_movable(old: &Engine, new: &Engine) -> Result<()> {
    old.check_complete()?;
    let root = |engine: &Engine| engine.streams[engine.root].name.clone();
    if root(old) != root(new) {
        return Err(refused("the root stream is another one"));
    }
    for (before, after) in old.streams.iter().filter_map(|s| Some((s, new.streams.iter().find(|t| t.name == s.name)?)))
    {
        if before.id() != after.id() || before.event_time != after.event_time {
            return Err(refused(&format!("stream '{}' has another id or event time column", before.name)));
        }
    }
    if old.sessions.is_some() && new.sessions.is_some() && !new.parts.same(&old.parts, "sessions") {
        return Err(refused("sessions are of another key, gap or length"));
    }
    if old.sessions.is_none() && new.sessions.is_some() {
        return Err(refused("sessions cannot begin in the middle of a stream"));
    }
    let waiting = old.pending.as_ref().map_or(0, |pending| pending.stats().0);
    if waiting > 0 {
        return Err(refused(&format!(
            "{waiting} rows wait to leave under the old definition; go on with it once, and stop it"
        )));
    }
    Ok(())
}

/// Move state by its bytes.
pub(super) fn copy(
    write: impl FnOnce(&mut ByteWriter),
    read: impl FnOnce(&mut ByteReader<'_>) -> Result<()>,
) -> Result<()> {
    let mut out = ByteWriter::default();
    write(&mut out);
    let bytes = out.finish();
    read(&mut ByteReader::new(&bytes))
}

pub(super) fn refused(what: &str) -> KernelError {
    KernelError::State(format!("the state cannot be moved to the new plan: {what}"))
}
