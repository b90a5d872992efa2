"""Raw records to typed columns: the first operator of a stream.

Every record of a raw batch becomes exactly one row or one `Malformed` (invariant I3); the rows keep the order of
arrival. The parsing is Rust's and runs without the GIL. This module knows neither where records come from nor where
malformed ones go.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gillnet import _kernel
from gillnet.core.errors import DefinitionError
from gillnet.core.messages import OutputRecord
from gillnet.core.schema import schema_to_json
from gillnet.operators.decode_records import RecordsDecoder
from gillnet.plan.nodes import AggregateNode
from gillnet.plan.patterns import PatternNode

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gillnet._kernel import Batch
    from gillnet.core.formats import RecordFormat
    from gillnet.core.messages import RawBatch
    from gillnet.core.schema import Schema
    from gillnet.plan.nodes import PipelinePlan

DEFAULT_MAX_RECORD_BYTES = 1 << 20
DEFAULT_MAX_DEPTH = 64


@dataclass(frozen=True, slots=True)
class Malformed:
    """A record that did not become a row.

    Attributes
    ----------
    index
        The record's place in its raw batch.
    reason
        The stable code, one of `rejection_reasons`.
    detail
        For people: the column, what it expects, and a bounded, escaped excerpt of the value; never the whole record.
    """

    index: int
    reason: str
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Decoded:
    """The outcome of a raw batch.

    Attributes
    ----------
    batch
        The rows, in the order of arrival.
    rows
        A ``pyarrow.UInt32Array`` with the record's index for each row; None if every record is a row.
    malformed
        The other records, by index.
    """

    batch: Batch
    rows: Any | None
    malformed: list[Malformed]


class DecodeOperator:
    """Decodes the records of one stream: JSON, or what a batch's `format` says.

    Parameters
    ----------
    schema
        What every record is held against. Fields that it does not name are skipped.
    id
        The column of the event's id: null and ``""`` are malformed.
    keys
        Columns that events are keyed by: null and ``""`` are malformed, or a null where the column is nullable.
    max_record_bytes
        Longer records are malformed, unread.
    max_depth
        Records with unknown fields that nest deeper are malformed; the record itself is depth 1.

    Raises
    ------
    DefinitionError
        If ``id`` or ``keys`` name a column that the schema does not have, or a limit is too small.

    Notes
    -----
    Costs about 0.15 µs of CPU for a payment of 170 bytes in batches of 1,000, and some 2 µs alone
    (``bench/json_codec.py``). Where a record has several faults, size, UTF-8 and JSON grammar are told first, then the
    first fault in the order of the record's fields, then the first missing column. A timestamp is of the years 1 to
    9999; digits of RFC 3339 text beyond the microsecond are cut off.
    """

    def __init__(
        self,
        schema: Schema,
        *,
        id: str | None = None,  # noqa: A002  the field's word, as in Stream(id=...)
        keys: Sequence[str] = (),
        max_record_bytes: int = DEFAULT_MAX_RECORD_BYTES,
        max_depth: int = DEFAULT_MAX_DEPTH,
    ) -> None:
        self.schema = schema
        self._schema_json = json.dumps(schema_to_json(schema)).encode()
        self._limits: dict[str, Any] = {
            "keys": list(keys),
            "id": id,
            "max_record_bytes": max_record_bytes,
            "max_depth": max_depth,
        }
        # By format, of which a source has one.
        self._others: dict[RecordFormat, RecordsDecoder] = {}
        try:
            self._decoder = _kernel.JsonDecoder(self._schema_json, **self._limits)
        except (ValueError, OverflowError) as error:
            raise DefinitionError(f"DecodeOperator({schema!r}): {error}. Mend the schema or the option.") from error

    def decode(self, raw: RawBatch) -> Decoded:
        """Decode all records of a batch.

        Raises
        ------
        ValueError
            If the batch has 2 GiB or more; poll fewer records at once.
        DefinitionError
            If the batch's format has a schema that cannot be used.
        SourceError
            If a schema registry did not answer for long.
        """
        if raw.format is None:
            values = raw.values if isinstance(raw.values, (list, tuple)) else list(raw.values)
            batch, rows, rejected = self._decoder.decode(values)
        else:
            batch, rows, rejected = self._other(raw.format).decode(raw.values)
        return Decoded(batch=batch, rows=rows, malformed=[Malformed(*record) for record in rejected])

    def _other(self, record_format: RecordFormat) -> RecordsDecoder:
        decoder = self._others.get(record_format)
        if decoder is None:
            decoder = RecordsDecoder(self._schema_json, record_format, self._limits)
            self._others[record_format] = decoder
        return decoder


def rejection_reasons() -> list[str]:
    """Return every code that `Malformed.reason` can have, for metrics that start at zero."""
    return _kernel.rejection_reasons()


def malformed_records(raw: RawBatch, malformed: Sequence[Malformed]) -> list[OutputRecord]:
    """Make the records for ``<stream>.malformed``: value, key and headers as they came, and why, in further headers.

    The headers are ``gillnet.reason``, ``gillnet.detail``, ``gillnet.stream``, ``gillnet.partition``, where the source has
    offsets ``gillnet.offset``, and ``gillnet.arrival_time_us``, all text in UTF-8. They stand last, so that they win over
    those of an earlier round.
    """
    return [_malformed_record(raw, record) for record in malformed]


def _malformed_record(raw: RawBatch, malformed: Malformed) -> OutputRecord:
    (key, headers), offset = raw.envelope(malformed.index), raw.offset(malformed.index)
    why = {
        "gillnet.reason": malformed.reason,
        "gillnet.detail": malformed.detail,
        "gillnet.stream": raw.stream,
        "gillnet.partition": str(raw.partitions[malformed.index]),
        **({} if offset is None else {"gillnet.offset": str(offset)}),
        "gillnet.arrival_time_us": str(raw.arrival_time_us),
    }
    added = [(name, text.encode()) for name, text in why.items()]
    original = raw.original(malformed.index)
    value = raw.values[malformed.index] if original is None else original
    return OutputRecord(value=value, key=key, headers=[*headers, *added])


def key_columns(plan: PipelinePlan, name: str) -> tuple[str, ...]:
    """Return the columns of a stream that its events are stored or looked up by, which must not be empty."""
    keyed = [feature for feature in plan.features if isinstance(feature, AggregateNode | PatternNode)]
    keys = {feature.key for feature in keyed if feature.stream == name and feature.key}
    if name == plan.root:
        keys |= {feature.at for feature in keyed if feature.at}
        keys |= {plan.sessions.key} if plan.sessions else set()
    keys |= {side.key for join in plan.joins for side in (join.left, join.right) if side.stream == name}
    return tuple(sorted(keys))


def stream_decoder(plan: PipelinePlan, name: str) -> DecodeOperator:
    """Return the decoder of a plan's stream, whose keys must not be empty."""
    stream = plan.stream(name)
    return DecodeOperator(stream.schema, id=stream.id, keys=key_columns(plan, name))
