"""Every reason for which an Avro or Protobuf record is malformed, and what it says; and what a registry's schemas lead to."""

from __future__ import annotations

import io
import json
from decimal import Decimal as PyDecimal
from typing import Any

import fastavro
import pytest
from google.protobuf import descriptor_pb2

from gillnet.core.errors import DefinitionError, SourceError
from gillnet.core.formats import RecordFormat, UnusableSchema, WriterSchema
from gillnet.core.messages import RawBatch
from gillnet.core.schema import Decimal, Float, Integer, Schema, String, Timestamp
from gillnet.operators.decode import DecodeOperator
from gillnet.operators.decode_records import RecordsDecoder
from gillnet.testing.clock import SimulatedClock

PAYMENT = Schema(
    tx_id=String(max_bytes=8),
    ts=Timestamp("ms"),
    card=String(nullable=True),
    amount=Decimal(2, minimum=0),
    count=Integer(nullable=True, maximum=9),
    rate=Float(nullable=True),
    shop=String(nullable=True),
)
LIMITS = {"id": "tx_id", "keys": ["card", "shop"]}
AMOUNT = {"type": "bytes", "logicalType": "decimal", "precision": 30, "scale": 3}
ROW = {"tx_id": "t", "ts": 1, "card": "c", "amount": PyDecimal("1.500"), "count": 1, "rate": 0.5}
TYPES: dict[str, Any] = {
    "tx_id": ["string", "null"],
    "ts": ["long", "null"],
    "card": ["string", "null", "bytes"],
    "amount": [AMOUNT, "string", "double", "null", "boolean", {"type": "array", "items": "int"}],
    "count": ["long", "null"],
    "rate": ["double", "null"],
}
SCHEMA = {
    "type": "record",
    "name": "P",
    "fields": [{"name": name, "type": kind} for name, kind in TYPES.items()],
}


def encode(schema: Any, row: Any) -> bytes:
    out = io.BytesIO()
    fastavro.schemaless_writer(out, fastavro.parse_schema(json.loads(json.dumps(schema))), row)
    return out.getvalue()


def avro(schema: Any, **options: Any) -> RecordFormat:
    return RecordFormat(kind="avro", framing="plain", definitions=(json.dumps(schema).encode(),), **options)


def decode(form: RecordFormat, *values: bytes, columns: Schema = PAYMENT, **limits: Any) -> Any:
    raw = RawBatch(stream="s", values=values, partitions=[0] * len(values), arrival_time_us=0, format=form)
    return DecodeOperator(columns, **{**(LIMITS if columns is PAYMENT else {}), **limits}).decode(raw)


def test_a_record_with_no_fault() -> None:
    decoded = decode(avro(SCHEMA), encode(SCHEMA, ROW), encode(SCHEMA, {**ROW, "card": "", "amount": 12.34}))
    rows = decoded.batch.to_pyarrow().to_pylist()
    assert decoded.malformed == []
    assert [(row["card"], row["amount"], row["shop"]) for row in rows] == [
        ("c", PyDecimal("1.50"), None),
        (None, PyDecimal("12.34"), None),
    ]


@pytest.mark.parametrize(
    ("change", "reason", "detail"),
    [
        ({"tx_id": None}, "null_id", "'tx_id'"),
        ({"tx_id": ""}, "null_id", "'tx_id'"),
        ({"tx_id": "longer than it may be"}, "too_large", "at most 8"),
        ({"ts": None}, "null_value", "'ts'"),
        ({"ts": 2**62}, "out_of_range", "'ts'"),
        ({"amount": None}, "null_value", "'amount'"),
        ({"amount": PyDecimal("-0.010")}, "out_of_range", "'amount'"),
        ({"amount": PyDecimal("0.001")}, "inexact_decimal", "decimal '1e-3'"),
        ({"amount": PyDecimal("1e20")}, "out_of_range", "'amount'"),
        ({"amount": 0.005}, "inexact_decimal", "0.005"),
        ({"amount": 1e300}, "out_of_range", "'amount'"),
        ({"amount": float("nan")}, "not_finite", "'amount'"),
        ({"amount": "twelve"}, "wrong_type", "text 'twelve'"),
        ({"amount": True}, "wrong_type", "boolean 'true'"),
        ({"amount": [1, 2]}, "wrong_type", "found array"),
        ({"count": 10}, "out_of_range", "integer '10'"),
        ({"rate": float("inf")}, "not_finite", "'rate'"),
        ({"card": b"\xff"}, "not_utf8", "'card'"),
    ],
)
def test_a_value_that_does_not_fit_its_column(change: dict[str, Any], reason: str, detail: str) -> None:
    [found] = decode(avro(SCHEMA), encode(SCHEMA, {**ROW, **change})).malformed
    assert found.reason == reason
    assert detail in found.detail


