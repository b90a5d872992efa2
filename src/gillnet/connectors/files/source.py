"""Reads a file as a stream of JSON records."""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from gillnet.connectors.files.lines import LineReader
from gillnet.core.errors import ConfigurationError, SourceError
from gillnet.core.messages import RawBatch, Stretch
from gillnet.core.time import Clock, SystemClock

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from gillnet.connectors.files.tables import Rows
    from gillnet.core.schema import Schema

FileFormat = Literal["ndjson", "csv", "parquet"]

_SKIPPED_AT_ONCE = 4_096

_SUFFIXES: dict[str, FileFormat] = {
    ".ndjson": "ndjson",
    ".jsonl": "ndjson",
    ".json": "ndjson",
    ".csv": "csv",
    ".parquet": "parquet",
    ".pq": "parquet",
}


def format_of(path: str, *, what: str) -> FileFormat:
    """Tell a file's format from its suffix; ``-`` is NDJSON.

    Raises
    ------
    ConfigurationError
        If the suffix tells nothing.
    """
    if path == "-":
        return "ndjson"
    suffix = Path(path.removesuffix(".gz")).suffix.lower()
    if suffix not in _SUFFIXES:
        raise ConfigurationError(
            f"{what} {path!r}: its suffix tells no format; use .ndjson, .csv or .parquet "
            "(.ndjson.gz and .csv.gz are unpacked), or give format=ndjson, csv or parquet."
        )
    return _SUFFIXES[suffix]


