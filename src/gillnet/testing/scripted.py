"""A source that follows a script: records, silences, crashes and ends, so that crash and resume is one list in a test.

In the spirit of Bytewax's ``TestingSource``. Time is the given clock's: with `gillnet.testing.clock.SimulatedClock` a
pause of an hour takes no time.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from gillnet.core.messages import Headers, RawBatch, Stretch

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from gillnet.core.time import Clock


@dataclass(frozen=True, slots=True)
class Record:
    """A record with its envelope; plain ``bytes`` in a script are one without key and headers, of partition 0."""

    value: bytes
    key: bytes | None = None
    headers: Headers = field(default_factory=list)
    partition: int = 0


@dataclass(frozen=True, slots=True)
class Pause:
    """Nothing comes for so many seconds. A poll never reaches over a pause, so ``Pause()`` ends a micro-batch."""

    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Abort:
    """Raise `Aborted`, once: the run dies here, as with ``kill -9``.

    ``on="poll"``: when the poll comes here, so that everything before it was handed out. ``on="commit"``: in the first
    `commit` after that, before anything is committed: the outputs are flushed then, and the offsets are not yet kept.
    """

    on: Literal["poll", "commit"] = "poll"


@dataclass(frozen=True, slots=True)
class Fail:
    """Raise an error of the source, once: what a broken file or a deleted topic would do."""

    error: Exception


@dataclass(frozen=True, slots=True)
class End:
    """The input ends here for this run; the next one, by `ScriptedSource.reopen`, goes on behind it."""


Step = bytes | Record | Pause | Abort | Fail | End


class Aborted(Exception):  # noqa: N818 - what happened, not a fault of the code
    """The script says that the run dies here. No error of Gillnet's, so that nothing handles it."""


