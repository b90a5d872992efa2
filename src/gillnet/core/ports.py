"""The ports that adapters implement. A runtime talks to these and never to a broker or a file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from gillnet.core.messages import OutputRecord, RawBatch, Stretch


@runtime_checkable
class Source(Protocol):
    """Reads one stream. At-least-once: offsets are committed only after `commit`."""

    stream: str

    def poll(self, max_records: int, timeout_s: float) -> RawBatch | None:
        """Return up to ``max_records`` records, or None when none came within ``timeout_s`` seconds."""
        ...

    def commit(self) -> None:
        """Record that everything returned by `poll` so far was processed and its outputs are flushed."""
        ...

    @property
    def finished(self) -> bool:
        """Whether the source is bounded and has given its last record; always False for a live one."""
        ...

    @property
    def lag(self) -> int | None:
        """Records that wait at the source, if it can tell."""
        ...

    def close(self) -> None:
        """Release what the source holds, without committing."""
        ...


@runtime_checkable
class PartitionedSource(Protocol):
    """What a source may offer besides: the partitions that it was given, whether or not a record came from them.

    Watermarks are merged over partitions by minimum. A partition that nobody knows of cannot hold the watermark back, and
    its records would be too late when they come.
    """

    @property
    def partitions(self) -> frozenset[int]:
        """The partitions that are assigned now."""
        ...


@runtime_checkable
class MarkingSource(Protocol):
    """What a source may offer besides: to commit where it was a while ago, for rows that wait before they leave."""

    def mark(self) -> object:
        """Return where the source is: after the last record that `poll` returned."""
        ...

    def commit_to(self, mark: object) -> None:
        """Record that everything before ``mark`` was processed and its outputs are flushed."""
        ...


@runtime_checkable
class ReplayableSource(Protocol):
    """What a source offers besides whose records can be read again: a run can go on from a checkpoint of its own."""

    def mark(self) -> Mapping[int, int]:
        """Return the place after the last record that `poll` returned, by partition."""
        ...

    def start_at(self, mark: Mapping[int, int]) -> None:
        """Begin at a mark of an earlier source on the same stream, whatever was committed; before the first `poll`.

        A partition that the mark does not name begins where the source would begin without one. What is read from now on is in
        the run's state: a source that is given fewer partitions later than it has read refuses to go on (`SourceError`).
        """
        ...

    def replay(self, stretch: Stretch, arrival_time_us: int) -> RawBatch:
        """Return the very batch that had this ``stretch``, as of its arrival; before the first `poll`.

        Stretches are replayed in the order in which they were read, from the mark that `start_at` was given; the source is
        then where it was after the last of them.

        Raises
        ------
        SourceError
            If the records are no longer there.
        """
        ...


class Journal(Protocol):
    """Keeps, in order, what decided the outcomes of a run, so that a run that goes on can decide the same again."""

    kind: str
    """Where it is kept; a checkpoint's position in another kind means nothing here."""
    strict: bool
    """Whether a run must not go on where records are missing."""
    whole: bool
    """After `read`: whether everything that was appended before is there."""

    def read(self, position: int) -> Iterator[bytes]:
        """Yield the records that were appended behind ``position`` and are there for good.

        Raises
        ------
        StateError
            If they cannot be read.
        """
        ...

    def append(self, record: bytes) -> None:
        """Keep a record: before any output that follows from it leaves, or together with it.

        Raises
        ------
        StateError
            If it cannot be kept.
        """
        ...

    def sync(self) -> None:
        """Return when what was appended is durable."""
        ...

    def cut(self) -> int:
        """Return a position for a checkpoint: behind everything that was appended, or some records before that, never beyond."""
        ...

    def forget(self, position: int) -> None:
        """Let go of what lies before a position: no checkpoint needs it any more."""
        ...

    def close(self) -> None:
        """Release what it holds."""
        ...


@runtime_checkable
class MeasuredSource(Protocol):
    """What a source may offer besides: figures of its own, by their names in the catalogue without ``source_``."""

    def figures(self) -> Mapping[str, int]:
        """Return them; cheap, for they are sampled some times a second."""
        ...


@runtime_checkable
class MeasuredSink(Protocol):
    """What a sink may offer besides: figures of its own, by their names in the catalogue without ``sink_``."""

    def figures(self) -> Mapping[str, int]:
        """Return them; cheap, and from any thread."""
        ...


@runtime_checkable
class Sink(Protocol):
    """Takes encoded records of one output."""

    def write(self, values: Sequence[bytes], keys: Sequence[bytes | None] | None = None) -> None:
        """Take records in order. Blocks while the sink's bounded buffer is full: that is the back-pressure."""
        ...

    def write_records(self, records: Sequence[OutputRecord]) -> None:
        """Take records that carry headers; for side outputs, not for the hot path."""
        ...

    def flush(self) -> None:
        """Return when everything written so far is durable at the sink; raises `SinkError` if it cannot be."""
        ...

    def close(self) -> None:
        """Flush and release."""
        ...


@runtime_checkable
class LingeringSink(Protocol):
    """What a sink may offer besides, if it waits a little for more records before it sends some."""

    def hurry(self) -> None:
        """Send what was written now. It takes no longer than a moment, and says nothing of what is durable."""
        ...


class Transactions(Protocol):
    """Outputs and the journal of what led to them, places in the sources included, that become visible together or not at all."""

    @property
    def journal(self) -> Journal:
        """What is written with the outputs."""
        ...

    def sink(self, name: str) -> Sink:
        """Return a sink on one of their places, by its name there."""
        ...

    def commit(self) -> None:
        """Return when everything written since the last commit is visible.

        Raises
        ------
        FencedError
            If another run has taken over.
        SinkError
            If it cannot be committed; nothing of it is visible then.
        """
        ...

    def close(self) -> None:
        """Give up what is not committed, and release."""
        ...


@runtime_checkable
class StateBackend(Protocol):
    """Keeps the state of keys that are cold, for an engine that holds in memory what it has room for.

    Names, states and expiries are byte strings that only the kernel reads: a name is a key's, an expiry the same key's behind
    the entity and the time from which nothing can read it, so that expiries sort by time. Every call takes a batch of keys.
    """

    budget: int
    """Bytes of memory that the engine's own state may take."""

    @property
    def holds(self) -> bool:
        """Whether keys may be here already: those of a checkpoint that was restored."""
        ...

    def fetch(self, names: list[bytes]) -> list[bytes | None]:
        """Return the state of each name as `keep` got it last, None for a name that is not here."""
        ...

    def keep(self, names: list[bytes], states: list[bytes], expiries: list[bytes]) -> None:
        """Keep states, in place of older ones of the same names."""
        ...

    def expiries(self, begin: bytes, end: bytes, most: int) -> list[bytes]:
        """Return expiries from ``begin`` up to, not including, ``end``, in their order; ``most`` at the most."""
        ...

    def names_from(self, begin: bytes, most: int) -> tuple[list[bytes], list[bytes]]:
        """Return the first names from ``begin`` on, in their order, and the state of each; ``most`` at the most."""
        ...

    def forget(self, names: list[bytes], expiries: list[bytes]) -> None:
        """Forget names and expiries."""
        ...

    def restore(self, bring: Callable[[Path], None]) -> None:
        """Let ``bring`` fill an empty directory with the files of an earlier `cut`, and go on from these."""
        ...

    def cut(self) -> Path:
        """Return a directory with files that hold what is here now, and never change; whoever asked removes it."""
        ...

    def disk_bytes(self) -> int:
        """Return the bytes of its files."""
        ...

    def close(self) -> None:
        """Release what is held, files included: a checkpoint is what lasts."""
        ...
