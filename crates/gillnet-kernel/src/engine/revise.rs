//! Revisions: rows that went out are computed again when a later arrival changes them (I2).
//!
//! 1. note: an event that comes before others of its key disturbs the readings behind it, as far as its windows reach;
//!    an event of another stream disturbs the rows of the root that look its key up
//! 2. gather: disturbed ranges, merged for each key, to the rows that lie in them
//! 3. read: only the entities that were disturbed, in the order of each key's events, so that cursors move once
//! 4. compare with the row as it went out, column by column; what differs goes out as a revision
//!
//! Noting costs next to nothing; the host decides how often to do the rest. A row that many events disturb in between is read
//! once. The last revision depends on the set of events only; how many come before it does not matter.

mod moved;
mod needed;
pub mod patterns;
mod stored;

use std::collections::{HashMap, VecDeque};
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, ListBuilder, RecordBatch, StringArray, StringBuilder, UInt64Array,
};
use arrow::compute::kernels::cmp::distinct;
use arrow::compute::{filter, filter_record_batch, interleave, not, nullif, or};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, TimestampMicrosecondType};
use compact_str::CompactString;

pub use self::needed::looked_up_by;
use self::needed::needed_columns;
use self::patterns::{homes, PatternHome};
use super::columns::Columns;
use super::entity::{Entity, Reader};
use super::patterns::{PatternColumn, PatternEntity};
use super::plan::{arrow_type, FeaturePlan, Plan};
use super::row_store::{RowNumber, RowStore};
use super::stream::{Accepted, StreamState};
use super::Feature;
use crate::arrival::id_key::id_keys;
use crate::error::{KernelError, Result};
use crate::expr::Expression;
use crate::keyed::key::Value;
use crate::keyed::row::OrderKey;
use crate::keyed::store::Column;

/// Columns that a revision has beside the row's own.
pub const REVISION: &str = "__revision";
pub const CAUSE_STREAM: &str = "__cause_stream";
pub const CAUSE_ID: &str = "__cause_id";
/// Before the name of a feature: its value as it last went out.
pub const OLD: &str = "__old.";
/// Before the name of a feature: the same where it changed, and null where it did not.
pub const WAS: &str = "__was.";
/// The names of the features that changed.
pub const CHANGED: &str = "__changed";

/// Emitted rows, and what has disturbed them since.
pub struct Revisions {
    rows: RowStore,
    /// The columns that are kept of a row.
    fields: Vec<Field>,
    root: RootColumns,
    /// Where each feature's column comes from, in the plan's order.
    sources: Vec<Source>,
    watched: Vec<Watched>,
    patterns: Vec<PatternHome>,
    disturbed: HashMap<(usize, CompactString), Vec<Cause>>,
    causes: usize,
    work: VecDeque<Affected>,
    work_keys: Vec<CompactString>,
    work_causes: Vec<Named>,
    newest_root: i64,
    /// The earliest event time among disturbances that were not followed up yet.
    earliest_pending: i64,
    /// Rows before this time are no longer kept.
    expired_to: i64,
    unrevised: u64,
    /// Whether rows that were read again go out even where nothing changed.
    pub(super) replaying: bool,
}

/// Which columns of the root stream are kept with a row.
struct RootColumns {
    kept: Vec<usize>,
    id: usize,
    event_time: usize,
    width: usize,
}

enum Source {
    /// (entity, its column)
    Aggregate(usize, usize),
    Pattern(PatternColumn),
    Expression(Expression),
    /// A baseline is the limit that was in force when the row was judged: it stays.
    AsEmitted,
}

/// A lookup: the entity that is looked up, and the root's own entity whose keys are those of the looking column.
struct Watched {
    stream: usize,
    entity: usize,
    home: usize,
}

/// An event that disturbed readings of a key.
struct Cause {
    order: OrderKey,
    /// Rows at its very time are disturbed only by an event of another stream.
    same_time: bool,
    /// How far it reaches, where that is not for the entity's windows to say.
    until: Option<i64>,
    named: Named,
}

