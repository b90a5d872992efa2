//! Rows with features to decisions: score, decide, explain what is flagged.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, Float64Builder, ListBuilder, RecordBatch, StringBuilder, StructBuilder, UInt32Array,
};
use arrow::compute::{cast, take_record_batch};
use arrow::datatypes::{DataType, Field, Fields, Schema, TimestampMicrosecondType};
use gillnet_formats::encode_keys;
use gillnet_kernel::bytes::{ByteReader, ByteWriter};
use gillnet_kernel::engine::SESSION_START;
use gillnet_kernel::forest::{feature_matrix, Binding, SCORE_COLUMN};
use gillnet_kernel::policy::Policy;

use crate::error::Result;
use crate::program::{Model, Program};

pub const DECISION: &str = "decision";
pub const REASONS: &str = "reasons";
pub const SCORE_AS_SCORED: &str = "__score";
pub const CONTRIBUTIONS: &str = "__contributions";

/// Sessions whose alert is remembered, so that it is given once; the oldest are forgotten first.
const REMEMBERED_ALERTS: usize = 100_000;

/// Rows with decisions, and the positions of those that are not simply allowed.
pub struct Scored {
    pub batch: RecordBatch,
    pub flagged: Vec<u32>,
    pub counts: BTreeMap<String, usize>,
}

/// Scores and decides batches of one schema.
#[derive(Default)]
pub struct Scoring {
    binding: Option<Binding>,
    policy: Option<Policy>,
}

impl Scoring {
    /// Score and decide.
    ///
    /// # Errors
    /// A policy or a model that does not fit the rows.
    pub fn score(&mut self, program: &Program, rows: RecordBatch) -> Result<Scored> {
        let rows = match &program.model {
            Some(model) => self.scored(model, &rows)?,
            None => rows,
        };
        let policy = match &mut self.policy {
            Some(policy) => policy,
            none => none.insert(Policy::new(&program.policy, &rows.schema())?),
        };
        let decided = policy.decide(&rows)?;
        let batch = with_column(&rows, DECISION, decided.decision)?;
        let batch = with_column(&batch, REASONS, decided.reasons)?;
        Ok(Scored { batch, flagged: decided.flagged.values().to_vec(), counts: decided.counts })
    }

    /// With the score as Float64, the type that rules compare with (exact), and as scored, for writing.
    fn scored(&mut self, model: &Model, rows: &RecordBatch) -> Result<RecordBatch> {
        let binding = match self.binding.take().filter(|binding| binding.fits(rows.schema_ref())) {
            Some(binding) => binding,
            None => model.forest.bind(rows.schema_ref(), &model.names)?,
        };
        let scored = model.forest.score(self.binding.insert(binding), rows)?;
        let index = scored.schema().index_of(SCORE_COLUMN)?;
        let (mut fields, mut columns) = (scored.schema().fields().to_vec(), scored.columns().to_vec());
        fields.push(Arc::new(fields[index].as_ref().clone().with_name(SCORE_AS_SCORED)));
        columns.push(columns[index].clone());
        columns[index] = cast(&columns[index], &DataType::Float64)?;
        fields[index] = Arc::new(Field::new(SCORE_COLUMN, DataType::Float64, fields[index].is_nullable()));
        Ok(RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?)
    }
}

/// The rows with the features that raised the score of each flagged one.
///
/// # Errors
/// A model whose contributions cannot be computed here; Python has checked that they can.
pub fn explained(model: &Model, scored: &Scored, top: usize) -> Result<RecordBatch> {
    let rows: Vec<usize> = scored.flagged.iter().map(|row| *row as usize).collect();
    let matrix = feature_matrix(&scored.batch, &model.names, Some(&rows))?;
    let parts = model.forest.contributions(&matrix)?;
    let width = model.names.len();
    let fields = contribution_fields();
    let item = Field::new("item", DataType::Struct(fields.clone()), true);
    let mut lists = ListBuilder::new(StructBuilder::from_fields(fields, 0)).with_field(item);
    let mut next = rows.iter().enumerate().peekable();
    for row in 0..scored.batch.num_rows() {
        let Some((place, _)) = next.next_if(|(_, flagged)| **flagged == row) else {
            lists.append(false);
            continue;
        };
        let row_parts = &parts[place * (width + 1)..][..width];
        for column in largest(row_parts, top) {
            append_reason(lists.values(), model, column, row_parts[column], matrix[place * width + column]);
        }
        lists.append(true);
    }
    with_column(&scored.batch, CONTRIBUTIONS, Arc::new(lists.finish()))
}

fn contribution_fields() -> Fields {
    let number = |name| Field::new(name, DataType::Float64, true);
    let text = |name| Field::new(name, DataType::Utf8, true);
    Fields::from(vec![text("code"), text("feature"), number("value"), number("contribution")])
}

