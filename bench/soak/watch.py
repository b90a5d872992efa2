"""Looks at a running process from outside: memory, handles, threads, disk, and what its log says."""

from __future__ import annotations

import contextlib
import json
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any


class Process:
    """What /proc says of a process."""

    def __init__(self, pid: int) -> None:
        self._proc = Path(f"/proc/{pid}")

    def sample(self) -> dict[str, int]:
        """Return resident memory, file handles and threads."""
        status = (self._proc / "status").read_text()
        lines = (line.split(":", 1) for line in status.splitlines())
        field = {name: value.split()[0] for name, value in lines if value.split()}
        return {
            "rss_bytes": int(field["VmRSS"]) * 1024,
            "anonymous_bytes": int(field["RssAnon"]) * 1024,
            "handles": len(list((self._proc / "fd").iterdir())),
            "threads": int(field["Threads"]),
        }


def disk(directory: Path) -> tuple[int, int]:
    """Return the bytes and the number of the files below a directory; one that goes while it is looked at does not count."""
    sizes = []
    for folder, _, names in os.walk(directory):  # Passes over folders that go.
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                sizes.append((Path(folder) / name).stat().st_size)
    return sum(sizes), len(sizes)


class Log:
    """A log of JSON lines that still grows."""

    def __init__(self, path: Path) -> None:
        self._path, self._read = path, 0
        self.counts: Counter[str] = Counter()
        self.last: dict[str, Any] = {}
        """The last line with the run's figures."""

    def follow(self) -> None:
        """Take what was written since."""
        for entry in self._lines():
            self.counts[f"{entry['level']}: {entry['event']}"] += 1
            if entry["event"] in ("progress", "finished"):
                self.last = entry

    def _lines(self) -> Iterator[dict[str, Any]]:
        with self._path.open("rb") as file:
            file.seek(self._read)
            data = file.read()
        whole = data.rfind(b"\n") + 1
        self._read += whole
        for line in data[:whole].splitlines():
            if line.startswith(b"{"):
                yield json.loads(line)
