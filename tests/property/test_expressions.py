"""The kernel's row expressions against the oracle, and against Polars where we mean the same."""

from __future__ import annotations

import json
import math
import operator
from decimal import Decimal

import polars as pl
import pyarrow as pa
import pytest
from effort import examples
from expression_strategies import (
    COLUMNS,
    TRANSCENDENTAL,
    batches,
    evaluate,
    expressions,
    same,
    to_arrow,
)
from hypothesis import HealthCheck, given
from hypothesis import strategies as st

from gillnet import _kernel
from gillnet.plan.expressions import Call, Case, Column, Literal, Node, expression_from_json, expression_to_json, walk
from gillnet.plan.format import format_expression
from gillnet.plan.functions import FUNCTIONS
from gillnet.plan.typing import infer
from gillnet.testing.oracle_expressions import evaluate_row

KINDS = ("int64", "float64", "bool", "string", "timestamp", "decimal(2)", "decimal(4)")
MANY = examples(300, suppress_health_check=list(HealthCheck))

#: Where we mean something else than Polars on purpose, and why. These cases are held against the oracle only.
DIFFERENCES_FROM_POLARS = {
    "integer overflow": "null, where Polars wraps: a wrapped total is a wrong number that looks right",
    "pow": "always float64: integer powers overflow at once, and Polars refuses negative integer exponents",
    "decimal product": "the scales add up and the product is exact; Polars rounds to the larger scale (I4)",
    "decimal / decimal": "float64; division by zero is infinite or NaN, where Polars stops with an error",
    "decimal // and %": "null for a divisor of zero, where Polars stops with an error; // gives int64",
    "decimal and literal": "a float literal beside a decimal is the exact decimal that it is written as",
    "decimal overflow": "null, where Polars stops with an error: one odd record must not stop a stream",
    "cast": "what has no value in the target type is null, as with strict=False; decimals are read without exponent",
    "contains": "the literal text, never a pattern",
    "lengths and parts of time": "int64, where Polars has small integers that overflow in arithmetic",
    "zero in min_horizontal": "-0.0 and 0.0 are equal, the first is kept; Polars may keep either",
    "logarithms, exp, pow": "from libm in Rust, the same bits on every platform; Polars asks the C library",
}


@MANY
@given(data=st.data(), kind=st.sampled_from(KINDS), rows=batches())
def test_the_kernel_gives_what_the_oracle_gives(data: st.DataObject, kind: str, rows: list[dict]) -> None:
    node = data.draw(expressions(kind))
    found, kernel_type = evaluate(node, to_arrow(rows))
    inferred = infer(node, COLUMNS, what="test")
    assert (kernel_type, kind) == (inferred.type, inferred.type)
    expected = [evaluate_row(node, row, COLUMNS) for row in rows]
    for row, a, b in zip(rows, found, expected, strict=True):
        assert same(a, b), f"{format_expression(node)} on {row}: kernel {a!r}, oracle {b!r}"
    assert inferred.nullable or None not in found


@MANY
@given(data=st.data(), function=st.sampled_from(TRANSCENDENTAL), rows=batches())
def test_logarithms_and_powers_are_right_to_the_last_bits(data: st.DataObject, function: str, rows: list[dict]) -> None:
    kinds = st.sampled_from(["int64", "float64", "decimal(2)"]).flatmap(lambda kind: expressions(kind, 2))
    node = Call(function, tuple(data.draw(kinds) for _ in range(2 if function == "pow" else 1)))
    found, _ = evaluate(node, to_arrow(rows))
    for row, value in zip(rows, found, strict=True):
        assert same(value, evaluate_row(node, row, COLUMNS), 1e-15), f"{format_expression(node)} on {row}"


@MANY
@given(data=st.data(), kind=st.sampled_from(KINDS), rows=batches(), cut=st.integers(0, 12))
def test_a_batch_cut_in_two_gives_the_same_rows(data: st.DataObject, kind: str, rows: list[dict], cut: int) -> None:
    node, batch = data.draw(expressions(kind)), to_arrow(rows)
    whole, _ = evaluate(node, batch)
    parts = evaluate(node, batch.slice(0, cut))[0] + evaluate(node, batch.slice(min(cut, len(rows))))[0]
    assert all(map(same, whole, parts))
    assert len(whole) == len(parts)