class ScriptedSource:
    """Read one stream as a script says.

    Parameters
    ----------
    stream
        The stream's name in the pipeline.
    script
        Records and what happens between them, in order.
    clock
        What arrival times and pauses are told by.
    partitions
        The partitions that are assigned; None takes those of the script's records.

    Attributes
    ----------
    polled_records
        How many records were handed out, by this source alone.
    batch_sizes
        The size of each batch that was handed out.
    committed_records
        How many of the script's records are committed, from its beginning.

    Examples
    --------
    >>> from gillnet.testing.clock import SimulatedClock
    >>> source = ScriptedSource("s", [b"1", Pause(3600), b"2", End(), b"3"], clock=SimulatedClock())
    >>> [source.poll(10, 60.0).values, source.poll(10, 1800.0), source.poll(10, 1800.0).values, source.finished]
    [[b'1'], None, [b'2'], True]
    >>> source.reopen().poll(10, 0.0).values  # Nothing was committed.
    [b'1']
    """

    def __init__(
        self, stream: str, script: Sequence[Step], *, clock: Clock, partitions: frozenset[int] | None = None
    ) -> None:
        records = [step for step in map(_as_record, script) if isinstance(step, Record)]
        self.stream = stream
        self.partitions = partitions if partitions is not None else frozenset(r.partition for r in records) or {0}
        self._script = [_as_record(step) for step in script]
        self.clock = clock
        self._position = 0
        self._committed = 0
        self._spent: set[int] = set()  # Steps that happen once and have happened.
        self._abort_on_commit = False
        self._ended = False
        self._resume_at_us: int | None = None  # Whole microseconds: no rounding can keep a pause from ending.
        self.polled_records = 0
        self.batch_sizes: list[int] = []
        self.closed = False

    def __repr__(self) -> str:
        return f"ScriptedSource(stream={self.stream!r}, position={self._position}, of={len(self._script)})"

    def reopen(self) -> ScriptedSource:
        """Return a new source that goes on from what this one committed, as a run that starts again does.

        Aborts, failures and ends that have happened do not happen again.
        """
        again = type(self)(self.stream, self._script, clock=self.clock, partitions=frozenset(self.partitions))
        again._position = again._committed = self._committed
        again._spent = set(self._spent)
        return again

    def poll(self, max_records: int, timeout_s: float) -> RawBatch | None:
        """Return the next records; None after ``timeout_s`` of the clock's seconds in which none came."""
        taken: list[Record] = []
        begin = self._position
        while len(taken) < max_records and not self.finished:
            step = self._script[self._position]
            if isinstance(step, Record):
                taken.append(step)
                self._position += 1
            elif taken or (isinstance(step, End) and self._position not in self._spent):
                break
            elif not self._passed(step, timeout_s):
                return None
        self._end_if_told()
        if not taken:
            return None
        self.polled_records += len(taken)
        self.batch_sizes.append(len(taken))
        return self._batch(taken, begin, self._position, self.clock.now_us())

    def _batch(self, taken: list[Record], begin: int, end: int, arrival_time_us: int) -> RawBatch:
        return RawBatch(
            stream=self.stream,
            values=[record.value for record in taken],
            partitions=[record.partition for record in taken],
            arrival_time_us=arrival_time_us,
            envelope=lambda index: (taken[index].key, list(taken[index].headers)),
            stretch=lambda: [(0, begin, end)],
        )

    def _passed(self, step: Step, timeout_s: float) -> bool:
        """Do what a step that is no record says; False if the poll must return first."""
        if isinstance(step, Pause):
            return self._waited(step.seconds, timeout_s)
        if self._position not in self._spent:
            self._spent.add(self._position)
            if isinstance(step, Fail):
                raise step.error
            if isinstance(step, Abort):
                if step.on == "poll":
                    raise Aborted(f"{self!r}")
                self._abort_on_commit = True
        self._position += 1
        return True

    def _end_if_told(self) -> None:
        """End with the last record before an `End`, as a bounded source does."""
        place = self._position
        if place < len(self._script) and isinstance(self._script[place], End) and place not in self._spent:
            self._spent.add(place)
            self._ended = True

    def _waited(self, seconds: float, timeout_s: float) -> bool:
        if self._resume_at_us is None:
            self._resume_at_us = self.clock.now_us() + round(seconds * 1_000_000)
        left_us = self._resume_at_us - self.clock.now_us()
        if left_us > 0:
            self.clock.sleep(min(left_us / 1_000_000, timeout_s))
        if self.clock.now_us() < self._resume_at_us:
            return False
        self._resume_at_us = None
        self._position += 1
        return True

    def commit(self) -> None:
        """Note that what was handed out need not come again."""
        self.commit_to(self.mark())

    def mark(self) -> dict[int, int]:
        """Return the place in the script after what was handed out, as that of partition 0."""
        return {0: self._position}

    def start_at(self, mark: Mapping[int, int]) -> None:
        """Begin at a place in the script."""
        self._position = mark.get(0, self._position)

    def replay(self, stretch: Stretch, arrival_time_us: int) -> RawBatch:
        """Return the records between two places in the script, whatever else lies between."""
        ((_, begin, end),) = stretch
        self._position = end
        records = [step for step in self._script[begin:end] if isinstance(step, Record)]
        return self._batch(records, begin, end, arrival_time_us)

    def commit_to(self, mark: object) -> None:
        """Note that what comes before a mark need not come again."""
        assert isinstance(mark, dict)
        if self._abort_on_commit:
            raise Aborted(f"{self!r} in commit")
        self._committed = mark[0]

    @property
    def committed_records(self) -> int:
        """Records before the committed place."""
        return sum(isinstance(step, Record) for step in self._script[: self._committed])

    @property
    def finished(self) -> bool:
        """Whether the script is at its end, or at an `End`."""
        return self._ended or self._position >= len(self._script)

    @property
    def lag(self) -> int:
        """Records that are still to come, up to the script's end."""
        return sum(isinstance(step, Record) for step in self._script[self._position :])

    def close(self) -> None:
        """Note it; nothing is committed."""
        self.closed = True


def _as_record(step: Step) -> Step:
    return Record(step) if isinstance(step, bytes) else step
