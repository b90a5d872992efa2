//! A policy: rules in order over a batch of scored rows. The first rule that matches decides; every match gives its reason.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, ListBuilder, RecordBatch, StringBuilder, UInt32Array};
use arrow::datatypes::{DataType, Field, Schema};
use serde::Deserialize;
use serde_json::Value as Json;

use crate::error::{KernelError, Result};
use crate::expr::Expression;

/// The decision of a row that no rule matches.
pub const DEFAULT_ACTION: &str = "allow";

/// One rule, as the plan's JSON has it.
#[derive(Debug, Clone, Deserialize)]
pub struct RulePlan {
    pub action: String,
    pub when: Json,
    pub reason: String,
}

/// Compiled rules.
pub struct Policy {
    rules: Vec<(String, Expression, String)>,
}

/// What a policy said of a batch.
pub struct Decided {
    /// `decision` (Utf8) and `reasons` (List of Utf8, empty where no rule matched), one each row.
    pub decision: ArrayRef,
    pub reasons: ArrayRef,
    /// Rows whose decision is not `allow`.
    pub flagged: UInt32Array,
    /// How many rows got each decision, of those that occur.
    pub counts: BTreeMap<String, usize>,
}

impl Policy {
    /// Compile rules against the schema of scored rows.
    ///
    /// # Errors
    /// A rule that is not a boolean expression over those columns.
    pub fn new(rules: &[RulePlan], schema: &Schema) -> Result<Self> {
        let compiled = rules.iter().map(|rule| {
            let condition = Expression::compile(&rule.when, schema)?;
            if *condition.data_type() != DataType::Boolean {
                return Err(KernelError::Plan(format!("the rule '{}' is not boolean", rule.reason)));
            }
            Ok((rule.action.clone(), condition, rule.reason.clone()))
        });
        Ok(Self { rules: compiled.collect::<Result<Vec<_>>>()? })
    }

    /// Decide every row of a batch.
    ///
    /// # Errors
    /// An expression that fails.
    pub fn decide(&self, batch: &RecordBatch) -> Result<Decided> {
        let matches =
            self.rules.iter().map(|(_, condition, _)| condition.evaluate(batch)).collect::<Result<Vec<_>>>()?;
        let matches: Vec<&BooleanArray> = matches.iter().map(|array| array.as_boolean()).collect();
        let hit = |rule: usize, row: usize| matches[rule].is_valid(row) && matches[rule].value(row);
        let mut decision = StringBuilder::with_capacity(batch.num_rows(), batch.num_rows() * 5);
        let item = Field::new("item", DataType::Utf8, true);
        let mut reasons = ListBuilder::new(StringBuilder::new()).with_field(item);
        let mut flagged = Vec::new();
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for row in 0..batch.num_rows() {
            let mut action: Option<&str> = None;
            for (number, (name, _, reason)) in self.rules.iter().enumerate() {
                if hit(number, row) {
                    action.get_or_insert(name);
                    reasons.values().append_value(reason);
                }
            }
            reasons.append(true);
            let action = action.unwrap_or(DEFAULT_ACTION);
            decision.append_value(action);
            if action != DEFAULT_ACTION {
                flagged.push(row as u32);
                *counts.entry(action).or_default() += 1;
            }
        }
        let allowed = batch.num_rows() - flagged.len();
        if allowed > 0 {
            counts.insert(DEFAULT_ACTION, allowed);
        }
        Ok(Decided {
            decision: Arc::new(decision.finish()),
            reasons: Arc::new(reasons.finish()),
            flagged: UInt32Array::from(flagged),
            counts: counts.into_iter().map(|(action, count)| (action.to_owned(), count)).collect(),
        })
    }
}
