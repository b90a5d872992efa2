"""Protobuf: whatever the messages, Gillnet reads what Google's own parser reads, and never fails on other bytes."""

from __future__ import annotations

import struct
from typing import Any

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, timestamp_pb2, wrappers_pb2
from google.protobuf.message import DecodeError
from hypothesis import given, settings
from hypothesis import strategies as st

from gillnet.core.formats import RecordFormat
from gillnet.core.messages import RawBatch
from gillnet.core.schema import Boolean, Float, Integer, Schema, String, Timestamp
from gillnet.operators.decode import DecodeOperator, rejection_reasons

F = descriptor_pb2.FieldDescriptorProto
WHOLE = {
    "int32": (-(2**31), 2**31 - 1),
    "int64": (-(2**63), 2**63 - 1),
    "uint32": (0, 2**32 - 1),
    "uint64": (0, 2**63 - 1),
    "sint32": (-(2**31), 2**31 - 1),
    "sint64": (-(2**63), 2**63 - 1),
    "fixed32": (0, 2**32 - 1),
    "fixed64": (0, 2**63 - 1),
    "sfixed32": (-(2**31), 2**31 - 1),
    "sfixed64": (-(2**63), 2**63 - 1),
}
PLAIN = [*WHOLE, "float", "double", "bool", "string", "bytes"]
NULLABLE = {"nullable": True}


def _file(name: str, syntax: str) -> descriptor_pb2.FileDescriptorProto:
    """A message with a field of every type: `x` as it is, `o_x` optional (or, in proto2, `d_x` with a default)."""
    file = descriptor_pb2.FileDescriptorProto(name=f"{name}.proto", package=name, syntax=syntax)
    file.dependency.extend(["google/protobuf/timestamp.proto", "google/protobuf/wrappers.proto"])
    status = file.enum_type.add(name="Status")
    for number, value in enumerate(["UNKNOWN", "APPROVED", "DECLINED"]):
        status.value.add(name=value, number=number)
    message = file.message_type.add(name="Event")
    inner = message.nested_type.add(name="Inner")
    inner.field.add(name="a", number=1, type=F.TYPE_STRING, label=F.LABEL_OPTIONAL)
    choice = message.oneof_decl.add(name="choice")
    assert choice.name
    for number, kind in enumerate(PLAIN, 1):
        field_type = getattr(F, f"TYPE_{kind.upper()}")
        message.field.add(name=f"x_{kind}", number=number, type=field_type, label=F.LABEL_OPTIONAL)
        optional = message.field.add(name=f"o_{kind}", number=100 + number, type=field_type, label=F.LABEL_OPTIONAL)
        if syntax == "proto3":
            optional.proto3_optional = True
        else:
            optional.default_value = {
                "bool": "true",
                "string": "dé",
                "bytes": "d",
                "double": "2.5",
                "float": "2.5",
            }.get(kind, "7")
    for name_, number, type_name in [
        ("status", 50, f".{name}.Status"),
        ("at", 51, ".google.protobuf.Timestamp"),
        ("inner", 52, f".{name}.Event.Inner"),
        ("wrapped", 53, ".google.protobuf.StringValue"),
        ("counted", 54, ".google.protobuf.Int64Value"),
    ]:
        field_type = F.TYPE_ENUM if name_ == "status" else F.TYPE_MESSAGE
        message.field.add(name=name_, number=number, type=field_type, type_name=type_name, label=F.LABEL_OPTIONAL)
    for number, kind in [(60, F.TYPE_STRING), (61, F.TYPE_INT64)]:
        message.field.add(name=f"one_{number}", number=number, type=kind, label=F.LABEL_OPTIONAL, oneof_index=0)
    message.field.add(name="many", number=70, type=F.TYPE_INT32, label=F.LABEL_REPEATED)
    message.field.add(
        name="inners", number=71, type=F.TYPE_MESSAGE, type_name=f".{name}.Event.Inner", label=F.LABEL_REPEATED
    )
    if syntax == "proto3":  # Each optional field is alone in a oneof of its own, behind those that were written.
        for field in message.field:
            if field.proto3_optional:
                field.oneof_index = len(message.oneof_decl)
                message.oneof_decl.add(name=f"_{field.name}")
    return file


FILES = {syntax: _file(f"of_{syntax}", syntax) for syntax in ("proto3", "proto2")}
POOL = descriptor_pool.DescriptorPool()
for _dependency in (timestamp_pb2, wrappers_pb2):
    POOL.AddSerializedFile(_dependency.DESCRIPTOR.serialized_pb)
for _each in FILES.values():
    POOL.AddSerializedFile(_each.SerializeToString())
CLASSES = {s: message_factory.GetMessageClass(POOL.FindMessageTypeByName(f"of_{s}.Event")) for s in FILES}


def _column(kind: str) -> Any:
    if kind in WHOLE:
        return Integer(nullable=True)
    return {"bool": Boolean, "string": String, "bytes": String}.get(
        kind, lambda nullable: Float(nullable=nullable, allow_nan=True)
    )(nullable=True)


