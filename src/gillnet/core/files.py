"""What durable and private files need besides being written."""

from __future__ import annotations

import os
from pathlib import Path


def private(path: str, flags: int) -> int:
    """Open a file that nobody but its user may read: an opener for `open`."""
    return os.open(path, flags, 0o600)


def make_private_directory(directory: Path) -> None:
    """Make a directory that nobody but its user may enter, and those above it as usual; one that is there stays as it is."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)


def sync_directory(directory: Path) -> None:
    """Return when the names in a directory are durable."""
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def boot_name() -> str | None:
    """Return what names this boot of the machine; None where the system has no name for it.

    What a process handed to the operating system is there as long as the same boot lasts, synced or not.
    """
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
    except OSError:
        return None
