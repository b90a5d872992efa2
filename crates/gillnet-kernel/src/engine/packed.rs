//! Columns of rows that are kept for long, in less memory: every value comes back exactly.
//!
//! Counts are small numbers, amounts fit 64 bits and many texts repeat, so most columns need a fraction of their width. A
//! column is packed to the narrowest type that holds all of its values; unpacking casts back to the type of the schema.

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, StringArray, UInt32Array};
use arrow::compute::{cast, max, min, take};
use arrow::datatypes::{DataType, Decimal128Type, Field, Float64Type, Int64Type, Schema, SchemaRef};
use std::collections::HashSet;
use std::sync::Arc;

use crate::error::Result;

/// Texts are numbered where at most this share of a column's values differ: one in so many.
const REPEATED: usize = 4;
const DECIMAL64_DIGITS: u8 = 18;

/// The batch with every column as narrow as its values allow.
///
/// # Errors
/// None but arrow's own.
pub fn pack(batch: &RecordBatch) -> Result<RecordBatch> {
    let mut fields = Vec::with_capacity(batch.num_columns());
    let mut columns = Vec::with_capacity(batch.num_columns());
    for (field, column) in batch.schema().fields().iter().zip(batch.columns()) {
        let packed = match narrow_type(column) {
            Some(data_type) => cast(column, &data_type)?,
            // A slice or a builder's result may hold far more memory than its rows need.
            None => compact(column)?,
        };
        fields.push(Field::new(field.name(), packed.data_type().clone(), true));
        columns.push(packed);
    }
    Ok(RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?)
}

/// The batch in the types of `schema` again.
///
/// # Errors
/// None but arrow's own.
pub fn unpack(batch: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch> {
    let wide = |(column, field): (&ArrayRef, &Arc<Field>)| match column.data_type() == field.data_type() {
        true => Ok(Arc::clone(column)),
        false => cast(column, field.data_type()),
    };
    let columns = batch.columns().iter().zip(schema.fields()).map(wide).collect::<std::result::Result<Vec<_>, _>>()?;
    Ok(RecordBatch::try_new(Arc::clone(schema), columns)?)
}

/// The narrowest type that holds every value of a column exactly; none where that is its own.
fn narrow_type(column: &ArrayRef) -> Option<DataType> {
    match column.data_type() {
        DataType::Int64 => {
            let values = column.as_primitive::<Int64Type>();
            narrow_integer(min(values).unwrap_or(0), max(values).unwrap_or(0))
        }
        DataType::Float64 => {
            let exact = |value: f64| f64::from(value as f32).to_bits() == value.to_bits();
            let values = column.as_primitive::<Float64Type>();
            values.iter().flatten().all(exact).then_some(DataType::Float32)
        }
        DataType::Decimal128(_, scale) => {
            let values = column.as_primitive::<Decimal128Type>();
            let limit = 10_i128.pow(u32::from(DECIMAL64_DIGITS));
            let fits = |value: i128| -limit < value && value < limit;
            values.iter().flatten().all(fits).then_some(DataType::Decimal64(DECIMAL64_DIGITS, *scale))
        }
        DataType::Utf8 => {
            let few = few_texts(column.as_string::<i32>());
            few.then(|| DataType::Dictionary(Box::new(DataType::Int16), Box::new(DataType::Utf8)))
        }
        _ => None,
    }
}

/// Whether the texts repeat so much that numbers for them are shorter, and are few enough for 16 bits.
fn few_texts(texts: &StringArray) -> bool {
    let most = (texts.len() / REPEATED).min(i16::MAX as usize);
    let mut distinct = HashSet::new();
    texts.iter().flatten().all(|text| {
        distinct.insert(text);
        distinct.len() <= most
    })
}

/// The column in memory of its own, no larger than it needs.
fn compact(column: &ArrayRef) -> Result<ArrayRef> {
    Ok(take(column, &UInt32Array::from_iter_values(0..column.len() as u32), None)?)
}

fn narrow_integer(least: i64, most: i64) -> Option<DataType> {
    let within = |low: i64, high: i64| low <= least && most <= high;
    if within(i8::MIN.into(), i8::MAX.into()) {
        Some(DataType::Int8)
    } else if within(i16::MIN.into(), i16::MAX.into()) {
        Some(DataType::Int16)
    } else if within(i32::MIN.into(), i32::MAX.into()) {
        Some(DataType::Int32)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{BooleanArray, Decimal128Array, Float64Array, Int64Array, TimestampMicrosecondArray};

    fn batch(columns: Vec<(&str, ArrayRef)>) -> RecordBatch {
        RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, column)| (name, column, true)))
            .expect("columns of one length")
    }

    #[test]
    fn every_value_comes_back_and_takes_less_room() {
        let rows = 1_000i64;
        let decimals =
            |x: i128| Decimal128Array::from_iter((0..rows).map(|i| (i % 7 > 0).then_some(x * i128::from(i))));
        let wide = batch(vec![
            ("small", Arc::new(Int64Array::from_iter((0..rows).map(|i| (i % 3 > 0).then_some(i % 100))))),
            ("large", Arc::new(Int64Array::from_iter_values((0..rows).map(|i| i64::MIN + i)))),
            ("half", Arc::new(Float64Array::from_iter_values((0..rows).map(|i| i as f64 / 2.0)))),
            ("third", Arc::new(Float64Array::from_iter_values((0..rows).map(|i| i as f64 / 3.0)))),
            ("odd", Arc::new(Float64Array::from_iter_values((0..rows).map(|i| if i == 5 { f64::NAN } else { -0.0 })))),
            ("money", Arc::new(decimals(12).with_precision_and_scale(38, 2).expect("fits"))),
            ("much", Arc::new(decimals(10_i128.pow(30)).with_precision_and_scale(38, 2).expect("fits"))),
            (
                "code",
                Arc::new(StringArray::from_iter(
                    (0..rows).map(|i| (i % 5 > 0).then_some(["eur", "usd"][i as usize % 2])),
                )),
            ),
            ("id", Arc::new(StringArray::from_iter_values((0..rows).map(|i| format!("t{i:09}"))))),
            ("flag", Arc::new(BooleanArray::from_iter((0..rows).map(|i| Some(i % 2 == 0))))),
            ("at", Arc::new(TimestampMicrosecondArray::from_iter_values(0..rows).with_timezone("UTC"))),
            ("none", Arc::new(Int64Array::from(vec![None; rows as usize]))),
        ]);
        let packed = pack(&wide).expect("packs");
        let narrowed = [
            ("small", DataType::Int8),
            ("large", DataType::Int64),
            ("half", DataType::Float32),
            ("third", DataType::Float64),
            ("odd", DataType::Float32),
            ("money", DataType::Decimal64(DECIMAL64_DIGITS, 2)),
            ("much", DataType::Decimal128(38, 2)),
            ("code", DataType::Dictionary(Box::new(DataType::Int16), Box::new(DataType::Utf8))),
            ("id", DataType::Utf8),
        ];
        for (name, data_type) in narrowed {
            assert_eq!(packed.column_by_name(name).expect("kept").data_type(), &data_type, "{name}");
        }
        assert_eq!(unpack(&packed, &wide.schema()).expect("unpacks"), wide);
        let none = wide.slice(0, 0);
        assert_eq!(unpack(&pack(&none).expect("packs"), &wide.schema()).expect("unpacks"), none);
    }
}
