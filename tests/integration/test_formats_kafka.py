"""Avro and Protobuf through a real broker, schemas from a registry: the same decisions as from JSON, live and as a batch."""

from __future__ import annotations

import io
import json
import threading
from decimal import Decimal as PyDecimal
from typing import TYPE_CHECKING, Any

import fastavro
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from tests.unit.connectors.confluent_registry import running

import gillnet as gn
from gillnet.app import build_runtime
from gillnet.app.config import RunConfig
from gillnet.connectors.kafka import KafkaSink, ensure_topics
from gillnet.connectors.uri import open_source
from gillnet.core.schema import Decimal, Schema, String, Timestamp
from gillnet.runtimes.batch import source_events
from gillnet.runtimes.embedded import RuntimeOptions

if TYPE_CHECKING:
    from pathlib import Path

    from gillnet.connectors.local_kafka import LocalKafka

pytestmark = [pytest.mark.kafka]
F = descriptor_pb2.FieldDescriptorProto
PAYMENT = Schema(
    tx_id=String(), ts=Timestamp("ms"), card_id=String(), amount=Decimal(2, minimum=0), shop=String(nullable=True)
)
AMOUNT = {"type": "bytes", "logicalType": "decimal", "precision": 18, "scale": 2}
TIME = {"type": "long", "logicalType": "timestamp-micros"}
# The newer writer has a field more, another order, and a shop.
OLD = {"type": "record", "name": "Payment", "fields": [
    {"name": "tx_id", "type": "string"}, {"name": "ts", "type": TIME}, {"name": "card_id", "type": "string"},
    {"name": "amount", "type": AMOUNT}]}  # fmt: skip
NEW = {"type": "record", "name": "Payment", "fields": [
    {"name": "shop", "type": ["null", "string"]}, {"name": "extra", "type": {"type": "array", "items": "long"}},
    *OLD["fields"]]}  # fmt: skip


def pipeline() -> gn.Pipeline:
    payments = gn.Stream(
        "payments", schema=PAYMENT, id="tx_id", event_time="ts", watermark_delay="5s", allowed_lateness="1h"
    )
    card = payments.by("card_id")
    features = gn.Features(payments, spent=card.sum("amount", over="5m"), many=card.count(over="1h"))
    return gn.Pipeline(features, name="formats", policy=[gn.block(gn.col("spent") > 200)])


def payments(count: int) -> list[dict[str, Any]]:
    """Half of them of the older writer, without a shop."""
    return [
        {
            "tx_id": f"t-{n}",
            "ts": 1_767_607_200_000 + n * 1_000,
            "card_id": f"c-{n % 7}",
            "amount": PyDecimal(n * 37 % 9_999).scaleb(-2),
            **({"shop": f"s-{n % 3}" if n % 3 else None} if n >= count // 2 else {}),
        }
        for n in range(count)
    ]


def as_json(row: dict[str, Any]) -> bytes:
    return json.dumps({**row, "amount": str(row["amount"])}).encode()


def as_avro(row: dict[str, Any]) -> bytes:
    out = io.BytesIO()
    schema = NEW if "shop" in row else OLD
    fastavro.schemaless_writer(
        out, fastavro.parse_schema(dict(schema)), {**row, "ts": row["ts"] * 1_000, "extra": [1, 2]}
    )
    return b"\0\0\0\0" + (b"\x02" if "shop" in row else b"\x01") + out.getvalue()


def protobuf_file() -> descriptor_pb2.FileDescriptorProto:
    file = descriptor_pb2.FileDescriptorProto(name="payments.proto", package="shop", syntax="proto3")
    message = file.message_type.add(name="Other")
    message = file.message_type.add(name="Payment")
    for number, name in enumerate(PAYMENT, 1):
        kind = F.TYPE_INT64 if name == "ts" else F.TYPE_STRING
        message.field.add(name=name, number=number, type=kind, label=F.LABEL_OPTIONAL)
    message.field[4].proto3_optional = True
    message.field[4].oneof_index = 0
    message.oneof_decl.add(name="_shop")
    return file


def as_protobuf(row: dict[str, Any]) -> bytes:
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(protobuf_file().SerializeToString())
    message = message_factory.GetMessageClass(pool.FindMessageTypeByName("shop.Payment"))
    told = {name: value for name, value in row.items() if value is not None}
    return b"\0\0\0\0\x03\x02\x02" + message(**{**told, "amount": str(row["amount"])}).SerializeToString()


@pytest.fixture(scope="module")
def registry() -> Any:
    with running() as registry:
        registry.add(1, json.dumps(OLD))
        registry.add(2, json.dumps(NEW), subject="new")
        registry.add(3, protobuf_file().SerializeToString(), kind="PROTOBUF", subject="protobuf")
        yield registry


def decide(
    kafka: LocalKafka, topic: str, values: list[bytes], parameters: str, directory: Path
) -> list[dict[str, Any]]:
    """Write records to a topic and run the pipeline over it, in two runs with a checkpoint between them."""
    servers = kafka.bootstrap_servers
    ensure_topics([topic], bootstrap_servers=servers, partitions=1)
    uri = f"kafka://{servers}/{topic}?group={topic}&until_end=true{parameters}"
    sink = KafkaSink(topic=topic, bootstrap_servers=servers)
    sink.write(values)
    sink.close()
    for options in (RuntimeOptions(max_records=250), RuntimeOptions()):
        config = RunConfig(
            sources={"payments": uri},
            sinks={"decisions": f"{directory}/decisions.ndjson", "payments.malformed": f"{directory}/malformed.ndjson"},
            checkpoints=f"{directory}/checkpoints",
            options=options,
        )
        build_runtime(pipeline(), config).run(threading.Event())
    return [json.loads(line) for line in (directory / "decisions.ndjson").read_text().splitlines()]


def essence(decisions: list[dict[str, Any]]) -> list[Any]:
    """What does not depend on when it was decided."""
    return sorted((row["tx_id"], row["decision"], json.dumps(row["features"], sort_keys=True)) for row in decisions)


@pytest.mark.parametrize(("name", "encode"), [("avro", as_avro), ("protobuf", as_protobuf)])
def test_the_same_decisions_as_from_json(
    name: str, encode: Any, kafka: LocalKafka, topic: str, tmp_path: Path, registry: Any
) -> None:
    rows = payments(400)
    (tmp_path / "json").mkdir()
    (tmp_path / name).mkdir()
    from_json = decide(kafka, f"{topic}-json", [as_json(row) for row in rows], "", tmp_path / "json")
    assert len({row["decision"] for row in from_json}) > 1
    values = [encode(row) for row in rows] + [b"no record", b"\0\0\0\0\x63?"]
    parameters = f"&format={name}&registry={registry.url}"
    assert essence(decide(kafka, f"{topic}-{name}", values, parameters, tmp_path / name)) == essence(from_json)
    assert len((tmp_path / name / "malformed.ndjson").read_text().splitlines()) == 2
    # The same events as a batch.
    tables = []
    for form, told in (("json", ""), (name, parameters)):
        uri = f"kafka://{kafka.bootstrap_servers}/{topic}-{form}?group={topic}-batch-{form}&start=earliest&until_end=true{told}"
        source = open_source(uri, stream="payments", schema=PAYMENT)
        tables.append([row for batch in source_events(pipeline().plan, source) for row in batch.to_pylist()])
    assert tables[0] == tables[1]
    assert len(tables[0]) == len(rows)
