"""The history of a run: every accepted event as it arrived, as Parquet files that any tool reads.

``DIR/<stream>/part-<first>-<last>.parquet``: the stream's typed columns, then when and where each event arrived. A commit closes a
file, so that nothing whose offset is committed is missing; small files are joined into larger ones as they come. A file is
written under a temporary name, synced, and renamed when it is whole: after ``kill -9`` what cannot be read is not there. Files
that were joined are removed after the joined one is in place, and the names tell what a reader must leave out in between.
"""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from gillnet.core.errors import ConfigurationError, SinkError, SourceError
from gillnet.core.files import make_private_directory, private, sync_directory

ARRIVAL_TIME = "__arrival_time"
PARTITION = "__partition"
OFFSET = "__offset"
BATCH = "__batch"
"""Number of the micro-batch in the run, over all streams: two batches may have arrived in the same microsecond."""

PLACE_COLUMNS = pa.schema(
    [
        pa.field(ARRIVAL_TIME, pa.timestamp("us", "UTC"), nullable=False),
        pa.field(PARTITION, pa.int32(), nullable=False),
        pa.field(OFFSET, pa.int64()),
        pa.field(BATCH, pa.int64(), nullable=False),
    ]
)
JOINED_ROWS = 1_000_000
"""A file of so many rows is not joined any more."""
JOINED_FILES = 64
"""So many small files are joined, whatever their rows."""

_RUN, _ENDED, _WATERMARK = b"gillnet.run", b"gillnet.ended", b"gillnet.watermark"
_NAME = re.compile(r"part-(\d{12})-(\d{12})\.parquet")
_GROUP_ROWS = 131_072


@dataclass(slots=True)
class _Stream:
    directory: Path
    next_number: int
    columns: pa.Schema = PLACE_COLUMNS
    waiting: list[pa.RecordBatch] = field(default_factory=list)
    ended: int | None = None
    watermark_us: int | None = None
    is_written: bool = True
    """What its files say of the end and the watermark is the last that is known."""
    small: list[tuple[Path, int]] = field(default_factory=list)


