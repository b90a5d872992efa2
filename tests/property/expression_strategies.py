"""Random typed expressions and random columns, for the property tests of row expressions."""

from __future__ import annotations

import functools
import json
import math
from datetime import UTC, datetime
from decimal import Decimal

import pyarrow as pa
from hypothesis import strategies as st

from gillnet import _kernel
from gillnet.plan.expressions import Call, Case, Column, Literal, Node, expression_to_json

ARROW = {
    "int64": pa.int64(),
    "float64": pa.float64(),
    "bool": pa.bool_(),
    "string": pa.string(),
    "timestamp": pa.timestamp("us", "UTC"),
    "decimal(2)": pa.decimal128(38, 2),
    "decimal(4)": pa.decimal128(38, 4),
}
NAMES = {
    "int64": ("i", "j"),
    "float64": ("x", "y"),
    "bool": ("p", "q"),
    "string": ("s", "t"),
    "timestamp": ("at", "since"),
    "decimal(2)": ("amount", "limit"),
    "decimal(4)": ("rate",),
}
COLUMNS = {name: (kind, True) for kind, names in NAMES.items() for name in names}
SCHEMA = pa.schema([(name, ARROW[kind]) for name, (kind, _) in COLUMNS.items()])
#: What the years of Python's datetime can hold.
_FIRST, _LAST = (
    int(datetime(1, 1, 2, tzinfo=UTC).timestamp()) * 1_000_000,
    int(datetime(9999, 12, 30, tzinfo=UTC).timestamp()) * 1_000_000,
)

_WORDS = st.one_of(
    st.sampled_from(["", "a", "ab", "declined", "ÀÉ", "straße", "12", "-3.50", "1e3", " 1", "nan", "日本語", "🐟x"]),
    st.text(st.characters(codec="utf-8", exclude_categories=["Cs", "Lm", "Mn", "Cn"], max_codepoint=0x24F), max_size=6),
)


def values(kind: str, *, tame: bool = False) -> st.SearchStrategy:
    """Values of a type that are not null; ``tame`` ones never overflow in the expressions here."""
    if kind == "int64":
        small = st.integers(-20, 20)
        edges = st.sampled_from([2**63 - 1, -(2**63), 2**53 + 1, -1, 0, 1])
        return small if tame else st.one_of(small, edges, st.integers(-(2**63), 2**63 - 1))
    if kind == "float64":
        edges = st.sampled_from([0.0, -0.0, math.nan, math.inf, -math.inf, 0.5, -1.5, 2.5, 1e-7, 0.1])
        some = st.one_of(edges, st.floats(-1000, 1000))
        return some if tame else st.one_of(some, st.floats())
    if kind.startswith("decimal("):
        scale = int(kind[8:-1])
        limit = 10**4 if tame else 10**38 - 1
        scaled = st.one_of(st.integers(-1000, 1000), st.integers(-limit, limit))
        return scaled.map(lambda value: Decimal((int(value < 0), tuple(map(int, str(abs(value)))), -scale)))
    return {"bool": st.booleans(), "string": _WORDS, "timestamp": st.integers(_FIRST, _LAST)}[kind]


@st.composite
def batches(draw: st.DrawFn, *, tame: bool = False) -> list[dict]:
    rows = draw(st.integers(0, 12))
    columns = {
        name: draw(st.lists(st.one_of(values(kind, tame=tame), st.none()), min_size=rows, max_size=rows))
        for name, (kind, _) in COLUMNS.items()
    }
    return [{name: column[row] for name, column in columns.items()} for row in range(rows)]


def to_arrow(rows: list[dict]) -> pa.RecordBatch:
    arrays = [pa.array([row[field.name] for row in rows], field.type) for field in SCHEMA]
    return pa.record_batch(arrays, schema=SCHEMA)


def evaluate(node: Node, batch: pa.RecordBatch) -> tuple[list, str]:
    """Run the kernel: Python values, timestamps as integers, and the type that the kernel found."""
    expression = _kernel.Expression(json.dumps(expression_to_json(node)).encode(), batch.schema)
    array = expression.evaluate(_kernel.Batch.from_pyarrow(batch))
    array.validate(full=True)
    return (array.cast(pa.int64()) if pa.types.is_timestamp(array.type) else array).to_pylist(), expression.value_type


def same(a: object, b: object, tolerance: float = 0.0) -> bool:
    if isinstance(a, float) and isinstance(b, float):
        if math.isnan(a) or math.isnan(b):
            return math.isnan(a) and math.isnan(b)
        # 0.0 and -0.0 are told apart.
        return (a == b and math.copysign(1, a) == math.copysign(1, b)) or (
            tolerance > 0 and math.isclose(a, b, rel_tol=tolerance)
        )
    return a == b and type(a) is type(b)


def _call(function: str, *args: st.SearchStrategy) -> st.SearchStrategy:
    return st.tuples(*args).map(lambda given: Call(function, given))


def _leaf(kind: str, *, tame: bool) -> st.SearchStrategy:
    columns = st.sampled_from(NAMES[kind]).map(Column)
    return st.one_of(columns, columns, values(kind, tame=tame).map(lambda value: Literal(value, kind)))


#: Functions whose last bit depends on the library: compared with a tolerance, and only at the root.
TRANSCENDENTAL = ("exp", "log", "log1p", "pow")