/// Columns by their part, the largest first, of equal ones the earlier first; only those that raise the score.
fn largest(parts: &[f32], top: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..parts.len()).collect();
    order.sort_by(|one, other| parts[*other].total_cmp(&parts[*one]));
    order.truncate(top);
    order.retain(|column| parts[*column] > 0.0);
    order
}

fn append_reason(out: &mut StructBuilder, model: &Model, column: usize, part: f32, raw: f32) {
    let name = &model.names[column];
    // The shortest decimal that means this float32: 0.1 reads as 0.1, not as 0.10000000149.
    let value = (!raw.is_nan()).then(|| raw.to_string().parse::<f64>().expect("a number's own text"));
    let suffix = match (value, model.types[column].as_str(), model.typical[column]) {
        (None, _, _) => "_missing",
        (Some(value), "bool", _) => ["_false", "_true"][usize::from(value != 0.0)],
        (Some(value), _, Some(typical)) if value > typical => "_high",
        (Some(value), _, Some(typical)) if value < typical => "_low",
        _ => "",
    };
    let rounded: f64 = format!("{:.4}", f64::from(part)).parse().expect("a number's own text");
    text(out, 0).append_value(format!("{name}{suffix}"));
    text(out, 1).append_value(name);
    number(out, 2).append_option(value);
    number(out, 3).append_value(rounded);
    out.append(true);
}

fn text(out: &mut StructBuilder, field: usize) -> &mut StringBuilder {
    out.field_builder(field).expect("built from the fields above")
}

fn number(out: &mut StructBuilder, field: usize) -> &mut Float64Builder {
    out.field_builder(field).expect("built from the fields above")
}

/// A session, and the decision that it was told with: each is told once.
type Alerted = (Vec<u8>, i64, String);

/// Which alerts went out.
#[derive(Default)]
pub struct Alerts {
    told: HashSet<Alerted>,
    order: VecDeque<Alerted>,
}

impl Alerts {
    /// The flagged positions that are worth an alert: every one, or the first of each session.
    ///
    /// # Errors
    /// Rows without the session's columns.
    pub fn new_ones(&mut self, program: &Program, scored: &Scored) -> Result<Vec<u32>> {
        let Some(sessions) = program.sessions.as_ref().filter(|_| !scored.flagged.is_empty()) else {
            return Ok(scored.flagged.clone());
        };
        let taken = take_rows(&scored.batch, &scored.flagged)?;
        let keys = encode_keys(&taken, &sessions.key)?;
        let starts = column(&taken, SESSION_START)?.as_primitive::<TimestampMicrosecondType>();
        let decisions = column(&taken, DECISION)?.as_string::<i32>();
        let mut new = Vec::new();
        for (place, (position, key)) in scored.flagged.iter().zip(keys).enumerate() {
            let session = (key.unwrap_or_default(), starts.value(place), decisions.value(place).to_owned());
            if self.told.insert(session.clone()) {
                self.order.push_back(session);
                new.push(*position);
            }
            if self.order.len() > REMEMBERED_ALERTS {
                self.order.pop_front().map(|oldest| self.told.remove(&oldest));
            }
        }
        Ok(new)
    }

    /// Write which alerts went out, the oldest first.
    pub fn write_state(&self, out: &mut ByteWriter<'_>) {
        out.count(self.order.len());
        for (key, start, decision) in &self.order {
            out.bytes(key);
            out.i64(*start);
            out.text(decision);
        }
    }

    /// Read what [`Self::write_state`] wrote.
    ///
    /// # Errors
    /// Bytes that are no alerts.
    pub fn read_state(&mut self, from: &mut ByteReader<'_>) -> Result<()> {
        let read = from.list(|from| Ok((from.bytes()?.to_vec(), from.i64()?, from.text()?.to_owned())))?;
        self.told = read.iter().cloned().collect();
        self.order = read.into();
        Ok(())
    }
}

/// A batch with one more column.
///
/// # Errors
/// None but arrow's own.
pub fn with_column(batch: &RecordBatch, name: &str, array: ArrayRef) -> Result<RecordBatch> {
    let (mut fields, mut columns) = (batch.schema().fields().to_vec(), batch.columns().to_vec());
    fields.push(Arc::new(Field::new(name, array.data_type().clone(), true)));
    columns.push(array);
    Ok(RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?)
}

/// The rows at these positions.
///
/// # Errors
/// None but arrow's own.
pub fn take_rows(batch: &RecordBatch, rows: &[u32]) -> Result<RecordBatch> {
    Ok(take_record_batch(batch, &UInt32Array::from(rows.to_vec()))?)
}

/// A column of a batch.
///
/// # Errors
/// A batch without it.
pub fn column<'a>(batch: &'a RecordBatch, name: &str) -> Result<&'a ArrayRef> {
    Ok(batch.column(batch.schema_ref().index_of(name)?))
}
