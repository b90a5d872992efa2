//! Row expressions: typed plan nodes, compiled once against a schema and evaluated on Arrow arrays.
//!
//! The JSON of an expression is one of
//!
//! ```json
//! {"column": "amount"}
//! {"literal": "0.97", "type": "float64"}
//! {"call": "gt", "args": [{"column": "score"}, {"literal": "0.97", "type": "float64"}]}
//! {"case": [[{"column": "known"}, {"column": "spend"}]], "otherwise": {"literal": 0, "type": "int64"}}
//! ```
//!
//! Types, literals and coercions are resolved by [`Expression::compile`], which also folds constants, so that
//! evaluation only runs loops over arrays. What a function means (nulls, overflow, NaN) is said once, in the table of
//! `gillnet.plan.functions`; this module follows it, and property tests hold the two together.

mod build;
mod cast;
mod compare;
mod decimal;
mod functions;
mod logic;
mod node;
mod numeric;
mod operand;
mod text;
mod time;
mod types;

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch, RecordBatchOptions};
use arrow::compute::prep_null_mask_filter;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use serde_json::Value;

use crate::{KernelError, Result};
use node::Node;

pub use functions::function_names;
pub use types::ValueType;

/// An expression, compiled against the columns of a schema.
pub struct Expression {
    root: Node,
    value_type: ValueType,
    data_type: DataType,
    columns: Vec<UsedColumn>,
}

struct UsedColumn {
    index: usize,
    name: String,
    data_type: DataType,
}

impl Expression {
    /// Resolve names, types and literals of a JSON expression.
    ///
    /// # Errors
    /// [`KernelError::Plan`] for an unknown node, function or column, and for types that do not fit.
    pub fn compile(json: &Value, schema: &Schema) -> Result<Self> {
        let typed = build::expression(json, schema)?;
        let mut indices = Vec::new();
        typed.node.collect_columns(&mut indices);
        indices.sort_unstable();
        indices.dedup();
        let used = |index: usize| UsedColumn {
            index,
            name: schema.field(index).name().clone(),
            data_type: schema.field(index).data_type().clone(),
        };
        Ok(Self {
            columns: indices.into_iter().map(used).collect(),
            data_type: typed.value_type.arrow(),
            value_type: typed.value_type,
            root: typed.node,
        })
    }

    /// The Arrow type of the result.
    pub fn data_type(&self) -> &DataType {
        &self.data_type
    }

    /// The result's type, as plans name it.
    pub fn value_type(&self) -> ValueType {
        self.value_type
    }

    /// The names of the columns that the expression reads, in the schema's order.
    pub fn columns(&self) -> impl Iterator<Item = &str> {
        self.columns.iter().map(|column| column.name.as_str())
    }

    /// Evaluate on every row of a batch.
    ///
    /// # Errors
    /// [`KernelError::Batch`] if the batch lacks a column that the expression was compiled for.
    pub fn evaluate(&self, batch: &RecordBatch) -> Result<ArrayRef> {
        let schema = batch.schema_ref();
        for column in &self.columns {
            if schema.fields().get(column.index).is_none_or(|field| field.name() != &column.name) {
                return Err(KernelError::Batch(format!(
                    "column {:?} is not at position {}",
                    column.name, column.index
                )));
            }
        }
        self.evaluate_columns(batch.columns(), batch.num_rows())
    }

    /// Evaluate on the columns of the schema that the expression was compiled for, in its order.
    ///
    /// # Errors
    /// [`KernelError::Batch`] if a column is missing or has another type.
    pub fn evaluate_columns(&self, columns: &[ArrayRef], rows: usize) -> Result<ArrayRef> {
        for column in &self.columns {
            let found = columns.get(column.index).map(|array| array.data_type());
            if found != Some(&column.data_type) {
                return Err(KernelError::Batch(format!(
                    "column {:?} should be {} but is {found:?}",
                    column.name, column.data_type
                )));
            }
        }
        self.root.evaluate(columns, rows)?.broadcast(rows)
    }

    /// Evaluate a condition: null counts as false, so that the result has no nulls.
    ///
    /// # Errors
    /// [`KernelError::Plan`] if the expression is not boolean; otherwise as [`Self::evaluate`].
    pub fn evaluate_bool(&self, batch: &RecordBatch) -> Result<BooleanArray> {
        if self.value_type != ValueType::Bool {
            return Err(KernelError::Plan(format!("a condition should be bool but is {}", self.value_type)));
        }
        let array = self.evaluate(batch)?;
        let condition = array.as_boolean();
        Ok(if condition.nulls().is_some() { prep_null_mask_filter(condition) } else { condition.clone() })
    }
}

/// Named expressions, evaluated in order; each may read the columns of the batch and the results before it.
pub struct ExpressionSet {
    expressions: Vec<Expression>,
    schema: SchemaRef,
}

impl ExpressionSet {
    /// Compile the expressions against the schema, which grows by one column with each.
    ///
    /// # Errors
    /// As [`Expression::compile`], with the name of the expression; also for a name that is taken already.
    pub fn compile(named: &[(String, Value)], schema: &Schema) -> Result<Self> {
        let mut schema = schema.clone();
        let mut expressions = Vec::with_capacity(named.len());
        for (name, json) in named {
            if schema.column_with_name(name).is_some() {
                return Err(KernelError::Plan(format!("{name:?}: the batch has a column of this name already")));
            }
            let expression = Expression::compile(json, &schema)
                .map_err(|error| KernelError::Plan(format!("expression {name:?}: {error}")))?;
            let mut fields: Vec<_> = schema.fields().iter().cloned().collect();
            fields.push(Arc::new(Field::new(name, expression.data_type.clone(), true)));
            schema = Schema::new_with_metadata(fields, schema.metadata);
            expressions.push(expression);
        }
        Ok(Self { expressions, schema: Arc::new(schema) })
    }

    /// The schema of the batches that `append` returns.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// Append one column for each expression.
    ///
    /// # Errors
    /// [`KernelError::Batch`] if the batch does not have the schema that the set was compiled for.
    pub fn append(&self, batch: &RecordBatch) -> Result<RecordBatch> {
        let (rows, inputs) = (batch.num_rows(), self.schema.fields().len() - self.expressions.len());
        let expected = &self.schema.fields()[..inputs];
        let names = |(found, expected): (&Arc<Field>, &Arc<Field>)| found.name() == expected.name();
        if batch.num_columns() != inputs || !batch.schema_ref().fields().iter().zip(expected).all(names) {
            return Err(KernelError::Batch("the columns are not those that the expressions were compiled for".into()));
        }
        let mut columns = Vec::with_capacity(self.schema.fields().len());
        columns.extend_from_slice(batch.columns());
        for expression in &self.expressions {
            let column = expression.evaluate_columns(&columns, rows)?;
            columns.push(column);
        }
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        Ok(RecordBatch::try_new_with_options(Arc::clone(&self.schema), columns, &options)?)
    }
}

/// Add the names of the columns that the JSON of an expression reads.
pub fn collect_columns(expression: &Value, names: &mut Vec<String>) {
    match expression {
        Value::Object(parts) => {
            if let Some(Value::String(name)) = parts.get("column") {
                names.push(name.clone());
            }
            parts.values().for_each(|part| collect_columns(part, names));
        }
        Value::Array(parts) => parts.iter().for_each(|part| collect_columns(part, names)),
        _ => {}
    }
}

#[cfg(test)]
mod tests;
