//! All keys of one entity: find a key's state, let events arrive or read as of a time, and give memory back by TTL.

mod converted;
mod sizes;
mod spill;
mod stored;

use arrow::array::{
    Array, ArrayRef, BooleanBuilder, Decimal128Builder, Float64Builder, Int64Builder, StringArray, StringBuilder,
    TimestampMicrosecondBuilder,
};
use arrow::datatypes::DataType;
use compact_str::CompactString;
use hashbrown::{DefaultHashBuilder, HashTable};
use std::hash::BuildHasher;
use std::sync::Arc;

use self::spill::Cold;
use super::interner::Interner;
use super::key::{KeyState, Scratch, SessionSpan, Value};
use super::layout::{LaneType, Layout};
use super::paged::Paged;
use super::row::{self, OrderKey};
use crate::error::{KernelError, Result};

/// Events of one key at the most, unless configured otherwise; beyond it the oldest go and readings are `saturated`.
pub const MAX_EVENTS_PER_KEY: usize = 4_000_000;

/// One lane of a batch of events, ready to be stored.
pub enum Lane<'a> {
    Words(Vec<u64>),
    Text(&'a StringArray),
}

/// A batch of events of one entity, in order of arrival.
pub struct EventBatch<'a> {
    pub times: &'a [i64],
    pub ids: &'a [u128],
    pub masks: Vec<u64>,
    pub lanes: Vec<Lane<'a>>,
}

#[derive(Debug, Default)]
struct Slot {
    key: CompactString,
    used: bool,
    /// Since the hand that lets cold keys leave came by last.
    touched: bool,
    /// Changed since it was last handed over.
    dirty: bool,
    /// Chosen to leave.
    leaving: bool,
    state: KeyState,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    slot: u32,
    /// Half of the key's hash: spares a look at the slot for most unequal keys, and a rehash when the index grows.
    tag: u32,
}

/// What an arrival gives.
pub struct Arrived<'a> {
    pub values: &'a [Value],
    /// The reading may miss events, since the key was over its limit.
    pub saturated: bool,
    /// Later events of the key are there already: what was read as of them may have changed.
    pub before_others: bool,
}

/// Counters of a store.
#[derive(Debug, Clone, Copy, Default)]
pub struct StoreStats {
    pub keys: usize,
    pub events: usize,
    pub bytes: usize,
    pub saturated_keys: usize,
}

/// The keyed state of one entity.
#[derive(Debug)]
pub struct KeyedStore {
    layout: Arc<Layout>,
    index: HashTable<Entry>,
    /// Keys never move, and growing never copies them all.
    slots: Paged<Slot>,
    text_lanes: Box<[u8]>,
    interner: Interner,
    scratch: Scratch,
    row: Vec<u64>,
    values: Vec<Value>,
    /// Seeded at random per process against keys made to collide; it decides places in memory only, never results.
    hasher: DefaultHashBuilder,
    sweep_at: usize,
    max_events_per_key: usize,
    events: usize,
    /// Before which event time no event can be read any more.
    horizon: i64,
    cold: Option<Box<Cold>>,
}

impl KeyedStore {
    /// An empty store.
    pub fn new(layout: Arc<Layout>, max_events_per_key: usize) -> Self {
        let (stride, outputs) = (layout.stride(), layout.outputs.len());
        let text_lanes = layout.lanes.iter().enumerate().filter(|(_, lane)| **lane == LaneType::Text);
        Self {
            text_lanes: text_lanes.map(|(i, _)| i as u8).collect(),
            scratch: Scratch::new(&layout),
            layout,
            index: HashTable::new(),
            slots: Paged::new(),
            interner: Interner::default(),
            row: vec![0; stride],
            values: vec![Value::Null; outputs],
            hasher: DefaultHashBuilder::default(),
            sweep_at: 0,
            max_events_per_key: max_events_per_key.max(1),
            events: 0,
            horizon: i64::MIN,
            cold: None,
        }
    }

    /// The compiled aggregates.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Read the words that an arrival at `slot` begins with, and return something that depends on them.
    ///
    /// A key's state lies anywhere in memory, and waiting for it is most of what an arrival costs. Done for a group of keys
    /// before any of them is worked on, the waits overlap.
    #[inline]
    pub fn warm(&self, slot: u32) -> u64 {
        self.slots[slot].state.warm()
    }

