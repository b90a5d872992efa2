"""Writes records as numbered CSV or Parquet files: ``out/decisions.parquet`` brings ``out/decisions-000001.parquet`` and on.

A Parquet file can be read only once it is closed, and a file of CSV has to know its columns before its first row. So rows are first
kept as lines beside the parts, which is as durable as a file sink of NDJSON is, and become a part when they are enough.
"""

from __future__ import annotations

import os
import re
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from gillnet.connectors.files.sink import FileSink, WriteMode
from gillnet.core.errors import ConfigurationError, SinkError
from gillnet.core.files import sync_directory
from gillnet.core.time import Clock, SystemClock

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gillnet.core.messages import OutputRecord

PART_BYTES: dict[str, int] = {"csv": 8 << 20, "parquet": 16 << 20}
"""Bytes of JSON that make a part; some ten times as much memory is needed while one is made."""
PART_S = 300.0
"""A part is written at the first flush after so many seconds, however small it is."""


class PartSink:
    """Write CSV or Parquet files, of some thousand rows each.

    Parameters
    ----------
    path
        ``out/name.csv`` or ``out/name.parquet``, whose parts are ``out/name-000001.csv`` and on. The directory must exist.
    mode
        ``append`` goes on behind the parts that are there; ``overwrite`` removes them.
    part_bytes
        Bytes of JSON that make a part; None for `PART_BYTES`.
    part_s
        A part with rows is written at the first flush after so many seconds.

    Raises
    ------
    SinkError
        If the place cannot be written.

    Notes
    -----
    `flush` returns when the rows are on disk, in a part or in ``name-000002.pending.ndjson``. A thread makes the parts; one
    appears whole, under its name, when there are rows enough, and when the sink closes. After a crash the next sink on the
    path first makes a part of what is pending.

    A column is a field of the records, and a part has those that its records have. Parquet has structs, lists, int64, doubles,
    booleans, UTC timestamps of microseconds and text; a part in which one field has values of several kinds has all of them as text. CSV
    has the digits of numbers as they are; objects and lists are JSON text in their cell. A record of a side output is a row of
    key, headers and value, as in a file of NDJSON.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        mode: WriteMode = "append",
        part_bytes: int | None = None,
        part_s: float = PART_S,
        clock: Clock | None = None,
    ) -> None:
        self._path = Path(path)
        suffix = self._path.suffix[1:]
        if suffix not in PART_BYTES:
            raise ConfigurationError(f"Part sink {str(path)!r}: name it .csv or .parquet.")
        if mode not in ("append", "overwrite"):
            raise ConfigurationError(f"Part sink {str(path)!r}: mode={mode!r} is unknown; use 'append' or 'overwrite'.")
        self._part_bytes = part_bytes or PART_BYTES[suffix]
        self._part_s = part_s
        self._clock = clock or SystemClock()
        self._lines: FileSink | None = None
        self._bytes = 0
        self._since_s = 0.0
        self._next = 1
        self._maker = ThreadPoolExecutor(1, "gillnet-parts")
        self._making: Future[None] | None = None
        try:
            self._find(mode)
        except OSError as error:
            raise self._failed(error) from error

    def __repr__(self) -> str:
        return f"PartSink(path={str(self._path)!r})"

    def write(self, values: Sequence[bytes], keys: Sequence[bytes | None] | None = None) -> None:  # noqa: ARG002
        """Write one row per value, a JSON object; keys are not kept."""
        if values:
            self._pending().write(values)
            self._count(sum(map(len, values)))

    def write_records(self, records: Sequence[OutputRecord]) -> None:
        """Write one row per record: key, headers and value."""
        if records:
            self._pending().write_records(records)
            self._count(sum(len(record.value) for record in records))

    def flush(self) -> None:
        """Return when everything is on disk, in a part or beside it."""
        if self._making is not None and self._making.done():
            self._settle()
        if self._lines is None:
            return
        self._lines.flush()
        if self._clock.monotonic_s() - self._since_s >= self._part_s:
            self._make_part()

    def close(self) -> None:
        """Make a part of the last rows."""
        try:
            self._make_part()
            self._settle()
        finally:
            self._maker.shutdown()

    def _pending(self) -> FileSink:
        if self._lines is None:
            path = self._pending_path(self._next)
            self._lines = FileSink(path)
            self._since_s, self._bytes = self._clock.monotonic_s(), 0
            sync_directory(path.parent)
        return self._lines

    def _count(self, written: int) -> None:
        self._bytes += written
        if self._bytes >= self._part_bytes:
            self._make_part()

    def _make_part(self) -> None:
        """Begin a part of the lines, which are durable, so that the run need not wait for it; one at a time."""
        lines, self._lines = self._lines, None
        if lines is not None:
            lines.close()
            self._settle()
            self._making = self._maker.submit(self._convert, self._next)
            self._next += 1

    def _settle(self) -> None:
        making, self._making = self._making, None
        try:
            if making is not None:
                making.result()
        except OSError as error:
            raise self._failed(error) from error

    def _convert(self, number: int) -> None:
        from gillnet.connectors.files.columns import write_part

        pending, part = self._pending_path(number), self._part_path(number)
        torn = part.with_name(part.name + ".tmp")
        with torn.open("wb") as file:
            write_part(pending.read_bytes(), file, "csv" if part.suffix == ".csv" else "parquet")
            file.flush()
            os.fsync(file.fileno())
        torn.rename(part)
        sync_directory(part.parent)
        pending.unlink()

    def _find(self, mode: WriteMode) -> None:
        """Look at what an earlier sink left, and make a part of what it had not made one of."""
        name = re.escape(self._path.stem)
        pattern = re.compile(rf"{name}-(\d{{6,}})({re.escape(self._path.suffix)}(?:\.tmp)?|\.pending\.ndjson)")
        found = [match for entry in self._path.parent.iterdir() if (match := pattern.fullmatch(entry.name))]
        for match in found:
            if mode == "overwrite" or match[2].endswith(".tmp"):
                (self._path.parent / match[0]).unlink()
        if mode == "overwrite":
            return
        self._next = max((int(match[1]) for match in found), default=0) + 1
        for number in sorted(int(match[1]) for match in found if match[2] == ".pending.ndjson"):
            if self._part_path(number).exists():
                self._pending_path(number).unlink()  # The crash came between the two.
            else:
                self._convert(number)

    def _part_path(self, number: int) -> Path:
        return self._path.with_name(f"{self._path.stem}-{number:06}{self._path.suffix}")

    def _pending_path(self, number: int) -> Path:
        return self._path.with_name(f"{self._path.stem}-{number:06}.pending.ndjson")

    def _failed(self, error: OSError) -> SinkError:
        return SinkError(
            f"{self._path}: its parts cannot be written: {error.strerror}. Check the directory and the permissions."
        )