COLUMNS = Schema(
    **{f"{prefix}_{kind}": _column(kind) for kind in PLAIN for prefix in ("x", "o")},
    status=String(nullable=True),
    at=Timestamp("ms", nullable=True),
    wrapped=String(nullable=True),
    counted=Integer(nullable=True),
    one_60=String(nullable=True),
    one_61=Integer(nullable=True),
    absent=Integer(nullable=True),
)


def _values(kind: str) -> st.SearchStrategy[Any]:
    if kind in WHOLE:
        return st.integers(*WHOLE[kind])
    texts = st.text(max_size=12)
    strategies = {
        "float": st.floats(width=32),
        "double": st.floats(),
        "bool": st.booleans(),
        "string": texts,
        "bytes": texts.map(str.encode),
    }
    return strategies[kind]


@st.composite
def messages(draw: st.DrawFn, syntax: str) -> Any:  # noqa: C901 - one branch a kind of field
    message = CLASSES[syntax]()
    for kind in PLAIN:
        for prefix in ("x", "o"):
            if draw(st.booleans()):
                setattr(message, f"{prefix}_{kind}", draw(_values(kind)))
    if draw(st.booleans()):
        message.status = draw(st.integers(0, 2))
    if draw(st.booleans()):
        message.at.seconds = draw(st.integers(-62_135_596_800, 253_402_300_799))
        message.at.nanos = draw(st.integers(0, 999_999_999))
    if draw(st.booleans()):
        message.wrapped.value = draw(st.text(max_size=9))
    if draw(st.booleans()):
        message.counted.value = draw(st.integers(-(2**63), 2**63 - 1))
    which = draw(st.integers(0, 2))
    if which == 1:
        message.one_60 = draw(st.text(max_size=9))
    elif which == 2:
        message.one_61 = draw(st.integers(-(2**63), 2**63 - 1))
    message.many.extend(draw(st.lists(st.integers(-5, 5), max_size=3)))
    for text in draw(st.lists(st.text(max_size=5), max_size=2)):
        message.inners.add(a=text)
    return message


def decode(syntax: str, values: list[bytes], columns: Schema = COLUMNS) -> Any:
    definition = descriptor_pb2.FileDescriptorSet(file=[FILES[syntax]]).SerializeToString()
    form = RecordFormat(kind="protobuf", framing="plain", definitions=(definition,), message="Event")
    raw = RawBatch(stream="s", values=values, partitions=[0] * len(values), arrival_time_us=0, format=form)
    return DecodeOperator(columns).decode(raw)


def expected(message: Any, name: str) -> Any:
    """What Google's parser has for a column."""
    if name == "absent":
        return None
    field = message.DESCRIPTOR.fields_by_name[name]
    presence = field.has_presence and not field.has_default_value
    if presence and not message.HasField(name):
        return None
    value = getattr(message, name)
    if name == "status":
        return field.enum_type.values_by_number[value].name
    if name == "at":
        return value.seconds * 1_000_000 + value.nanos // 1_000
    if name in ("wrapped", "counted"):
        return value.value
    return value.decode() if isinstance(value, bytes) else value


def check(syntax: str, value: bytes) -> None:
    message = CLASSES[syntax]()
    message.ParseFromString(value)
    decoded = decode(syntax, [value])
    assert decoded.malformed == []
    batch = decoded.batch.to_pyarrow()
    row = batch.drop_columns(["at"]).to_pylist()[0]
    row["at"] = batch.column("at").cast("int64").to_pylist()[0]
    for name in COLUMNS:
        wanted = expected(message, name)
        if isinstance(wanted, float):
            assert struct.pack("d", row[name]) == struct.pack("d", wanted) or (
                row[name] != row[name] and wanted != wanted
            ), name
        else:
            assert row[name] == wanted, name


@pytest.mark.parametrize("syntax", ["proto3", "proto2"])
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_what_googles_parser_reads(syntax: str, data: st.DataObject) -> None:
    value = data.draw(messages(syntax)).SerializeToString()
    if value:
        check(syntax, value)


@pytest.mark.parametrize("syntax", ["proto3", "proto2"])
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_messages_written_one_behind_another_are_merged(syntax: str, data: st.DataObject) -> None:
    parts = [data.draw(messages(syntax)).SerializeToString() for _ in range(2)]
    if any(parts):
        check(syntax, b"".join(parts))


@pytest.mark.parametrize("syntax", ["proto3", "proto2"])
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_any_bytes_are_a_row_or_a_reason(syntax: str, data: st.DataObject) -> None:
    whole = data.draw(messages(syntax)).SerializeToString()
    at = data.draw(st.integers(0, len(whole)))
    value = whole[:at] + data.draw(st.binary(max_size=5)) + whole[at + data.draw(st.integers(0, 2)) :]
    decoded = decode(syntax, [value])
    assert decoded.batch.num_rows + len(decoded.malformed) == 1
    assert {record.reason for record in decoded.malformed} <= set(rejection_reasons())
    try:
        CLASSES[syntax]().ParseFromString(value)
    except DecodeError:
        return  # Google's parser also looks into messages that no column reads.
    # What it reads as a message is never refused as none.
    assert [record.reason for record in decoded.malformed if record.reason == "not_protobuf"] == []
