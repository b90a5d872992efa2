"""Opens sources for one bounded look, beside whatever reads them for real."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import parse_qsl, urlencode

from gillnet.app.simulated import SCHEME, SimulatorScheme
from gillnet.connectors.pulsar_uri import refuse_reading_again
from gillnet.connectors.uri import open_source, parse_uri
from gillnet.core.ports import Source
from gillnet.core.schema import Schema


def open_bounded(stream: str, uri: str, *, schema: Schema | None, kafka: Mapping[str, str]) -> Source:
    """Open a source that ends.

    Parameters
    ----------
    stream, uri
        As ``gillnet run`` takes them. Of a Kafka topic, what it holds now is read, from its beginning unless the URI says
        otherwise, by a consumer group of its own, so that no live reader loses a partition. A simulation's ``rate`` is
        left out: its records carry their arrival, and nobody wants to wait for them.
    schema
        The stream's schema, if it is known: CSV and Parquet need it to tell text from numbers.
    kafka
        librdkafka's settings.

    Raises
    ------
    ConfigurationError
        If the URI is wrong.
    SourceError
        If the source cannot be opened.
    """
    parsed = parse_uri(uri, what=f"Source of {stream}")
    refuse_reading_again(parsed, what=f"Source of {stream}")
    if parsed.scheme == "kafka":
        uri = _with(uri, {"until_end": "true", "start": "earliest", "group": f"gillnet.lateness.{stream}"})
    schemes = {}
    if parsed.scheme == SCHEME:
        uri = _without(uri, "rate")
        schemes[SCHEME] = SimulatorScheme({stream: uri}, lead=stream)
    return open_source(uri, stream=stream, schema=schema, settings=kafka, schemes=schemes)


def _with(uri: str, defaults: Mapping[str, str]) -> str:
    place, _, query = uri.partition("?")
    return f"{place}?{urlencode({**defaults, **dict(parse_qsl(query, keep_blank_values=True))})}"


def _without(uri: str, name: str) -> str:
    place, _, query = uri.partition("?")
    left = [(key, value) for key, value in parse_qsl(query, keep_blank_values=True) if key != name]
    return f"{place}?{urlencode(left)}" if left else place