#[derive(Clone)]
struct Named {
    stream: usize,
    id: CompactString,
}

/// A row that a disturbed key's events may have changed.
#[derive(Clone, Copy)]
struct Affected {
    row: RowNumber,
    order: OrderKey,
    entity: usize,
    key: u32,
    cause: u32,
}

/// Sizes, for metrics.
#[derive(Debug, Clone, Copy, Default)]
pub struct RevisionStats {
    /// Rows that can still be revised.
    pub rows: usize,
    pub bytes: usize,
    /// Events that disturbed rows and were not followed up yet.
    pub disturbances: usize,
    /// Events that came for rows that were forgotten, and rows whose key had dropped events over its limit.
    pub unrevised: u64,
}

impl Revisions {
    /// Revisions of a plan's rows.
    ///
    /// # Errors
    /// An expression that cannot be compiled against what is kept of a row.
    pub fn new(
        plan: &Plan,
        streams: &[StreamState],
        root: usize,
        entities: &[Entity],
        patterns: &[PatternEntity],
        features: &[Feature],
    ) -> Result<Self> {
        let schema = &streams[root].schema;
        let home_plan = &plan.streams[root];
        let needed = needed_columns(plan, &home_plan.id, &home_plan.event_time);
        let kept: Vec<usize> =
            (0..schema.fields().len()).filter(|&column| needed.contains(schema.field(column).name())).collect();
        let mut fields: Vec<Field> = kept.iter().map(|&column| schema.field(column).clone()).collect();
        let at = |name: &str| fields.iter().position(|field| field.name() == name).expect("it is needed");
        let root_columns = RootColumns {
            id: at(&home_plan.id),
            event_time: at(&home_plan.event_time),
            width: schema.fields().len(),
            kept,
        };
        let mut sources = Vec::with_capacity(features.len());
        for (compiled, feature) in features.iter().zip(&plan.features) {
            let (source, data_type) = match (compiled, feature) {
                (Feature::Aggregate { entity, column, .. }, FeaturePlan::Aggregate { value_type, .. }) => {
                    (Source::Aggregate(*entity, *column), arrow_type(value_type)?)
                }
                (_, FeaturePlan::Expression { expression, .. }) => {
                    let compiled = Expression::compile(expression, &Schema::new(fields.clone()))?;
                    let data_type = compiled.data_type().clone();
                    (Source::Expression(compiled), data_type)
                }
                (Feature::Pattern { column, .. }, FeaturePlan::Pattern(pattern)) => {
                    (Source::Pattern(*column), arrow_type(&pattern.value_type)?)
                }
                _ => (Source::AsEmitted, DataType::Float64),
            };
            fields.push(Field::new(feature.name(), data_type, true));
            sources.push(source);
        }
        Ok(Self {
            rows: RowStore::default(),
            fields,
            root: root_columns,
            sources,
            watched: watched(streams, root, entities)?,
            patterns: homes(streams, root, entities, patterns)?,
            disturbed: HashMap::new(),
            causes: 0,
            work: VecDeque::new(),
            work_keys: Vec::new(),
            work_causes: Vec::new(),
            newest_root: i64::MIN,
            earliest_pending: i64::MAX,
            expired_to: i64::MIN,
            unrevised: 0,
            replaying: false,
        })
    }

    /// Rows go out: keep what a revision of them needs.
    ///
    /// # Errors
    /// A batch without the row's columns.
    pub fn emitted(&mut self, rows: &RecordBatch, times: &[i64], ids: &[u128]) -> Result<()> {
        self.newest_root = times.iter().copied().fold(self.newest_root, i64::max);
        let features = self.root.width..self.root.width + self.sources.len();
        let columns: Vec<usize> = self.root.kept.iter().copied().chain(features).collect();
        self.rows.keep(rows.project(&columns)?, times, ids, &[])
    }

