//! All keys and all events of an operator, as batches, a page at a time.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};

use super::key::{join_events, EventColumns};
use crate::engine::columns::Columns;
use crate::engine::Engine;
use crate::error::{KernelError, Result};
use crate::join::store::JoinStore;
use crate::keyed::row;

/// Some keys of an operator, and their events.
pub struct Page {
    /// One row for each key: key, events, bytes, oldest, newest.
    pub keys: RecordBatch,
    pub events: RecordBatch,
    /// Where to go on; none after the last key.
    pub next: Option<usize>,
}

#[derive(Default)]
struct KeyRows {
    keys: Vec<String>,
    events: Vec<i64>,
    bytes: Vec<i64>,
    oldest: Vec<Option<i64>>,
    newest: Vec<Option<i64>>,
}

impl KeyRows {
    fn push(&mut self, key: &str, events: usize, bytes: usize, span: Option<(i64, i64)>) {
        let (oldest, newest) = span.unzip();
        self.keys.push(key.to_owned());
        self.events.push(events as i64);
        self.bytes.push(bytes as i64);
        self.oldest.push(oldest);
        self.newest.push(newest);
    }

    fn finish(self) -> Result<RecordBatch> {
        let times = |values: Vec<Option<i64>>| -> ArrayRef {
            Arc::new(values.into_iter().collect::<TimestampMicrosecondArray>().with_timezone("UTC"))
        };
        let mut columns = Columns { fields: Vec::new(), arrays: Vec::new() };
        columns.push("key", Arc::new(StringArray::from(self.keys)));
        columns.push("events", Arc::new(Int64Array::from(self.events)));
        columns.push("bytes", Arc::new(Int64Array::from(self.bytes)));
        columns.push("oldest", times(self.oldest));
        columns.push("newest", times(self.newest));
        columns.finish()
    }
}

impl Engine {
    /// Keys of operator number `operator` (in the order of [`Engine::inspect`]: windows, patterns, sides of joins) from place
    /// `from` on, with their events: about `most` events.
    ///
    /// # Errors
    /// An operator that has no keys.
    pub fn page(&self, operator: usize, from: usize, most: usize) -> Result<Page> {
        let (entities, patterns) = (self.entities.len(), self.patterns.len());
        if operator < entities {
            return self.entity_page(operator, from, most);
        }
        if operator < entities + patterns {
            return self.pattern_page(operator - entities, from, most);
        }
        self.join_page(operator - entities - patterns, from, most)
    }

    fn entity_page(&self, number: usize, from: usize, most: usize) -> Result<Page> {
        let entity = &self.entities[number];
        let (store, layout) = (&entity.store, entity.store.layout());
        let mut events = EventColumns::of_entity(entity, self.integer_id(&entity.id.stream))?.with_keys();
        let (mut keys, mut next) = (KeyRows::default(), None);
        for seen in store.walk(from) {
            if events.len() >= most || keys.keys.len() >= most {
                next = Some(seen.slot as usize);
                break;
            }
            keys.push(seen.key, seen.state.len(layout), seen.bytes, seen.state.span(layout));
            for event in seen.state.rows().chunks_exact(layout.stride()) {
                events.push(Some(seen.key), event, |code| store.text(code));
            }
        }
        Ok(Page { keys: keys.finish()?, events: events.finish()?, next })
    }

    fn pattern_page(&self, number: usize, from: usize, most: usize) -> Result<Page> {
        let pattern = &self.patterns[number];
        let (store, stride) = (pattern.store(), pattern.store().definition().stride());
        let mut events = EventColumns::of_pattern(pattern, self.stream(&pattern.id.stream))?.with_keys();
        let (mut keys, mut next) = (KeyRows::default(), None);
        for (slot, name, key) in store.walk(from) {
            if events.len() >= most || keys.keys.len() >= most {
                next = Some(slot as usize);
                break;
            }
            let times = || key.rows().chunks_exact(stride).map(row::time);
            let span = times().next().zip(times().next_back());
            keys.push(name, key.rows().len() / stride, key.heap_bytes(), span);
            key.rows().chunks_exact(stride).for_each(|event| events.push(Some(name), event, |code| store.text(code)));
        }
        Ok(Page { keys: keys.finish()?, events: events.finish()?, next })
    }

    fn join_page(&self, number: usize, from: usize, most: usize) -> Result<Page> {
        let sides = self.joins.sides(&self.streams);
        let side = sides.get(number).ok_or_else(|| KernelError::Batch("no such operator with keys".into()))?;
        let (mut keys, mut next) = (KeyRows::default(), None);
        let (mut names, mut events) = (Vec::new(), Vec::new());
        for (place, key) in side.join.store().keys().enumerate().skip(from) {
            if events.len() >= most {
                next = Some(place);
                break;
            }
            let held = key.side(side.side);
            if held.is_empty() {
                continue;
            }
            let times = || held.iter().map(|event| event.order.0);
            let bytes = JoinStore::side_bytes(key, side.side);
            keys.push(&key.text, held.len(), bytes, times().next().zip(times().last()));
            events.extend(held.iter());
            names.resize(events.len(), key.text.as_str());
        }
        let events = join_events(side, &self.streams, Some(names), events.into_iter())?;
        Ok(Page { keys: keys.finish()?, events, next })
    }
}
