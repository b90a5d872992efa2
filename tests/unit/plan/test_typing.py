"""Types of row expressions, and the messages that refuse wrong ones."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal

import pytest

from gillnet.api.expressions import Expr, coalesce, col, concat_str, lit, max_horizontal, when
from gillnet.core.errors import DefinitionError, PlanError
from gillnet.plan.expressions import Call, Column, columns_of, expression_from_json
from gillnet.plan.format import format_expression
from gillnet.plan.typing import infer

COLUMNS = {
    "amount": ("decimal(2)", False),
    "spend_5m": ("decimal(2)", True),
    "payments_1h": ("int64", False),
    "score": ("float64", False),
    "status": ("string", True),
    "known": ("bool", False),
    "ts": ("timestamp", False),
}


@pytest.mark.parametrize(
    ("expr", "kind", "nullable"),
    [
        (col("spend_5m") / (col("payments_1h") + 1), "float64", True),
        (col("amount") / col("score"), "float64", False),
        (col("amount") + 1, "decimal(2)", True),
        (col("amount") * col("amount"), "decimal(4)", True),
        (col("amount") * 1.5, "float64", False),
        (col("amount") + Decimal("0.125"), "decimal(3)", True),
        (col("amount") // 10, "int64", True),
        (col("amount") > 0.97, "bool", False),
        (col("amount").fill_null(0.125), "decimal(3)", True),
        (col("status") == "declined", "bool", True),
        (col("status").is_null(), "bool", False),
        (col("status").fill_null("none"), "string", False),
        (coalesce("spend_5m", "amount"), "decimal(2)", False),
        (max_horizontal("payments_1h", "score"), "float64", False),
        (when(col("known")).then(1).otherwise(2.5), "float64", False),
        (when(col("known")).then(col("amount")), "decimal(2)", True),
        (when(col("known")).then(None).otherwise("ts"), "timestamp", True),
        (col("ts").dt.epoch("s") - col("ts").dt.hour(), "int64", True),
        (col("ts") > datetime(2026, 1, 1, tzinfo=UTC), "bool", False),
        (concat_str("status", "payments_1h", "amount", separator="|"), "string", True),
        (lit(None).cast("float64"), "float64", True),
        (col("payments_1h").cast("float64"), "float64", False),
        (col("score").cast("int64"), "int64", True),
        (col("amount").clip(0, 100), "decimal(2)", False),
    ],
)
def test_the_type_is_found(expr: Expr, kind: str, nullable: bool) -> None:
    assert infer(expr.node, COLUMNS, what="feature 'f'") == (kind, nullable)


@pytest.mark.parametrize(
    ("expr", "parts"),
    [
        (col("amuont") > 1, ["feature 'f'", "'amuont'", "Did you mean col('amount')", "spend_5m", "lit('amuont')"]),
        (col("status") + 1, ['col("status") + 1', "`+` takes numbers", 'col("status") is string', "concat_str"]),
        (col("known") * 2, ["takes numbers", "bool", ".cast('int64')"]),
        (col("ts") - col("ts"), ["timestamp", ".dt.epoch('s')"]),
        (col("score") & col("known"), ["`&` takes bool", 'col("score") is float64', "compare it"]),
        (col("status") == None, ["is null for every row", ".is_null()"]),  # noqa: E711
        (col("status") > 3, ['col("status") is string', "3 is int64", ".cast("]),
        (col("amount") > "much", ["do not match"]),
        (col("known") < True, ["does not order bool"]),
        (col("ts") > 1_700_000_000, ["time zone", ".dt.epoch('s')"]),
        (when(col("score")).then(1), ["takes a condition", "float64"]),
        (when(col("known")).then(1).otherwise("status"), ["do not match"]),
        (when(col("known")).then(None), ["every branch is None"]),
        (col("amount").cast("money"), ["'money' is no type", "decimal(scale)"]),
        (col("ts").cast("string"), ["no cast from timestamp to string", "int64"]),
        (col("score").is_in([0.5, None]), ["None", ".is_null()"]),
        (col("score").round(99), ["0 to 18"]),
        (col("payments_1h").str.len_chars(), ["len_chars takes string", ".cast('string')"]),
        (concat_str("score"), ["takes text", "decimal(2)"]),
        (lit(2**63) > col("payments_1h"), ["64 bits", "Decimal("]),
        (col("status").clip("a", None), ["numbers or timestamps"]),
        (col("amount") * lit(Decimal("1e-37")), ["39 digits", "float64"]),
    ],
)
def test_a_wrong_expression_is_refused_with_its_place_and_mend(expr: Expr, parts: list[str]) -> None:
    with pytest.raises(DefinitionError) as error:
        infer(expr.node, COLUMNS, what="feature 'f'")
    message = str(error.value)
    assert message.startswith("feature 'f': ")
    for part in parts:
        assert part in message


def test_a_long_chain_of_alternatives_does_not_nest_and_a_deep_sum_is_refused() -> None:
    chain = col("status") == "0"
    for i in range(500):
        chain = chain | (col("status") == str(i))
    assert infer(chain.node, COLUMNS, what="rule").type == "bool"
    total = col("payments_1h")
    for _ in range(60):
        total = total + 1
    with pytest.raises(DefinitionError, match="a feature of its own"):
        infer(total.node, COLUMNS, what="rule")


def test_the_columns_of_an_expression_are_known() -> None:
    expr = when(col("known")).then("amount").otherwise(col("spend_5m") * 2)
    assert columns_of(expr.node) == {"known", "amount", "spend_5m"}


@pytest.mark.parametrize(
    ("json", "part"),
    [
        ({"call": "frobnicate", "args": []}, "frobnicate"),
        ({"colum": "amount"}, "does not know"),
        ({"literal": "x", "type": "int64"}, "not of type int64"),
        ({"literal": True, "type": "int64"}, "not of type int64"),
        ({"literal": 1.5, "type": "float64"}, "not of type float64"),
        ({"case": [], "otherwise": {"column": "a"}}, "does not know"),
        ({"case": [[{"column": "a"}]], "otherwise": {"column": "a"}}, "[condition, value]"),
    ],
)
def test_an_unknown_plan_is_a_plan_error(json: object, part: str) -> None:
    with pytest.raises(PlanError) as error:
        expression_from_json(json)
    assert part in str(error.value)


@pytest.mark.parametrize(
    "text",
    [
        'col("spend_5m") / (col("payments_1h") + 1)',
        '(col("score") > 0.97) & ~col("known") | col("status").is_in(["a", "b"])',
        '-col("amount").abs() % 1',
        '(col("a") - (col("b") - col("c"))) ** (col("d") ** 3)',
        'when(col("known")).then(col("amount")).when(col("score") > 0.5).then(Decimal("1.50")).otherwise(None)',
        'concat_str(col("status"), col("x"), separator="-")',
        'col("status").str.slice(-3, 2).str.to_uppercase()',
        'col("amount").clip(0, None).round(1).cast("float64")',
        'col("ts").dt.epoch("s") // 86_400',
        '(col("a") < col("b")) == (col("c") < col("d"))',
    ],
)
def test_an_expression_prints_as_it_was_written(text: str) -> None:
    names = {"col": col, "lit": lit, "when": when, "concat_str": concat_str, "Decimal": Decimal}
    expr = eval(text, names)
    assert format_expression(expr.node) == text


def test_an_unknown_function_is_refused() -> None:
    with pytest.raises(DefinitionError, match="no function"):
        infer(Call("nonsense", (Column("amount"),)), COLUMNS, what="x")