@MANY
@given(data=st.data(), kind=st.sampled_from(KINDS))
def test_json_gives_back_the_very_expression(data: st.DataObject, kind: str) -> None:
    node = data.draw(expressions(kind))
    text = json.dumps(expression_to_json(node))
    # repr, since NaN is not equal to itself.
    assert repr(expression_from_json(json.loads(text))) == repr(node)


@MANY
@given(data=st.data(), kind=st.sampled_from(KINDS))
def test_the_printed_expression_is_python_that_builds_it(data: st.DataObject, kind: str) -> None:
    from datetime import datetime

    from gillnet.api import expressions as api

    node = data.draw(expressions(kind))
    names = {**vars(api), "Decimal": Decimal, "datetime": datetime, "nan": math.nan, "inf": math.inf}
    printed = format_expression(node)
    rebuilt = eval(printed, names)
    again = rebuilt.node if isinstance(rebuilt, api.Expr) else api.lit(rebuilt).node
    assert format_expression(again) == printed


def test_the_kernel_knows_the_functions_of_the_table_and_no_others() -> None:
    assert _kernel.expression_functions() == list(FUNCTIONS)


# -- Polars ------------------------------------------------------------------------------------------------------------

_INFIX = {
    "add": operator.add,
    "sub": operator.sub,
    "mul": operator.mul,
    "div": operator.truediv,
    "floor_div": operator.floordiv,
    "mod": operator.mod,
    "eq": operator.eq,
    "ne": operator.ne,
    "lt": operator.lt,
    "le": operator.le,
    "gt": operator.gt,
    "ge": operator.ge,
}
_METHODS = ("abs", "floor", "ceil", "sqrt", "exp", "log", "log1p", "is_null", "is_not_null", "is_nan", "fill_null")
_TEXT = ("len_bytes", "len_chars", "to_lowercase", "to_uppercase", "starts_with", "ends_with", "slice")
_TIME = ("year", "month", "day", "weekday", "hour", "minute", "second", "epoch")
_POLARS_TYPES = {
    "int64": pl.Int64,
    "float64": pl.Float64,
    "bool": pl.Boolean,
    "string": pl.String,
    "timestamp": pl.Datetime("us", "UTC"),
    "decimal(2)": pl.Decimal(38, 2),
    "decimal(4)": pl.Decimal(38, 4),
}


def to_polars(node: Node) -> pl.Expr:
    """Write an expression in Polars, word by word."""
    if isinstance(node, Column):
        return pl.col(node.name)
    if isinstance(node, Literal):
        return pl.lit(node.value) if node.type == "null" else pl.lit(node.value, dtype=_POLARS_TYPES[node.type])
    if isinstance(node, Case):
        chain = pl
        for condition, value in node.branches:
            chain = chain.when(to_polars(condition)).then(to_polars(value))
        return chain.otherwise(to_polars(node.otherwise))
    return _call_to_polars(node.function, node.args)


def _call_to_polars(name: str, args: tuple[Node, ...]) -> pl.Expr:
    constants = [arg.value for arg in args[1:] if isinstance(arg, Literal)]
    first, rest = to_polars(args[0]), args[1:]
    if name in _INFIX:
        return _INFIX[name](first, to_polars(rest[0]))
    if name in _METHODS:
        return getattr(first, name)(*map(to_polars, rest))
    if name in _TEXT:
        return getattr(first.str, name)(*constants)
    if name in _TIME:
        part = getattr(first.dt, name)(*constants)
        return part.cast(pl.Int64)
    return {
        "neg": lambda: -first,
        "not": lambda: ~first,
        "and": lambda: pl.all_horizontal(first, *map(to_polars, rest)),
        "or": lambda: pl.any_horizontal(first, *map(to_polars, rest)),
        "is_in": lambda: first.is_in(constants),
        "round": lambda: first.round(*constants),
        "contains": lambda: first.str.contains(constants[0], literal=True),
        "coalesce": lambda: pl.coalesce(first, *map(to_polars, rest)),
        "min_horizontal": lambda: pl.min_horizontal(first, *map(to_polars, rest)),
        "max_horizontal": lambda: pl.max_horizontal(first, *map(to_polars, rest)),
        "clip_lower": lambda: first.clip(lower_bound=to_polars(rest[0])),
        "clip_upper": lambda: first.clip(upper_bound=to_polars(rest[0])),
    }[name]()