class FileSource:
    """Read a file once, from its beginning to its end.

    Parameters
    ----------
    stream
        The stream's name in the pipeline.
    path
        A file or a named pipe; ``-`` is standard input, which may be live.
    format
        None tells it from the suffix.
    schema
        The stream's schema. For CSV and Parquet: which columns are text and which are numbers, and the unit of
        timestamps. Without it a CSV cell that reads as a JSON number is one (an id such as ``12345`` too), and a
        Parquet timestamp becomes RFC 3339 text.
    max_record_bytes
        A longer line is cut there and so becomes malformed, with a warning.

    Raises
    ------
    SourceError
        If the file cannot be opened or is not of its format.

    Notes
    -----
    NDJSON gives the bytes of each line as they are; memory is 32 blocks of 1 MB and the longest line at the most. CSV and Parquet
    are read in row batches and written as JSON by Arrow's vectorised functions: see `gillnet.connectors.files.tables`
    for the cost. A malformed row of CSV keeps its text. A file has no committed position: a run that starts again
    reads it from the beginning.
    """

    def __init__(
        self,
        stream: str,
        path: str | Path,
        *,
        format: FileFormat | None = None,  # noqa: A002
        schema: Schema | None = None,
        max_record_bytes: int = 64 * 1024 * 1024,
        clock: Clock | None = None,
    ) -> None:
        self.stream = stream
        self._path = str(path)
        self._clock = clock or SystemClock()
        self._closed = False
        kind = format or format_of(self._path, what="File source")
        self._lines: LineReader | None = None
        self._batches: Iterator[Rows] = iter(())
        self._waiting: deque[bytes] = deque()
        self._origins: deque[tuple[int, Rows]] = deque()  # The rows that wait, and the place of the first of each.
        self._read = 0
        self._ended = False
        self._given = 0
        if kind == "ndjson":
            self._lines = LineReader(self._path, max_line_bytes=max_record_bytes)
        elif self._path == "-":
            raise ConfigurationError(f"File source '-': standard input is read as NDJSON only, not as {kind}.")
        else:
            from gillnet.connectors.files.tables import read_csv, read_parquet

            self._batches = (read_csv if kind == "csv" else read_parquet)(self._path, schema)
            self._fill(1)  # So that a missing or broken file stops the start.

    def __repr__(self) -> str:
        return f"FileSource(stream={self.stream!r}, path={self._path!r})"

    def poll(self, max_records: int, timeout_s: float) -> RawBatch | None:
        """Return the next records, up to ``max_records``; None at the end, or when a live input gave none in time."""
        if self._lines is not None:
            values = self._lines.take(max_records, timeout_s)
        else:
            self._fill(max_records)
            values = [self._waiting.popleft() for _ in range(min(max_records, len(self._waiting)))]
        if not values:
            return None
        self._given += len(values)
        return self._batch(values, self._clock.now_us())

    def _batch(self, values: list[bytes], arrival_time_us: int) -> RawBatch:
        end = self._given
        begin = end - len(values)
        origins = self._origins_of(begin, end)

        def original(index: int) -> bytes | None:
            if not origins:  # Lines of NDJSON are their own.
                return None
            first, rows = origins[bisect_right(origins, begin + index, key=itemgetter(0)) - 1]
            return rows.original(begin + index - first)

        return RawBatch(
            stream=self.stream,
            values=values,
            partitions=[0] * len(values),
            arrival_time_us=arrival_time_us,
            stretch=lambda: [(0, begin, end)],
            original=original,
        )

    def _origins_of(self, begin: int, end: int) -> list[tuple[int, Rows]]:
        """Return where the rows of a batch come from, and let go of what lies before it."""
        while len(self._origins) > 1 and self._origins[1][0] <= begin:
            self._origins.popleft()
        return [origin for origin in self._origins if origin[0] < end]

    def _fill(self, records: int) -> None:
        import pyarrow as pa

        while len(self._waiting) < records and not self._ended:
            try:
                batch = next(self._batches, None)
            except (pa.ArrowException, OSError) as error:
                text = " ".join(str(error).split())
                raise SourceError(
                    f"{self._path}: the file cannot be read: {text}. Check the path and the format."
                ) from error
            self._ended = batch is None
            if batch is not None:
                self._waiting.extend(batch.values)
                self._origins.append((self._read, batch))
                self._read += len(batch.values)

    def commit(self) -> None:
        """Do nothing: a file has no committed position."""

    def mark(self) -> dict[int, int]:
        """Return how many records were given, as the place in partition 0."""
        return {0: self._given}

    def start_at(self, mark: Mapping[int, int]) -> None:
        """Read so many records and leave them out: a file is read from its beginning, as fast as it can be.

        Raises
        ------
        SourceError
            If the input cannot be read again, or has fewer records than were given before.
        """
        wanted = mark.get(0, 0)
        if wanted and self._lines is not None and self._lines.waits:
            raise SourceError(
                f"{self._path}: {wanted:,} records of it are in the checkpoint, and it cannot be read again from its beginning. "
                "Read from a file or a topic, or name an empty place of checkpoints."
            )
        while self._given < wanted:
            if self.poll(min(wanted - self._given, _SKIPPED_AT_ONCE), 0.0) is None:
                raise SourceError(
                    f"{self._path}: it has {self._given:,} records, and {wanted:,} of them are in the checkpoint: it is another "
                    "file. Give the one that was read, or name an empty place of checkpoints."
                )

    def replay(self, stretch: Stretch, arrival_time_us: int) -> RawBatch:
        """Read so many records again.

        Raises
        ------
        SourceError
            If they are not there: it is another file.
        """
        ((_, begin, end),) = stretch
        values: list[bytes] = []
        while len(values) < end - begin and (batch := self.poll(end - begin - len(values), 0.0)) is not None:
            values += batch.values
        if self._given != end:
            raise SourceError(
                f"{self._path}: {end:,} records of it were read before, and it has {self._given:,}: it is another file. Give the one "
                "that was read, or name an empty place of checkpoints."
            )
        return self._batch(values, arrival_time_us)

    @property
    def finished(self) -> bool:
        """Whether the last record has been given."""
        return self._lines.finished if self._lines is not None else self._ended and not self._waiting

    @property
    def lag(self) -> int | None:
        """Unknown: counting the records would mean reading them."""
        return None

    def close(self) -> None:
        """Close the file."""
        if not self._closed and self._lines is not None:
            self._lines.close()
        self._closed = True
