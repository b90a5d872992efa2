"""Files that checkpoints share: each is written once, under the checksum of what it holds, and goes with the last that names it.

```text
PLACE/shared/<sha256>       one file of the keys that a state backend keeps
```
A backend's files never change once they are written, so the next checkpoint names most of those of the one before, and writes the
rest: what a checkpoint costs is what has changed. A file that is there under its name may still be torn; whoever reads looks.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pyarrow import fs

from gillnet.core.errors import StateError
from gillnet.core.files import sync_directory

SHARED = "shared"
KEYS = "keys/"
"""Before the names of files that are shared."""

_BLOCK = 1 << 22
_FIXED = ".sst"


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A file of a checkpoint, and what it must hold."""

    name: str
    bytes: int
    sha256: str


class SharedFiles:
    """The shared files of one place.

    Parameters
    ----------
    files, root
        The filesystem, and the place in it.
    directory
        The place on this machine; None for an object store.
    """

    def __init__(self, files: Any, root: str, directory: Path | None) -> None:
        self._files = files
        self._root = f"{root}/{SHARED}"
        self._directory = None if directory is None else directory / SHARED
        # By name, size and inode: such a file never changes, so each is read for its checksum once.
        self._known: dict[tuple[str, int, int], str] = {}

    def put(self, cut: Path) -> tuple[list[StoredFile], int]:
        """Have every file of a directory in the place; return what they are, and how many bytes were written for it."""
        self._files.create_dir(self._root, recursive=True)
        # An object store may know nothing of a directory that is empty.
        found = self._files.get_file_info(fs.FileSelector(self._root, allow_not_found=True))
        there = {info.base_name: info.size for info in found}
        stored, written, known = [], 0, {}
        for path in sorted(cut.iterdir()):
            status = path.stat()
            identity = (path.name, status.st_size, status.st_ino)
            digest = self._known.get(identity) or _digest(path)
            if path.suffix == _FIXED:
                known[identity] = digest
            stored.append(StoredFile(KEYS + path.name, status.st_size, digest))
            if there.get(digest) != status.st_size:
                self._write(path, digest)
                written += status.st_size
        self._known = known
        if self._directory is not None:
            sync_directory(self._directory)
        return stored, written

    def bring(self, stored: StoredFile, directory: Path) -> None:
        """Put a shared file into a directory of this machine, and see that it is whole.

        Raises
        ------
        StateError
            If it is missing, torn or changed.
        """
        target = directory / stored.name.removeprefix(KEYS)
        if target.parent != directory or target.name in (".", ".."):
            raise StateError(f"a checkpoint names the file {stored.name!r}, which is none of a backend's.")
        digest, size = hashlib.sha256(), 0
        # A file that never changes can be the place's own; others are copied.
        link = self._directory is not None and target.suffix == _FIXED
        with self._files.open_input_stream(f"{self._root}/{stored.sha256}") as source, ExitStack() as opened:
            copy = None if link else opened.enter_context(open(target, "wb", opener=_private))
            while block := source.read(_BLOCK):
                digest.update(block)
                size += len(block)
                if copy is not None:
                    copy.write(block)
        if size != stored.bytes or digest.hexdigest() != stored.sha256:
            raise StateError(
                f"{SHARED}/{stored.sha256} is torn or was changed: its length or checksum is not its name's."
            )
        if link:
            assert self._directory is not None
            _link(self._directory / stored.sha256, target)

    def clean(self, named: Iterable[StoredFile]) -> None:
        """Remove the files that no checkpoint names."""
        kept = {stored.sha256 for stored in named}
        for info in self._files.get_file_info(fs.FileSelector(self._root, allow_not_found=True)):
            if info.base_name not in kept:
                self._files.delete_file(info.path)

    def _write(self, path: Path, digest: str) -> None:
        if self._directory is None:
            with path.open("rb") as source, self._files.open_output_stream(f"{self._root}/{digest}") as target:
                while block := source.read(_BLOCK):
                    target.write(block)
            return
        torn = self._directory / f"{digest}.tmp"
        torn.unlink(missing_ok=True)
        _link(path, torn)
        with torn.open("rb") as file:
            os.fsync(file.fileno())
        torn.chmod(0o600)
        torn.rename(self._directory / digest)


def _link(path: Path, target: Path) -> None:
    """Let a file be in a second place, as a hard link where the filesystem allows."""
    with suppress(OSError):
        os.link(path, target)
        return
    with path.open("rb") as source, open(target, "wb", opener=_private) as copy:
        while block := source.read(_BLOCK):
            copy.write(block)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
