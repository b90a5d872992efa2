"""Events of a stream in the order of I1, out of core: sorted runs on disk, then cut across all runs at event times.

1. gather: batches in the order of arrival, until they fill the memory that they may take
2. run: sorted by (time, id, arrival) and written as one Arrow file of small chunks, whose first times are remembered
3. part: of every run the chunks of a span of event time, without repeated ids, sorted once more

Where events arrive roughly in order, runs hardly overlap, and a part comes from one or two of them. Any skew is fine, but for
events of one and the same microsecond: they are in one part.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gillnet._kernel import Batch, sort_events
from gillnet.runtimes.batch.repeats import RepeatedIds

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Any

    from numpy.typing import NDArray

    from gillnet.plan.nodes import StreamNode

SEQUENCE = "__sequence"
CHUNK_ROWS = 16_384


@dataclass(slots=True)
class Run:
    """A sorted run: pieces in memory, or a file of them; with the first event time of each, and of every chunk of them."""

    firsts: list[int]
    chunks: list[tuple[int, int]]
    pieces: list[pa.RecordBatch] | None = None
    path: Path | None = None
    _reader: Any = None
    _read: tuple[int, pa.RecordBatch | None] = (-1, None)

    def piece(self, number: int) -> pa.RecordBatch:
        """Return a piece; the one read last from a file stays in memory, since a part often ends inside it."""
        if self.pieces is not None:
            return self.pieces[number]
        if self._read[0] != number:
            if self._reader is None:
                self._reader = pa.ipc.open_file(pa.OSFile(str(self.path)))
            self._read = (number, self._reader.get_batch(number))
        return self._read[1]


class EventSorter:
    """Takes the events of one stream in the order of arrival, and gives them back sorted, span by span.

    Parameters
    ----------
    stream
        The stream.
    directory
        Where runs go that do not fit.
    memory_bytes
        Events held before they become a run.
    threads
        Used to find repeated ids.
    from_us, to_us
        Bounds of the event times that are kept; None for none.

    Attributes
    ----------
    repeated
        Events that were dropped because their id had come before, known after `finish`.
    """

    def __init__(
        self,
        stream: StreamNode,
        directory: Path,
        *,
        memory_bytes: int,
        threads: int = 1,
        from_us: int | None = None,
        to_us: int | None = None,
    ) -> None:
        self.stream = stream
        self._directory = directory
        self._memory_bytes = memory_bytes
        self._bounds = (from_us, to_us)
        self._ids = RepeatedIds(directory, stream.name, threads=threads)
        self._gathered: list[pa.RecordBatch] = []
        self._gathered_bytes = 0
        self._events = 0
        self._runs: list[Run] = []
        self._repeats: NDArray[np.int64] = np.empty(0, np.int64)

    @property
    def repeated(self) -> int:
        """Return how many events repeat an id."""
        return len(self._repeats)

    def add(self, batch: pa.RecordBatch) -> None:
        """Take events with the stream's columns, and perhaps more."""
        if not batch.num_rows:
            return
        self._ids.add(Batch.from_pyarrow(batch.select([self.stream.id])), self.stream.id, self._events)
        sequence = pa.array(np.arange(self._events, self._events + batch.num_rows))
        self._events += batch.num_rows
        # After its id was taken: the first event of an id may lie outside, and others in the bounds repeat it all the same.
        kept = within(batch.append_column(SEQUENCE, sequence), self.stream, *self._bounds)
        self._gathered.append(kept)
        self._gathered_bytes += kept.nbytes
        if self._gathered_bytes > self._memory_bytes:
            self._close_run(in_memory=False)

    def finish(self) -> None:
        """Say that everything has arrived."""
        self._close_run(in_memory=True)
        self._repeats = self._ids.repeated()

    def chunk_sizes(self) -> list[tuple[int, int]]:
        """Return (first event time, rows) of each chunk of each run."""
        return [pair for run in self._runs for pair in run.chunks]

    def span(self, from_us: int, until_us: int | None) -> Batch | None:
        """Return the events with event time in [from, until), sorted; None if there are none."""
        parts = [part for run in self._runs if (part := self._of_run(run, from_us, until_us)).num_rows]
        if not parts:
            return None
        whole = parts[0] if len(parts) == 1 else pa.concat_batches(parts)
        if len(self._repeats):
            numbers = whole.column(SEQUENCE).to_numpy()
            places = np.searchsorted(self._repeats, numbers).clip(max=len(self._repeats) - 1)
            whole = whole.filter(pa.array(self._repeats[places] != numbers))
        if len(parts) > 1:
            whole = sort_events(Batch.from_pyarrow(whole), self.stream.event_time, self.stream.id).to_pyarrow()
        return Batch.from_pyarrow(whole.drop_columns([SEQUENCE])) if whole.num_rows else None

    def _of_run(self, run: Run, from_us: int, until_us: int | None) -> pa.RecordBatch:
        """Return the events of a span, sorted as the run is."""
        begin = max(int(np.searchsorted(run.firsts, from_us)) - 1, 0)
        end = len(run.firsts) if until_us is None else int(np.searchsorted(run.firsts, until_us))
        # At least one piece, so that there is a schema.
        parts = [self._cut(run.piece(number), from_us, until_us) for number in range(begin, max(end, begin + 1))]
        return parts[0] if len(parts) == 1 else pa.concat_batches(parts)

    def _cut(self, chunk: pa.RecordBatch, from_us: int, until_us: int | None) -> pa.RecordBatch:
        times = event_times(chunk, self.stream)
        low = int(np.searchsorted(times, from_us))
        high = len(times) if until_us is None else int(np.searchsorted(times, until_us))
        return chunk.slice(low, high - low)

    def _close_run(self, *, in_memory: bool) -> None:
        gathered = [batch for batch in self._gathered if batch.num_rows]
        self._gathered, self._gathered_bytes = [], 0
        if not gathered:
            return
        pieces = self._sorted(gathered)
        del gathered
        chunks = [piece.slice(low, CHUNK_ROWS) for piece in pieces for low in range(0, piece.num_rows, CHUNK_ROWS)]
        sizes = [(self._first_time(chunk), chunk.num_rows) for chunk in chunks]
        if in_memory:
            self._runs.append(Run([self._first_time(piece) for piece in pieces], sizes, pieces))
            return
        path = self._directory / f"{self.stream.name}.run-{len(self._runs):04}"
        with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, chunks[0].schema) as writer:
            for chunk in chunks:
                writer.write_batch(chunk)
        self._runs.append(Run([first for first, _ in sizes], sizes, path=path))

    def _sorted(self, batches: list[pa.RecordBatch]) -> list[pa.RecordBatch]:
        """Return the events of batches in order: each batch by itself where none reaches into the next, or all as one."""
        spans = [pc.min_max(batch.column(self.stream.event_time).cast(pa.int64())).values() for batch in batches]
        apart = all(last.as_py() < first.as_py() for (_, last), (first, _) in itertools.pairwise(spans))
        pieces = batches if apart else [pa.concat_batches(batches)]
        name, key = self.stream.event_time, self.stream.id
        return [sort_events(Batch.from_pyarrow(piece), name, key).to_pyarrow() for piece in pieces]

    def _first_time(self, events: pa.RecordBatch) -> int:
        return int(event_times(events.slice(0, 1), self.stream)[0])


def event_times(batch: pa.RecordBatch, stream: StreamNode) -> NDArray[np.int64]:
    """Return the event times in microseconds."""
    times: NDArray[np.int64] = batch.column(stream.event_time).cast(pa.int64()).to_numpy(zero_copy_only=False)
    return times


def cut_points(chunks: list[tuple[int, int]], rows: int) -> list[int]:
    """Return event times that cut all chunks into parts of about so many rows."""
    points: list[int] = []
    held = 0
    for first, size in sorted(chunks):
        if held >= rows and (not points or first > points[-1]):
            points.append(first)
            held = 0
        held += size
    return points


def within(batch: pa.RecordBatch, stream: StreamNode, from_us: int | None, to_us: int | None) -> pa.RecordBatch:
    """Return the events with event time in [from, to)."""
    times = batch.column(stream.event_time)
    if from_us is not None:
        batch = batch.filter(pc.greater_equal(times, instant(from_us)))
        times = batch.column(stream.event_time)
    if to_us is not None:
        batch = batch.filter(pc.less(times, instant(to_us)))
    return batch


def instant(microseconds: int) -> pa.Scalar:
    """Return an instant to compare event times with."""
    return pa.scalar(microseconds, pa.int64()).cast(pa.timestamp("us", "UTC"))
