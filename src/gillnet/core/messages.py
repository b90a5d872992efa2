"""What travels between the parts of a run: raw records as a source read them, and side outputs with a reason."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from gillnet.core.formats import RecordFormat

Headers = list[tuple[str, bytes | None]]

Stretch = list[tuple[int, int, int]]
"""Where the records of a batch lie in their stream, in the order of arrival: (partition, place of the first, place after the last)
of each run of records of one partition."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RawBatch:
    """Records of one stream and one partition or several, as read, in the order of arrival.

    Attributes
    ----------
    stream
        The stream's name in the pipeline.
    values
        The record's bytes, one an element; an empty ``bytes`` for a tombstone.
    partitions
        The source partition of each record (0 where a source has none).
    arrival_time_us
        When the batch was read: processing time, microseconds UTC.
    envelope
        Gives key and headers of record *i*. Called for side outputs only, so a source need not build them for every
        record.
    offset
        Gives the place of record *i* in its partition; None where a source has none.
    stretch
        Gives where the records lie in the stream, so that a source can give the very same batch again; empty where it cannot.
    original
        Gives the bytes of record *i* as they lay in the source, where ``values`` has another form of them (a row of CSV as
        JSON); None where it has the bytes themselves. Called for malformed records only.
    recorded_arrival_us
        Gives when record *i* arrived by the source's own record, microseconds UTC: the broker's timestamp, or the arrival
        that a simulation gave it. None where nothing recorded it. For looking back at delays; a run goes by
        ``arrival_time_us``.
    format
        What form the values have; None for JSON.
    """

    stream: str
    values: Sequence[bytes]
    partitions: Sequence[int]
    arrival_time_us: int
    envelope: Callable[[int], tuple[bytes | None, Headers]] = field(default=lambda _: (None, []))
    offset: Callable[[int], int | None] = field(default=lambda _: None)
    stretch: Callable[[], Stretch] = field(default=list)
    original: Callable[[int], bytes | None] = field(default=lambda _: None)
    recorded_arrival_us: Callable[[int], int | None] = field(default=lambda _: None)
    format: RecordFormat | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputRecord:
    """One record for a sink: key and value bytes, and headers."""

    value: bytes
    key: bytes | None = None
    headers: Headers = field(default_factory=list)
