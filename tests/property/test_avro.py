"""Avro: whatever the schemas and the values, Gillnet reads what fastavro reads, and never fails on other bytes."""

from __future__ import annotations

import datetime as dt
import io
import json
import math
import uuid
from decimal import Decimal as PyDecimal
from typing import Any

import fastavro
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gillnet.core.formats import RecordFormat
from gillnet.core.messages import RawBatch
from gillnet.core.schema import Boolean, Decimal, Float, Integer, Schema, String, Timestamp
from gillnet.operators.decode import DecodeOperator, rejection_reasons

COLUMNS = Schema(
    text=String(nullable=True),
    whole=Integer(nullable=True),
    real=Float(nullable=True, allow_nan=True),
    flag=Boolean(nullable=True),
    at=Timestamp("us", nullable=True),
    amount=Decimal(2, nullable=True),
)
UTC = dt.UTC
INSTANTS = st.datetimes(dt.datetime(1, 1, 2), dt.datetime(9999, 12, 30), timezones=st.just(UTC))
TEXTS = st.text(max_size=20)
LONGS = st.integers(-(2**63), 2**63 - 1)
INTS = st.integers(-(2**31), 2**31 - 1)
CENTS = st.integers(-(10**17), 10**17).map(lambda n: PyDecimal(n).scaleb(-2))
SYMBOLS = ["approved", "declined", "unknown"]

# What a column may be in a writer's schema: the type, and its values.
Writer = tuple[Any, st.SearchStrategy[Any]]


def _enum(name: str) -> Writer:
    return {"type": "enum", "name": f"E_{name}", "symbols": SYMBOLS}, st.sampled_from(SYMBOLS)


def _decimal(scale: int) -> Writer:
    kind = {"type": "bytes", "logicalType": "decimal", "precision": 30, "scale": scale}
    return kind, CENTS.filter(lambda value: value.as_tuple().exponent == -2)


def _fixed(name: str) -> Writer:
    kind = {"type": "fixed", "name": f"F_{name}", "size": 12, "logicalType": "decimal", "precision": 25, "scale": 2}
    return kind, CENTS


