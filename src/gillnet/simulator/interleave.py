"""Several streams of one simulation as sources that keep step, as if they came over the road together.

A lookup reads another stream as of an event's time, over what has arrived. Streams that are read as fast as possible
would run apart, and a payment would miss the clicks before it. These sources keep to the simulated order of arrival,
however unevenly they are polled.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from gillnet.core.errors import DefinitionError
from gillnet.core.messages import Headers, RawBatch, Stretch
from gillnet.core.time import Clock, SystemClock, duration_us
from gillnet.simulator.feed import Pace

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from gillnet.simulator.config import Duration
    from gillnet.simulator.streams import Chunk, Simulation, StreamName

_FOREVER = np.iinfo(np.int64).max


class _Cursor:
    """A place in a stream: what it gives next, and when that arrives, ``delay_us`` later than the simulation has it."""

    def __init__(self, chunks: Iterator[Chunk], delay_us: int = 0) -> None:
        self._chunks = chunks
        self._delay_us = delay_us
        self._chunk = next(chunks, None)
        self._place = 0
        self.given = 0

    @property
    def next_arrival_us(self) -> int:
        """The arrival of the next record; at the end of time if there is none."""
        return _FOREVER if self._chunk is None else int(self._chunk.arrival_time_us[self._place]) + self._delay_us

    def take(self, most: int, until_us: int) -> tuple[list[bytes], list[bytes | None], int]:
        """Return up to ``most`` records of one chunk that arrive by ``until_us``, their keys, and the last arrival."""
        chunk, first = self._chunk, self._place
        if chunk is None:
            return [], [], 0
        arrived = int(np.searchsorted(chunk.arrival_time_us, until_us - self._delay_us, side="right"))
        end = min(first + most, max(arrived, first))
        if end == first:
            return [], [], 0
        self._place = end
        self.given += end - first
        last_us = int(chunk.arrival_time_us[end - 1]) + self._delay_us
        while self._chunk is not None and self._place == len(self._chunk):
            self._chunk, self._place = next(self._chunks, None), 0
        return chunk.values[first:end], chunk.keys[first:end], last_us


class InterleavedSource:
    """A `gillnet.core.ports.Source` that keeps step with its siblings; see `interleaved_sources`."""

    def __init__(
        self, stream: StreamName, cursors: dict[str, _Cursor], *, ahead_us: int, pace: Pace, clock: Clock | None
    ) -> None:
        self.stream: str = stream
        self._cursor = cursors[stream]
        self._others = [cursor for name, cursor in cursors.items() if name != stream]
        self._ahead_us = ahead_us
        self._pace = pace
        self._clock = clock
        self.arrived_us = 0
        """The simulated arrival of the newest record that was given, microseconds UTC."""

    def poll(self, max_records: int, timeout_s: float) -> RawBatch | None:
        """Return records that are due; None if the others must go first, or none falls due in time."""
        limit_us = min((cursor.next_arrival_us for cursor in self._others), default=_FOREVER)
        until_us = min(limit_us, _FOREVER - self._ahead_us) + self._ahead_us
        if self.finished or self._cursor.next_arrival_us > until_us:
            return None
        due = self._pace.due(self._cursor.given, max_records)
        if due <= 0:
            self._pace.wait(self._cursor.given, timeout_s)
            due = self._pace.due(self._cursor.given, max_records)
            if due <= 0:
                return None
        values, keys, last_us = self._cursor.take(due, until_us)
        self.arrived_us = last_us
        return self._batch(values, keys, last_us if self._clock is None else self._clock.now_us())

    def _batch(self, values: list[bytes], keys: list[bytes | None], arrival_time_us: int) -> RawBatch:
        end = self._cursor.given

        def envelope(place: int) -> tuple[bytes | None, Headers]:
            return keys[place], []

        return RawBatch(
            stream=self.stream,
            values=values,
            partitions=[0] * len(values),
            arrival_time_us=arrival_time_us,
            envelope=envelope,
            stretch=lambda: [(0, end - len(values), end)],
        )

    def commit(self) -> None:
        """Do nothing: a simulation has no offsets."""

    def mark(self) -> dict[int, int]:
        """Return how many records were given, as the place in partition 0."""
        return {0: self._cursor.given}

    def start_at(self, mark: Mapping[int, int]) -> None:
        """Simulate so many records and leave them out: a seed gives the same ones again."""
        wanted = mark.get(0, 0)
        while self._cursor.given < wanted and not self.finished:
            self._cursor.take(wanted - self._cursor.given, _FOREVER - 1)
        self._pace.skip(self._cursor.given)

    def replay(self, stretch: Stretch, arrival_time_us: int) -> RawBatch:
        """Simulate the same records again; they are not paced, and keep no step."""
        ((_, begin, end),) = stretch
        values: list[bytes] = []
        keys: list[bytes | None] = []
        while len(values) < end - begin and not self.finished:
            more, their_keys, self.arrived_us = self._cursor.take(end - begin - len(values), _FOREVER - 1)
            values += more
            keys += their_keys
        self._pace.skip(self._cursor.given)
        return self._batch(values, keys, arrival_time_us)

    @property
    def finished(self) -> bool:
        """Whether the stream is over."""
        return self._cursor.next_arrival_us == _FOREVER

    @property
    def lag(self) -> int | None:
        """None: what is due depends on the other streams."""
        return None

    def close(self) -> None:
        """Do nothing: nothing is held."""


class ArrivalClock:
    """Processing time in which the simulated arrivals are real: it stands at the newest record that was given.

    With it a run waits, revises and notices idle streams as it would over the days that the simulation tells of.

    Parameters
    ----------
    sources
        What `interleaved_sources` gave, with ``simulated_arrival=True``.
    """

    def __init__(self, sources: Mapping[str, InterleavedSource]) -> None:
        self._sources = list(sources.values())

    def now_us(self) -> int:
        """Return processing time in microseconds since 1970-01-01 UTC."""
        return max(source.arrived_us for source in self._sources)

    def monotonic_s(self) -> float:
        """Return processing time in seconds."""
        return self.now_us() / 1_000_000

    def sleep(self, seconds: float) -> None:
        """Do nothing: time passes as records come."""


def interleaved_sources(
    simulation: Simulation,
    lead: StreamName,
    *others: StreamName,
    rate: float | None = None,
    ahead: Duration = "5m",
    simulated_arrival: bool = False,
    delays: Mapping[StreamName, Duration] | None = None,
    clock: Clock | None = None,
) -> dict[str, InterleavedSource]:
    """Return sources of several streams that keep to the simulated order of arrival.

    Parameters
    ----------
    simulation
        What is simulated.
    lead
        The stream that sets the pace, the root of the pipeline. Its records are given only when everything of the others
        that arrived before them has been given.
    *others
        Streams that are looked up.
    rate
        Records of ``lead`` a second, as an open loop; None: as fast as they are polled.
    ahead
        How far, in simulated time, the others may run ahead of ``lead``, so that they come in batches. A lookup reads as of
        the event's time, so it sees none of it but records that were slower than ``ahead``.
    simulated_arrival
        Stamp records with the arrival that the simulation gave them, the newest of each batch, instead of the clock's time:
        for training and repeatable runs.
    delays
        By stream, how much later its records arrive than the simulation has it: as of a log that is shipped by the minute.
    clock
        Paces the rate and stamps the arrival.

    Returns
    -------
    dict of str to InterleavedSource
        By stream; others first, as they must be polled first to keep latency low.

    Raises
    ------
    DefinitionError
        If a stream is named twice, a delay is of no stream, or the rate or ``ahead`` makes no sense.
    """
    names: Sequence[StreamName] = (*others, lead)
    if len(set(names)) < len(names):
        raise DefinitionError(f"interleaved_sources: {', '.join(names)} name a stream twice; name each once.")
    clock = clock or SystemClock()
    delays_us = {name: duration_us(delay, what="interleaved_sources: delays") for name, delay in (delays or {}).items()}
    if unknown := sorted(set(delays_us) - set(names)):
        raise DefinitionError(
            f"interleaved_sources: delays names {unknown[0]!r}, which is not read; name a stream of it."
        )
    cursors: dict[str, _Cursor] = {name: _Cursor(simulation.stream(name), delays_us.get(name, 0)) for name in names}
    ahead_us = duration_us(ahead, what="interleaved_sources: ahead")
    free, paced = (Pace(given, clock, what="interleaved_sources") for given in (None, rate))
    return {
        name: InterleavedSource(
            name,
            cursors,
            ahead_us=0 if name == lead else ahead_us,
            pace=paced if name == lead else free,
            clock=None if simulated_arrival else clock,
        )
        for name in names
    }
