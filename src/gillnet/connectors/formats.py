"""The form of a source's records, from its URI: ``?format=avro&registry=http://localhost:8081``.

==========================  ========================================================================================
``format``                  ``json`` (the default), ``avro`` or ``protobuf``
``registry``                where the writers' schemas are, by the id in each record; ``http://host:port``
``schema``                  Avro: a file with the schema, several with commas; with a registry the reader's own
``framing``                 Avro without a registry: ``plain`` (the default) or ``single_object``
``descriptor``, ``message``  Protobuf without a registry: a file that protoc wrote, and the message's name
==========================  ========================================================================================
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from gillnet.connectors.registry import SchemaRegistry, registry_settings
from gillnet.core.errors import ConfigurationError
from gillnet.core.formats import RecordFormat

if TYPE_CHECKING:
    from gillnet.connectors.uri import ConnectorUri
    from gillnet.core.time import Clock

PARAMETERS = {
    "format": "json, avro or protobuf",
    "registry": "the schema registry's address, with avro or protobuf",
    "schema": "a file with an Avro schema",
    "framing": "plain or single_object, with schema",
    "descriptor": "a file with a Protobuf descriptor set",
    "message": "the Protobuf message, with descriptor",
}
_MOST_BYTES = 1 << 20
_OF_FORMAT = {
    "json": frozenset[str](),
    "avro": frozenset({"registry", "schema", "framing"}),
    "protobuf": frozenset({"registry", "descriptor", "message"}),
}


def record_format(
    uri: ConnectorUri, *, settings: Mapping[str, str] | None = None, clock: Clock | None = None
) -> RecordFormat | None:
    """Return the form of the records that a source's URI tells of; None for JSON.

    Raises
    ------
    ConfigurationError
        If the parameters do not go together, or a file cannot be read.
    """
    told = {name: uri.parameters[name] for name in PARAMETERS if name in uri.parameters}
    kind = told.pop("format", "json")
    if kind not in _OF_FORMAT:
        raise ConfigurationError(f"Source {uri.shown!r}: format={kind!r} is unknown; use json, avro or protobuf.")
    for name in told:
        if name not in _OF_FORMAT[kind]:
            raise ConfigurationError(f"Source {uri.shown!r}: {name} is not for format={kind}; leave it out.")
    if kind == "avro":
        return _avro(uri, told, settings, clock)
    if kind == "protobuf":
        return _protobuf(uri, told, settings, clock)
    return None


def _avro(
    uri: ConnectorUri, told: Mapping[str, str], settings: Mapping[str, str] | None, clock: Clock | None
) -> RecordFormat:
    definitions = tuple(_content(uri, name, "schema") for name in told.get("schema", "").split(",") if name)
    framing = told.get("framing", "plain")
    if "registry" in told:
        if "framing" in told or len(definitions) > 1:
            raise ConfigurationError(
                f"Source {uri.shown!r}: with a registry leave framing out, and give one schema at most, the reader's."
            )
        registry = SchemaRegistry(told["registry"], kind="avro", settings=registry_settings(settings), clock=clock)
        return RecordFormat(kind="avro", framing="confluent", definitions=definitions, registry=registry)
    if framing not in ("plain", "single_object"):
        raise ConfigurationError(f"Source {uri.shown!r}: framing={framing!r} is unknown; use plain or single_object.")
    if not definitions or (framing == "plain" and len(definitions) > 1):
        raise ConfigurationError(
            f"Source {uri.shown!r}: format=avro needs registry=http://host:port, or schema=file.avsc (several, with commas, with "
            "framing=single_object only)."
        )
    chosen: Literal["plain", "single_object"] = "plain" if framing == "plain" else "single_object"
    return RecordFormat(kind="avro", framing=chosen, definitions=definitions)


def _protobuf(
    uri: ConnectorUri, told: Mapping[str, str], settings: Mapping[str, str] | None, clock: Clock | None
) -> RecordFormat:
    if ("registry" in told) == bool({"descriptor", "message"} & told.keys()) or (
        "registry" not in told and len(told) != 2
    ):
        raise ConfigurationError(
            f"Source {uri.shown!r}: format=protobuf needs registry=http://host:port, or both descriptor=file.pb and message=Name."
        )
    if "registry" in told:
        registry = SchemaRegistry(told["registry"], kind="protobuf", settings=registry_settings(settings), clock=clock)
        return RecordFormat(kind="protobuf", framing="confluent", registry=registry)
    definition = _content(uri, told["descriptor"], "descriptor")
    return RecordFormat(kind="protobuf", framing="plain", definitions=(definition,), message=told["message"])


def _content(uri: ConnectorUri, name: str, what: str) -> bytes:
    try:
        content = Path(name).read_bytes()
    except OSError as error:
        raise ConfigurationError(
            f"Source {uri.shown!r}: the {what} {name} cannot be read: {error.strerror or error}."
        ) from error
    if len(content) > _MOST_BYTES:
        raise ConfigurationError(f"Source {uri.shown!r}: the {what} {name} is larger than 1 MiB.")
    return content