# Cached, so that Hypothesis meets a few dozen strategies and not one for every path through them.
@functools.cache
def expressions(kind: str, depth: int = 3, *, tame: bool = False) -> st.SearchStrategy:
    """Expressions of a type. A decimal is one of scale 2 or 4; products and mixed types are among the operands."""
    if depth <= 1:
        return _leaf(kind, tame=tame)

    def sub(wanted: str) -> st.SearchStrategy:
        return st.deferred(lambda: expressions(wanted, depth - 1, tame=tame))

    boolean, this = sub("bool"), sub(kind)
    choices = [
        _leaf(kind, tame=tame),
        _call("coalesce", this, this, this),
        _call("fill_null", this, this),
        st.builds(lambda c, a, d, b, o: Case(((c, a), (d, b)), o), boolean, this, boolean, this, this),
        st.builds(lambda c, a: Case(((c, a),), Literal(None, "null")), boolean, this),
    ]
    if kind in ("int64", "float64", "timestamp") or kind.startswith("decimal"):
        choices += [_call(f, this, this) for f in ("min_horizontal", "max_horizontal", "clip_lower", "clip_upper")]
    if kind in ("int64", "float64") or kind.startswith("decimal"):
        choices += [_call(f, this, this) for f in ("add", "sub", "mod")]
        choices += [_call(f, this) for f in ("neg", "abs", "floor", "ceil")]
        choices.append(_call("round", this, st.integers(0, 3).map(lambda n: Literal(n, "int64"))))
    choices += _special(kind, sub, tame=tame)
    return st.one_of(choices)


def _special(kind: str, sub, *, tame: bool) -> list[st.SearchStrategy]:
    number = st.one_of(sub("int64"), sub("float64"), sub("decimal(2)"), sub("decimal(4)"))
    if kind == "bool":
        return _conditions(sub, number, tame=tame)
    if kind == "int64":
        return [
            _call("mul", sub(kind), sub(kind)),
            _call("floor_div", sub(kind), sub(kind)),
            *(_call(f, sub("string")) for f in ("len_bytes", "len_chars")),
            *(_call(f, sub("timestamp")) for f in ("year", "month", "day", "weekday", "hour", "minute", "second")),
            _call("epoch", sub("timestamp"), st.sampled_from(["s", "ms", "us"]).map(lambda u: Literal(u, "string"))),
            *_casts(kind, sub, "bool", "float64", "decimal(2)", "string", "timestamp"),
        ]
    if kind == "float64":
        return [
            *(_call(f, number, sub(kind)) for f in ("mul", "div", "floor_div", "add", "sub", "mod")),
            _call("sqrt", number),
            *_casts(kind, sub, "bool", "int64", "decimal(4)", "string"),
        ]
    if kind == "decimal(4)":
        return [
            _call("mul", sub("decimal(2)"), sub("decimal(2)")),
            _call("mul", sub("int64"), sub(kind)),
            _call("add", sub("decimal(2)"), sub(kind)),
            *_casts(kind, sub, "decimal(2)", "float64", "int64", "string"),
        ]
    if kind == "string":
        part = st.one_of(sub("string"), sub("int64"), sub("bool"), sub("decimal(2)"))
        return [
            _call("to_lowercase", sub(kind)),
            _call("to_uppercase", sub(kind)),
            _call("slice", sub(kind), _integers(-4, 4), _integers(0, 4)),
            _call("slice", sub(kind), _integers(-4, 4)),
            _call("concat_str", st.just(Literal("-", "string")), part, part),
            *_casts(kind, sub, "int64", "bool", "decimal(2)"),
        ]
    return []


def _integers(low: int, high: int) -> st.SearchStrategy:
    return st.integers(low, high).map(lambda n: Literal(n, "int64"))


def _casts(kind: str, sub, *sources: str) -> list[st.SearchStrategy]:
    return [_call("cast", sub(source), st.just(Literal(kind, "string"))) for source in sources]


def _conditions(sub, number: st.SearchStrategy, *, tame: bool) -> list[st.SearchStrategy]:
    either = [sub(kind) for kind in ("string", "timestamp")]
    orders = [_call(f, side, side) for f in ("eq", "ne", "lt", "le", "gt", "ge") for side in (*either, number, number)]
    members = [
        st.builds(
            lambda first, rest, kind=kind: Call("is_in", (first, *(Literal(value, kind) for value in rest))),
            sub(kind),
            st.lists(values(kind, tame=tame), max_size=12),
        )
        for kind in ("int64", "float64", "string", "decimal(2)", "timestamp")
    ]
    texts = [
        _call(f, sub("string"), _WORDS.map(lambda w: Literal(w, "string")))
        for f in ("contains", "starts_with", "ends_with")
    ]
    nulls = [_call(f, sub(kind)) for f in ("is_null", "is_not_null") for kind in ("string", "int64", "bool")]
    logic = [_call(f, sub("bool"), sub("bool"), sub("bool")) for f in ("and", "or")]
    return [
        *orders,
        *members,
        *texts,
        *nulls,
        *logic,
        _call("not", sub("bool")),
        _call("eq", sub("bool"), sub("bool")),
        _call("is_nan", sub("float64")),
    ]
