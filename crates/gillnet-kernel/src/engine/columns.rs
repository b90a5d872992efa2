//! Building blocks of output batches.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, TimestampMicrosecondArray};
use arrow::datatypes::{Field, Schema};

use crate::arrival::watermark;
use crate::error::Result;
use crate::expr::Expression;

/// A record batch that grows by a column at a time.
pub struct Columns {
    pub fields: Vec<Arc<Field>>,
    pub arrays: Vec<ArrayRef>,
}

impl Columns {
    /// The columns of a batch.
    pub fn of(batch: &RecordBatch) -> Self {
        Self { fields: batch.schema().fields().to_vec(), arrays: batch.columns().to_vec() }
    }

    /// Add an array.
    pub fn push(&mut self, name: &str, array: ArrayRef) {
        self.fields.push(Arc::new(Field::new(name, array.data_type().clone(), true)));
        self.arrays.push(array);
    }

    /// Add the values of an expression over the columns so far.
    ///
    /// # Errors
    /// An expression that fails.
    pub fn evaluate(&mut self, name: &str, expression: &Expression) -> Result<()> {
        let batch = RecordBatch::try_new(Arc::new(Schema::new(self.fields.clone())), self.arrays.clone())?;
        self.push(name, expression.evaluate(&batch)?);
        Ok(())
    }

    /// The batch.
    ///
    /// # Errors
    /// Columns of unequal length.
    pub fn finish(self) -> Result<RecordBatch> {
        Ok(RecordBatch::try_new(Arc::new(Schema::new(self.fields)), self.arrays)?)
    }
}

/// Instants as an array.
pub fn timestamps(values: Vec<i64>) -> ArrayRef {
    Arc::new(TimestampMicrosecondArray::from(values).with_timezone("UTC"))
}

/// Watermarks as an array: null where there is none.
pub fn optional_timestamps(values: &[i64]) -> ArrayRef {
    let known = values.iter().map(|&value| (value != watermark::NONE).then_some(value));
    Arc::new(known.collect::<TimestampMicrosecondArray>().with_timezone("UTC"))
}
