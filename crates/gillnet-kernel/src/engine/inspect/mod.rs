//! What the state holds, for people: each kind of state by itself, with its largest keys, its age, and what expires when.
//!
//! Nothing here changes what is computed, and nothing that a run does needs it. [`Engine::inspect`] walks over every key once, so
//! it is for a restored copy; [`Engine::sizes`] costs as much however many keys there are, and is for a live run.
//!
//! **When things expire.** An operator forgets an event once `reach` has passed it by its retention, where `reach` is the event
//! time before which nothing will be read or changed any more: the watermark less the allowed lateness, and where rows that
//! wait or can still be revised read further back, less that. So the cuts are told in event time from here on: what goes when
//! the watermark has gone on by so much.

mod export;
mod key;
mod tally;

pub use self::export::Page;
pub use self::key::KeyView;
use self::tally::{Counted, Tally};
pub use self::tally::{Cut, LargeKey};
use super::entity::{Entity, EntityId, Reader};
use super::patterns::PatternEntity;
use super::{Engine, Feature};
use crate::arrival::watermark;
use crate::join::store::JoinStore;
use crate::keyed::window::Window;

/// Bytes of one bin of a baseline in its tree, about.
const BIN_BYTES: usize = 24;

/// What the state of one operator is for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OperatorName {
    /// windows, pattern, join, sessions, baseline, ids, revisable rows, waiting rows
    pub kind: &'static str,
    /// Such as `payments.card_id`.
    pub name: String,
    pub stream: String,
    /// The root's column that looks it up.
    pub at: Option<String>,
    /// The features that read it.
    pub features: Vec<String>,
}

/// The state of one operator, after a walk over its keys.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct OperatorState {
    pub of: OperatorName,
    pub keys: usize,
    /// Events, or what else it counts: ids, rows, timers, bins.
    pub events: usize,
    /// All bytes, those of the keys themselves, and those of structure that keys share.
    pub bytes: usize,
    pub saturated_keys: usize,
    pub oldest: Option<i64>,
    pub newest: Option<i64>,
    pub retention_us: i64,
    /// None while nothing is known of the watermark.
    pub reach: Option<i64>,
    /// What has gone when event time has gone on by each of the times that were asked for.
    pub expiring: Vec<Cut>,
    /// What would stay if the retention were each of those that were asked for.
    pub kept: Vec<Cut>,
    pub largest: Vec<LargeKey>,
    pub gini: f64,
}

/// The size of one operator's state, without a walk: bytes are a lower bound.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OperatorSize {
    pub kind: &'static str,
    pub name: String,
    pub keys: usize,
    pub events: usize,
    pub bytes: usize,
}

/// What [`Engine::inspect`] is asked.
#[derive(Debug, Clone, Default)]
pub struct Asked {
    /// Largest keys of each operator.
    pub top: usize,
    /// Times from now on, in µs of event time.
    pub within: Vec<i64>,
    /// Retentions, in µs.
    pub retentions: Vec<i64>,
}

impl Asked {
    /// An empty tally for state that is kept for `retention` before `reach`.
    fn tally(&self, reach: Option<i64>, retention: i64) -> Tally {
        let edges = reach.map_or_else(Vec::new, |reach| {
            let expiring = self.within.iter().map(|&time| reach.saturating_sub(retention).saturating_add(time));
            expiring.chain(self.retentions.iter().map(|&kept| reach.saturating_sub(kept))).collect()
        });
        Tally::new(edges, self.top)
    }

    fn state(&self, of: OperatorName, (reach, retention_us): (Option<i64>, i64), mut tally: Tally) -> OperatorState {
        let mut expiring = std::mem::take(&mut tally.before);
        let passed = expiring.split_off(expiring.len().min(self.within.len()));
        let (keys, events, bytes) = (tally.keys, tally.events, tally.bytes);
        let rest = |cut: &Cut| Cut { keys: keys - cut.keys, events: events - cut.events, bytes: bytes - cut.bytes };
        OperatorState {
            of,
            keys,
            events,
            bytes,
            saturated_keys: 0,
            oldest: tally.oldest,
            newest: tally.newest,
            retention_us,
            reach,
            expiring,
            kept: passed.iter().map(rest).collect(),
            gini: tally.gini(),
            largest: tally.largest(),
        }
    }
}