    /// Events of the root stream arrived at one of its entities: note those that came before others.
    ///
    /// # Errors
    /// A batch without the key's or the id's column.
    pub fn arrived(
        &mut self,
        root: usize,
        number: usize,
        entity: &Entity,
        before_others: &[u32],
        accepted: &Accepted,
    ) -> Result<()> {
        if before_others.is_empty() {
            return Ok(());
        }
        let keys = entity.keys(&accepted.batch)?;
        for i in before_others.iter().map(|&i| i as usize) {
            if let Some(key) = keys.get(i) {
                let order = (accepted.times[i], accepted.ids[i]);
                let id = id_text(&accepted.batch, self.root.kept[self.root.id], i);
                let named = Named { stream: root, id };
                self.disturb(number, key, Cause { order, same_time: false, until: None, named });
            }
        }
        Ok(())
    }

    /// Events of another stream arrived: note those whose key was looked up by rows at their time or later.
    ///
    /// # Errors
    /// A batch without the key's or the id's column.
    pub fn arrived_elsewhere(
        &mut self,
        stream: usize,
        id: &str,
        entities: &mut [Entity],
        accepted: &Accepted,
    ) -> Result<()> {
        let id_column = accepted.batch.schema().index_of(id)?;
        for watch in 0..self.watched.len() {
            let Watched { stream: from, entity, home } = self.watched[watch];
            if from != stream {
                continue;
            }
            let keys = entities[entity].keys(&accepted.batch)?;
            entities[home].bring_in(&keys, accepted.len())?;
            let store = &entities[home].store;
            for (i, &time) in accepted.times.iter().enumerate() {
                let Some(key) = keys.get(i).filter(|_| time <= self.newest_root) else { continue };
                if store.find(key).and_then(|slot| store.newest(slot)).is_some_and(|newest| newest >= time) {
                    let named = Named { stream, id: id_text(&accepted.batch, id_column, i) };
                    let order = (time, accepted.ids[i]);
                    self.disturb(entity, key, Cause { order, same_time: true, until: None, named });
                }
            }
        }
        Ok(())
    }

    fn disturb(&mut self, entity: usize, key: &str, cause: Cause) {
        self.earliest_pending = self.earliest_pending.min(cause.order.0);
        self.disturbed.entry((entity, key.into())).or_default().push(cause);
        self.causes += 1;
    }

    /// The next revisions, of up to about `most` rows; none if there are no more.
    ///
    /// # Errors
    /// An expression that fails.
    pub fn next(
        &mut self,
        most: usize,
        entities: &mut [Entity],
        patterns: &[PatternEntity],
        names: &[String],
    ) -> Result<Option<RecordBatch>> {
        loop {
            if self.work.is_empty() {
                self.bring_in(entities)?;
                self.gather(entities);
            }
            let Some(chunk) = self.take_work(most) else {
                self.earliest_pending = i64::MAX;
                return Ok(None);
            };
            let revised = self.revise(&chunk, entities, patterns, names)?;
            if revised.num_rows() > 0 {
                return Ok(Some(revised));
            }
        }
    }

    /// Have the disturbed keys in memory, and those that know which rows read them.
    fn bring_in(&self, entities: &mut [Entity]) -> Result<()> {
        if entities.iter().all(|entity| entity.store.cold().is_none()) {
            return Ok(());
        }
        let count = entities.len();
        for (number, entity) in entities.iter_mut().enumerate() {
            let disturbed = self.disturbed.keys().filter(|(of, _)| *of == number || self.home(*of, count) == number);
            entity.store.bring_in(disturbed.map(|(_, key)| Some(key.as_str())))?;
        }
        Ok(())
    }

    /// The entity that knows the rows which read a disturbed entity or, behind those, pattern.
    fn home(&self, disturbed: usize, entities: usize) -> usize {
        match disturbed.checked_sub(entities) {
            Some(pattern) => self.patterns[pattern].home,
            None => self.watched.iter().find(|w| w.entity == disturbed).map_or(disturbed, |w| w.home),
        }
    }

