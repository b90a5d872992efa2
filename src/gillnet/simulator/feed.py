"""How a simulation leaves this package: as a `Source` of a run, into any `Sink` at a given rate, or into files.

A rate is an open loop: record *i* is due *i / rate* seconds after the first, whether or not the reader keeps up.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from gillnet.core.errors import DefinitionError
from gillnet.core.messages import Headers, RawBatch, Stretch
from gillnet.core.time import Clock, SystemClock
from gillnet.simulator.streams import STREAMS, Chunk, Simulation, StreamName

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    import numpy as np
    from numpy.typing import NDArray

    from gillnet.core.ports import Sink

_LONGEST_SLEEP_S = 0.05
_FILE_CHUNK = 16_384


class _Reader:
    """Reads a stream record by record, over the boundaries of chunks."""

    def __init__(self, chunks: Iterator[Chunk]) -> None:
        self._chunks = chunks
        self._chunk: Chunk | None = next(chunks, None)
        self._place = 0
        self.given = 0

    @property
    def exhausted(self) -> bool:
        return self._chunk is None

    def take(self, count: int) -> tuple[list[bytes], list[bytes | None], list[NDArray[np.int64]]]:
        """Return the next records, ``count`` unless the stream ends, their keys, and their simulated arrivals."""
        values: list[bytes] = []
        keys: list[bytes | None] = []
        arrivals: list[NDArray[np.int64]] = []
        while self._chunk is not None and len(values) < count:
            upto = min(len(self._chunk), self._place + count - len(values))
            values += self._chunk.values[self._place : upto]
            keys += self._chunk.keys[self._place : upto]
            arrivals.append(self._chunk.arrival_time_us[self._place : upto])
            self._place = upto
            while self._chunk is not None and self._place == len(self._chunk):
                self._chunk, self._place = next(self._chunks, None), 0
        self.given += len(values)
        return values, keys, arrivals


class Pace:
    """Says how many records are due; without a rate, always as many as are asked for."""

    def __init__(self, rate: float | None, clock: Clock, *, what: str) -> None:
        if rate is not None and not rate > 0:
            raise DefinitionError(
                f"{what}: rate={rate} must be above 0 records a second, or None for as fast as possible."
            )
        self.rate = rate
        self._clock = clock
        self._start_s: float | None = None
        self._skipped = 0

    def skip(self, records: int) -> None:
        """Count records as given before the first one."""
        self._skipped = records

    def due(self, given: int, most: int) -> int:
        """Return how many of ``most`` records may be given now, after ``given``."""
        if self.rate is None:
            return most
        return max(0, min(most, self.total() - given))

    def total(self) -> int:
        """Return how many records have fallen due since the first one, itself included."""
        assert self.rate is not None
        now = self._clock.monotonic_s()
        if self._start_s is None:
            self._start_s = now
        return self._skipped + int((now - self._start_s) * self.rate) + 1

    def wait(self, given: int, longest_s: float) -> None:
        """Sleep until the next record is due, or ``longest_s``."""
        assert self.rate is not None
        assert self._start_s is not None
        due_s = self._start_s + (given - self._skipped) / self.rate
        self._clock.sleep(min(longest_s, max(1e-4, due_s - self._clock.monotonic_s())))


class SimulatorSource:
    """A `gillnet.core.ports.Source` that reads a stream of a simulation.

    Parameters
    ----------
    simulation
        What is simulated.
    stream
        ``"payments"``, ``"clicks"``, ``"labels"`` or ``"visitor_labels"``.
    rate
        Records a second, as an open loop; None: as fast as it is polled.
    name
        The stream's name in the pipeline, if another.
    clock
        Paces the rate and stamps the arrival.

    Notes
    -----
    Bounded: `finished` after the simulation's last record. `commit` has nothing to record, since a simulation starts over
    from its seed: after a crash, all is read again, or what a checkpoint does not have (`start_at`).
    """

    def __init__(
        self,
        simulation: Simulation,
        stream: StreamName = "payments",
        *,
        rate: float | None = None,
        name: str | None = None,
        clock: Clock | None = None,
    ) -> None:
        self.stream: str = name or stream
        self._clock = clock or SystemClock()
        self._pace = Pace(rate, self._clock, what=f"SimulatorSource({stream!r})")
        self._reader = _Reader(simulation.stream(stream))

    def poll(self, max_records: int, timeout_s: float) -> RawBatch | None:
        """Return up to ``max_records`` records that are due, or None when none falls due within ``timeout_s``."""
        deadline = self._clock.monotonic_s() + timeout_s
        while not self._reader.exhausted:
            due = self._pace.due(self._reader.given, max_records)
            if due > 0:
                return self._batch(*self._reader.take(due), self._clock.now_us())
            left = deadline - self._clock.monotonic_s()
            if left <= 0:
                break
            self._pace.wait(self._reader.given, left)
        return None

    def _batch(
        self, values: list[bytes], keys: list[bytes | None], arrivals: list[NDArray[np.int64]], arrival_time_us: int
    ) -> RawBatch:
        end = self._reader.given

        def envelope(place: int) -> tuple[bytes | None, Headers]:
            return keys[place], []

        def recorded_arrival_us(place: int) -> int:
            for part in arrivals:
                if place < len(part):
                    return int(part[place])
                place -= len(part)
            raise IndexError(place)

        return RawBatch(
            stream=self.stream,
            values=values,
            partitions=[0] * len(values),
            arrival_time_us=arrival_time_us,
            envelope=envelope,
            stretch=lambda: [(0, end - len(values), end)],
            recorded_arrival_us=recorded_arrival_us,
        )

    def commit(self) -> None:
        """Do nothing: a simulation has no offsets."""

    def mark(self) -> dict[int, int]:
        """Return how many records were given, as the place in partition 0."""
        return {0: self._reader.given}

    def start_at(self, mark: Mapping[int, int]) -> None:
        """Simulate so many records and leave them out: a seed gives the same ones again."""
        wanted = mark.get(0, 0)
        while self._reader.given < wanted and not self._reader.exhausted:
            self._reader.take(min(wanted - self._reader.given, _FILE_CHUNK))
        self._pace.skip(self._reader.given)

    def replay(self, stretch: Stretch, arrival_time_us: int) -> RawBatch:
        """Simulate the same records again; they are not paced."""
        ((_, begin, end),) = stretch
        batch = self._batch(*self._reader.take(end - begin), arrival_time_us)
        self._pace.skip(self._reader.given)
        return batch

    @property
    def finished(self) -> bool:
        """Whether the simulation is over."""
        return self._reader.exhausted

    @property
    def lag(self) -> int | None:
        """Records that are due and were not polled; None without a rate."""
        if self._pace.rate is None or self._reader.exhausted:
            return None
        return max(0, self._pace.total() - self._reader.given)

    def close(self) -> None:
        """Do nothing: nothing is held."""


def produce(
    simulation: Simulation,
    sink: Sink,
    *,
    stream: StreamName = "payments",
    rate: float | None = None,
    clock: Clock | None = None,
    limit: int | None = None,
    batch_records: int = 1_000,
    should_stop: Callable[[], bool] = lambda: False,
) -> int:
    """Write a stream into a sink, keyed by ``card_id``, ``visitor_id`` or ``tx_id``, and flush it.

    Parameters
    ----------
    rate
        Records a second, as an open loop: after a sink that blocked, what fell due meanwhile is written at once.
        None: as fast as the sink takes them.
    limit
        Stop after so many records.
    batch_records
        The most records of one write.
    should_stop
        Asked between writes, at least every 50 ms.

    Returns
    -------
    int
        Records written.
    """
    if batch_records < 1:
        raise DefinitionError(f"produce: batch_records={batch_records} must be 1 or more.")
    pace = Pace(rate, clock or SystemClock(), what="produce")
    reader = _Reader(simulation.stream(stream))
    while not reader.exhausted and not should_stop() and (limit is None or reader.given < limit):
        most = batch_records if limit is None else min(batch_records, limit - reader.given)
        due = pace.due(reader.given, most)
        if due > 0:
            values, keys, _ = reader.take(due)
            sink.write(values, keys)
        else:
            pace.wait(reader.given, _LONGEST_SLEEP_S)
    sink.flush()
    return reader.given


def write_files(simulation: Simulation, directory: str | Path) -> dict[str, int]:
    """Write ``payments.ndjson``, ``clicks.ndjson``, ``labels.ndjson`` and ``visitor_labels.ndjson`` into a directory.

    Returns
    -------
    dict of str to int
        File name to records written. An empty line is a malformed record that is empty.
    """
    folder = Path(directory)
    folder.mkdir(parents=True, exist_ok=True)
    written: dict[str, int] = {}
    for stream in STREAMS:
        path = folder / f"{stream}.ndjson"
        written[path.name] = 0
        with path.open("wb") as file:
            for chunk in simulation.stream(stream, chunk_records=_FILE_CHUNK):
                if chunk.values:
                    file.write(b"\n".join(chunk.values) + b"\n")
                written[path.name] += len(chunk)
    return written
