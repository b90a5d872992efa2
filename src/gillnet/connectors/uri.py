"""Opens sources and sinks by URI, as the command line and configuration files name them.

==============================================  =================================================================
``kafka://host:port/topic?group=g&start=latest``  Kafka; several hosts with commas; see `KafkaSource` for the parameters,
                                                 and `gillnet.connectors.formats` for ``format=avro`` and ``format=protobuf``
``pulsar://host:port/tenant/namespace/topic``    Pulsar, ``pulsar+ssl`` with TLS; see `gillnet.connectors.pulsar_uri`
``file:///a/b.ndjson``, ``a/b.csv.gz``           a file; ``?format=csv``, for a sink ``?mode=overwrite``;
                                                 a sink ``out/a.csv``, ``out/a.parquet`` writes parts ``out/a-000001.csv``
``-``                                            standard input or output, NDJSON
``memory:``                                      a sink that keeps its records (a source is made in Python)
==============================================  =================================================================

Other schemes, such as ``simulator:``, come from the layer above through ``schemes``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import parse_qsl, unquote, urlsplit

from gillnet.connectors.formats import PARAMETERS, record_format
from gillnet.core.errors import ConfigurationError
from gillnet.core.secrets import without_parameters

if TYPE_CHECKING:
    from gillnet.core.formats import RecordFormat
    from gillnet.core.ports import Sink, Source
    from gillnet.core.schema import Schema
    from gillnet.core.time import Clock

Settings = Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectorUri:
    """A URI in its parts: scheme, what stands for the host, path, and parameters."""

    text: str = field(repr=False)
    scheme: str
    address: str
    path: str
    parameters: dict[str, str] = field(repr=False)

    @property
    def shown(self) -> str:
        """The text for messages: without its parameters, which may hold what nobody should see."""
        return without_parameters(self.text)


class SourceFactory(Protocol):
    """Opens a source of one scheme."""

    def __call__(
        self, uri: ConnectorUri, *, stream: str, schema: Schema | None, settings: Settings | None, clock: Clock | None
    ) -> Source:
        """Return the opened source."""
        ...


class SinkFactory(Protocol):
    """Opens a sink of one scheme."""

    def __call__(self, uri: ConnectorUri, *, settings: Settings | None, clock: Clock | None, check: bool) -> Sink:
        """Return the opened sink."""
        ...


def open_source(
    uri: str,
    *,
    stream: str,
    schema: Schema | None = None,
    settings: Settings | None = None,
    clock: Clock | None = None,
    schemes: Mapping[str, SourceFactory] | None = None,
) -> Source:
    """Open the source that a URI names.

    Parameters
    ----------
    uri
        See the table at the top of this module.
    stream
        The stream's name in the pipeline.
    schema
        The stream's schema; CSV and Parquet files need it to tell text from numbers.
    settings
        Passed through to the connector: librdkafka's settings for Kafka, those of ``[pulsar]`` for Pulsar. Passwords and tokens
        belong here and not into the URI.
    schemes
        More schemes, by name; they come before the built-in ones.

    Raises
    ------
    ConfigurationError
        If the URI is wrong; the message shows a right one.
    SourceError
        If the source cannot be opened.
    """
    parsed = parse_uri(uri, what="Source")
    factory = _choose({**_SOURCES, **(schemes or {})}, parsed, what="Source")
    source: Source = factory(parsed, stream=stream, schema=schema, settings=settings, clock=clock)
    return source


def source_format(uri: str, *, settings: Settings | None = None) -> RecordFormat | None:
    """Return the form of the records of the source that a URI names; None for JSON, which other sources make of theirs.

    Raises
    ------
    ConfigurationError
        If the URI is wrong.
    """
    parsed = parse_uri(uri, what="Source")
    return record_format(parsed, settings=settings) if parsed.scheme == "kafka" else None


def open_sink(
    uri: str,
    *,
    settings: Settings | None = None,
    clock: Clock | None = None,
    schemes: Mapping[str, SinkFactory] | None = None,
    check: bool = True,
) -> Sink:
    """Open the sink that a URI names; see `open_source`.

    Parameters
    ----------
    uri, settings, clock, schemes
        As for `open_source`.
    check
        False for a place that was made ready before: nothing is asked of the system behind it, which may be away now.

    Raises
    ------
    ConfigurationError
        If the URI is wrong; the message shows a right one.
    SinkError
        If the sink cannot be opened.
    """
    parsed = parse_uri(uri, what="Sink")
    factory = _choose({**_SINKS, **(schemes or {})}, parsed, what="Sink")
    sink: Sink = factory(parsed, settings=settings, clock=clock, check=check)
    return sink


def parse_uri(uri: str, *, what: str) -> ConnectorUri:
    """Take a URI apart. A text without a scheme is a file's path.

    Raises
    ------
    ConfigurationError
        If it holds a user or password, or its parameters cannot be read.
    """
    if not uri:
        raise ConfigurationError(
            f"{what}: the URI is empty; write one such as kafka://localhost:9092/payments or a file's path."
        )
    scheme, colon, _ = uri.partition(":")
    if not colon or not scheme.replace("+", "_").isidentifier() or len(scheme) == 1:
        path, _, query = uri.partition("?")
        return ConnectorUri(
            text=uri, scheme="file", address="", path=path, parameters=_parameters(query, what=what, uri=uri)
        )
    try:
        parts = urlsplit(uri)
    except ValueError as error:
        raise ConfigurationError(
            f"{what} {scheme}://...: the URI cannot be read: {error}; write one such as kafka://localhost:9092/payments."
        ) from None
    if "@" in parts.netloc:
        raise ConfigurationError(
            f"{what} {scheme}://...: a URI must not hold a user or password, since logs and process lists show it; "
            "give them as settings (sasl.username and sasl.password of [kafka], token of [pulsar])."
        )
    return ConnectorUri(
        text=uri,
        scheme=parts.scheme,
        address=parts.netloc,
        path=unquote(parts.path),
        parameters=_parameters(parts.query, what=what, uri=uri),
    )


def _parameters(query: str, *, what: str, uri: str) -> dict[str, str]:
    try:
        pairs = parse_qsl(query, keep_blank_values=True, strict_parsing=bool(query))
    except ValueError:
        # "from None": the chained exception would show the parameters.
        raise ConfigurationError(
            f"{what} {without_parameters(uri)!r}: write parameters as ?name=value&name=value."
        ) from None
    return dict(pairs)


def _choose(factories: Mapping[str, Any], uri: ConnectorUri, *, what: str) -> Any:
    if uri.scheme in factories:
        return factories[uri.scheme]
    near = get_close_matches(uri.scheme, factories, n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    raise ConfigurationError(
        f"{what} {uri.shown!r}: the scheme {uri.scheme!r} is unknown; {hint}"
        f"There are {', '.join(sorted(factories))}, plain paths and '-'."
    )


def check_known(uri: ConnectorUri, known: Mapping[str, str], *, what: str) -> None:
    """Raise `ConfigurationError` where a URI has a parameter that is not known, by its name and meaning."""
    for name in uri.parameters:
        if name not in known:
            told = "; ".join(f"{key} ({meaning})" for key, meaning in known.items()) or "none"
            raise ConfigurationError(f"{what} {uri.shown!r}: the parameter {name!r} is unknown; there are: {told}.")


def _kafka_address(uri: ConnectorUri, *, what: str) -> tuple[str, str]:
    topic = uri.path.strip("/")
    example = "kafka://localhost:9092/payments"
    if not uri.address:
        raise ConfigurationError(f"{what} {uri.shown!r}: the broker's address is missing; write it as {example}.")
    if not topic or "/" in topic:
        problem = "the topic is missing" if not topic else f"{topic!r} is not one topic"
        raise ConfigurationError(f"{what} {uri.shown!r}: {problem}; write it after the address, as {example}.")
    return uri.address, topic


def _need_kafka(*, what: str) -> Any:
    try:
        from gillnet.connectors import kafka
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            f"{what}: the Kafka client is not installed; run `pip install 'gillnet[kafka]'`."
        ) from error
    return kafka


def _kafka_source(
    uri: ConnectorUri,
    *,
    stream: str,
    schema: Schema | None,  # noqa: ARG001
    settings: Settings | None,
    clock: Clock | None,
) -> Source:
    servers, topic = _kafka_address(uri, what="Source")
    known = {
        "group": "consumer group",
        "start": "committed, earliest or latest",
        "until_end": "true or false",
        "partition": "the only one to read",
        **PARAMETERS,
    }
    check_known(uri, known, what="Source")
    until_end = uri.parameters.get("until_end", "false")
    if until_end not in ("true", "false"):
        raise ConfigurationError(f"Source {uri.shown!r}: until_end={until_end!r} is neither true nor false.")
    partition = uri.parameters.get("partition")
    if partition is not None and not partition.isdigit():
        raise ConfigurationError(f"Source {uri.shown!r}: partition={partition!r} is no number of a partition.")
    source: Source = _need_kafka(what="Source").KafkaSource(
        stream=stream,
        topic=topic,
        bootstrap_servers=servers,
        group=uri.parameters.get("group", f"gillnet.{stream}"),
        start=uri.parameters.get("start", "committed"),
        until_end=until_end == "true",
        partition=None if partition is None else int(partition),
        settings=settings,
        record_format=record_format(uri, settings=settings, clock=clock),
        clock=clock,
    )
    return source


def _kafka_sink(uri: ConnectorUri, *, settings: Settings | None, clock: Clock | None, check: bool) -> Sink:
    servers, topic = _kafka_address(uri, what="Sink")
    check_known(uri, {}, what="Sink")
    sink: Sink = _need_kafka(what="Sink").KafkaSink(
        topic=topic,
        bootstrap_servers=servers,
        settings=settings,
        open_timeout_s=10.0 if check else 0.0,
        clock=clock,
    )
    return sink


def _pulsar_source(uri: ConnectorUri, **options: Any) -> Source:
    from gillnet.connectors.pulsar_uri import pulsar_source

    return pulsar_source(uri, **options)


def _pulsar_sink(uri: ConnectorUri, **options: Any) -> Sink:
    from gillnet.connectors.pulsar_uri import pulsar_sink

    return pulsar_sink(uri, **options)


def _file_path(uri: ConnectorUri, *, what: str) -> str:
    if uri.address not in ("", "localhost") or not uri.path:
        raise ConfigurationError(
            f"{what} {uri.shown!r}: write a file as file:///directory/file.ndjson (three slashes), or its path."
        )
    return uri.path


def _file_source(
    uri: ConnectorUri,
    *,
    stream: str,
    schema: Schema | None,
    settings: Settings | None,  # noqa: ARG001
    clock: Clock | None,
) -> Source:
    from gillnet.connectors.files import FileSource

    check_known(uri, {"format": "ndjson, csv or parquet"}, what="Source")
    kind = uri.parameters.get("format")
    if kind not in (None, "ndjson", "csv", "parquet"):
        raise ConfigurationError(f"Source {uri.shown!r}: format={kind!r} is unknown; use ndjson, csv or parquet.")
    return FileSource(stream, _file_path(uri, what="Source"), format=kind, schema=schema, clock=clock)  # type: ignore[arg-type]


def _file_sink(uri: ConnectorUri, *, clock: Clock | None, **_: object) -> Sink:
    from gillnet.connectors.files import FileSink, PartSink

    check_known(uri, {"mode": "append or overwrite"}, what="Sink")
    path, mode = _file_path(uri, what="Sink"), uri.parameters.get("mode", "append")
    if path.endswith((".csv", ".parquet")):
        return PartSink(path, mode=mode, clock=clock)  # type: ignore[arg-type]
    if path.endswith((".csv.gz", ".parquet.gz", ".pq")):
        raise ConfigurationError(
            f"Sink {uri.shown!r}: name it .csv or .parquet (which is packed as it is), or .ndjson.gz."
        )
    return FileSink(path, mode=mode)  # type: ignore[arg-type]


def _memory_source(uri: ConnectorUri, **_: object) -> Source:
    raise ConfigurationError(
        f"Source {uri.shown!r}: a source in memory needs its values; make it in Python: "
        "gillnet.connectors.memory.MemorySource(stream, values)."
    )


def _memory_sink(uri: ConnectorUri, **_: object) -> Sink:  # noqa: ARG001
    from gillnet.connectors.memory import MemorySink

    return MemorySink()


_SOURCES: dict[str, SourceFactory] = {
    "kafka": _kafka_source,
    "pulsar": _pulsar_source,
    "pulsar+ssl": _pulsar_source,
    "file": _file_source,
    "memory": _memory_source,
}
_SINKS: dict[str, SinkFactory] = {
    "kafka": _kafka_sink,
    "pulsar": _pulsar_sink,
    "pulsar+ssl": _pulsar_sink,
    "file": _file_sink,
    "memory": _memory_sink,
}
