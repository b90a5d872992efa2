"""Event time from the message: Pulsar's own event timestamp, put into a record that does not carry its time itself.

Event time is a column of the stream wherever records come from. Where the producer gave it to the message alone, the source writes it
into the record, under the column's name and in its unit, before the record is decoded: windows, side outputs and what is kept of an
event are then the same as if the record had it. A record that carries the column as well is malformed (a duplicate field).

The seam for formats: bytes in, bytes out, and JSON is the one that it knows.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from gillnet.core.errors import ConfigurationError
from gillnet.core.schema import Schema, Timestamp

_WRITTEN: dict[str, Callable[[int], object]] = {
    "s": lambda ms: ms // 1_000,
    "ms": lambda ms: ms,
    "us": lambda ms: ms * 1_000,
    "rfc3339": lambda ms: (datetime.fromtimestamp(0, UTC) + timedelta(milliseconds=ms)).isoformat(),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class EventTimeField:
    """The field of JSON records that is to hold the message's event timestamp.

    >>> EventTimeField(name="ts").put(b'{"id": 1}', 1767225600000)
    b'{"ts":1767225600000,"id": 1}'
    """

    name: str
    unit: str = "ms"

    @classmethod
    def of(cls, name: str, schema: Schema | None, *, what: str) -> EventTimeField:
        """Return the field of a schema's column.

        Raises
        ------
        ConfigurationError
            If the schema has no such column, or it is no timestamp.
        """
        column = dict(schema.items()).get(name) if schema is not None else Timestamp()
        if not isinstance(column, Timestamp):
            raise ConfigurationError(
                f"{what}: event_time={name!r} names the column that the message's event timestamp goes to, and the stream has no "
                "Timestamp column of that name."
            )
        return cls(name=name, unit=column.unit)

    def put(self, value: bytes, event_timestamp_ms: int) -> bytes:
        """Return the record with the time in front; as it is where the message has none, or the record is no object."""
        body = value.lstrip()
        if not event_timestamp_ms or body[:1] != b"{":
            return value
        time = json.dumps(_WRITTEN[self.unit](event_timestamp_ms))
        rest = body[1:]
        comma = b"" if rest.lstrip()[:1] == b"}" else b","
        return b"{%b:%b%b%b" % (json.dumps(self.name).encode(), time.encode(), comma, rest)
