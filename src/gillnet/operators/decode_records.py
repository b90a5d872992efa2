"""Avro and Protobuf records to typed columns, each by the schema that it was written with.

A schema is asked for when the first record of its id comes, and kept. While the registry cannot be asked, the batch waits: a
registry that is away makes no record malformed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gillnet import _kernel
from gillnet.core.errors import DefinitionError
from gillnet.core.formats import UnusableSchema
from gillnet.core.time import Clock, SystemClock

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gillnet._kernel import Batch
    from gillnet.core.formats import RecordFormat

ABSENT_FOR_S = 300.0
"""An id that the registry does not have is asked for again after so long."""
MOST_ABSENT = 10_000
"""So many ids that the registry does not have are remembered."""


class RecordsDecoder:
    """Decodes records of one format for one stream.

    Parameters
    ----------
    schema_json
        The stream's columns, as `schema_to_json` writes them.
    record_format
        What the records are.
    limits
        ``keys``, ``id``, ``max_record_bytes`` and ``max_depth``, as for JSON.

    Raises
    ------
    DefinitionError
        If a schema that was given cannot be used.
    """

    def __init__(
        self, schema_json: bytes, record_format: RecordFormat, limits: dict[str, Any], *, clock: Clock | None = None
    ) -> None:
        self._registry = record_format.registry
        self._clock = clock or SystemClock()
        self._absent: dict[int, float] = {}  # Until when an id is believed to be absent, oldest first.
        try:
            self._decoder = _kernel.RecordDecoder(
                schema_json,
                format=record_format.kind,
                framing=record_format.framing,
                definitions=list(record_format.definitions),
                message=record_format.message,
                **limits,
            )
        except (ValueError, OverflowError) as error:
            raise DefinitionError(f"format={record_format.kind}: {error}. Mend the schema or the option.") from error

    def decode(self, values: Sequence[bytes]) -> tuple[Batch, Any, list[tuple[int, str, str]]]:
        """Decode records; see `DecodeOperator.decode`.

        Raises
        ------
        SourceError
            If the registry cannot be asked for a schema, and waiting did not help.
        """
        values = values if isinstance(values, (list, tuple)) else list(values)
        if self._registry is not None:
            self._forget_absent()
            for schema_id in self._decoder.unknown_ids(values):
                self._learn(schema_id)
        return self._decoder.decode(values)

    def _learn(self, schema_id: int) -> None:
        assert self._registry is not None
        try:
            found = self._registry.fetch(schema_id)
        except UnusableSchema as why:
            self._decoder.refuse_schema(schema_id, True, str(why))
            return
        if found is not None:
            self._decoder.add_schema(schema_id, found.definition, list(found.references))
            return
        self._decoder.refuse_schema(schema_id, False, "the registry does not have it")
        self._absent[schema_id] = self._clock.monotonic_s() + ABSENT_FOR_S

    def _forget_absent(self) -> None:
        now_s = self._clock.monotonic_s()
        while self._absent:
            oldest = next(iter(self._absent))
            if self._absent[oldest] > now_s and len(self._absent) <= MOST_ABSENT:
                return
            del self._absent[oldest]
            self._decoder.forget_schema(oldest)