WHOLE = encode(SCHEMA, ROW)


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (b"", "empty_record"),
        (WHOLE[:-1], "not_avro"),
        (WHOLE + b"\0", "not_avro"),
        (b"\x08" + WHOLE[1:], "not_avro"),  # branch 4 of 2
        (b"\x01" + WHOLE[1:], "not_avro"),  # branch -1
        (b"\x00\x01" + WHOLE[2:], "not_avro"),  # a text of length -1
        (b"\x00" + b"\xff" * 11, "not_avro"),  # a number without an end
        (b"\x00\xfe\xff\xff\xff\xff\xff\xff\xff\xff\x01", "not_avro"),  # a text of 2^63 - 1 bytes
        (b"x" * ((1 << 20) + 1), "too_large"),
        # What is no Avro is said before what a column refuses.
        (encode(SCHEMA, {**ROW, "tx_id": ""})[:-1], "not_avro"),
    ],
)
def test_bytes_that_are_no_record(value: bytes, reason: str) -> None:
    decoded = decode(avro(SCHEMA), WHOLE, value, WHOLE)
    assert [(record.index, record.reason) for record in decoded.malformed] == [(1, reason)]
    assert decoded.rows.to_pylist() == [0, 2]
    assert decoded.batch.num_rows == 2


def test_a_column_that_the_writer_does_not_have() -> None:
    schema = {"type": "record", "name": "P", "fields": [{"name": "tx_id", "type": "string"}]}
    [found] = decode(avro(schema), encode(schema, {"tx_id": "t"})).malformed
    assert (found.reason, "'ts'" in found.detail) == ("missing_field", True)


def test_values_of_no_bytes_cost_nothing_however_many_they_are() -> None:
    kind: Any = {"type": "record", "name": "R0", "fields": [{"name": "a", "type": "null"}]}
    for depth in range(1, 30):  # Each has two of the one inside: 2^30 values in all.
        inner = [{"name": "a", "type": kind}, {"name": "b", "type": f"R{depth - 1}"}]
        kind = {"type": "record", "name": f"R{depth}", "fields": inner}
    fields = [{"name": "many", "type": {"type": "array", "items": kind}}, {"name": "n", "type": "int"}]
    many = b"\xfe\xff\xff\xff\xff\xff\xff\xff\xff\x01" + b"\0"
    form = avro({"type": "record", "name": "P", "fields": fields})
    assert decode(form, many + b"\x54", columns=Schema(n=Integer())).batch.to_pyarrow().to_pylist() == [{"n": 42}]


@pytest.mark.parametrize(
    ("definition", "message"),
    [
        ("{", "not readable"),
        ('"string"', "not a record"),
        ('{"type": "record", "name": "P"}', "without fields"),
        ('{"type": "record", "name": "P", "fields": [{"name": "a", "type": "Q"}]}', "'Q' is unknown"),
        ('{"type": "record", "name": "P", "fields": [{"name": "a", "type": []}]}', "union of nothing"),
        (
            '{"type": "record", "name": "P", "fields": [{"name": "a", "type": {"type": "fixed", "name": "F", "size": -1}}]}',
            "size",
        ),
        ("[" * 300 + "]" * 300, "recursion limit"),
        ('"' + "x" * (1 << 20) + '"', "at most"),
        ('{"type": "record", "name": "P", "fields": [{"name": "tx_id", "type": "int", "default": "x"}]}', None),
    ],
)
def test_a_schema_that_cannot_be_used(definition: str, message: str | None) -> None:
    form = RecordFormat(kind="avro", framing="plain", definitions=(definition.encode(),))
    if message is None:
        decode(form, b"\0")
        return
    with pytest.raises(DefinitionError, match=message):
        decode(form, b"\0")
    # The same from a registry is no error of the definition: the records that have it are malformed.
    registry = Schemas({5: WriterSchema(definition=definition.encode())})
    by_id = RecordFormat(kind="avro", framing="confluent", registry=registry)
    [found] = decode(by_id, b"\0\0\0\0\x05\0").malformed
    assert found.reason == "bad_schema"
    assert len(found.detail) < 300