_ALIKE_ON_DECIMALS = ("is_null", "lt", "ge", "add", "sub", "neg", "abs")


def _meant_alike(node: Node) -> bool:
    """Tell whether Polars means the same by every part of an expression; see `DIFFERENCES_FROM_POLARS`."""
    for part in walk(node):
        if not isinstance(part, Call):
            continue
        kinds = {infer(arg, COLUMNS, what="test").type for arg in part.args}
        decimal = any(kind.startswith("decimal") for kind in kinds)
        if part.function in ("cast", "concat_str", "pow") or (
            decimal and part.function not in ("is_null", "lt", "ge", "add", "sub", "neg", "abs")
        ):
            return False
        if decimal and ("float64" in kinds or "int64" in kinds):
            return False
        if part.function in ("min_horizontal", "max_horizontal", "clip_lower", "clip_upper") and "float64" in kinds:
            return False
        if part.function == "is_in" and (len(part.args) == 1 or "timestamp" in kinds):
            return False
        if all(isinstance(arg, Literal) for arg in part.args):
            return False
    return True


@MANY
@given(data=st.data(), kind=st.sampled_from(KINDS), rows=batches(tame=True))
def test_the_kernel_gives_what_polars_gives(data: st.DataObject, kind: str, rows: list[dict]) -> None:
    node = data.draw(expressions(kind, 3, tame=True).filter(_meant_alike))
    batch = to_arrow(rows)
    found, _ = evaluate(node, batch)
    series = pl.DataFrame(pa.Table.from_batches([batch])).select(out=to_polars(node))["out"]
    if series.dtype == pl.Datetime("us", "UTC"):
        series = series.cast(pl.Int64)
    if series.dtype.is_integer():
        series = series.cast(pl.Int64)
    expected = series.to_list()
    if not any(isinstance(part, Column) for part in walk(node)):
        expected = expected * len(rows)  # Polars gives a constant once.
    for row, a, b in zip(rows, found, expected, strict=True):
        assert same(a, b) or a == b == 0, f"{format_expression(node)} on {row}: kernel {a!r}, Polars {b!r}"


@pytest.mark.parametrize(
    ("node", "value", "expected"),
    [
        (Call("add", (Column("i"), Literal(1, "int64"))), {"i": 2**63 - 1}, None),
        (Call("neg", (Column("i"),)), {"i": -(2**63)}, None),
        (Call("floor_div", (Column("i"), Literal(0, "int64"))), {"i": 1}, None),
        (Call("div", (Column("i"), Literal(0, "int64"))), {"i": 1}, math.inf),
        (Call("mul", (Column("amount"), Column("amount"))), {"amount": Decimal("0.05")}, Decimal("0.0025")),
        (Call("eq", (Column("amount"), Literal(0.1, "float64"))), {"amount": Decimal("0.10")}, True),
        (Call("gt", (Column("amount"), Literal(0.97, "float64"))), {"amount": Decimal("0.97")}, False),
        (Call("eq", (Column("amount"), Literal("0.10", "string"))), {"amount": Decimal("0.10")}, True),
        (Call("mod", (Column("amount"), Literal(1, "int64"))), {"amount": Decimal("-1.25")}, Decimal("0.75")),
        (Call("gt", (Column("x"), Literal(0.97, "float64"))), {"x": math.nan}, True),
    ],
)
def test_the_meaning_that_users_rely_on(node: Node, value: dict, expected: object) -> None:
    row = dict.fromkeys(COLUMNS) | value
    (found,), _ = evaluate(node, to_arrow([row]))
    assert same(found, expected)
    assert same(evaluate_row(node, row, COLUMNS), expected)
