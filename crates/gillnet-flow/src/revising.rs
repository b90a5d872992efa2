//! Rows that later arrivals have changed: scored and decided as they went out and as they are now.

use std::sync::Arc;

use arrow::array::{AsArray, BooleanArray, RecordBatch};
use gillnet_kernel::engine::OLD;

use crate::error::Result;
use crate::program::Program;
use crate::scoring::{column, take_rows, with_column, Scoring, DECISION, REASONS, SCORE_AS_SCORED};

const FLIPPED: &str = "__flipped";
const ALLOW: &str = "allow";

/// Revisions with both sides, and how many decisions are others now.
pub struct Revised {
    pub batch: RecordBatch,
    pub flipped: usize,
}

/// Score and decide revised rows, as they were and as they are.
///
/// # Errors
/// A policy or a model that does not fit the rows.
pub fn revise(program: &Program, scoring: &mut Scoring, rows: RecordBatch) -> Result<Revised> {
    let then = scoring.score(program, as_it_went_out(program, &rows)?)?.batch;
    let now = scoring.score(program, rows)?.batch;
    let (is, was) = (column(&now, DECISION)?.as_string::<i32>(), column(&then, DECISION)?.as_string::<i32>());
    let flipped: Vec<bool> = (0..now.num_rows()).map(|row| is.value(row) != was.value(row)).collect();
    let flagged = (0..now.num_rows()).filter(|row| is.value(*row) != ALLOW || was.value(*row) != ALLOW);
    let flagged: Option<Vec<u32>> = (!program.emit_all).then(|| flagged.map(|row| row as u32).collect());
    let count = flipped.iter().filter(|flipped| **flipped).count();
    let mut batch = with_column(&now, FLIPPED, Arc::new(BooleanArray::from(flipped)))?;
    let score = program.model.is_some().then_some(SCORE_AS_SCORED);
    for name in [DECISION, REASONS].into_iter().chain(score) {
        batch = with_column(&batch, &format!("{OLD}{name}"), column(&then, name)?.clone())?;
    }
    if let Some(flagged) = flagged {
        batch = take_rows(&batch, &flagged)?;
    }
    Ok(Revised { batch, flipped: count })
}

/// The rows with the features of then under the features' names.
fn as_it_went_out(program: &Program, rows: &RecordBatch) -> Result<RecordBatch> {
    let mut columns = rows.columns().to_vec();
    for name in &program.features {
        columns[rows.schema_ref().index_of(name)?] = column(rows, &format!("{OLD}{name}"))?.clone();
    }
    Ok(RecordBatch::try_new(rows.schema(), columns)?)
}
