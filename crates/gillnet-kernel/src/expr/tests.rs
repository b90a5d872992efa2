//! What the property tests in Python do not reach: refusals at build, and the edges of a batch.

use std::sync::Arc;

use arrow::array::{Array, AsArray, Int64Array, StringArray};
use arrow::datatypes::Int64Type;
use serde_json::json;

use super::*;

fn payments() -> RecordBatch {
    let amount = Int64Array::from(vec![Some(1), None, Some(i64::MAX)]);
    let status = StringArray::from(vec![Some("declined"), Some("ok"), None]);
    RecordBatch::try_from_iter([("amount", Arc::new(amount) as ArrayRef), ("status", Arc::new(status) as ArrayRef)])
        .expect("the columns have the same length")
}

fn column(name: &str) -> Value {
    json!({"column": name})
}

fn integer(value: i64) -> Value {
    json!({"literal": value, "type": "int64"})
}

#[test]
fn an_overflow_and_a_null_give_null() {
    let batch = payments();
    let sum = json!({"call": "add", "args": [column("amount"), integer(1)]});
    let result = Expression::compile(&sum, &batch.schema()).unwrap().evaluate(&batch).unwrap();
    assert_eq!(result.as_primitive::<Int64Type>().iter().collect::<Vec<_>>(), [Some(2), None, None]);
}

#[test]
fn a_condition_that_is_null_is_false() {
    let batch = payments();
    let declined = json!({"call": "eq", "args": [column("status"), {"literal": "declined", "type": "string"}]});
    let rule = Expression::compile(&declined, &batch.schema()).unwrap();
    let matches = rule.evaluate_bool(&batch).unwrap();
    assert_eq!((matches.null_count(), matches.iter().flatten().collect::<Vec<_>>()), (0, vec![true, false, false]));
    assert_eq!(rule.columns().collect::<Vec<_>>(), ["status"]);
}

#[test]
fn a_constant_that_was_folded_through_a_null_is_no_null() {
    let batch = payments();
    let never = json!({"case": [[{"literal": false, "type": "bool"}, integer(1)]], "otherwise": {"literal": null, "type": "int64"}});
    let seven = json!({"call": "coalesce", "args": [never, integer(7)]});
    let known = json!({"call": "coalesce", "args": [column("amount"), seven]});
    let result = Expression::compile(&known, &batch.schema()).unwrap().evaluate(&batch).unwrap();
    assert_eq!(result.as_primitive::<Int64Type>().iter().collect::<Vec<_>>(), [Some(1), Some(7), Some(i64::MAX)]);
}

#[test]
fn later_expressions_read_earlier_results_and_constants_are_repeated() {
    let batch = payments();
    let named = [
        ("three".to_owned(), json!({"call": "add", "args": [integer(1), integer(2)]})),
        ("product".to_owned(), json!({"call": "mul", "args": [column("three"), column("amount")]})),
    ];
    let set = ExpressionSet::compile(&named, &batch.schema()).unwrap();
    let result = set.append(&batch).unwrap();
    assert_eq!(result.column(2).as_primitive::<Int64Type>().values(), &[3, 3, 3]);
    assert_eq!(result.column(3).as_primitive::<Int64Type>().iter().collect::<Vec<_>>(), [Some(3), None, None]);
    assert_eq!(set.append(&batch.slice(0, 0)).unwrap().num_rows(), 0);
}

#[test]
fn a_batch_of_another_shape_is_refused() {
    let batch = payments();
    let rule = Expression::compile(&column("status"), &batch.schema()).unwrap();
    let error = rule.evaluate(&batch.project(&[0]).unwrap()).unwrap_err();
    assert!(error.to_string().contains("status"), "{error}");
}

#[test]
fn unknown_names_and_wrong_types_are_refused_by_name() {
    let schema = payments().schema();
    for (json, part) in [
        (json!({"call": "frobnicate", "args": []}), "frobnicate"),
        (json!({"colum": "amount"}), "unknown expression node"),
        (column("amuont"), "amuont"),
        (json!({"call": "add", "args": [column("status"), integer(1)]}), "numbers"),
        (json!({"call": "add", "args": [integer(1)]}), "1 arguments"),
        (json!({"literal": "x", "type": "int64"}), "not a literal"),
    ] {
        let error = Expression::compile(&json, &schema).err().expect("should be refused").to_string();
        assert!(error.contains(part), "{error}");
    }
}