impl Engine {
    /// Every operator's state. Walks over all keys.
    pub fn inspect(&self, asked: &Asked) -> Vec<OperatorState> {
        let mut found: Vec<OperatorState> = Vec::new();
        found.extend(self.entities.iter().enumerate().map(|(number, entity)| self.windows(number, entity, asked)));
        found.extend(self.patterns.iter().map(|pattern| self.pattern(pattern, asked)));
        found.extend(self.join_sides(asked));
        found.extend(self.session_states(asked));
        found.extend(self.revisable_rows(asked));
        found.extend(self.waiting_rows(asked));
        found.extend(self.ids(asked));
        found
    }

    /// Every operator's size, by what is counted anyway; costs as much however many keys there are.
    pub fn sizes(&self) -> Vec<OperatorSize> {
        let mut sizes: Vec<OperatorSize> = Vec::new();
        let mut push = |kind, name, (keys, events), bytes| sizes.push(OperatorSize { kind, name, keys, events, bytes });
        for entity in &self.entities {
            let store = &entity.store;
            push("windows", label(&entity.id, &entity.reader), (store.len(), store.events()), store.estimated_bytes());
        }
        for pattern in self.patterns.iter() {
            push("pattern", pattern.name().to_owned(), pattern.held(), pattern.store().estimated_bytes());
        }
        for side in self.joins.sides(&self.streams).iter().step_by(2) {
            let (keys, events, _) = side.join.held();
            let bytes = side.join.store().estimated_bytes() + side.join.waiting_bytes();
            push("join", side.name.to_owned(), (keys, events), bytes);
        }
        if let Some(sessions) = &self.sessions {
            let root = &self.streams[self.root].name;
            push("sessions", root.clone(), (0, sessions.held()), sessions.timers().heap_bytes());
        }
        if let Some(revisions) = &self.revisions {
            let rows = revisions.rows();
            push("revisable rows", self.streams[self.root].name.clone(), (0, rows.len()), rows.estimated_bytes());
        }
        if let Some(pending) = &self.pending {
            push("waiting rows", self.streams[self.root].name.clone(), (0, pending.stats().0), 0);
        }
        for stream in &self.streams {
            push("ids", stream.name.clone(), (0, stream.seen.len()), stream.seen.heap_bytes());
        }
        sizes
    }

    fn feature_names(&self, numbers: &[usize]) -> Vec<String> {
        let names = numbers.iter().filter_map(|&number| self.features.get(number));
        names.map(|feature| feature.name().to_owned()).collect()
    }

    /// How far back of `reach` an entity keeps events, and its `reach`.
    fn kept_by(&self, number: usize) -> (Option<i64>, i64) {
        let entity = &self.entities[number];
        let of_session = self.sessions.as_ref().filter(|sessions| sessions.entity == number);
        let reach = self.reach(&entity.id, &entity.reader).min(self.still_read_from());
        let retention = entity.store.layout().retention_us() + of_session.map_or(0, |sessions| sessions.gap_us());
        (known(reach), retention)
    }