class HistoryWriter:
    """Writes the accepted events of one run.

    Parameters
    ----------
    directory
        Made if it is missing. Earlier runs' files stay, and this run's follow them.
    run
        What tells this run from others: its start, microseconds UTC. State began empty there.
    joined_rows, joined_files
        Small files are joined once they hold so many rows, or are so many.

    Raises
    ------
    SinkError
        If a file cannot be written.

    Notes
    -----
    At-least-once: events since the last commit are in the history again after a crash, as they are in the other outputs; a
    reader drops an id that comes again. Memory: the events since the last commit.
    """

    def __init__(
        self, directory: Path, *, run: int, joined_rows: int = JOINED_ROWS, joined_files: int = JOINED_FILES
    ) -> None:
        self._directory = directory
        self._run = str(run).encode()
        self._joined_rows, self._joined_files = joined_rows, joined_files
        self._streams: dict[str, _Stream] = {}

    def append(self, stream: str, events: pa.RecordBatch, places: Mapping[str, Any]) -> None:
        """Keep accepted events until the next `commit`; ``places`` has a value or an array for each of `PLACE_COLUMNS`."""
        if not events.num_rows:
            return
        for column in PLACE_COLUMNS:
            value = places[column.name]
            array = pa.array(value, column.type) if isinstance(value, list) else pa.repeat(value, events.num_rows)
            events = events.append_column(column, array.cast(column.type))
        self._of(stream).columns = events.schema
        self._of(stream).waiting.append(events)

    def cut(self, batches: int) -> None:
        """Take back the events of this run's micro-batches from number ``batches`` on.

        For a run that goes on from a checkpoint, and so reads them again.

        Raises
        ------
        SinkError
            If a file cannot be read or written.
        """
        for directory in (
            sorted(path for path in self._directory.iterdir() if path.is_dir()) if self._directory.is_dir() else ()
        ):
            for path in reversed(history_files(directory)):
                if not self._cut_file(self._of(directory.name), path, batches):
                    break

    def _cut_file(self, stream: _Stream, path: Path, batches: int) -> bool:
        """Whether the file held anything of those micro-batches, so that the one before it may."""
        import pyarrow.parquet as pq

        try:
            run, ended, _ = _run_of(path)
            if str(run).encode() != self._run:
                return False
            table = pq.read_table(path, partitioning=None)
        except (SourceError, pa.ArrowException, OSError) as error:
            raise SinkError(f"The history {path} cannot be read: {' '.join(str(error).split())}.") from error
        kept = table.filter(pc.less(table.column(BATCH), batches))
        if kept.num_rows == table.num_rows and (ended is None or ended < batches):
            return False
        first, last = (int(number) for number in _NAME.fullmatch(path.name).groups())  # type: ignore[union-attr]
        if kept.num_rows:
            self._write(stream, kept, first, last)
        else:
            path.unlink()
            sync_directory(stream.directory)
        return True

    def end(self, stream: str, number: int) -> None:
        """Note that a bounded stream had ended before micro-batch ``number``: from then on nobody waits for it."""
        self._of(stream).ended = number
        self._of(stream).is_written = False

    def passed(self, stream: str, watermark_us: int) -> None:
        """Note how far the watermark of a stream has come: what it has not passed was open when a run stopped."""
        known = self._streams.get(stream)
        if known is not None and known.watermark_us != watermark_us:
            known.watermark_us, known.is_written = watermark_us, False

    def commit(self) -> None:
        """Return when every event so far is in a file that can be read."""
        for stream in self._streams.values():
            if stream.waiting or not stream.is_written:
                table = pa.Table.from_batches(stream.waiting, stream.columns)
                path = self._write(stream, table, stream.next_number, stream.next_number)
                stream.next_number += 1
                stream.waiting, stream.is_written = [], True
                stream.small.append((path, table.num_rows))
            if len(stream.small) >= self._joined_files or sum(n for _, n in stream.small) >= self._joined_rows:
                self._join(stream)

    def close(self) -> None:
        """Commit, and join what is left."""
        self.commit()
        for stream in self._streams.values():
            self._join(stream)

    def _of(self, name: str) -> _Stream:
        if name not in self._streams:
            directory = self._directory / name
            try:
                make_private_directory(self._directory)
                make_private_directory(directory)
                for torn in directory.glob("*.tmp"):
                    torn.unlink()
            except OSError as error:
                raise SinkError(f"The history {directory} cannot be written: {error.strerror}.") from error
            numbers = [int(match[2]) for path in directory.iterdir() if (match := _NAME.fullmatch(path.name))]
            self._streams[name] = _Stream(directory, max(numbers, default=-1) + 1)
        return self._streams[name]

    def _write(self, stream: _Stream, table: pa.Table, first: int, last: int) -> Path:
        import pyarrow.parquet as pq

        path = stream.directory / f"part-{first:012}-{last:012}.parquet"
        torn = path.with_suffix(".tmp")
        told = {_ENDED: stream.ended, _WATERMARK: stream.watermark_us}
        known = {name: str(value).encode() for name, value in told.items() if value is not None}
        table = table.replace_schema_metadata({_RUN: self._run, **known})
        try:
            with open(torn, "wb", opener=private) as file:
                pq.write_table(table, file, compression="zstd", row_group_size=_GROUP_ROWS)
                file.flush()
                os.fsync(file.fileno())
            torn.rename(path)
            sync_directory(stream.directory)
        except OSError as error:
            raise SinkError(f"The history {path} cannot be written: {error.strerror}.") from error
        return path

    def _join(self, stream: _Stream) -> None:
        if len(stream.small) > 1:
            import pyarrow.parquet as pq

            paths = [path for path, _ in stream.small]
            tables = [pq.read_table(path, partitioning=None) for path in paths]
            # One that only says how far a stream is may be from before the first event, whose columns it does not know.
            table = pa.concat_tables([table for table in tables if table.num_rows] or tables[-1:])
            first, last = (int(_NAME.fullmatch(path.name)[n]) for path, n in ((paths[0], 1), (paths[-1], 2)))  # type: ignore[index]
            self._write(stream, table, first, last)
            for path in paths:
                path.unlink()
        stream.small = []


@dataclass(frozen=True, slots=True)
class Run:
    """One run of a history.

    Attributes
    ----------
    number
        Its start, which orders the runs.
    files
        By stream, in the order of arrival.
    ended
        By stream that ended, the number of the first micro-batch after its end.
    watermarks
        By stream, how far its watermark had come at the last commit, microseconds UTC; 2⁶³ - 1 at its end.
    """

    number: int
    files: Mapping[str, tuple[Path, ...]]
    ended: Mapping[str, int]
    watermarks: Mapping[str, int]


