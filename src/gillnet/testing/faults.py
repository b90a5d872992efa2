"""A simulated world that fails from a seed: clock, scheduler, sources, a log with transactions, and a place of checkpoints.

Every place at which the protocol of checkpoints, journal and transactions can be interrupted asks `Faults.at`; the seed decides
where the process dies, where a write is torn and where the disk is full. The same seed fails in the same places, so that a
failure that was found once can be looked at again.

In the spirit of FoundationDB's simulation: the code under test is the code that runs, only the world around it is not real.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from gillnet.core.errors import FencedError, StateError
from gillnet.core.messages import OutputRecord, RawBatch, Stretch
from gillnet.state import CheckpointStore, FileJournal
from gillnet.state.checkpoints import Checkpoint
from gillnet.testing.clock import SimulatedClock

if TYPE_CHECKING:
    from random import Random


class Crash(BaseException):
    """The process dies here, as with ``kill -9``. No ``Exception``, so that nothing handles it."""


class Faults:
    """Decides from a seed what fails where.

    Parameters
    ----------
    dice
        Makes every decision; seeded, so that it makes the same ones again.
    crashes
        How often the process dies at the most; after that all goes well.
    rate
        The share of the points at which it dies, until then.
    full
        The share of writes to the place of checkpoints for which the disk is full.

    Attributes
    ----------
    died_at
        The points at which the process died, in order.
    generation
        Goes up with each death: what an earlier life opened does nothing any more.
    """

    def __init__(self, dice: Random, *, crashes: int, rate: float = 0.03, full: float = 0.0) -> None:
        self.dice = dice
        self.generation = 0
        self.died_at: list[str] = []
        self.passed: Counter[str] = Counter()
        self._crashes = crashes
        self._rate = rate
        self._full = full

    def at(self, point: str) -> None:
        """Die here, or not."""
        self.passed[point] += 1
        if len(self.died_at) < self._crashes and self.dice.random() < self._rate:
            self.died_at.append(point)
            self.generation += 1
            raise Crash(point)

    def dies(self, point: str) -> bool:
        """Whether the process dies here, after the caller has left something torn."""
        try:
            self.at(point)
        except Crash:
            return True
        return False

    def full(self, what: str) -> None:
        """Let the disk be full, or not."""
        if self.dice.random() < self._full:
            raise StateError(f"cannot write {what}: No space left on device.")


class JumpingClock(SimulatedClock):
    """A clock whose wall time is set back and forth; monotonic time is not."""

    def __init__(self) -> None:
        super().__init__()
        self._off_us = 0

    def now_us(self) -> int:
        """Return processing time, as the wall clock has it now."""
        return super().now_us() + self._off_us

    def jump(self, seconds: float) -> None:
        """Set the wall clock."""
        self._off_us += round(seconds * 1_000_000)


# The log


@dataclass
class SimulatedLog:
    """A broker: topics with partitions that are read, outputs that are written, offsets, and who may commit what.

    Attributes
    ----------
    inputs
        The records of each stream by partition.
    outputs
        What readers of committed records see, in order, by output.
    groups
        The committed offsets of each stream.
    """

    inputs: Mapping[str, Sequence[Sequence[bytes]]]
    outputs: dict[str, list[bytes]] = field(default_factory=lambda: defaultdict(list))
    groups: dict[str, dict[int, int]] = field(default_factory=lambda: defaultdict(dict))
    journal: list[bytes] = field(default_factory=list)
    journal_begins: int = 0
    epoch: int = 0


class SimulatedSource:
    """Reads a stream of a `SimulatedLog`: how much comes, and from which partitions first, is up to the dice."""

    def __init__(self, stream: str, log: SimulatedLog, faults: Faults, clock: SimulatedClock) -> None:
        self.stream = stream
        self._log = log
        self._faults = faults
        self._clock = clock
        self._generation = faults.generation
        self._records = log.inputs[stream]
        self.partitions = frozenset(range(len(self._records)))
        self._positions = {p: log.groups[stream].get(p, 0) for p in self.partitions}

    def poll(self, max_records: int, timeout_s: float) -> RawBatch | None:
        """Return some records of some partitions; None now and then, though there are some."""
        self._faults.at("poll")
        dice = self._faults.dice
        self._clock.sleep(timeout_s + dice.choice([0.0, 0.001, 0.3]))
        most = min(max_records, dice.choice([0, 1, 3, 30]))
        stretch: Stretch = []
        while most > 0 and (left := [p for p in sorted(self.partitions) if self._left(p)]):
            partition = dice.choice(left)
            begin = self._positions[partition]
            end = begin + dice.randint(1, min(most, self._left(partition)))
            self._positions[partition] = end
            stretch.append((partition, begin, end))
            most -= end - begin
        return self._batch(stretch, self._clock.now_us()) if stretch else None

    def _left(self, partition: int) -> int:
        return len(self._records[partition]) - self._positions[partition]

    def _batch(self, stretch: Stretch, arrival_time_us: int) -> RawBatch:
        places = [(p, offset) for p, begin, end in stretch for offset in range(begin, end)]
        return RawBatch(
            stream=self.stream,
            values=[self._records[p][offset] for p, offset in places],
            partitions=[p for p, _ in places],
            arrival_time_us=arrival_time_us,
            offset=lambda index: places[index][1],
            stretch=lambda: list(stretch),
        )

    def replay(self, stretch: Stretch, arrival_time_us: int) -> RawBatch:
        """Return the very batch again."""
        self._faults.at("replay")
        for partition, begin, end in stretch:
            assert self._positions[partition] == begin, "a stretch was left out, or comes twice"
            self._positions[partition] = end
        return self._batch(stretch, arrival_time_us)

    def mark(self) -> dict[int, int]:
        """Return the place after the last record, by partition."""
        return dict(self._positions)

    def start_at(self, mark: Mapping[int, int]) -> None:
        """Begin at a mark."""
        self._positions.update(mark)

    def commit(self) -> None:
        """Commit everything that was given."""
        self.commit_to(self._positions)

    def commit_to(self, mark: object) -> None:
        """Commit a mark, or die before or after that."""
        assert isinstance(mark, dict)
        self._faults.at("before offsets")
        if self._generation == self._faults.generation:
            self._log.groups[self.stream] |= mark
        self._faults.at("after offsets")

    @property
    def finished(self) -> bool:
        """Whether every record was given."""
        return not any(self._left(p) for p in self.partitions)

    @property
    def lag(self) -> int:
        """Records that are still to come."""
        return sum(self._left(p) for p in self.partitions)

    def close(self) -> None:
        """Do nothing."""


class SimulatedSink:
    """Writes an output at once, as far as the process lives: what it had not flushed when it died may be lost in part."""

    def __init__(self, name: str, log: SimulatedLog, faults: Faults) -> None:
        self._name = name
        self._log = log
        self._faults = faults
        self._generation = faults.generation
        self._queued: list[bytes] = []

    def write(self, values: Sequence[bytes], keys: Sequence[bytes | None] | None = None) -> None:  # noqa: ARG002
        """Queue records; some leave at once."""
        self._queued += values
        if self._faults.dies(f"write {self._name}"):
            self._send(self._faults.dice.randint(0, len(self._queued)), self._generation)
            raise Crash(self._name)
        if self._faults.dice.random() < 0.5:
            self._send(self._faults.dice.randint(0, len(self._queued)), self._faults.generation)

    def write_records(self, records: Sequence[OutputRecord]) -> None:
        """Queue records of a side output."""
        self.write([record.value for record in records])

    def _send(self, count: int, generation: int) -> None:
        if generation == self._generation:
            self._log.outputs[self._name] += self._queued[:count]
            del self._queued[:count]

    def flush(self) -> None:
        """Let everything leave."""
        self._faults.at(f"flush {self._name}")
        self._send(len(self._queued), self._faults.generation)

    def close(self) -> None:
        """Flush, if the process still lives."""
        self._send(len(self._queued), self._faults.generation)


class _Writes(Protocol):
    def __call__(self, name: str, values: Sequence[bytes]) -> None: ...


class _TransactionalSink:
    def __init__(self, name: str, put: _Writes) -> None:
        self._name = name
        self._put = put

    def write(self, values: Sequence[bytes], keys: Sequence[bytes | None] | None = None) -> None:  # noqa: ARG002
        self._put(self._name, values)

    def write_records(self, records: Sequence[OutputRecord]) -> None:
        self._put(self._name, [record.value for record in records])

    def flush(self) -> None:
        pass

    def close(self) -> None:
        pass


class SimulatedTransactions:
    """Transactions of a `SimulatedLog`. A later one of the same log fences this one."""

    def __init__(self, log: SimulatedLog, faults: Faults) -> None:
        self._log = log
        self._faults = faults
        self._open: list[tuple[str, bytes]] = []
        self._entries: list[bytes] = []
        log.epoch += 1
        self._epoch = log.epoch
        self.journal = _LogJournal(log, faults, self._entries)

    def sink(self, name: str) -> _TransactionalSink:
        """Return a sink on an output."""
        return _TransactionalSink(name, self._put)

    def _put(self, name: str, values: Sequence[bytes]) -> None:
        self._faults.at(f"write {name}")
        self._open += [(name, value) for value in values]

    def commit(self) -> None:
        """Make everything visible at once, or die before or after that."""
        self._faults.at("before commit")
        if self._epoch != self._log.epoch:
            raise FencedError("another run has taken over")
        for name, value in self._open:
            self._log.outputs[name].append(value)
        self._log.journal += self._entries
        self._open.clear()
        self._entries.clear()
        self._faults.at("after commit")

    def close(self) -> None:
        """Abort what is open."""
        self._open.clear()


class _LogJournal:
    kind = "log"
    strict = True
    whole = True

    def __init__(self, log: SimulatedLog, faults: Faults, entries: list[bytes]) -> None:
        self._log = log
        self._faults = faults
        self._entries = entries

    def read(self, position: int) -> Iterator[bytes]:
        if position < self._log.journal_begins:
            raise StateError("the journal's records are gone")
        for record in list(self._log.journal[position:]):
            self._faults.at("read journal")
            yield record

    def append(self, record: bytes) -> None:
        self._faults.at("append to journal")
        self._entries.append(record)

    def sync(self) -> None:
        pass

    def cut(self) -> int:
        assert not self._entries, "a cut inside a transaction"
        self._faults.at("cut journal")
        # A broker lets readers see what was committed a little later than it acknowledges the commit.
        return max(self._log.journal_begins, len(self._log.journal) - self._faults.dice.choice([0, 0, 1, 2]))

    def forget(self, position: int) -> None:
        self._faults.at("forget journal")
        self._log.journal_begins = max(self._log.journal_begins, position)

    def close(self) -> None:
        pass


# The place of checkpoints


class FaultyStore(CheckpointStore):
    """A place of checkpoints in a directory, in which writing is torn, or the disk full, or the process dies in between."""

    def __init__(self, place: Path, faults: Faults, *, keep: int = 3) -> None:
        self._faults = faults
        super().__init__(place, keep=keep)

    def own(self) -> None:
        """Become the owner, and die before or after that."""
        self._faults.at("before own")
        super().own()
        self._faults.at("after own")

    def prepare(self, number: int) -> Path | None:
        """Make room."""
        self._faults.full("state")
        path = super().prepare(number)
        self._faults.at("prepared")
        return path

    def complete(self, checkpoint: Checkpoint, state: Path, keys: Path | None = None) -> Checkpoint:
        """Complete a checkpoint; its state may be torn by then, and nobody has noticed."""
        if self._faults.dies("torn state"):
            data = state.read_bytes()
            state.write_bytes(data[: self._faults.dice.randrange(len(data))])
            raise Crash("torn state")
        return super().complete(checkpoint, state, keys)

    def _write(self, path: str, data: bytes) -> None:
        self._faults.full(path)
        self._faults.at(f"before {Path(path).name}")
        if self.directory is not None and self._faults.dies(f"torn {Path(path).name}"):
            # It becomes what its name says by a rename, so only what has not got its name can be torn.
            (self.directory / path).with_suffix(".tmp").write_bytes(data[: self._faults.dice.randrange(len(data))])
            raise Crash(path)
        super()._write(path, data)
        self._faults.at(f"after {Path(path).name}")

    def abandon(self, number: int) -> None:
        """Remove a checkpoint, and die before or after that."""
        self._faults.at("before removal")
        super().abandon(number)
        self._faults.at("after removal")


class FaultyJournal(FileJournal):
    """A journal in files whose last line is torn when the process dies in it."""

    def __init__(self, directory: Path, faults: Faults) -> None:
        super().__init__(directory)
        self._faults = faults

    def append(self, record: bytes) -> None:
        """Keep a record, or a part of it."""
        if self._faults.dies("append to journal"):
            super().append(record)
            newest = max(self._directory.glob("*.log"))
            data = newest.read_bytes()
            newest.write_bytes(data[: len(data) - self._faults.dice.randint(0, len(record) + 9)])
            raise Crash("append to journal")
        super().append(record)
        self._faults.at("after journal")

    def cut(self) -> int:
        """Begin another file."""
        self._faults.at("cut journal")
        return super().cut()

    def forget(self, position: int) -> None:
        """Remove files, and die before or after that."""
        self._faults.at("before forgetting")
        super().forget(position)
        self._faults.at("after forgetting")


def described(faults: Faults) -> dict[str, Any]:
    """Return what a seed did, for a failure's message."""
    return {"died_at": faults.died_at, "points": dict(faults.passed)}
