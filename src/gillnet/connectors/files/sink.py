"""Writes records to a file, one a line."""

from __future__ import annotations

import base64
import gzip
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Literal, cast

import msgspec

from gillnet.core.errors import ConfigurationError, SinkError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gillnet.core.messages import OutputRecord

WriteMode = Literal["append", "overwrite"]

_NEWLINE = 0x0A
_MEMBER_BYTES = 1 << 20


class FileSink:
    """Write NDJSON to a file, or to standard output for ``-``; ``.gz`` is packed.

    Parameters
    ----------
    path
        Its directory must exist.
    mode
        ``append`` goes on after what is there, so that a run that resumes its source keeps what it wrote before;
        ``overwrite`` begins anew.

    Raises
    ------
    SinkError
        If the file cannot be opened.

    Notes
    -----
    `write` puts down the values as they are; keys are not kept. A side output's records (`write_records`) carry a key,
    headers and bytes that may be anything, so each becomes one JSON object ``{"key", "headers", "value"}``, in which
    bytes that are no UTF-8 stand as ``{"base64": ...}``. `flush` syncs to disk. A line that a crash tore is ended
    before the next one is written, so at most that one line is lost to a reader, and the run writes it again
    (at-least-once).
    """

    def __init__(self, path: str | Path, *, mode: WriteMode = "append") -> None:
        if mode not in ("append", "overwrite"):
            raise ConfigurationError(f"File sink {str(path)!r}: mode={mode!r} is unknown; use 'append' or 'overwrite'.")
        self._path = str(path)
        self._closed = False
        self._packs = self._path.endswith(".gz")
        self._unpacked = bytearray()
        self._file: BinaryIO = sys.stdout.buffer if self._path == "-" else self._open(mode)

    def __repr__(self) -> str:
        return f"FileSink(path={self._path!r})"

    def _open(self, mode: WriteMode) -> BinaryIO:
        flags = "ab" if mode == "append" else "wb"
        try:
            file = cast("BinaryIO", Path(self._path).open(flags))  # noqa: SIM115
            if mode == "append" and not self._packs and _is_torn(self._path):
                file.write(b"\n")
        except OSError as error:
            raise SinkError(
                f"{self._path}: the file cannot be opened for writing: {error.strerror}. "
                "Check the directory and the permissions."
            ) from error
        return file

    def write(self, values: Sequence[bytes], keys: Sequence[bytes | None] | None = None) -> None:  # noqa: ARG002
        """Write one line per value."""
        if values:
            self._put(b"\n".join(values) + b"\n")

    def write_records(self, records: Sequence[OutputRecord]) -> None:
        """Write one JSON object per record, with key and headers."""
        self._put(b"".join(msgspec.json.encode(_as_json(record)) + b"\n" for record in records))

    def _put(self, data: bytes) -> None:
        if self._packs:
            self._unpacked += data
            if len(self._unpacked) >= _MEMBER_BYTES:
                self._pack()
        else:
            self._to_file(data)

    def _pack(self) -> None:
        # Whole gzip members only: they may be joined, and what is flushed can be read whatever happens afterwards.
        self._to_file(gzip.compress(self._unpacked, mtime=0))
        self._unpacked.clear()

    def _to_file(self, data: bytes) -> None:
        try:
            self._file.write(data)
        except OSError as error:
            raise SinkError(f"{self._path}: writing failed: {error.strerror}.") from error

    def flush(self) -> None:
        """Return when everything is on disk."""
        if self._unpacked:
            self._pack()
        try:
            self._file.flush()
            if self._path != "-":
                os.fsync(self._file.fileno())
        except OSError as error:
            raise SinkError(f"{self._path}: writing failed: {error.strerror}.") from error

    def close(self) -> None:
        """Flush and close; standard output stays open."""
        if self._closed:
            return
        self._closed = True
        try:
            self.flush()
        finally:
            if self._path != "-":
                self._file.close()


def _is_torn(path: str) -> bool:
    with Path(path).open("rb") as file:
        if file.seek(0, os.SEEK_END) == 0:
            return False
        file.seek(-1, os.SEEK_END)
        return file.read(1)[0] != _NEWLINE


def _as_json(record: OutputRecord) -> dict[str, Any]:
    return {
        "key": _text(record.key),
        "headers": [[name, _text(value)] for name, value in record.headers],
        "value": _text(record.value),
    }


def _text(data: bytes | None) -> str | dict[str, str] | None:
    if data is None:
        return None
    try:
        return data.decode()
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(data).decode()}
