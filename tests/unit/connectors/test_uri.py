"""URIs of sources and sinks: what they open, and what a wrong one says."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from gillnet.connectors.memory import MemorySink, MemorySource
from gillnet.connectors.uri import ConnectorUri, open_sink, open_source
from gillnet.core.errors import ConfigurationError

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("form", ["{path}", "file://{path}", "file://localhost{path}", "{path}?format=ndjson"])
def test_a_file_by_path_or_uri(tmp_path: Path, form: str) -> None:
    path = tmp_path / "in put.ndjson"
    path.write_bytes(b"1\n2\n")
    source = open_source(form.format(path=path), stream="s")
    batch = source.poll(10, 0.0)
    assert batch is not None
    assert batch.values == [b"1", b"2"]
    source.close()


def test_a_sink_by_path_appends_unless_told(tmp_path: Path) -> None:
    for uri in ("{}", "file://{}?mode=append", "{}?mode=overwrite"):
        sink = open_sink(uri.format(tmp_path / "out.ndjson"))
        sink.write([b"x"])
        sink.close()
    assert (tmp_path / "out.ndjson").read_bytes() == b"x\n"


def test_memory_sink() -> None:
    assert isinstance(open_sink("memory:"), MemorySink)


def test_a_scheme_of_the_layer_above() -> None:
    seen: list[ConnectorUri] = []

    def simulator(uri, *, stream, schema, settings, clock):  # type: ignore[no-untyped-def]
        seen.append(uri)
        return MemorySource(stream, [b"simulated"])

    source = open_source("simulator:payments?seed=7&cards=100", stream="p", schemes={"simulator": simulator})
    assert source.stream == "p"
    assert (seen[0].scheme, seen[0].path, seen[0].parameters) == (
        "simulator",
        "payments",
        {"seed": "7", "cards": "100"},
    )


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("", "the URI is empty"),
        ("kafak://h:1/t", "the scheme 'kafak' is unknown; did you mean 'kafka'"),
        ("redis://h:1/t", "the scheme 'redis' is unknown; There are file, kafka, memory, pulsar"),
        ("kafka://localhost:9092", "the topic is missing; write it after the address"),
        ("kafka://localhost:9092/", "the topic is missing"),
        ("kafka://localhost:9092/a/b", "'a/b' is not one topic"),
        ("kafka:///topic", "the broker's address is missing"),
        ("kafka://h:1/t?gruop=x", "the parameter 'gruop' is unknown; there are: group"),
        ("kafka://h:1/t?until_end=yes", "neither true nor false"),
        ("kafka://h:1/t?start=now", "start='now' is unknown; use 'committed'"),
        ("kafka://h:1/t?start", "write parameters as"),
        ("file://a/b.ndjson", "three slashes"),
        ("x.ndjson?format=xml", "format='xml' is unknown"),
        ("memory:", "needs its values"),
    ],
)
def test_a_wrong_source_names_the_mend(uri: str, message: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        open_source(uri, stream="s")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("kafka://h:1", "the topic is missing"),
        ("kafka://h:1/t?group=g", "the parameter 'group' is unknown; there are: none"),
        ("out.csv.gz", "name it .csv or .parquet"),
        ("out.parquet?mode=truncate", "mode='truncate' is unknown"),
        ("out.ndjson?mode=truncate", "mode='truncate' is unknown"),
    ],
)
def test_a_wrong_sink_names_the_mend(uri: str, message: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        open_sink(uri)
    assert message in str(caught.value)


def test_a_password_in_a_uri_is_refused_and_not_shown() -> None:
    with pytest.raises(ConfigurationError, match="must not hold a user or password") as caught:
        open_source("kafka://ann:hunter2@broker:9092/t", stream="s")
    assert "hunter2" not in str(caught.value)


def test_importing_the_connectors_loads_no_kafka() -> None:
    code = (
        "import sys, gillnet, gillnet.connectors.uri, gillnet.connectors.files, gillnet.connectors.memory, "
        "gillnet.connectors.local_kafka; sys.exit('confluent_kafka' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("uri", ["kafka://[::1/payments", "kafka://h]/t", "file://[x"])
def test_an_address_that_is_none_is_an_error_of_the_uri(uri: str) -> None:
    with pytest.raises(ConfigurationError, match=r"the URI cannot be read"):
        open_source(uri, stream="s")
