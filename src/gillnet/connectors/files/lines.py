"""Cuts a byte stream into lines, in blocks and within a fixed memory."""

from __future__ import annotations

import gzip
import io
import os
import select
import sys
from collections import deque
from pathlib import Path
from typing import BinaryIO

import structlog

from gillnet.core.errors import SourceError

BLOCK_BYTES = 1 << 20
TAKE_BLOCKS = 32
"""Blocks that are read for one batch at the most, so that thousands of long lines do not fill the memory."""

_log = structlog.get_logger("gillnet.files")


class LineReader:
    """Read lines without their line ends; blank ones are left out.

    Parameters
    ----------
    path
        A file, a named pipe, or ``-`` for standard input. ``.gz`` is unpacked.
    max_line_bytes
        A longer line is cut there: its beginning is given as a record (which no decoder will accept, so that it is
        counted and kept as malformed) and its rest is skipped, with a warning that says how long it was.
    """

    def __init__(self, path: str, *, max_line_bytes: int) -> None:
        self._path = path
        self._max_line_bytes = max_line_bytes
        self._file = open_for_reading(path)
        # Only a pipe or a terminal can keep one waiting; gzip reads ahead, so its descriptor tells nothing.
        self.waits = not isinstance(self._file, gzip.GzipFile) and not self._file.seekable()
        self._lines: deque[bytes] = deque()
        self._rest: list[bytes] = []  # The blocks of a line whose end has not come yet.
        self._rest_bytes = 0
        self._skipped_bytes = 0
        self._ended = False

    @property
    def finished(self) -> bool:
        """Whether the end has come and every line was taken."""
        return self._ended and not self._lines

    def take(self, max_lines: int, timeout_s: float) -> list[bytes]:
        """Return the next lines, up to ``max_lines``; fewer where they are long, or when the input makes one wait."""
        blocks = 0
        while len(self._lines) < max_lines and not self._ended:
            if self.waits and not self._ready(0.0 if self._lines else timeout_s):
                break
            if self._lines and blocks >= TAKE_BLOCKS:
                break
            self._read_block()
            blocks += 1
        if len(self._lines) <= max_lines:
            taken = list(self._lines)
            self._lines.clear()
            return taken
        return [self._lines.popleft() for _ in range(max_lines)]

    def close(self) -> None:
        """Close the file; standard input stays open."""
        if self._path != "-":
            self._file.close()

    def _ready(self, timeout_s: float) -> bool:
        return bool(select.select([self._file], [], [], timeout_s)[0])

    def _read_block(self) -> None:
        try:
            # A pipe's buffered reader would wait for a whole block: ask the descriptor for what there is.
            block = os.read(self._file.fileno(), BLOCK_BYTES) if self.waits else self._file.read(BLOCK_BYTES)
        except (OSError, EOFError) as error:
            raise SourceError(f"{self._path}: reading failed: {error}.") from error
        if not block:
            self._ended = True
            self._end_line(b"")
            return
        first, *others = block.split(b"\n")
        if not others:
            self._keep(first)
            return
        self._end_line(first)
        rest = others.pop()
        self._lines.extend(filter(bytes.strip, others))
        self._keep(rest)

    def _keep(self, part: bytes) -> None:
        room = self._max_line_bytes - self._rest_bytes
        if len(part) > room:
            self._skipped_bytes += len(part) - room
            part = part[:room]
        if part:
            self._rest.append(part)
            self._rest_bytes += len(part)

    def _end_line(self, part: bytes) -> None:
        self._keep(part)
        line = b"".join(self._rest)
        if self._skipped_bytes:
            _log.warning("line cut", path=self._path, kept_bytes=len(line), skipped_bytes=self._skipped_bytes)
        self._rest, self._rest_bytes, self._skipped_bytes = [], 0, 0
        if line.strip():
            self._lines.append(line)


def open_for_reading(path: str) -> BinaryIO:
    """Open a file, or standard input for ``-``; unpack ``.gz``.

    Raises
    ------
    SourceError
        If it cannot be opened.
    """
    try:
        if path == "-":
            return sys.stdin.buffer
        if path.endswith(".gz"):
            return io.BufferedReader(gzip.open(path, "rb"))
        return Path(path).open("rb")
    except OSError as error:
        raise SourceError(
            f"{path}: the file cannot be opened: {error.strerror}. Check the path and the permissions."
        ) from error
