"""Reads what a run has written, record by record: files as NDJSON, Kafka topics up to the end that they have now."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

import msgspec

from gillnet.connectors.uri import open_source, parse_uri
from gillnet.core.errors import ConfigurationError
from gillnet.core.messages import RawBatch
from gillnet.core.secrets import without_parameters
from gillnet.plan.nodes import Action

_BATCH_RECORDS = 4_096
_WAIT_S = 0.2


def read_batches(uri: str, *, name: str, kafka: Mapping[str, str] | None = None) -> Iterator[RawBatch]:
    """Yield everything that lies at a URI now, in batches.

    Parameters
    ----------
    uri
        A file, or a Kafka topic, which is read from its beginning; nothing is committed.
    name
        What it is, for messages: the stream or output.
    kafka
        librdkafka's settings.

    Raises
    ------
    ConfigurationError
        If the URI cannot be read to an end, or is wrong.
    SourceError
        If it cannot be opened or read.
    """
    parsed = parse_uri(uri, what=name)
    if parsed.scheme not in ("file", "kafka") or uri == "-":
        raise ConfigurationError(
            f"{name}: {without_parameters(uri)} cannot be read again; give the file or the topic that was written."
        )
    source = open_source(bounded(uri, name) if parsed.scheme == "kafka" else uri, stream=name, settings=kafka)
    try:
        while not source.finished:
            batch = source.poll(_BATCH_RECORDS, _WAIT_S)
            if batch is not None:
                yield batch
    finally:
        source.close()


def read_records(uri: str, *, name: str, kafka: Mapping[str, str] | None = None) -> Iterator[bytes]:
    """Yield the value of every record at a URI; see `read_batches`."""
    for batch in read_batches(uri, name=name, kafka=kafka):
        yield from batch.values


class _Decision(msgspec.Struct):
    """What is read of a payment's decision."""

    tx_id: str
    decision: Action


def read_blocked(uri: str, *, kafka: Mapping[str, str] | None = None) -> frozenset[str]:
    """Return the ids of payments whose decision, as a run wrote it, is ``block``.

    Parameters
    ----------
    uri
        A file, or a Kafka topic, of decisions; see `read_batches`. Not revisions: what was blocked when it came was never
        charged, whatever became known later.
    kafka
        librdkafka's settings.

    Raises
    ------
    ConfigurationError
        If a record is no decision on a payment.
    SourceError
        If the decisions cannot be opened or read.
    """
    decoder = msgspec.json.Decoder(_Decision)
    blocked: set[str] = set()
    for number, record in enumerate(read_records(uri, name="decisions", kafka=kafka), 1):
        try:
            decided = decoder.decode(record)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise ConfigurationError(
                f"decisions of {without_parameters(uri)}: record {number} is no decision on a payment ({error}); give what "
                "`gillnet run` wrote to its output 'decisions'."
            ) from error
        if decided.decision == "block":
            blocked.add(decided.tx_id)
    return frozenset(blocked)


def bounded(uri: str, name: str) -> str:
    """Return a Kafka URI that is read from its beginning to the end that it has now, by a group of its own."""
    parts = urlsplit(uri)
    given = dict(parse_qsl(parts.query))
    query = {"start": "earliest", "until_end": "true"} | given | {"group": f"gillnet.read.{name}"}
    return urlunsplit((parts.scheme, parts.netloc, parts.path, urlencode(query), ""))
