"""Streams that live in memory: for tests, notebooks and runs without a broker."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from gillnet.core.errors import ConfigurationError, SourceError
from gillnet.core.messages import Headers, OutputRecord, RawBatch, Stretch
from gillnet.core.time import Clock, SystemClock

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


class MemorySource:
    """Give records from a list.

    Parameters
    ----------
    stream
        The stream's name in the pipeline.
    values
        The records' bytes, in the order of arrival.
    partitions
        The partition of each record; None puts all into 0.
    keys, headers
        The envelope of each record, for side outputs.
    start
        The first record to give: where an earlier source on the same list stopped (its ``committed_records``).
    """

    def __init__(
        self,
        stream: str,
        values: Sequence[bytes],
        *,
        partitions: Sequence[int] | None = None,
        keys: Sequence[bytes | None] | None = None,
        headers: Sequence[Headers] | None = None,
        start: int = 0,
        clock: Clock | None = None,
    ) -> None:
        for name, column in (("partitions", partitions), ("keys", keys), ("headers", headers)):
            if column is not None and len(column) != len(values):
                raise ConfigurationError(
                    f"MemorySource {stream!r}: {len(column)} {name} for {len(values)} values; give one for each value."
                )
        self.stream = stream
        self._values = values
        self._partitions = partitions
        self._keys = keys
        self._headers = headers
        self._position = start
        self._clock = clock or SystemClock()
        self.committed_records = start

    def __repr__(self) -> str:
        return f"MemorySource(stream={self.stream!r}, position={self._position}, of={len(self._values)})"

    def poll(self, max_records: int, timeout_s: float) -> RawBatch | None:  # noqa: ARG002
        """Return the next records, up to ``max_records``; None at the end."""
        begin, end = self._position, min(self._position + max_records, len(self._values))
        if begin >= end:
            return None
        self._position = end
        return RawBatch(
            stream=self.stream,
            values=self._values[begin:end],
            partitions=[0] * (end - begin) if self._partitions is None else self._partitions[begin:end],
            arrival_time_us=self._clock.now_us(),
            envelope=lambda index: self._envelope(begin + index),
            stretch=lambda: [(0, begin, end)],
        )

    def _envelope(self, index: int) -> tuple[bytes | None, Headers]:
        key = self._keys[index] if self._keys is not None else None
        return key, list(self._headers[index]) if self._headers is not None else []

    def commit(self) -> None:
        """Note the position in ``committed_records``."""
        self.committed_records = self._position

    def mark(self) -> dict[int, int]:
        """Return how many records were given, as the place in partition 0."""
        return {0: self._position}

    def start_at(self, mark: Mapping[int, int]) -> None:
        """Go on behind so many records."""
        self._position = mark.get(0, self._position)

    def replay(self, stretch: Stretch, arrival_time_us: int) -> RawBatch:
        """Return the records between two positions."""
        ((_, begin, end),) = stretch
        self._position = begin
        batch = self.poll(end - begin, 0.0)
        if batch is None or len(batch.values) < end - begin:
            raise SourceError(
                f"{self!r} has not the records {begin} to {end} that were read before; give the same list."
            )
        return replace(batch, arrival_time_us=arrival_time_us)

    @property
    def finished(self) -> bool:
        """Whether the last record has been given."""
        return self._position >= len(self._values)

    @property
    def lag(self) -> int:
        """Records that are still to come."""
        return len(self._values) - self._position

    def close(self) -> None:
        """Do nothing: there is nothing to release."""


class MemorySink:
    """Keep what is written, in order.

    Attributes
    ----------
    records
        Everything written, as `OutputRecord`. Unbounded: it is for inputs that end.
    flushed_records
        How many of them were written before the last `flush`.
    """

    def __init__(self) -> None:
        self.records: list[OutputRecord] = []
        self.flushed_records = 0

    def __repr__(self) -> str:
        return f"MemorySink(records={len(self.records)})"

    @property
    def values(self) -> list[bytes]:
        """The values alone."""
        return [record.value for record in self.records]

    def write(self, values: Sequence[bytes], keys: Sequence[bytes | None] | None = None) -> None:
        """Keep records."""
        self.records.extend(
            OutputRecord(value=value, key=key)
            for value, key in zip(values, [None] * len(values) if keys is None else keys, strict=True)
        )

    def write_records(self, records: Sequence[OutputRecord]) -> None:
        """Keep records that carry headers."""
        self.records.extend(records)

    def flush(self) -> None:
        """Note how many records were written."""
        self.flushed_records = len(self.records)

    def close(self) -> None:
        """Flush; the records stay readable."""
        self.flush()