    /// Event `i` of the batch arrives at the key in `slot`: it is kept, and every output is read as of it.
    pub fn arrive(&mut self, slot: u32, batch: &EventBatch<'_>, i: usize) -> Arrived<'_> {
        self.make_room(slot);
        self.fill_row(batch, i);
        let Slot { state, touched, dirty, .. } = &mut self.slots[slot];
        (*touched, *dirty) = (true, true);
        let before_others = state.arrive(&self.layout, &self.row, &mut self.scratch, &mut self.values);
        self.events += 1;
        let saturated = state.saturated(&self.layout, batch.times[i] - self.layout.retention_us());
        Arrived { values: &self.values, saturated, before_others }
    }

    /// Every output as of the event at `order`, which `slot` holds, over all that is known now; and whether that is saturated.
    pub fn read_event(&mut self, slot: u32, order: OrderKey) -> (&[Value], bool) {
        let Slot { state, touched, .. } = &mut self.slots[slot];
        *touched = true;
        state.read_event(&self.layout, order, &mut self.scratch, &mut self.values);
        (&self.values, state.saturated(&self.layout, order.0 - self.layout.retention_us()))
    }

    /// Places in the order of I1 of the events of `slot` after `after`, up to event time `until`.
    pub fn orders_after(&self, slot: u32, after: OrderKey, until: i64) -> Vec<OrderKey> {
        self.slots[slot].state.orders_after(&self.layout, after, until)
    }

    /// The last event time of a run of events of `slot`: see [`KeyState::run_end`].
    pub fn run_end(&self, slot: u32, time: i64, gap: i64) -> i64 {
        self.slots[slot].state.run_end(&self.layout, time, gap)
    }

    /// Event `i` of the batch is kept under the key in `slot`; nothing is read. True if later events of the key are there.
    pub fn insert(&mut self, slot: u32, batch: &EventBatch<'_>, i: usize) -> bool {
        self.make_room(slot);
        self.fill_row(batch, i);
        self.events += 1;
        let Slot { state, touched, dirty, .. } = &mut self.slots[slot];
        (*touched, *dirty) = (true, true);
        state.insert(&self.layout, &self.row)
    }

    /// Read every output of `key` as of `time`. `None` for a key that no event has.
    pub fn read(&mut self, key: &str, time: i64) -> Option<(&[Value], bool)> {
        let slot = self.find(key)?;
        Some(self.read_as_of(slot, time))
    }

    /// Values of a key without events: counts and sums are 0, everything else is null.
    pub fn read_empty(&mut self, time: i64) -> &[Value] {
        KeyState::default().read(&self.layout, time, &mut self.scratch, &mut self.values);
        &self.values
    }

    /// The sessions of `slot` around the event at `anchor`: see [`KeyState::session_run`].
    pub fn session_run(&self, slot: u32, window: usize, anchor: i64) -> Option<Vec<SessionSpan>> {
        let Slot { used, state, .. } = self.slots.get(slot)?;
        used.then(|| state.session_run(&self.layout, window, anchor)).flatten()
    }

    /// Every output of `slot` as of `time`, and whether that is saturated.
    pub fn read_as_of(&mut self, slot: u32, time: i64) -> (&[Value], bool) {
        let Slot { state, touched, .. } = &mut self.slots[slot];
        *touched = true;
        state.read(&self.layout, time, &mut self.scratch, &mut self.values);
        (&self.values, state.saturated(&self.layout, time - self.layout.retention_us()))
    }

    /// The newest event time of `slot`.
    pub fn newest(&self, slot: u32) -> Option<i64> {
        self.slots[slot].state.last_time(&self.layout)
    }

    /// The newest event time of all keys. Walks over them.
    pub fn newest_of_all(&self) -> i64 {
        self.slots.iter().filter_map(|slot| slot.state.last_time(&self.layout)).max().unwrap_or(i64::MIN)
    }

    /// The key of `slot` and its outputs as of `time`.
    pub fn read_slot(&mut self, slot: u32, time: i64) -> (&str, &[Value]) {
        let Slot { key, state, .. } = &mut self.slots[slot];
        state.read(&self.layout, time, &mut self.scratch, &mut self.values);
        (key.as_str(), &self.values)
    }

    /// The text behind a [`Value::Text`] that was just read.
    pub fn text(&self, code: u64) -> &str {
        self.interner.text(code)
    }

    /// Prune up to `slots` keys, going round: events before `horizon` go, and keys that nothing can read any more.
    pub fn sweep(&mut self, slots: usize, horizon: i64) {
        self.horizon = self.horizon.max(horizon);
        for _ in 0..slots.min(self.slots.places()) {
            let Some(slot) = self.next_to_sweep() else { break };
            self.prune_slot(slot, horizon);
        }
        if self.index.capacity() > 1_024 && self.index.len() * 4 < self.index.capacity() {
            let len = self.index.len();
            self.index.shrink_to(len * 2, spread_entry);
        }
        self.interner.shrink();
    }

    fn next_to_sweep(&mut self) -> Option<u32> {
        let slot = self.slots.at_or_after(self.sweep_at).or_else(|| self.slots.at_or_after(0))?;
        self.sweep_at = slot as usize + 1;
        Some(slot)
    }

    fn prune_slot(&mut self, slot: u32, horizon: i64) {
        let place = &mut self.slots[slot];
        if !place.used {
            return;
        }
        let (lanes, interner, events) = (&self.text_lanes, &mut self.interner, &mut self.events);
        place.state.prune(&self.layout, horizon, |row| {
            *events -= 1;
            release_texts(interner, lanes, row);
        });
        if place.state.forgettable() {
            self.forget(slot);
        }
    }

    /// Let another event fit into a key's limit: before it comes, so that what is read stays until it is written.
    #[inline]
    fn make_room(&mut self, slot: u32) {
        if self.slots[slot].state.exceeds(&self.layout, self.max_events_per_key - 1) {
            self.trim(slot, self.max_events_per_key - 1);
        }
    }

    /// Drop the oldest events of a key beyond `limit`.
    #[cold]
    fn trim(&mut self, slot: u32, limit: usize) {
        let place = &mut self.slots[slot];
        let (lanes, interner, events) = (&self.text_lanes, &mut self.interner, &mut self.events);
        place.state.trim(&self.layout, limit, |row| {
            *events -= 1;
            release_texts(interner, lanes, row);
        });
    }

    fn forget(&mut self, slot: u32) {
        let Slot { key, .. } = self.slots.remove(slot);
        let tag = tag_of(&self.hasher, key.as_str());
        if let Ok(entry) = self.index.find_entry(spread(tag), |entry| entry.slot == slot) {
            entry.remove();
        }
    }

    /// Number of keys, events and bytes. Walks over all keys.
    pub fn stats(&self) -> StoreStats {
        let mut stats = StoreStats { keys: self.index.len(), events: self.events, ..StoreStats::default() };
        for slot in self.slots.iter() {
            stats.bytes += slot.state.heap_bytes() + if slot.key.is_heap_allocated() { slot.key.len() } else { 0 };
            stats.saturated_keys += usize::from(slot.state.saturated(&self.layout, i64::MIN + 1));
        }
        stats.bytes += self.slots.heap_bytes() + self.index.allocation_size() + self.interner.heap_bytes();
        stats
    }

    /// Number of keys.
    pub fn len(&self) -> usize {
        self.index.len()
    }

    /// Whether no key is held.
    pub fn is_empty(&self) -> bool {
        self.index.is_empty()
    }

    /// Events held over all keys.
    pub fn events(&self) -> usize {
        self.events
    }

    /// The state bytes of one key, with events before `horizon` left out.
    pub fn encode_key(&self, key: &str, horizon: i64) -> Option<Vec<u8>> {
        let slot = self.find(key)?;
        let state = &self.slots[slot].state;
        Some(super::codec::encode(&self.layout, state, horizon, |code| self.interner.text(code)))
    }

    /// Put a key back from its state bytes, in place of what it holds now. Bytes that are refused change nothing.
    ///
    /// # Errors
    /// Bytes of another version or definition, or torn ones.
    pub fn decode_key(&mut self, key: &str, bytes: &[u8]) -> Result<()> {
        let decoded = super::codec::decode(&self.layout, bytes)?;
        let slot = self.locate(key);
        let (mut rows, stride) = (decoded.rows, self.layout.stride());
        self.own_texts(&mut rows, &decoded.texts);
        self.events += rows.len() / stride;
        let state = KeyState::from_parts(&self.layout, rows, decoded.floors);
        let place = &mut self.slots[slot];
        place.dirty = true;
        let replaced = std::mem::replace(&mut place.state, state);
        for event in replaced.rows().chunks_exact(stride) {
            self.events -= 1;
            release_texts(&mut self.interner, &self.text_lanes, event);
        }
        self.trim(slot, self.max_events_per_key);
        Ok(())
    }

    /// Let rows hold their texts by this store's codes, where they held them by number.
    fn own_texts(&mut self, rows: &mut [u64], texts: &[String]) {
        for event in rows.chunks_exact_mut(self.layout.stride()) {
            for &lane in &self.text_lanes {
                if row::lane(event, lane) != NO_TEXT {
                    let code = self.interner.acquire(&texts[row::lane(event, lane) as usize]);
                    row::set_lane(event, lane, code);
                }
            }
        }
    }

    /// All keys, in no order.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.slots.iter().filter(|slot| slot.used).map(|slot| slot.key.as_str())
    }