class Schemas:
    """A registry that counts what it is asked."""

    def __init__(self, schemas: dict[int, Any]) -> None:
        self.schemas, self.asked = schemas, []

    def fetch(self, schema_id: int) -> WriterSchema | None:
        self.asked.append(schema_id)
        found = self.schemas.get(schema_id)
        if isinstance(found, Exception):
            raise found
        return found


def framed(schema_id: int, body: bytes = WHOLE) -> bytes:
    return b"\0" + schema_id.to_bytes(4, "big") + body


def test_each_record_by_the_schema_of_its_id_fetched_once() -> None:
    older = {**SCHEMA, "fields": [{"name": "extra", "type": "long"}, *reversed(SCHEMA["fields"])]}
    registry = Schemas(
        {
            1: WriterSchema(definition=json.dumps(SCHEMA).encode()),
            2: WriterSchema(definition=json.dumps(older).encode()),
        }
    )
    form = RecordFormat(kind="avro", framing="confluent", registry=registry)
    values = [
        framed(1),
        framed(2, encode(older, {**ROW, "extra": 7, "tx_id": "u"})),
        framed(1),
        framed(3),
        b"{}",
        b"\0\0\0",
    ]
    operator = DecodeOperator(PAYMENT, **LIMITS)
    for _ in range(3):
        raw = RawBatch(stream="s", values=values, partitions=[0] * 6, arrival_time_us=0, format=form)
        decoded = operator.decode(raw)
        assert decoded.batch.to_pyarrow().column("tx_id").to_pylist() == ["t", "u", "t"]
        assert [record.reason for record in decoded.malformed] == ["unknown_schema", "bad_framing", "bad_framing"]
    assert registry.asked == [1, 2, 3]


def test_an_id_that_the_registry_did_not_have_is_asked_for_again_later() -> None:
    registry, clock = Schemas({}), SimulatedClock()
    form = RecordFormat(kind="avro", framing="confluent", registry=registry)
    columns = json.dumps([{"name": "tx_id", "type": "string"}]).encode()
    decoder = RecordsDecoder(columns, form, {}, clock=clock)
    assert decoder.decode([framed(9)])[2][0][1] == "unknown_schema"
    assert decoder.decode([framed(9)])[2][0][1] == "unknown_schema"
    registry.schemas[9] = WriterSchema(definition=json.dumps(SCHEMA).encode())
    clock.sleep(301)
    assert decoder.decode([framed(9)])[0].num_rows == 1
    assert registry.asked == [9, 9]


def test_a_registry_that_is_away_makes_no_record_malformed() -> None:
    registry = Schemas({1: SourceError("away")})
    form = RecordFormat(kind="avro", framing="confluent", registry=registry)
    operator = DecodeOperator(PAYMENT, **LIMITS)
    raw = RawBatch(stream="s", values=[framed(1)], partitions=[0], arrival_time_us=0, format=form)
    with pytest.raises(SourceError, match="away"):
        operator.decode(raw)
    registry.schemas[1] = WriterSchema(definition=json.dumps(SCHEMA).encode())
    assert operator.decode(raw).batch.num_rows == 1


def test_types_of_other_schemas_and_schemas_of_no_use() -> None:
    card = {"type": "record", "name": "Card", "namespace": "shop", "fields": [{"name": "no", "type": "string"}]}
    fields = [{"name": "card", "type": "shop.Card"}, {"name": "n", "type": "int"}]
    whole = json.dumps({"type": "record", "name": "P", "fields": fields}).encode()
    registry = Schemas(
        {
            1: WriterSchema(definition=whole, references=(json.dumps(card).encode(),)),
            2: UnusableSchema("it is of the type JSON"),
        }
    )
    form = RecordFormat(kind="avro", framing="confluent", registry=registry)
    decoded = decode(form, framed(1, b"\x02x\x0a"), framed(2), columns=Schema(n=Integer()))
    assert decoded.batch.to_pyarrow().to_pylist() == [{"n": 5}]
    assert [(record.reason, record.detail) for record in decoded.malformed] == [
        ("bad_schema", "schema 2: it is of the type JSON")
    ]


# Protobuf


F = descriptor_pb2.FieldDescriptorProto