class History:
    """Reads a history.

    Parameters
    ----------
    directory
        Where a run wrote it, or several over the partitions of the same topics, each in its ``partition-*``.

    Raises
    ------
    ConfigurationError
        If there is no history.
    SourceError
        If a file cannot be read.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._files: dict[str, list[Path]] = {}
        # Runs over the partitions of the same topics write beside each other.
        for place in (directory, *sorted(directory.glob("partition-*"))):
            for path in sorted(place.iterdir()) if place.is_dir() else ():
                if path.is_dir() and not path.name.startswith("partition-"):
                    self._files.setdefault(path.name, []).extend(history_files(path))
        if not any(self._files.values()):
            raise ConfigurationError(
                f"{directory}: there is no history; a run writes one with `gillnet run --history {directory}`."
            )

    @property
    def streams(self) -> list[str]:
        """Return the streams of which there are events."""
        return [name for name, files in self._files.items() if files]

    def files(self, stream: str) -> list[Path]:
        """Return the files of a stream, in the order of arrival."""
        return self._files.get(stream, [])

    def runs(self) -> list[Run]:
        """Return the runs that wrote it, in their order."""
        runs: dict[int, dict[str, list[Path]]] = {}
        ended: dict[int, dict[str, int]] = {}
        marks: dict[int, dict[str, int]] = {}
        for stream, files in self._files.items():
            for path in files:
                number, end, mark = _run_of(path)
                runs.setdefault(number, {}).setdefault(stream, []).append(path)
                if end is not None:
                    ended.setdefault(number, {})[stream] = end
                if mark is not None:
                    marks.setdefault(number, {})[stream] = mark
        files_of = {number: {name: tuple(files) for name, files in of.items()} for number, of in runs.items()}
        return [Run(n, files_of[n], ended.get(n, {}), marks.get(n, {})) for n in sorted(runs)]


def history_files(directory: Path) -> list[Path]:
    """Return the files of one stream's directory in the order of arrival, without those that were joined into another."""
    named = ((_NAME.fullmatch(path.name), path) for path in directory.iterdir())
    spans = [(int(match[1]), int(match[2]), path) for match, path in named if match]
    kept: list[Path] = []
    covered = -1
    for _, last, path in sorted(spans, key=lambda span: (span[0], -span[1])):
        if last > covered:
            kept.append(path)
            covered = last
    return kept


def micro_batches(run: Run) -> Iterator[tuple[str, pa.RecordBatch]]:
    """Yield (stream, events) of each micro-batch of a run, in the order in which the run took them."""
    import heapq

    feeds = {stream: _grouped(files) for stream, files in run.files.items()}
    firsts = [(stream, next(feed, None)) for stream, feed in feeds.items()]
    heap = [(first[0], stream, first[1]) for stream, first in firsts if first is not None]
    heapq.heapify(heap)
    while heap:
        _, stream, events = heap[0]
        yield stream, events
        following = next(feeds[stream], None)
        if following is None:
            heapq.heappop(heap)
        else:
            heapq.heapreplace(heap, (following[0], stream, following[1]))


def _grouped(files: tuple[Path, ...]) -> Iterator[tuple[int, pa.RecordBatch]]:
    """Yield the events of one stream by their micro-batch, joined where a file or a row group ends inside one."""
    held: list[pa.RecordBatch] = []
    for batch in _batches(files):
        numbers = batch.column(BATCH).to_numpy()
        edges = [0, *((numbers[1:] != numbers[:-1]).nonzero()[0] + 1).tolist(), len(numbers)]
        for low, high in itertools.pairwise(edges):
            if held and batch_number(held[0]) != numbers[low]:
                yield _whole(held)
                held = []
            held.append(batch.slice(low, high - low))
    if held:
        yield _whole(held)


def _whole(parts: list[pa.RecordBatch]) -> tuple[int, pa.RecordBatch]:
    batch = parts[0] if len(parts) == 1 else pa.concat_batches(parts)
    return batch_number(batch), batch


def _batches(files: tuple[Path, ...]) -> Iterator[pa.RecordBatch]:
    import pyarrow.parquet as pq

    for path in files:
        try:
            with pq.ParquetFile(path) as file:
                yield from (batch for batch in file.iter_batches(batch_size=_GROUP_ROWS) if batch.num_rows)
        except (pa.ArrowException, OSError) as error:
            raise SourceError(f"{path}: the history cannot be read: {' '.join(str(error).split())}.") from error


def _run_of(path: Path) -> tuple[int, int | None, int | None]:
    """Return a file's run, the end of its stream and its watermark."""
    import pyarrow.parquet as pq

    try:
        metadata = pq.read_schema(path).metadata or {}
    except (pa.ArrowException, OSError) as error:
        raise SourceError(f"{path}: the history cannot be read: {' '.join(str(error).split())}.") from error
    if _RUN not in metadata:
        raise SourceError(f"{path}: this is no file of a history, which names its run; take it out of there.")
    end, mark = (int(metadata[name]) if name in metadata else None for name in (_ENDED, _WATERMARK))
    return int(metadata[_RUN]), end, mark


def batch_number(events: pa.RecordBatch) -> int:
    """Return the number of a micro-batch in its run."""
    number: int = events.column(BATCH)[0].as_py()
    return number


def arrival_us(events: pa.RecordBatch) -> int:
    """Return when a micro-batch arrived."""
    arrived: int = pc.min(events.column(ARRIVAL_TIME).cast(pa.int64())).as_py()
    return arrived
