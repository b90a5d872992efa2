//! Feature columns of an Arrow batch → `f32`, as XGBoost's users convert them.
//!
//! Null is NaN. An integer is rounded once, to the nearest `f32`. A decimal becomes the correctly rounded `f64` of
//! value / 10^scale and then an `f32`: what `numpy.float32(float(Decimal(...)))` gives. A boolean is 0 or 1.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::datatypes::{
    ArrowPrimitiveType, DataType, Decimal128Type, Field, Float32Type, Float64Type, Int32Type, Int64Type, Schema,
    SchemaRef, UInt32Type, UInt64Type,
};

use super::keys::KeyBlocks;
use super::CHUNK_ROWS;
use crate::error::{KernelError, Result};

/// The column that [`super::Forest::score`] appends.
pub const SCORE_COLUMN: &str = "score";

/// Where the features stand in batches of one schema.
pub struct Binding {
    schema: SchemaRef,
    scored_schema: Option<SchemaRef>,
    indices: Vec<usize>,
}

impl Binding {
    /// Find the columns by name.
    pub fn new(schema: &SchemaRef, columns: &[String]) -> Result<Self> {
        let indices = columns.iter().map(|name| find(schema, name)).collect::<Result<_>>()?;
        let scored_schema = schema.column_with_name(SCORE_COLUMN).is_none().then(|| {
            let mut fields = schema.fields().to_vec();
            fields.push(Arc::new(Field::new(SCORE_COLUMN, DataType::Float32, false)));
            Arc::new(Schema::new_with_metadata(fields, schema.metadata().clone()))
        });
        Ok(Self { schema: Arc::clone(schema), scored_schema, indices })
    }

    /// Whether batches of `schema` can be read through this binding.
    pub fn fits(&self, schema: &SchemaRef) -> bool {
        Arc::ptr_eq(&self.schema, schema) || self.schema == *schema
    }

    pub(super) fn open(&self, batch: &RecordBatch) -> Result<Columns> {
        if !self.fits(batch.schema_ref()) {
            return Err(KernelError::Batch("the batch is of another schema than the features were bound to".into()));
        }
        Ok(Columns { arrays: self.indices.iter().map(|index| Arc::clone(batch.column(*index))).collect() })
    }

    pub(super) fn with_scores(&self, batch: &RecordBatch, scores: ArrayRef) -> Result<RecordBatch> {
        let schema = self.scored_schema.as_ref().ok_or_else(|| {
            KernelError::Batch(format!("the batch has a column '{SCORE_COLUMN}' already; rename that feature"))
        })?;
        let mut columns = batch.columns().to_vec();
        columns.push(scores);
        Ok(RecordBatch::try_new(Arc::clone(schema), columns)?)
    }
}

fn find(schema: &SchemaRef, name: &str) -> Result<usize> {
    let (index, field) = schema
        .column_with_name(name)
        .ok_or_else(|| KernelError::Batch(format!("the feature column '{name}' is missing")))?;
    match field.data_type() {
        DataType::Float32
        | DataType::Float64
        | DataType::Int32
        | DataType::Int64
        | DataType::UInt32
        | DataType::UInt64
        | DataType::Boolean
        | DataType::Decimal128(_, _) => Ok(index),
        other => Err(KernelError::Batch(format!("the feature column '{name}' is {other}, which is not a number"))),
    }
}

/// The feature columns of one batch, in the model's order.
pub(super) struct Columns {
    arrays: Vec<ArrayRef>,
}

impl Columns {
    /// Fill the keys of the rows that begin at `start`.
    pub(super) fn fill(&self, start: usize, blocks: &mut KeyBlocks) {
        let mut values = [0.0; CHUNK_ROWS];
        let values = &mut values[..blocks.rows()];
        for (feature, array) in self.arrays.iter().enumerate() {
            read(array.as_ref(), start, values);
            blocks.fill_column(feature, values);
        }
    }

    /// Fill up to a chunk of matrix rows with the batch's rows that begin at `start`.
    fn write(&self, start: usize, matrix: &mut [f32], width: usize) {
        let mut values = [0.0; CHUNK_ROWS];
        let values = &mut values[..matrix.len() / width];
        for (feature, array) in self.arrays.iter().enumerate() {
            read(array.as_ref(), start, values);
            for (row, value) in matrix.chunks_exact_mut(width).zip(values.iter()) {
                row[feature] = *value;
            }
        }
    }
}

