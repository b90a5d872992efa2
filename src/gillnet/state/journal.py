"""A journal in files: what decided the outcomes of a run, beside its checkpoints.

```text
PLACE/journal/000000012.log      begun at a start or at a checkpoint's cut; goes when no checkpoint needs it
```
A line is a checksum and a record. It is handed to the operating system before anything that follows from it leaves the process,
so that a killed process loses none of it, and synced at each commit: where the machine itself went down, the last lines may be
missing, so each file begins with the name of the boot that it was written in. A line that is torn ends its file. It knows nothing
of what the records say.
"""

from __future__ import annotations

import errno
import os
import re
import zlib
from collections.abc import Iterator
from pathlib import Path

import structlog

from gillnet.core.errors import StateError
from gillnet.core.files import boot_name, sync_directory

_NAME = re.compile(r"(\d{9})\.log")
_HEADER = b"#"
_log = structlog.get_logger("gillnet.state")


class FileJournal:
    """A journal in a directory of its own.

    Parameters
    ----------
    directory
        Where its files are; made when the first record comes, private to its user.

    Attributes
    ----------
    strict
        False: where records are missing the run reads its sources again from there, and at-least-once still holds.
    whole
        After `read`: whether everything that was appended before is there.

    Notes
    -----
    A file that cannot be written (a full disk) is told once, and the run goes on without a journal until the next checkpoint's
    cut begins a new file. Positions are numbers of files.
    """

    kind = "file"
    strict = False

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._handle: int | None = None
        self._failed = False
        self.whole = True
        self._boot = (boot_name() or "").encode()
        self._number = max(self._numbers(), default=0) + 1

    def __repr__(self) -> str:
        return f"FileJournal(directory={str(self._directory)!r})"

    def read(self, position: int) -> Iterator[bytes]:
        """Yield the records of the files from number ``position`` on, each as far as it is whole."""
        self.whole = True
        for number in self._numbers():
            if number >= position:
                try:
                    data = self._path(number).read_bytes()
                except OSError as error:
                    raise StateError(f"{self._path(number)} cannot be read: {error.strerror}.") from error
                yield from self._records(data, number)

    def _records(self, data: bytes, number: int) -> Iterator[bytes]:
        *lines, rest = data.split(b"\n")
        same_boot = False
        for line in lines:
            if not _is_whole(line):
                rest = line
                break
            if line[9:10] == _HEADER:
                same_boot = line[10:] == self._boot != b""
            else:
                yield line[9:]
        self.whole = self.whole and same_boot and not rest
        if rest:
            _log.warning("journal torn, what lies behind is read again", file=str(self._path(number)))

    def append(self, record: bytes) -> None:
        """Keep a record."""
        try:
            if not self._failed:
                _write_line(self._opened(), record)
        except OSError as error:
            self._fail(error)

    def _fail(self, error: OSError) -> None:
        self._failed = True
        _log.error(
            "journal not written, the run goes on without it until the next checkpoint",
            place=str(self._directory),
            reason=error.strerror,
        )

    def _opened(self) -> int:
        if self._handle is None:
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._handle = os.open(self._path(self._number), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            _write_line(self._handle, _HEADER + self._boot)
            sync_directory(self._directory)
        return self._handle

    def sync(self) -> None:
        """Return when every record is on the disk."""
        if self._handle is not None and not self._failed:
            os.fdatasync(self._handle)

    def cut(self) -> int:
        """Begin another file, and return its number."""
        self._release()
        self._number += 1
        self._failed = False
        try:
            self._opened()  # So that its number is taken, whatever comes.
        except OSError as error:
            self._fail(error)
        return self._number

    def forget(self, position: int) -> None:
        """Remove the files before number ``position``."""
        for number in self._numbers():
            if number < min(position, self._number):
                self._path(number).unlink(missing_ok=True)

    def close(self) -> None:
        """Close the file."""
        self._release()

    def _release(self) -> None:
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None

    def _numbers(self) -> list[int]:
        if not self._directory.is_dir():
            return []
        found = (_NAME.fullmatch(path.name) for path in self._directory.iterdir())
        return sorted(int(match[1]) for match in found if match)

    def _path(self, number: int) -> Path:
        return self._directory / f"{number:09}.log"


def _write_line(handle: int, record: bytes) -> None:
    line = b"%08x %s\n" % (zlib.crc32(record), record)
    if os.write(handle, line) != len(line):
        raise OSError(errno.ENOSPC, "the line was written in part")


def _is_whole(line: bytes) -> bool:
    return len(line) > 9 and line[8:9] == b" " and line[:8] == b"%08x" % zlib.crc32(line[9:])
