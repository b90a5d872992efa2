//! What a row says of its features: `stale` where another stream is behind, `saturated` where state was dropped.

use std::sync::Arc;

use arrow::array::{ArrayRef, StringBuilder};

use super::entity::{EntityId, Reader, Readings};
use super::patterns::PatternReadings;
use super::{Engine, Feature};
use crate::arrival::watermark;

impl Engine {
    /// Per row, the features that are not simply fresh or absent: `name=stale` or `name=saturated`, comma-separated.
    pub(super) fn feature_states(
        &self,
        readings: &[Readings],
        patterns: &[PatternReadings],
        times: &[i64],
    ) -> ArrayRef {
        let mut builder = StringBuilder::new();
        let entities: Vec<State<'_>> = self
            .entities
            .iter()
            .zip(readings)
            .map(|(e, read)| State { until: self.known_until(&e.id, &e.reader), saturated: &read.saturated })
            .collect();
        let patterns: Vec<State<'_>> = self
            .patterns
            .iter()
            .zip(patterns)
            .map(|(p, read)| State { until: self.known_until(&p.id, &p.reader), saturated: &read.saturated })
            .collect();
        let special = entities.iter().chain(&patterns).any(State::special);
        for (i, &time) in times.iter().enumerate() {
            let mut text = String::new();
            for feature in self.features.iter().filter(|_| special) {
                let (name, state) = match feature {
                    Feature::Aggregate { name, entity, .. } => (name, entities[*entity].at(i, time)),
                    Feature::Pattern { name, column } => (name, patterns[column.0].at(i, time)),
                    _ => continue,
                };
                if let Some(state) = state {
                    let comma = if text.is_empty() { "" } else { "," };
                    text.push_str(&format!("{comma}{name}={state}"));
                }
            }
            if text.is_empty() {
                builder.append_null();
            } else {
                builder.append_value(text);
            }
        }
        Arc::new(builder.finish())
    }

    /// Up to which event time an entity's events are known to have arrived: of interest for lookups only, since a row's
    /// own stream is read as of its arrival by definition. An idle stream is taken to have said all; one that was never heard
    /// has not said anything, however long that lasts.
    pub(super) fn known_until(&self, id: &EntityId, reader: &Reader) -> i64 {
        if *reader == Reader::Own {
            return i64::MAX;
        }
        let other = self.streams.iter().find(|s| s.name == id.stream).expect("checked when compiled");
        if other.watermark.idle() && other.watermark.current() != watermark::NONE {
            return i64::MAX;
        }
        other.watermark.current().saturating_add(other.watermark_delay_us)
    }
}

/// What is known of the readings of one entity or pattern.
struct State<'a> {
    until: i64,
    saturated: &'a [u32],
}

impl State<'_> {
    fn special(&self) -> bool {
        self.until != i64::MAX || !self.saturated.is_empty()
    }

    fn at(&self, row: usize, time: i64) -> Option<&'static str> {
        if self.saturated.binary_search(&(row as u32)).is_ok() {
            Some("saturated")
        } else {
            (time > self.until).then_some("stale")
        }
    }
}