/// Write the columns as a row-major `f32` matrix, with the conversions that the forest itself uses.
///
/// `rows` picks rows by position, in that order; `None` takes all.
///
/// # Errors
/// [`KernelError::Batch`] if a column is missing or is not a number, or a row does not exist.
pub fn feature_matrix(batch: &RecordBatch, columns: &[String], rows: Option<&[usize]>) -> Result<Vec<f32>> {
    let opened = Binding::new(batch.schema_ref(), columns)?.open(batch)?;
    let width = columns.len();
    let Some(rows) = rows else {
        let mut matrix = vec![0.0; batch.num_rows() * width];
        for (chunk, part) in matrix.chunks_mut(CHUNK_ROWS * width.max(1)).enumerate() {
            opened.write(chunk * CHUNK_ROWS, part, width);
        }
        return Ok(matrix);
    };
    if let Some(row) = rows.iter().find(|row| **row >= batch.num_rows()) {
        return Err(KernelError::Batch(format!("row {row} is asked of a batch of {} rows", batch.num_rows())));
    }
    let mut matrix = vec![0.0; rows.len() * width];
    for (row, part) in rows.iter().zip(matrix.chunks_mut(width.max(1))) {
        opened.write(*row, part, width);
    }
    Ok(matrix)
}

fn read(array: &dyn Array, start: usize, values: &mut [f32]) {
    match array.data_type() {
        DataType::Float32 => read_primitive::<Float32Type>(array, start, values, |value| value),
        DataType::Float64 => read_primitive::<Float64Type>(array, start, values, |value| value as f32),
        DataType::Int32 => read_primitive::<Int32Type>(array, start, values, |value| value as f32),
        DataType::Int64 => read_primitive::<Int64Type>(array, start, values, |value| value as f32),
        DataType::UInt32 => read_primitive::<UInt32Type>(array, start, values, |value| value as f32),
        DataType::UInt64 => read_primitive::<UInt64Type>(array, start, values, |value| value as f32),
        DataType::Decimal128(_, scale) => {
            let scale = *scale;
            read_primitive::<Decimal128Type>(array, start, values, |value| decimal_to_f64(value, scale) as f32);
        }
        DataType::Boolean => {
            let bits = array.as_boolean().values();
            for (row, value) in values.iter_mut().enumerate() {
                *value = f32::from(u8::from(bits.value(start + row)));
            }
            blank_nulls(array, start, values);
        }
        other => unreachable!("Binding::new refuses {other}"),
    }
}

fn read_primitive<T: ArrowPrimitiveType>(
    array: &dyn Array,
    start: usize,
    values: &mut [f32],
    convert: impl Fn(T::Native) -> f32,
) {
    let source = &array.as_primitive::<T>().values()[start..start + values.len()];
    for (value, source) in values.iter_mut().zip(source) {
        *value = convert(*source);
    }
    blank_nulls(array, start, values);
}

fn blank_nulls(array: &dyn Array, start: usize, values: &mut [f32]) {
    if let Some(nulls) = array.nulls().filter(|nulls| nulls.null_count() > 0) {
        for (row, value) in values.iter_mut().enumerate() {
            if nulls.is_null(start + row) {
                *value = f32::NAN;
            }
        }
    }
}

/// The `f64` nearest to value / 10^scale.
fn decimal_to_f64(value: i128, scale: i8) -> f64 {
    const EXACT: i128 = 1 << 53;
    // 10^22 is the largest power of ten that is an f64. If both operands are exact, the division rounds only once.
    if (-EXACT..=EXACT).contains(&value) && (0..=22).contains(&scale) {
        value as f64 / POWERS_OF_TEN[scale as usize]
    } else {
        format!("{value}e{}", -i32::from(scale)).parse().unwrap_or(f64::NAN)
    }
}

const POWERS_OF_TEN: [f64; 23] = [
    1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20,
    1e21, 1e22,
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimals_are_rounded_once_to_f64() {
        for (value, scale, expected) in [
            (1_i128, 1_i8, 0.1_f64),
            (-12_345, 2, -123.45),
            (9_007_199_254_740_993, 0, 9_007_199_254_740_992.0),
            (123_456_789_012_345_678, 17, 1.234_567_890_123_456_8),
            (5, -2, 500.0),
        ] {
            assert_eq!(decimal_to_f64(value, scale).to_bits(), expected.to_bits(), "{value}e-{scale}");
        }
    }
}