    fn windows(&self, number: usize, entity: &Entity, asked: &Asked) -> OperatorState {
        let (store, layout) = (&entity.store, entity.store.layout());
        let (reach, retention) = self.kept_by(number);
        // What `seconds_since_last` remembers outlives its event, and holds the key with it.
        let latest = layout.windows.iter().filter_map(|plan| match plan.window {
            Window::Latest { size_us, .. } => Some(size_us),
            _ => None,
        });
        let beyond = (latest.max().unwrap_or(0) - retention).max(0);
        let (mut tally, mut saturated) = (asked.tally(reach, retention), 0);
        for seen in store.walk(0) {
            let span = seen.state.span(layout);
            let newest = span.map_or(i64::MIN, |(_, newest)| newest);
            let remembered = seen.state.floors().iter().copied().max().unwrap_or(i64::MIN);
            let held_to = if beyond > 0 { newest.max(remembered).saturating_add(beyond) } else { i64::MIN };
            let events = seen.state.len(layout);
            saturated += usize::from(seen.state.saturated(layout, i64::MIN + 1));
            let counted = Counted { key: seen.key, events, bytes: seen.bytes, span, held_to };
            tally.add(&counted, |edge| seen.state.count_before(layout, edge));
        }
        let of = OperatorName {
            kind: "windows",
            name: label(&entity.id, &entity.reader),
            stream: entity.id.stream.clone(),
            at: looked_up_at(&entity.reader),
            features: self.feature_names(&entity.features),
        };
        let state = asked.state(of, (reach, retention), tally);
        OperatorState { bytes: state.bytes + store.structure_bytes(), saturated_keys: saturated, ..state }
    }

    fn pattern(&self, pattern: &PatternEntity, asked: &Asked) -> OperatorState {
        let (store, definition) = (pattern.store(), pattern.store().definition());
        let reach = known(self.reach(&pattern.id, &pattern.reader).min(self.still_read_from()));
        // An event at exactly the look-back is out of reach, so it counts as if it lay one microsecond before.
        let retention = definition.lookback_us() - 1;
        let beyond = (store.looks_back_us() - retention).max(0);
        let (mut tally, mut saturated, stride) = (asked.tally(reach, retention), 0, definition.stride());
        for (_, name, key) in store.walk(0) {
            let rows = key.rows();
            let times = || rows.chunks_exact(stride).map(crate::keyed::row::time);
            let span = times().next().zip(times().next_back());
            let held_to = span.map_or(i64::MIN, |(_, newest)| newest.saturating_add(beyond));
            saturated += usize::from(key.saturated());
            let counted = Counted { key: name, events: rows.len() / stride, bytes: key.heap_bytes(), span, held_to };
            tally.add(&counted, |edge| times().take_while(|time| *time < edge).count());
        }
        let state = asked.state(self.pattern_name(pattern), (reach, retention), tally);
        OperatorState { bytes: state.bytes + store.structure_bytes(), saturated_keys: saturated, ..state }
    }

    fn pattern_name(&self, pattern: &PatternEntity) -> OperatorName {
        let own = self.patterns.iter().position(|other| std::ptr::eq(other, pattern));
        let reads = |feature: &&Feature| matches!(feature, Feature::Pattern { column, .. } if Some(column.0) == own);
        OperatorName {
            kind: "pattern",
            name: pattern.name().to_owned(),
            stream: pattern.id.stream.clone(),
            at: looked_up_at(&pattern.reader),
            features: self.features.iter().filter(reads).map(|feature| feature.name().to_owned()).collect(),
        }
    }

    fn join_sides(&self, asked: &Asked) -> Vec<OperatorState> {
        let mut states = Vec::new();
        for side in self.joins.sides(&self.streams) {
            let (reach, retention) = (known(side.reach), side.join.retention_us(side.side));
            let mut tally = asked.tally(reach, retention);
            for key in side.join.store().keys() {
                let events = key.side(side.side);
                if events.is_empty() {
                    continue;
                }
                let bytes = JoinStore::side_bytes(key, side.side);
                let times = || events.iter().map(|event| event.order.0);
                let span = times().next().zip(times().last());
                let counted = Counted { key: &key.text, events: events.len(), bytes, span, held_to: i64::MIN };
                tally.add(&counted, |edge| events.places(i64::MIN, edge.saturating_sub(1)).len());
            }
            let stream = self.streams[side.stream].name.clone();
            let of = OperatorName {
                kind: "join",
                name: format!("{}.{stream}", side.name),
                stream,
                ..OperatorName::default()
            };
            states.push(asked.state(of, (reach, retention), tally));
        }
        states
    }

