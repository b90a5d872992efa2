"""Row expressions through the Python skin: sets, conditions, and errors."""

from __future__ import annotations

import json

import pyarrow as pa
import pytest

from gillnet import _kernel
from gillnet.api.expressions import Expr, col
from gillnet.plan.expressions import expression_to_json

BATCH = pa.record_batch({"spend": pa.array([10.0, None, 30.0]), "count": pa.array([1, 2, 3])})


def compiled(expr: Expr) -> bytes:
    return json.dumps(expression_to_json(expr.node)).encode()


def test_a_later_expression_reads_an_earlier_one() -> None:
    named = [("mean", compiled(col("spend") / col("count"))), ("high", compiled(col("mean") > 9.5))]
    expressions = _kernel.ExpressionSet(named, BATCH.schema)
    result = expressions.append(_kernel.Batch.from_pyarrow(BATCH)).to_pyarrow()
    assert result.schema == expressions.schema
    assert result.to_pydict() == BATCH.to_pydict() | {"mean": [10.0, None, 10.0], "high": [True, None, True]}


def test_a_null_condition_does_not_match() -> None:
    rule = _kernel.Expression(compiled(col("spend") > 5), BATCH.schema)
    assert rule.evaluate_bool(_kernel.Batch.from_pyarrow(BATCH)).to_pylist() == [True, False, True]
    assert (rule.columns, rule.value_type) == (["spend"], "bool")


def test_an_earlier_expression_does_not_see_a_later_one() -> None:
    named = [("high", compiled(col("mean") > 9.5)), ("mean", compiled(col("spend") / col("count")))]
    with pytest.raises(ValueError, match=r'expression "high".*unknown column "mean"'):
        _kernel.ExpressionSet(named, BATCH.schema)


def test_a_name_twice_is_refused() -> None:
    with pytest.raises(ValueError, match="column of this name already"):
        _kernel.ExpressionSet([("spend", compiled(col("count") + 1))], BATCH.schema)


def test_a_batch_with_other_types_is_refused() -> None:
    rule = _kernel.Expression(compiled(col("spend") > 5), BATCH.schema)
    other = BATCH.set_column(0, "spend", pa.array([1, 2, 3]))
    with pytest.raises(ValueError, match='column "spend" should be Float64'):
        rule.evaluate(_kernel.Batch.from_pyarrow(other))


def test_json_that_is_torn_is_refused() -> None:
    with pytest.raises(ValueError, match="plan:"):
        _kernel.Expression(b'{"column": ', BATCH.schema)
