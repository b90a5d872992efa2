"""What form the records of a source have, besides JSON, and where their writers' schemas come from.

A source says it of each batch (`RawBatch.format`); the decoder goes by it, so that whoever reads the source, a run, a replay or a
backfill, gets the same rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

FormatKind = Literal["avro", "protobuf"]
Framing = Literal["confluent", "single_object", "plain"]


@dataclass(frozen=True, slots=True, kw_only=True)
class WriterSchema:
    """A schema as a registry has it.

    Attributes
    ----------
    definition
        Avro's JSON, or a Protobuf ``FileDescriptorProto``.
    references
        The schemas that it needs, those that others need first.
    """

    definition: bytes
    references: tuple[bytes, ...] = ()


class UnusableSchema(Exception):  # noqa: N818 - it is an answer, which becomes a reason
    """The registry has a schema of this id, and it is of no use: of another format, or what it refers to is not there."""


class SchemaSource(Protocol):
    """Gives schemas by their id."""

    def fetch(self, schema_id: int) -> WriterSchema | None:
        """Return the schema; None if there is none of this id.

        Raises
        ------
        UnusableSchema
            If there is one that cannot be used.
        SourceError
            If it cannot be asked for, and waiting did not help.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RecordFormat:
    """The form of a source's records.

    Attributes
    ----------
    kind
        ``avro`` or ``protobuf``.
    framing
        What stands before a record: ``confluent`` (a zero byte and the schema's id), ``single_object`` (Avro: C3 01 and the schema's
        fingerprint), ``plain`` (nothing).
    definitions
        Avro schemas as JSON, or one Protobuf descriptor set.
    message
        The Protobuf message that plain records are.
    registry
        Where the schemas of ``confluent`` records are.
    """

    kind: FormatKind
    framing: Framing
    definitions: tuple[bytes, ...] = ()
    message: str | None = None
    registry: SchemaSource | None = None
