"""CPU per record of decoding Avro and Protobuf payments, next to JSON and to the libraries that one would take otherwise.

Run ``python -m bench.record_codec``; fastavro and protobuf are among the development dependencies. The payments and the method are those
of `bench/json_codec.py`. fastavro and protobuf leave the step to columns undone, so that their figures are floors.
"""

from __future__ import annotations

import io
import json
import platform
import sys
from typing import TYPE_CHECKING

import fastavro
import msgspec
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from bench.json_codec import SCHEMA, Payment, cpu_us, payments
from gillnet.core.formats import RecordFormat, WriterSchema
from gillnet.core.messages import RawBatch
from gillnet.operators.decode import DecodeOperator

if TYPE_CHECKING:
    from collections.abc import Callable

AMOUNT = {"type": "bytes", "logicalType": "decimal", "precision": 18, "scale": 2}
TIME = {"type": "long", "logicalType": "timestamp-millis"}
AVRO = {
    "type": "record",
    "name": "Payment",
    "fields": [
        {"name": name, "type": {"ts": TIME, "amount": AMOUNT, "device_id": ["null", "string"]}.get(name, "string")}
        for name in SCHEMA
    ],
}
FIELD = descriptor_pb2.FieldDescriptorProto


def protobuf_file() -> descriptor_pb2.FileDescriptorProto:
    file = descriptor_pb2.FileDescriptorProto(name="payments.proto", package="bench", syntax="proto3")
    message = file.message_type.add(name="Payment")
    for number, name in enumerate(SCHEMA, 1):
        kind = {"ts": FIELD.TYPE_INT64, "amount": FIELD.TYPE_DOUBLE}.get(name, FIELD.TYPE_STRING)
        message.field.add(name=name, number=number, type=kind, label=FIELD.LABEL_OPTIONAL)
    return file


class _Registry:
    def __init__(self, definition: bytes) -> None:
        self._definition = definition

    def fetch(self, schema_id: int) -> WriterSchema:  # noqa: ARG002
        return WriterSchema(definition=self._definition)


def decoders(records: list[Payment]) -> dict[str, Callable[[], object]]:
    from decimal import Decimal

    file = protobuf_file()
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(file.SerializeToString())
    message = message_factory.GetMessageClass(pool.FindMessageTypeByName("bench.Payment"))
    parsed = fastavro.parse_schema(json.loads(json.dumps(AVRO)))
    avro, protobuf = [], []
    for record in records:
        row = msgspec.structs.asdict(record)
        protobuf.append(b"\0\0\0\0\x01\x00" + message(**row).SerializeToString())
        out = io.BytesIO(b"\0\0\0\0\x01")
        out.seek(5)
        fastavro.schemaless_writer(out, parsed, {**row, "amount": Decimal(f"{row['amount']:.2f}")})
        avro.append(out.getvalue())
    avro_form = RecordFormat(kind="avro", framing="confluent", registry=_Registry(json.dumps(AVRO).encode()))
    protobuf_form = RecordFormat(kind="protobuf", framing="confluent", registry=_Registry(file.SerializeToString()))
    work: dict[str, Callable[[], object]] = {}
    tables = {}
    for name, values, form in [
        ("JSON", [msgspec.json.encode(record) for record in records], None),
        ("Avro", avro, avro_form),
        ("Protobuf", protobuf, protobuf_form),
    ]:
        operator = DecodeOperator(SCHEMA, id="tx_id", keys=["card_id", "user_id", "device_id", "merchant_id"])
        raw = RawBatch(stream="p", values=values, partitions=[0] * len(values), arrival_time_us=0, format=form)
        tables[name] = operator.decode(raw).batch.to_pyarrow()
        title = f"gillnet {name}, {len(values[0])} bytes (columns)"
        work[title] = lambda operator=operator, raw=raw: operator.decode(raw)  # type: ignore[misc]
    assert tables["JSON"].num_rows == len(records)
    assert tables["JSON"].equals(tables["Avro"])
    assert tables["JSON"].equals(tables["Protobuf"])
    streams = [io.BytesIO(value[5:]) for value in avro]

    def with_fastavro() -> None:
        for stream in streams:
            stream.seek(0)
            fastavro.schemaless_reader(stream, parsed, None)

    bodies = [value[6:] for value in protobuf]
    work["fastavro (dicts)"] = with_fastavro
    work["protobuf upb (messages)"] = lambda: [message.FromString(value) for value in bodies]
    return work


def main() -> None:
    sizes = (1, 8, 1_000, 4_096)
    records = [msgspec.json.decode(value, type=Payment) for value in payments(max(sizes))]
    print(f"{platform.processor() or platform.machine()}, Python {platform.python_version()}, {sys.platform}")
    print("µs of CPU a record\n")
    print(f"{'decode, rows at once':<40}" + "".join(f"{size:>10,}" for size in sizes))
    rounds = [decoders(records[:size]) for size in sizes]
    for name in rounds[0]:
        figures = [cpu_us(work[name], size) for work, size in zip(rounds, sizes, strict=True)]
        print(f"{name:<40}" + "".join(f"{figure:>10.3f}" for figure in figures))


if __name__ == "__main__":
    main()