OF_COLUMN: dict[str, list[Writer]] = {
    "text": [("string", TEXTS), _enum("text"), ({"type": "string", "logicalType": "uuid"}, st.uuids())],
    "whole": [("long", LONGS), ("int", INTS)],
    "real": [
        ("double", st.floats()),
        ("float", st.floats(width=32)),
        ("int", INTS),
        ("long", LONGS),
    ],
    "flag": [("boolean", st.booleans())],
    "at": [
        ({"type": "long", "logicalType": "timestamp-micros"}, INSTANTS),
        (
            {"type": "long", "logicalType": "timestamp-millis"},
            INSTANTS.map(lambda at: at.replace(microsecond=at.microsecond // 1000 * 1000)),
        ),
        ({"type": "int", "logicalType": "date"}, st.dates()),
    ],
    "amount": [_decimal(2), _decimal(4), _fixed("amount"), ("long", st.integers(-(10**15), 10**15)), ("int", INTS)],
}


@st.composite
def others(draw: st.DrawFn, name: str, depth: int = 2) -> Writer:
    """A field that no column has: anything that Avro can say."""
    simple: list[Writer] = [("null", st.none()), ("bytes", st.binary(max_size=9)), ("string", TEXTS), ("long", LONGS)]
    simple += [
        ("double", st.floats()),
        ({"type": "fixed", "name": f"X_{name}", "size": 3}, st.binary(min_size=3, max_size=3)),
    ]
    choice = draw(st.integers(0, 3 if depth else 0))
    if choice == 0:
        return draw(st.sampled_from(simple))
    kind, values = draw(others(f"{name}_{choice}", depth - 1))
    if choice == 1:
        return {"type": "array", "items": kind}, st.lists(values, max_size=4)
    if choice == 2:
        return {"type": "map", "values": kind}, st.dictionaries(TEXTS, values, max_size=4)
    return {"type": "record", "name": f"R_{name}", "fields": [{"name": "a", "type": kind}]}, values.map(
        lambda a: {"a": a}
    )


@st.composite
def written(draw: st.DrawFn) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """A writer's schema and records of it: the columns in any order, some of them not there, others between."""
    fields: list[tuple[str, Writer]] = []
    for name, choices in OF_COLUMN.items():
        kind, values = draw(st.sampled_from(choices))
        shape = draw(st.integers(0, 3))
        if shape == 1:
            kind, values = ["null", kind], st.none() | values
        elif shape == 2:
            kind, values = [kind, "null"], values | st.none()
        if shape < 3 or draw(st.booleans()):
            fields.append((name, (kind, values)))
    fields += [(f"other_{n}", draw(others(str(n)))) for n in range(draw(st.integers(0, 3)))]
    fields = draw(st.permutations(fields)) or [("other", ("null", st.none()))]
    schema = {"type": "record", "name": "Event", "fields": [{"name": name, "type": kind} for name, (kind, _) in fields]}
    row = st.fixed_dictionaries({name: values for name, (_, values) in fields})
    return schema, draw(st.lists(row, min_size=1, max_size=4))


def encode(schema: Any, row: dict[str, Any]) -> bytes:
    out = io.BytesIO()
    fastavro.schemaless_writer(out, schema, row)
    return out.getvalue()


def decode(schema: Any, values: list[bytes], columns: Schema = COLUMNS, **options: Any) -> Any:
    form = RecordFormat(kind="avro", framing="plain", definitions=(json.dumps(schema).encode(),))
    raw = RawBatch(stream="s", values=values, partitions=[0] * len(values), arrival_time_us=0, format=form)
    return DecodeOperator(columns, **options).decode(raw)


def expected(name: str, value: Any) -> Any:
    """What a column has for the value that fastavro read."""
    if value is None:
        return None
    if name == "text" and isinstance(value, uuid.UUID):
        return str(value)
    if name == "real":
        return float(value)
    if name == "amount":
        return PyDecimal(value).quantize(PyDecimal("0.01"))
    if name == "at" and not isinstance(value, dt.datetime):
        return dt.datetime(value.year, value.month, value.day, tzinfo=UTC)
    return value


def same(left: Any, right: Any) -> bool:
    both_nan = isinstance(left, float) and isinstance(right, float) and math.isnan(left) and math.isnan(right)
    return both_nan or left == right


@settings(max_examples=60, deadline=None)
@given(written())
def test_what_fastavro_reads(drawn: tuple[dict[str, Any], list[dict[str, Any]]]) -> None:
    schema, rows = drawn
    parsed = fastavro.parse_schema(json.loads(json.dumps(schema)))
    values = [encode(parsed, row) for row in rows]
    kept = [place for place, value in enumerate(values) if value]
    decoded = decode(schema, values)
    # An empty value is a tombstone, whatever the schema says.
    assert [record.index for record in decoded.malformed] == [p for p in range(len(rows)) if p not in kept]
    found = decoded.batch.to_pyarrow().to_pylist()
    for place, row in zip(kept, found, strict=True):
        read = fastavro.schemaless_reader(io.BytesIO(values[place]), parsed, None)
        for name in COLUMNS:
            assert same(row[name], expected(name, read.get(name))), (name, read)


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(["int", "long", "float", "double", "string", "boolean"]), st.data())
def test_defaults_and_aliases_of_the_readers_schema(kind: str, data: st.DataObject) -> None:
    defaults = {"string": TEXTS, "boolean": st.booleans(), "int": INTS, "long": LONGS, "float": st.just(0.5)}
    default = data.draw(defaults.get(kind, st.floats(allow_nan=False, allow_infinity=False)))
    column = {"string": String(), "boolean": Boolean(), "int": Integer(), "long": Integer()}.get(kind, Float())
    columns = Schema(added=column, renamed=String())
    writer = {"type": "record", "name": "E", "fields": [{"name": "old", "type": "string"}]}
    reader = {
        "type": "record",
        "name": "E",
        "fields": [
            {"name": "added", "type": kind, "default": default},
            {"name": "renamed", "type": "string", "aliases": ["other", "old"]},
        ],
    }
    value = encode(fastavro.parse_schema(dict(writer)), {"old": "x"})
    form = RecordFormat(
        kind="avro", framing="confluent", definitions=(json.dumps(reader).encode(),), registry=_One(writer)
    )
    raw = RawBatch(stream="s", values=[b"\0\0\0\0\x07" + value], partitions=[0], arrival_time_us=0, format=form)
    row = DecodeOperator(columns).decode(raw).batch.to_pyarrow().to_pylist()[0]
    assert row == fastavro.schemaless_reader(
        io.BytesIO(value), fastavro.parse_schema(dict(writer)), fastavro.parse_schema(dict(reader))
    )


class _One:
    """A registry with one schema."""

    def __init__(self, schema: Any) -> None:
        self._schema = schema

    def fetch(self, schema_id: int) -> Any:
        from gillnet.core.formats import WriterSchema

        return WriterSchema(definition=json.dumps(self._schema).encode()) if schema_id == 7 else None


@settings(max_examples=80, deadline=None)
@given(written(), st.data())
def test_any_bytes_are_a_row_or_a_reason(
    drawn: tuple[dict[str, Any], list[dict[str, Any]]], data: st.DataObject
) -> None:
    schema, rows = drawn
    whole = encode(fastavro.parse_schema(json.loads(json.dumps(schema))), rows[0])
    at = data.draw(st.integers(0, len(whole)))
    values = [whole[:at], whole + b"\0", whole[:at] + data.draw(st.binary(max_size=5)) + whole[at + 1 :]]
    decoded = decode(schema, values)
    assert decoded.batch.num_rows + len(decoded.malformed) == len(values)
    assert {record.reason for record in decoded.malformed} <= set(rejection_reasons())
    assert all(len(record.detail) < 400 for record in decoded.malformed)


@settings(max_examples=60, deadline=None)
@given(written())
def test_single_objects_by_fastavros_fingerprint(drawn: tuple[dict[str, Any], list[dict[str, Any]]]) -> None:
    schema, rows = drawn
    parsed = fastavro.parse_schema(json.loads(json.dumps(schema)))
    mark = bytes.fromhex(fastavro.schema.fingerprint(fastavro.schema.to_parsing_canonical_form(schema), "CRC-64-AVRO"))
    values = [b"\xc3\x01" + mark + encode(parsed, row) for row in rows]
    form = RecordFormat(kind="avro", framing="single_object", definitions=(json.dumps(schema).encode(),))
    raw = RawBatch(stream="s", values=values, partitions=[0] * len(values), arrival_time_us=0, format=form)
    decoded = DecodeOperator(COLUMNS).decode(raw)
    assert decoded.malformed == []
    plain = [encode(parsed, row) for row in rows]
    if all(plain):
        assert str(decoded.batch.to_pyarrow().to_pylist()) == str(decode(schema, plain).batch.to_pyarrow().to_pylist())


@pytest.mark.parametrize("depth", [10, 100, 5_000])
def test_a_type_that_holds_itself(depth: int) -> None:
    node = {"type": "record", "name": "Node", "fields": [{"name": "next", "type": ["null", "Node"]}]}
    schema = {
        "type": "record",
        "name": "E",
        "fields": [{"name": "list", "type": node}, {"name": "whole", "type": "int"}],
    }
    decoded = decode(schema, [b"\x02" * depth + b"\x00" + b"\x54"])
    if depth == 10:
        assert decoded.batch.to_pyarrow().to_pylist()[0]["whole"] == 42
    else:
        assert [record.reason for record in decoded.malformed] == ["too_deep"]