    /// From disturbed keys to the rows that lie in their reach.
    fn gather(&mut self, entities: &[Entity]) {
        self.causes = 0;
        (self.work_keys, self.work_causes) = (Vec::new(), Vec::new());
        let mut found: Vec<Affected> = Vec::new();
        for ((entity, key), mut causes) in std::mem::take(&mut self.disturbed) {
            let home = self.home(entity, entities.len());
            let Some(home_slot) = entities[home].store.find(&key) else { continue };
            causes.sort_by_key(|cause| cause.order);
            let Some(until) = reaches(&causes, entities.get(entity), &key) else { continue };
            self.gather_key(&until, &entities[home], home_slot, &causes, |affected| {
                found.push(Affected { entity, ..affected });
            });
            self.work_keys.push(key);
        }
        found.sort_unstable_by_key(|affected| (affected.row, affected.entity));
        self.work = found.into();
    }

    fn gather_key(
        &mut self,
        until: &[i64],
        home: &Entity,
        home_slot: u32,
        causes: &[Cause],
        mut found: impl FnMut(Affected),
    ) {
        let after = |cause: &Cause| if cause.same_time { (cause.order.0 - 1, u128::MAX) } else { cause.order };
        self.unrevised += causes.iter().filter(|cause| cause.order.0 < self.expired_to).count() as u64;
        let first_cause = self.work_causes.len() as u32;
        self.work_causes.extend(causes.iter().map(|cause| cause.named.clone()));
        let furthest = until.iter().copied().max().unwrap_or(i64::MIN);
        // Of the causes before a row, the one that reaches furthest.
        let (mut next, mut reaching): (usize, Option<usize>) = (0, None);
        for order in home.store.orders_after(home_slot, after(&causes[0]), furthest) {
            while next < causes.len() && after(&causes[next]) < order {
                if reaching.is_none_or(|best| until[next] >= until[best]) {
                    reaching = Some(next);
                }
                next += 1;
            }
            let Some(cause) = reaching.filter(|&cause| until[cause] >= order.0) else { continue };
            // A row that is not found was not computed yet, or is no longer kept.
            if let Some(row) = self.rows.find(order.1) {
                let (key, cause) = (self.work_keys.len() as u32, first_cause + cause as u32);
                found(Affected { row, order, entity: 0, key, cause });
            }
        }
    }

    /// The next affected rows, all entities of a row together.
    fn take_work(&mut self, most: usize) -> Option<Vec<Affected>> {
        let mut end = most.min(self.work.len());
        while (1..self.work.len()).contains(&end) && self.work[end].row == self.work[end - 1].row {
            end += 1;
        }
        (end > 0).then(|| self.work.drain(..end).collect())
    }

    /// Read the disturbed entities of some rows again; the rows that differ.
    fn revise(
        &mut self,
        chunk: &[Affected],
        entities: &mut [Entity],
        patterns: &[PatternEntity],
        names: &[String],
    ) -> Result<RecordBatch> {
        let mut rows: Vec<RowNumber> = chunk.iter().map(|affected| affected.row).collect();
        rows.dedup();
        let old = self.rows.take(&rows)?;
        let mut columns = old.columns().to_vec();
        let mut numbers: Vec<usize> = chunk.iter().map(|affected| affected.entity).collect();
        numbers.sort_unstable();
        numbers.dedup();
        for number in numbers {
            let own: Vec<Affected> = chunk.iter().filter(|affected| affected.entity == number).copied().collect();
            match number.checked_sub(entities.len()) {
                Some(pattern) => self.reread_pattern(&rows, &own, pattern, &patterns[pattern], &mut columns)?,
                None => self.reread(&rows, own, number, &mut entities[number], &mut columns)?,
            }
        }
        for feature in 0..self.sources.len() {
            if let Source::Expression(expression) = &self.sources[feature] {
                columns[self.root.kept.len() + feature] = expression.evaluate_columns(&columns, rows.len())?;
            }
        }
        self.changed(chunk, &rows, &old, columns, names)
    }

