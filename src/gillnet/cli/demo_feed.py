"""The records of a demo's stage: what fills the windows at full speed, then the live ones when they are due.

The live part is simulated ahead, so that its schedule waits for no simulation; it is an open loop: a record is due
whether or not the one before it has been decided, and latency counts from there.
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from gillnet.core.messages import Headers, RawBatch
from gillnet.core.time import Clock, SystemClock
from gillnet.simulator import interleaved_sources

if TYPE_CHECKING:
    from gillnet.cli.demo_stages import Stage

_BATCH_RECORDS = 4_096


@dataclass(slots=True)
class _Live:
    """Simulated records of one stream that wait for their time.

    ``due`` is, for each record of another stream, the number of the root stream's record that it goes before.
    """

    values: list[bytes] = field(default_factory=list)
    keys: list[bytes | None] = field(default_factory=list)
    due: list[int] = field(default_factory=list)
    given: int = 0

    def add(self, raw: RawBatch, due: int) -> None:
        self.values += raw.values
        self.keys += [raw.envelope(place)[0] for place in range(len(raw.values))]
        self.due += [due] * len(raw.values)


class StageFeed:
    """Gives a stage's streams in step, as sources that one thread polls.

    First comes what fills the windows. Then the feed waits until `go_live` is called, by whoever knows that all of it was
    processed, and gives the live records at their rate.

    Parameters
    ----------
    stage
        What to give.

    Attributes
    ----------
    sources
        By stream, the root last.
    given
        Records given so far, by stream.
    filled
        Whether the windows' part is given and the live one is simulated.

    Notes
    -----
    Another thread may look at it. What it sees is behind rather than ahead: `filled` and `finished` turn true only after
    `given` counts everything that they speak of.
    """

    def __init__(self, stage: Stage, *, clock: Clock | None = None) -> None:
        self._stage = stage
        self._root = stage.plan.root
        self._clock = clock or SystemClock()
        self._simulated = interleaved_sources(
            stage.simulation,
            self._root,  # type: ignore[arg-type]
            *stage.lookups,  # type: ignore[arg-type]
            simulated_arrival=True,
        )
        self._warm_until_us = stage.simulation.config.start_us + stage.warm_us
        self._reached_us = stage.simulation.config.start_us
        self._live = {name: _Live() for name in self._simulated}
        self._live_since_s: float | None = None
        self._going_live = threading.Event()
        self.sources: dict[str, FeedSource] = {name: FeedSource(self, name) for name in self._simulated}
        self.given = dict.fromkeys(self._simulated, 0)
        self.filled = False

    @property
    def warm_share(self) -> float:
        """How much of what fills the windows is given, 0 to 1."""
        if self.filled:
            return 1.0
        left_us = self._warm_until_us - self._reached_us
        return 1.0 - max(0.0, left_us / self._stage.warm_us)

    @property
    def warm_until_us(self) -> int:
        """The arrival of the last record that filled the windows, in simulated time: the live ones come after it."""
        return self._reached_us

    @property
    def live(self) -> bool:
        """Whether the live part has begun."""
        return self._live_since_s is not None

    @property
    def finished(self) -> bool:
        """Whether the last live record is given."""
        return self.live and all(live.given == len(live.values) for live in self._live.values())

    def go_live(self) -> None:
        """Begin the live part."""
        if not self.live:
            self._live_since_s = self._clock.monotonic_s()
            self._going_live.set()

    def due_s(self, number: int) -> float:
        """Return when the ``number``-th live record of the root stream falls due, on the monotonic clock."""
        assert self._live_since_s is not None, "go_live() comes first"
        return self._live_since_s + number / self._stage.rate

    def values(self, stream: str) -> Sequence[bytes]:
        """Return the live records of a stream that were given."""
        live = self._live[stream]
        return live.values[: live.given]

    def poll(self, stream: str, max_records: int, timeout_s: float) -> RawBatch | None:
        """Return records of a stream that are due; see `FeedSource`."""
        if not self.filled:
            return self._poll_warm(stream, max_records)
        if not self.live:
            self._going_live.wait(timeout_s)
            return None
        end = self._end(stream, max_records)
        if end == self._live[stream].given and timeout_s > 0:
            self._wait(timeout_s)
            end = self._end(stream, max_records)
        live = self._live[stream]
        if end == live.given:
            return None
        batch = self._batch(stream, live.values[live.given : end], live.keys[live.given : end])
        live.given = end
        return batch

    def _poll_warm(self, stream: str, max_records: int) -> RawBatch | None:
        source = self._simulated[stream]
        if stream == self._root and (self._reached_us >= self._warm_until_us or source.finished):
            self._simulate_live()
            return None
        raw = source.poll(max_records, 0.0)
        if raw is None:
            return None
        if stream == self._root:
            self._reached_us = raw.arrival_time_us
        return self._batch(stream, raw.values, [raw.envelope(place)[0] for place in range(len(raw.values))])

    def _simulate_live(self) -> None:
        root, others = self._simulated[self._root], [name for name in self._simulated if name != self._root]
        live = self._live[self._root]
        while len(live.values) < self._stage.records and not root.finished:
            for name in others:
                while (raw := self._simulated[name].poll(_BATCH_RECORDS, 0.0)) is not None:
                    self._live[name].add(raw, due=len(live.values))
            # As many as arrive before the next record of another stream.
            if (raw := root.poll(self._stage.records - len(live.values), 0.0)) is not None:
                live.add(raw, due=0)
        self.filled = True

    def _end(self, stream: str, max_records: int) -> int:
        """Return up to which record of a stream may be given now."""
        live, root = self._live[stream], self._live[self._root]
        due = min(self._fallen_due(), len(root.values))
        if stream == self._root:
            # What arrived before a record goes before it, also when time passes between two polls.
            waiting = (other.due[other.given] for other in self._others() if other.given < len(other.due))
            end = min([due, *waiting])
        else:
            end = bisect_left(live.due, due)
        return max(live.given, min(end, live.given + max_records))

    def _others(self) -> list[_Live]:
        return [live for name, live in self._live.items() if name != self._root]

    def _fallen_due(self) -> int:
        assert self._live_since_s is not None
        return int((self._clock.monotonic_s() - self._live_since_s) * self._stage.rate) + 1

    def _wait(self, longest_s: float) -> None:
        due_s = self.due_s(self._live[self._root].given)
        self._clock.sleep(min(longest_s, max(1e-4, due_s - self._clock.monotonic_s())))

    def _batch(self, stream: str, values: Sequence[bytes], keys: Sequence[bytes | None]) -> RawBatch:
        self.given[stream] += len(values)

        def envelope(place: int) -> tuple[bytes | None, Headers]:
            return keys[place], []

        return RawBatch(
            stream=stream,
            values=values,
            partitions=[0] * len(values),
            arrival_time_us=self._clock.now_us(),
            envelope=envelope,
        )

    def lag(self, stream: str) -> int | None:
        """Return the live records of the root stream that are due and were not given."""
        if not self.live or stream != self._root:
            return None
        live = self._live[stream]
        return min(self._fallen_due(), len(live.values)) - live.given


class FeedSource:
    """A `gillnet.core.ports.Source` on a stream of a feed. It never finishes: who runs the stage knows when it is over."""

    finished = False

    def __init__(self, feed: StageFeed, stream: str) -> None:
        self.stream = stream
        self._feed = feed

    def poll(self, max_records: int, timeout_s: float) -> RawBatch | None:
        """Return records that are due, or None when none falls due within ``timeout_s``."""
        return self._feed.poll(self.stream, max_records, timeout_s)

    def commit(self) -> None:
        """Do nothing: a feed has no offsets."""

    @property
    def lag(self) -> int | None:
        """Records that are due and were not polled."""
        return self._feed.lag(self.stream)

    def close(self) -> None:
        """Do nothing: nothing is held."""
