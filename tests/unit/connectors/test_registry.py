"""The registry's client: schemas and what they refer to, waiting while it is away, and what is never shown."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import descriptor_pb2
from tests.unit.connectors.confluent_registry import Registry, running

from gillnet.connectors.formats import record_format
from gillnet.connectors.kafka.client import check_settings
from gillnet.connectors.registry import SchemaRegistry
from gillnet.connectors.uri import open_source, parse_uri
from gillnet.core.errors import ConfigurationError, SourceError
from gillnet.core.formats import UnusableSchema
from gillnet.core.secrets import conceal
from gillnet.testing.clock import SimulatedClock

SCHEMA = json.dumps({"type": "record", "name": "P", "fields": []})


@pytest.fixture
def registry() -> Iterator[Registry]:
    with running() as registry:
        yield registry


def client(registry: Registry, kind: Any = "avro", **options: Any) -> SchemaRegistry:
    return SchemaRegistry(registry.url, kind=kind, clock=SimulatedClock(), **options)


def test_a_schema_by_its_id(registry: Registry) -> None:
    registry.add(3, SCHEMA)
    found = client(registry).fetch(3)
    assert found is not None
    assert (found.definition, found.references) == (SCHEMA.encode(), ())
    assert client(registry).fetch(4) is None


def test_what_a_schema_refers_to_comes_before_it_and_once(registry: Registry) -> None:
    refer = {name: {"name": name, "subject": name, "version": 1} for name in "ab"}
    registry.add(1, '"a"', subject="a")
    registry.add(2, '"b"', subject="b", references=[refer["a"]])
    registry.add(3, SCHEMA, references=[refer["b"], refer["a"]])
    found = client(registry).fetch(3)
    assert found is not None
    assert found.references == (b'"a"', b'"b"')
    registry.add(4, SCHEMA, references=[{"name": "c", "subject": "c", "version": 1}])
    with pytest.raises(UnusableSchema, match="refers to is not there"):
        client(registry).fetch(4)
    registry.add(5, SCHEMA, subject="me", references=[{"name": "me", "subject": "me", "version": 1}])
    with pytest.raises(UnusableSchema, match="more than 100"):
        client(registry).fetch(5)


def test_protobuf_comes_serialized(registry: Registry) -> None:
    file = descriptor_pb2.FileDescriptorProto(name="p.proto").SerializeToString()
    registry.add(1, file, kind="PROTOBUF")
    found = client(registry, "protobuf").fetch(1)
    assert found is not None
    assert found.definition == file
    registry.add(2, "message P {}", kind="PROTOBUF")  # What a registry answers that does not know format=serialized.
    with pytest.raises(UnusableSchema, match="no serialized descriptor"):
        client(registry, "protobuf").fetch(2)


def test_schemas_of_another_format_or_too_large(registry: Registry) -> None:
    registry.add(1, "{}", kind="JSON")
    with pytest.raises(UnusableSchema, match="type JSON"):
        client(registry).fetch(1)
    registry.add(2, "x" * (1 << 21))
    with pytest.raises(UnusableSchema, match="larger"):
        client(registry).fetch(2)


def test_it_waits_for_a_registry_that_is_away(registry: Registry) -> None:
    registry.add(3, SCHEMA)
    registry.statuses = [503, 429, 500]
    assert client(registry).fetch(3) is not None
    assert len(registry.asked) == 4


def test_a_registry_that_stays_away_ends_the_run_and_loses_nothing(registry: Registry) -> None:
    registry.statuses = [503] * 1_000
    with pytest.raises(SourceError, match=r"did not answer for 60 s.*told to fail.*No record was lost"):
        client(registry).fetch(3)
    assert 10 < len(registry.asked) < 40
    with pytest.raises(SourceError, match="did not answer"):
        SchemaRegistry("http://127.0.0.1:1", kind="avro", clock=SimulatedClock()).fetch(3)


@pytest.mark.parametrize(
    ("status", "told"), [(401, "basic.auth"), (404, "check its address"), (422, "check its address")]
)
def test_an_answer_that_waiting_does_not_change(registry: Registry, status: int, told: str) -> None:
    registry.statuses = [status] * 9
    with pytest.raises(SourceError, match=told):
        client(registry).fetch(3)
    assert len(registry.asked) == 1


def test_a_password_from_the_settings_is_used_and_never_shown(registry: Registry) -> None:
    registry.add(3, SCHEMA)
    registry.user_info = "reader:hunter-2718"
    settings = {"basic.auth.user.info": "reader:hunter-2718"}
    assert client(registry, settings=settings).fetch(3) is not None
    with pytest.raises(SourceError) as refused:
        client(registry, settings={"basic.auth.user.info": "reader:wrong-2718"}).fetch(3)
    assert "2718" not in str(refused.value)
    assert conceal("x hunter-2718 reader:hunter-2718") == "x *** ***"
    with pytest.raises(ConfigurationError) as unknown:
        client(registry, settings={"nope": "1", **settings})
    assert "nope" in str(unknown.value)
    assert "2718" not in str(unknown.value)


@pytest.mark.parametrize(
    "url", ["http://me:secret-314@host:1", "host:8081", "http://h:1,http://a:secret-314@b:2", "http://h?a=secret-314"]
)
def test_an_address_that_it_should_not_be(url: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        SchemaRegistry(url, kind="avro")
    assert "secret" not in str(refused.value)


def test_librdkafka_does_not_see_the_registrys_settings() -> None:
    settings = {"schema.registry.basic.auth.user.info": "a:hunter-161", "security.protocol": "SSL"}
    assert check_settings(settings, reserved={}, what="x") == {"security.protocol": "SSL"}
    assert conceal("a:hunter-161") == "***"


# URIs


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ("format=xml", "use json, avro or protobuf"),
        ("format=json&registry=http://h:1", "registry is not for format=json"),
        ("registry=http://h:1", "registry is not for format=json"),
        ("format=avro", "needs registry"),
        ("format=avro&message=P", "message is not for format=avro"),
        ("format=avro&schema=no.avsc", "no.avsc cannot be read"),
        ("format=avro&registry=http://h:1&framing=plain", "leave framing out"),
        ("format=avro&schema=a.avsc&framing=x", "plain or single_object"),
        ("format=avro&schema=a.avsc,a.avsc", "several, with commas"),
        ("format=protobuf", "needs registry"),
        ("format=protobuf&descriptor=p.pb", "both descriptor"),
        ("format=protobuf&registry=http://h:1&message=P", "both descriptor"),
        ("format=avro&registry=http://me:secret@h:1", "must not hold a user"),
    ],
)
def test_parameters_that_do_not_go_together(
    parameters: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a.avsc").write_text(SCHEMA)
    with pytest.raises(ConfigurationError, match=message):
        record_format(parse_uri(f"kafka://b:9/t?{parameters}", what="Source"))


def test_what_the_parameters_say(tmp_path: Path, registry: Registry) -> None:
    (tmp_path / "a.avsc").write_text(SCHEMA)

    def told(parameters: str) -> Any:
        form = record_format(parse_uri(f"kafka://b:9/t?{parameters}", what="Source"))
        return form and (form.kind, form.framing, len(form.definitions), form.message, form.registry is not None)

    file = tmp_path / "a.avsc"
    assert told("group=g") is None
    assert told("format=json") is None
    assert told(f"format=avro&schema={file}") == ("avro", "plain", 1, None, False)
    assert told(f"format=avro&schema={file},{file}&framing=single_object") == ("avro", "single_object", 2, None, False)
    assert told(f"format=avro&registry={registry.url}&schema={file}") == ("avro", "confluent", 1, None, True)
    assert told(f"format=protobuf&registry={registry.url}") == ("protobuf", "confluent", 0, None, True)
    assert told(f"format=protobuf&descriptor={file}&message=P") == ("protobuf", "plain", 1, "P", False)


def test_files_have_their_own_formats(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="use ndjson, csv or parquet"):
        open_source(f"{tmp_path}/a.ndjson?format=avro", stream="s")