    fn session_states(&self, asked: &Asked) -> Vec<OperatorState> {
        let Some(sessions) = &self.sessions else { return Vec::new() };
        let root = &self.streams[self.root];
        let (reach, retention) = (known(root.earliest_accepted()), sessions.gap_us());
        let mut tally = asked.tally(reach, retention);
        let (held, bytes) = (sessions.held(), sessions.timers().heap_bytes());
        let each = bytes / held.max(1);
        sessions.timers().emitted_ends().for_each(|last| tally.add_at(last, 1, each));
        let own = |kind, name| OperatorName { kind, name, stream: root.name.clone(), ..OperatorName::default() };
        let of = own("sessions", root.name.clone());
        let mut states = vec![OperatorState { events: held, bytes, ..asked.state(of, (reach, retention), tally) }];
        for (over, baseline) in sessions.baselines() {
            let retention = baseline.over_us();
            let mut tally = asked.tally(reach, retention);
            baseline.steps().for_each(|(time, bins)| tally.add_at(time, bins, bins * BIN_BYTES));
            states.push(asked.state(own("baseline", over.to_owned()), (reach, retention), tally));
        }
        states
    }

    fn revisable_rows(&self, asked: &Asked) -> Option<OperatorState> {
        let rows = self.revisions.as_ref()?.rows();
        let reach = known(self.revisable_from());
        let mut tally = asked.tally(reach, 0);
        rows.segments().for_each(|(newest, rows, bytes)| tally.add_at(newest, rows, bytes));
        let root = self.streams[self.root].name.clone();
        let of = OperatorName { kind: "revisable rows", name: root.clone(), stream: root, ..OperatorName::default() };
        let state = asked.state(of, (reach, 0), tally);
        Some(OperatorState { bytes: state.bytes + rows.index_bytes(), ..state })
    }

    fn waiting_rows(&self, asked: &Asked) -> Option<OperatorState> {
        let (times, bytes) = self.pending.as_ref()?.held();
        let mut tally = asked.tally(None, 0);
        times.for_each(|time| tally.add_at(time, 1, 0));
        let root = self.streams[self.root].name.clone();
        let of = OperatorName { kind: "waiting rows", name: root.clone(), stream: root, ..OperatorName::default() };
        Some(OperatorState { bytes, ..asked.state(of, (None, 0), tally) })
    }

    fn ids(&self, asked: &Asked) -> Vec<OperatorState> {
        let of_stream = |stream: &super::StreamState| {
            let reach = known(stream.earliest_accepted());
            let mut tally = asked.tally(reach, 0);
            let (ids, bytes) = (stream.seen.len(), stream.seen.heap_bytes());
            for (last, held) in stream.seen.by_time() {
                tally.add_at(last, held, (bytes as u128 * held as u128 / ids.max(1) as u128) as usize);
            }
            let name = stream.name.clone();
            let of = OperatorName { kind: "ids", name: name.clone(), stream: name, ..OperatorName::default() };
            OperatorState { bytes, ..asked.state(of, (reach, 0), tally) }
        };
        self.streams.iter().map(of_stream).collect()
    }
}

impl Feature {
    fn name(&self) -> &str {
        match self {
            Self::Aggregate { name, .. }
            | Self::Expression { name, .. }
            | Self::Baseline { name, .. }
            | Self::Pattern { name, .. } => name,
        }
    }
}

fn known(reach: i64) -> Option<i64> {
    Some(reach).filter(|&reach| reach != watermark::NONE)
}

fn looked_up_at(reader: &Reader) -> Option<String> {
    match reader {
        Reader::Own => None,
        Reader::Lookup(at) => Some(at.clone()),
    }
}

/// The entity's name, and what looks it up where that is a column of another name.
fn label(id: &EntityId, reader: &Reader) -> String {
    match reader {
        Reader::Lookup(at) if !at.is_empty() && id.key.as_ref() != Some(at) => format!("{} at {at}", id.name()),
        _ => id.name(),
    }
}