    /// Put an entity's readings into the feature columns, where they were disturbed.
    fn reread(
        &mut self,
        rows: &[RowNumber],
        mut affected: Vec<Affected>,
        number: usize,
        entity: &mut Entity,
        columns: &mut [ArrayRef],
    ) -> Result<()> {
        affected.sort_unstable_by_key(|affected| (affected.key, affected.order));
        let keys = affected.iter().map(|affected| Some(self.work_keys[affected.key as usize].as_str()));
        entity.store.bring_in(keys)?;
        let own = entity.reader == Reader::Own;
        let mut fresh = entity.columns(affected.len())?;
        // (0, row): as it was; (1, reading): read again.
        let mut choice: Vec<(usize, usize)> = (0..rows.len()).map(|row| (0, row)).collect();
        for (reading, affected) in affected.iter().enumerate() {
            let slot = entity.store.find(&self.work_keys[affected.key as usize]);
            let Some(slot) = slot else {
                fresh.iter_mut().for_each(|column| column.push(Value::Null, |_| ""));
                continue;
            };
            let read = if own {
                entity.store.read_event(slot, affected.order)
            } else {
                entity.store.read_as_of(slot, affected.order.0)
            };
            let (values, saturated) = (read.0.to_vec(), read.1);
            for (column, value) in fresh.iter_mut().zip(values) {
                column.push(value, |code| entity.store.text(code));
            }
            if saturated {
                // Events that the row saw are gone: what it said is nearer to the truth than a new reading.
                self.unrevised += 1;
            } else {
                choice[rows.binary_search(&affected.row).expect("a row of the chunk")] = (1, reading);
            }
        }
        let fresh: Vec<ArrayRef> = fresh.into_iter().map(Column::finish).collect();
        for (feature, source) in self.sources.iter().enumerate() {
            match source {
                Source::Aggregate(entity, column) if *entity == number => {
                    let place = self.root.kept.len() + feature;
                    columns[place] = interleave(&[columns[place].as_ref(), fresh[*column].as_ref()], &choice)?;
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// The rows that differ from what went out, with both; they take the place of what is kept.
    fn changed(
        &mut self,
        chunk: &[Affected],
        rows: &[RowNumber],
        old: &RecordBatch,
        columns: Vec<ArrayRef>,
        names: &[String],
    ) -> Result<RecordBatch> {
        let features = self.root.kept.len()..columns.len();
        let mut any = BooleanArray::from(vec![self.replaying; rows.len()]);
        let mut differs = Vec::with_capacity(features.len());
        for place in features.clone() {
            differs.push(distinct(old.column(place), &columns[place])?);
            any = or(&any, &differs[differs.len() - 1])?;
        }
        let new = filter_record_batch(&RecordBatch::try_new(old.schema(), columns)?, &any)?;
        let old = filter_record_batch(old, &any)?;
        let differs = differs.iter().map(|mask| filter(mask, &any)).collect::<std::result::Result<Vec<_>, _>>()?;
        let changed: Vec<RowNumber> =
            rows.iter().zip(any.values()).filter(|(_, differs)| *differs).map(|(&row, _)| row).collect();
        let revisions: Vec<u32> = changed.iter().map(|&row| self.rows.revision(row) + 1).collect();
        let causes: Vec<&Named> = changed.iter().map(|row| self.cause_of(chunk, *row)).collect();
        let mut out = both_sides(&new, &old, features, &differs)?;
        out.push(REVISION, Arc::new(UInt64Array::from_iter_values(revisions.iter().map(|&r| u64::from(r)))));
        let streams: StringArray = causes.iter().map(|cause| Some(names[cause.stream].as_str())).collect();
        out.push(CAUSE_STREAM, Arc::new(streams));
        out.push(CAUSE_ID, Arc::new(causes.iter().map(|cause| Some(cause.id.as_str())).collect::<StringArray>()));
        let times = new.column(self.root.event_time).as_primitive::<TimestampMicrosecondType>().values().to_vec();
        let ids = id_keys(new.column(self.root.id))?;
        self.rows.keep(new, &times, &ids, &revisions)?;
        out.finish()
    }

    fn cause_of(&self, chunk: &[Affected], row: RowNumber) -> &Named {
        let at = chunk.partition_point(|affected| affected.row < row);
        &self.work_causes[chunk[at].cause as usize]
    }

    /// Forget rows that no event at or after `horizon` can change.
    pub fn expire(&mut self, horizon: i64) {
        // Work that was gathered refers to rows by number.
        if self.work.is_empty() {
            self.rows.expire(horizon);
            self.expired_to = self.expired_to.max(horizon);
        }
    }

    /// State and rows from this event time on are still needed for what was noted and not followed up yet.
    pub fn earliest_pending(&self) -> i64 {
        self.earliest_pending
    }

    /// Events noted, and rows gathered, that were not followed up yet.
    pub fn disturbances(&self) -> usize {
        self.causes + self.work.len()
    }

    /// The rows that can still change.
    pub(super) fn rows(&self) -> &RowStore {
        &self.rows
    }

    /// Sizes.
    pub fn stats(&self) -> RevisionStats {
        RevisionStats {
            rows: self.rows.len(),
            bytes: self.rows.heap_bytes(),
            disturbances: self.disturbances(),
            unrevised: self.unrevised,
        }
    }
}

/// How far each cause reaches; none if the entity has forgotten the key.
fn reaches(causes: &[Cause], entity: Option<&Entity>, key: &str) -> Option<Vec<i64>> {
    let known = |cause: &Cause| cause.until.unwrap_or(i64::MAX);
    let Some(entity) = entity else { return Some(causes.iter().map(known).collect()) };
    let (slot, layout) = (entity.store.find(key)?, entity.store.layout());
    let reach = |time| layout.changes_until(time, |gap| entity.store.run_end(slot, time, gap));
    Some(causes.iter().map(|cause| reach(cause.order.0)).collect())
}

/// The new rows with the features as they were, those that changed alone, and their names.
fn both_sides(new: &RecordBatch, old: &RecordBatch, features: Range<usize>, differs: &[ArrayRef]) -> Result<Columns> {
    let mut out = Columns::of(new);
    let schema = new.schema();
    let names: Vec<&str> = features.clone().map(|place| schema.field(place).name().as_str()).collect();
    let mut changed = ListBuilder::new(StringBuilder::new());
    let masks: Vec<&BooleanArray> = differs.iter().map(|mask| mask.as_boolean()).collect();
    for row in 0..new.num_rows() {
        for (name, _) in names.iter().zip(&masks).filter(|(_, mask)| mask.value(row)) {
            changed.values().append_value(name);
        }
        changed.append(true);
    }
    for (place, mask) in features.zip(&masks) {
        let name = schema.field(place).name();
        out.push(&format!("{OLD}{name}"), Arc::clone(old.column(place)));
        out.push(&format!("{WAS}{name}"), nullif(old.column(place), &not(mask)?)?);
    }
    out.push(CHANGED, Arc::new(changed.finish()));
    Ok(out)
}

fn watched(streams: &[StreamState], root: usize, entities: &[Entity]) -> Result<Vec<Watched>> {
    let mut found = Vec::new();
    for (number, entity) in entities.iter().enumerate() {
        let Reader::Lookup(at) = &entity.reader else { continue };
        let at = entity.id.key.as_ref().map(|_| at.as_str());
        let is_home =
            |e: &Entity| e.reader == Reader::Own && e.id.stream == streams[root].name && e.id.key.as_deref() == at;
        let home = entities.iter().position(is_home);
        let home = home.ok_or_else(|| KernelError::Plan(format!("no entity of the root keeps the rows by {at:?}")))?;
        let stream = streams.iter().position(|s| s.name == entity.id.stream).expect("checked when compiled");
        found.push(Watched { stream, entity: number, home });
    }
    Ok(found)
}

fn id_text(batch: &RecordBatch, column: usize, row: usize) -> CompactString {
    let column = batch.column(column);
    match column.data_type() {
        DataType::Int64 => column.as_primitive::<Int64Type>().value(row).to_string().into(),
        _ => column.as_string::<i32>().value(row).into(),
    }
}