    fn fill_row(&mut self, batch: &EventBatch<'_>, i: usize) {
        row::set_header(&mut self.row, batch.times[i], batch.ids[i], batch.masks[i]);
        for (number, lane) in batch.lanes.iter().enumerate() {
            let word = match lane {
                Lane::Words(words) => words[i],
                Lane::Text(texts) if texts.is_null(i) => NO_TEXT,
                Lane::Text(texts) => self.interner.acquire(texts.value(i)),
            };
            row::set_lane(&mut self.row, number as u8, word);
        }
    }

    /// The slot of `key`, if it has one.
    pub fn find(&self, key: &str) -> Option<u32> {
        let tag = tag_of(&self.hasher, key);
        self.index.find(spread(tag), |entry| entry.tag == tag && self.key_at(entry.slot) == key).map(|entry| entry.slot)
    }

    /// The key of a slot.
    pub fn key_at(&self, slot: u32) -> &str {
        self.slots[slot].key.as_str()
    }

    /// The slot of `key`, a new one if it has none. Stays valid until the next sweep.
    pub fn locate(&mut self, key: &str) -> u32 {
        let tag = tag_of(&self.hasher, key);
        let found = self.index.find(spread(tag), |entry| entry.tag == tag && self.key_at(entry.slot) == key);
        if let Some(entry) = found {
            return entry.slot;
        }
        let slot = self.slots.insert(Slot { key: key.into(), used: true, ..Slot::default() });
        self.index.insert_unique(spread(tag), Entry { slot, tag }, spread_entry);
        slot
    }
}

