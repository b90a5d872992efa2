"""A run's figures as time went by, in a few small files beside its checkpoints: what `gillnet doctor` reads of a run.

One line of JSON for each sample: ``{"at_us": …, "started_us": …, "figures": {…}}``, figures by their names in the catalogue. A file
that is full is put aside and the oldest goes, so that all of them together have a limit (I7). A line that a crash tore is passed
over. Files are private to their user.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

NAME = "metrics.ndjson"
KEPT_FILES = 4
FILE_BYTES = 4 << 20
"""About 1,200 samples: three hours at one in 10 s."""


@dataclass(frozen=True, slots=True)
class Sample:
    """Figures of one moment.

    Attributes
    ----------
    at_us
        When, processing time, microseconds UTC.
    started_us
        When the run began that they are of.
    figures
        By name, labels in braces.
    settings
        What the run was told; only in its first sample.
    """

    at_us: int
    started_us: int
    figures: Mapping[str, float | int]
    settings: Mapping[str, Any] | None = None


class MetricsHistory:
    """Appends samples.

    Parameters
    ----------
    directory
        Where the files are; made if need be.
    """

    def __init__(self, directory: Path, *, file_bytes: int = FILE_BYTES, kept_files: int = KEPT_FILES) -> None:
        self._path = directory / NAME
        self._file_bytes = file_bytes
        self._kept_files = kept_files

    def __repr__(self) -> str:
        return f"MetricsHistory(path={str(self._path)!r})"

    def append(self, sample: Sample) -> None:
        """Write a sample; not synced, since a lost one does no harm.

        Raises
        ------
        OSError
            If it cannot be written.
        """
        told: dict[str, Any] = {"at_us": sample.at_us, "started_us": sample.started_us, "figures": dict(sample.figures)}
        if sample.settings is not None:
            told["settings"] = dict(sample.settings)
        line = json.dumps(told, separators=(",", ":")).encode() + b"\n"
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._make_room(len(line))
        handle = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            size = os.fstat(handle).st_size
            torn = size > 0 and os.pread(handle, 1, size - 1) != b"\n"
            os.write(handle, b"\n" + line if torn else line)
        finally:
            os.close(handle)

    def _make_room(self, room: int) -> None:
        if not self._path.exists() or self._path.stat().st_size + room <= self._file_bytes:
            return
        for number in range(self._kept_files - 1, 0, -1):
            source = self._path if number == 1 else _numbered(self._path, number - 1)
            if source.exists():
                source.replace(_numbered(self._path, number))


def read_history(directory: Path, *, since_us: int = 0) -> list[Sample]:
    """Return the samples of a directory, oldest first; empty where no run left any.

    Raises
    ------
    OSError
        If a file cannot be read.
    """
    path = directory / NAME
    samples: list[Sample] = []
    for number in (*range(KEPT_FILES * 4, 0, -1), 0):
        file = _numbered(path, number) if number else path
        if not file.is_file():
            continue
        for line in file.read_bytes().splitlines():
            sample = _sample(line)
            if sample is not None and sample.at_us >= since_us:
                samples.append(sample)
    return sorted(samples, key=lambda sample: sample.at_us)


def _sample(line: bytes) -> Sample | None:
    try:
        told = json.loads(line)
        figures = {str(name): value for name, value in told["figures"].items() if isinstance(value, (int, float))}
        return Sample(int(told["at_us"]), int(told["started_us"]), figures, told.get("settings"))
    except (ValueError, KeyError, TypeError, AttributeError):
        return None  # Torn by a crash.


def _numbered(path: Path, number: int) -> Path:
    return path.with_name(f"{path.stem}.{number}{path.suffix}")
