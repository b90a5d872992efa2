"""Pulsar's URIs: ``pulsar://host:port/tenant/namespace/topic``, and ``pulsar+ssl`` with TLS.

================  ===================================================================================================================
``subscription``  of a source; by default ``gillnet.<pipeline>.<stream>``
``type``          ``exclusive`` (default), ``failover``, ``key_shared``: what each gives is told in `gillnet.connectors.pulsar.source`
``start``         ``committed`` (default), ``earliest``, ``latest``
``until_end``     ``true``: read up to the end that the topic has now
``partition``     the only one to read
``event_time``    the column that the message's event timestamp goes to, for records that do not carry their time
================  ===================================================================================================================

A sink has no parameters. Tokens are settings of ``[pulsar]``, and no part of a URI.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gillnet.connectors.uri import ConnectorUri, Settings, check_known
from gillnet.core.errors import ConfigurationError

if TYPE_CHECKING:
    from gillnet.core.ports import Sink, Source
    from gillnet.core.schema import Schema
    from gillnet.core.time import Clock

SCHEMES = ("pulsar", "pulsar+ssl")

_EXAMPLE = "pulsar://localhost:6650/public/default/payments"
_KNOWN = {
    "subscription": "its name",
    "type": "exclusive, failover or key_shared",
    "start": "committed, earliest or latest",
    "until_end": "true or false",
    "partition": "the only one to read",
    "event_time": "the column that the message's event timestamp goes to",
}


def pulsar_source(
    uri: ConnectorUri, *, stream: str, schema: Schema | None, settings: Settings | None, clock: Clock | None
) -> Source:
    """Open a source.

    Raises
    ------
    ConfigurationError
        If the URI is wrong; the message shows a right one.
    SourceError
        If it cannot be opened.
    """
    service_url, topic = _address(uri, what="Source")
    check_known(uri, _KNOWN, what="Source")
    given = uri.parameters
    until_end = given.get("until_end", "false")
    if until_end not in ("true", "false"):
        raise ConfigurationError(f"Source {uri.shown!r}: until_end={until_end!r} is neither true nor false.")
    partition = given.get("partition")
    if partition is not None and not partition.isdigit():
        raise ConfigurationError(f"Source {uri.shown!r}: partition={partition!r} is no number of a partition.")
    connector = _need_pulsar(what="Source")
    event_time = None
    if (column := given.get("event_time")) is not None:
        event_time = connector.EventTimeField.of(column, schema, what=f"Source {uri.shown!r}")
    source: Source = connector.PulsarSource(
        stream=stream,
        topic=topic,
        service_url=service_url,
        subscription=given.get("subscription") or f"gillnet.{stream}",
        subscription_type=given.get("type", "exclusive"),
        start=given.get("start", "committed"),
        until_end=until_end == "true",
        partition=None if partition is None else int(partition),
        event_time=event_time,
        settings=settings,
        clock=clock,
    )
    return source


def pulsar_sink(uri: ConnectorUri, *, settings: Settings | None, clock: Clock | None, check: bool) -> Sink:
    """Open a sink; ``check=False`` asks nothing of the broker before the first record.

    Raises
    ------
    ConfigurationError
        If the URI is wrong; the message shows a right one.
    SinkError
        If it cannot be opened.
    """
    service_url, topic = _address(uri, what="Sink")
    check_known(uri, {}, what="Sink")
    sink: Sink = _need_pulsar(what="Sink").PulsarSink(
        topic=topic,
        service_url=service_url,
        settings=settings,
        open_timeout_s=10.0 if check else 0.0,
        clock=clock,
    )
    return sink


def refuse_reading_again(uri: ConnectorUri, *, what: str) -> None:
    """Refuse to read a topic beside the run that reads it.

    Raises
    ------
    ConfigurationError
        If the URI is of Pulsar.
    """
    if uri.scheme in SCHEMES:
        raise ConfigurationError(
            f"{what}: {uri.shown} is read through a subscription, which would keep what nobody reads any more; give the --history that "
            "a run kept, or a file."
        )


def _address(uri: ConnectorUri, *, what: str) -> tuple[str, str]:
    """Return the service's URL and ``tenant/namespace/topic``."""
    if not uri.address:
        raise ConfigurationError(f"{what} {uri.shown!r}: the broker's address is missing; write it as {_EXAMPLE}.")
    parts = uri.path.strip("/").split("/")
    if len(parts) != 3 or not all(parts):
        raise ConfigurationError(
            f"{what} {uri.shown!r}: {uri.path.strip('/')!r} is not tenant/namespace/topic; write it after the address, as {_EXAMPLE}."
        )
    return f"{uri.scheme}://{uri.address}", "/".join(parts)


def _need_pulsar(*, what: str) -> Any:
    try:
        from gillnet.connectors import pulsar
    except ModuleNotFoundError as error:
        if error.name not in ("pulsar", "_pulsar"):
            raise
        raise ConfigurationError(
            f"{what}: the Pulsar client is not installed; run `pip install 'gillnet[pulsar]'`."
        ) from error
    return pulsar