fn release_texts(interner: &mut Interner, lanes: &[u8], event: &[u64]) {
    for &lane in lanes {
        if row::lane(event, lane) != NO_TEXT {
            interner.release(row::lane(event, lane));
        }
    }
}

/// The lane word of a missing text.
pub const NO_TEXT: u64 = u64::MAX;

fn tag_of(hasher: &DefaultHashBuilder, key: &str) -> u32 {
    (hasher.hash_one(key) >> 32) as u32
}

/// 64 bits for the table from the 32 that are kept.
fn spread(tag: u32) -> u64 {
    u64::from(tag).wrapping_mul(0x9E37_79B9_7F4A_7C15)
}

fn spread_entry(entry: &Entry) -> u64 {
    spread(entry.tag)
}

/// Collects one output column.
pub enum Column {
    Integer(Int64Builder),
    Boolean(BooleanBuilder),
    Timestamp(TimestampMicrosecondBuilder),
    Float(Float64Builder),
    Decimal(Decimal128Builder),
    Text(StringBuilder),
}

impl Column {
    /// A column for values of an Arrow type.
    ///
    /// # Errors
    /// A type that no aggregate has.
    pub fn new(data_type: &DataType, rows: usize) -> Result<Self> {
        Ok(match data_type {
            DataType::Int64 => Self::Integer(Int64Builder::with_capacity(rows)),
            DataType::Boolean => Self::Boolean(BooleanBuilder::with_capacity(rows)),
            DataType::Timestamp(..) => {
                Self::Timestamp(TimestampMicrosecondBuilder::with_capacity(rows).with_timezone("UTC"))
            }
            DataType::Float64 => Self::Float(Float64Builder::with_capacity(rows)),
            DataType::Decimal128(precision, scale) => {
                Self::Decimal(Decimal128Builder::with_capacity(rows).with_precision_and_scale(*precision, *scale)?)
            }
            DataType::Utf8 => Self::Text(StringBuilder::new()),
            other => return Err(KernelError::Plan(format!("no aggregate has the type {other}"))),
        })
    }

    /// Append a value; a value of another kind than the column's is null.
    #[inline]
    pub fn push<'a>(&mut self, value: Value, text: impl Fn(u64) -> &'a str) {
        match (self, value) {
            (Self::Integer(b), Value::Integer(x)) => b.append_value(x),
            (Self::Boolean(b), Value::Integer(x)) => b.append_value(x != 0),
            (Self::Timestamp(b), Value::Integer(x)) => b.append_value(x),
            (Self::Float(b), Value::Float(x)) => b.append_value(x),
            (Self::Decimal(b), Value::Decimal(x)) => b.append_value(x),
            (Self::Text(b), Value::Text(code)) => b.append_value(text(code)),
            (Self::Integer(b), _) => b.append_null(),
            (Self::Boolean(b), _) => b.append_null(),
            (Self::Timestamp(b), _) => b.append_null(),
            (Self::Float(b), _) => b.append_null(),
            (Self::Decimal(b), _) => b.append_null(),
            (Self::Text(b), _) => b.append_null(),
        }
    }

    /// The finished array.
    pub fn finish(self) -> ArrayRef {
        match self {
            Self::Integer(mut b) => Arc::new(b.finish()),
            Self::Boolean(mut b) => Arc::new(b.finish()),
            Self::Timestamp(mut b) => Arc::new(b.finish()),
            Self::Float(mut b) => Arc::new(b.finish()),
            Self::Decimal(mut b) => Arc::new(b.finish()),
            Self::Text(mut b) => Arc::new(b.finish()),
        }
    }
}