def protobuf_file() -> bytes:
    """Two messages, the second with one inside, and names as a registry may write them: relative, without their kind."""
    file = descriptor_pb2.FileDescriptorProto(name="p.proto", package="shop", syntax="proto3")
    file.enum_type.add(name="Status").value.add(name="NEW", number=0)
    for message in (
        file.message_type.add(name="First"),
        file.message_type.add(name="Second").nested_type.add(name="Inner"),
    ):
        message.field.add(name="id", number=1, type=F.TYPE_STRING, label=F.LABEL_OPTIONAL)
        message.field.add(name="status", number=2, type_name="Status", label=F.LABEL_OPTIONAL)
        message.field.add(name="many", number=3, type=F.TYPE_INT32, label=F.LABEL_REPEATED)
        message.field.add(name="whole", number=4, type=F.TYPE_UINT64, label=F.LABEL_OPTIONAL)
    return file.SerializeToString()


EVENT = Schema(id=String(), status=String(nullable=True), whole=Integer(nullable=True))
FIRST = b"\x0a\x01a"


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"\x00" + FIRST, None),
        (b"\x02\x00" + FIRST, None),  # the list [0]
        (b"\x04\x02\x00" + FIRST, None),  # the list [1, 0]
        (b"\x02\x0a" + FIRST, "bad_schema"),  # a message that the file does not have
        (b"", "bad_framing"),
        (b"\x01" + FIRST, "bad_framing"),
        (b"\xff\xff\xff\xff\xff\x01" + FIRST, "bad_framing"),
        (b"\x04\x02", "bad_framing"),
        (b"\x00", "null_id"),  # an empty message has the empty text
        (b"\x00" + FIRST + b"\x10\x07", "unknown_symbol"),
        (b"\x00" + FIRST + b"\x20" + b"\xff" * 9 + b"\x01", "out_of_range"),
        (b"\x00" + FIRST + b"\x1a\x02\x01\x02", None),  # a list that no column has
        (b"\x00" + FIRST + b"\x08\x05", None),  # another wire type is an unknown field
        (b"\x00" + b"\x0a\x09a", "not_protobuf"),
        (b"\x00" + FIRST + b"\x07", "not_protobuf"),
        (b"\x00" + FIRST + b"\x00\x01", "not_protobuf"),  # field 0
        (b"\x00" + FIRST + b"\x4b\x08\x01", "not_protobuf"),  # a group without an end
        (b"\x00" + FIRST + b"\x4b\x08\x01\x4c", None),
        (b"\x00" + FIRST + b"\x4c", "not_protobuf"),
        (b"\x00" + FIRST + b"\x4b" * 100_000, "too_deep"),
        (b"\x00" + b"\x0a\x01\xff", "not_utf8"),
    ],
)
def test_protobuf_by_the_registrys_schema(body: bytes, reason: str | None) -> None:
    registry = Schemas({1: WriterSchema(definition=protobuf_file())})
    form = RecordFormat(kind="protobuf", framing="confluent", registry=registry)
    decoded = decode(form, framed(1, body), columns=EVENT, id="id")
    assert [record.reason for record in decoded.malformed] == ([] if reason is None else [reason])
    if reason is None:
        assert decoded.batch.to_pyarrow().to_pylist() == [{"id": "a", "status": "NEW", "whole": 0}]


@pytest.mark.parametrize(
    ("definition", "message", "told"),
    [
        (b"\xff", "First", "no descriptor set"),
        (b"", "First", "without a file"),
        (b"x" * ((1 << 20) + 1), "First", "at most"),
        (descriptor_pb2.FileDescriptorSet(file=[descriptor_pb2.FileDescriptorProto.FromString(protobuf_file())]).SerializeToString(),
         "Third", "there are"),
    ],
)  # fmt: skip
def test_a_descriptor_that_cannot_be_used(definition: bytes, message: str, told: str) -> None:
    form = RecordFormat(kind="protobuf", framing="plain", definitions=(definition,), message=message)
    with pytest.raises(DefinitionError, match=told):
        decode(form, FIRST, columns=EVENT)


def test_a_list_is_no_value_of_a_column() -> None:
    registry = Schemas({1: WriterSchema(definition=protobuf_file())})
    form = RecordFormat(kind="protobuf", framing="confluent", registry=registry)
    [found] = decode(form, framed(1, b"\x00\x1a\x01\x01"), columns=Schema(many=Integer(nullable=True))).malformed
    assert (found.reason, "a list" in found.detail) == ("wrong_type", True)
