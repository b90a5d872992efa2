"""Takes a checkpoint beside the run: a forked child writes the state as it was at the cut, while the run goes on.

The child shares the parent's memory, copied page by page as either writes, so that the run stands still for the fork alone. It does
nothing but write the state, a piece at a time, and leave: no thread of the parent lives in it, and it touches no lock of theirs but
the allocator's, which the C library hands over.
"""

from __future__ import annotations

import gc
import os
import shutil
import signal
import tempfile
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import structlog

from gillnet.core.errors import StateError
from gillnet.core.ports import StateBackend
from gillnet.core.time import Clock, SystemClock
from gillnet.state.checkpoints import Checkpoint, CheckpointStore

_log = structlog.get_logger("gillnet.state")
_POLL_S = 0.01


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """A checkpoint that is complete, and what it took.

    Attributes
    ----------
    paused_ms
        How long the run stood still for it.
    wrote_ms
        From the cut until the state was written on this machine; the rest is checking, or uploading.
    took_ms
        From the cut until it was durable.
    written_bytes
        What was written for it: less than its files where it shares some with those before.
    """

    checkpoint: Checkpoint
    paused_ms: float
    wrote_ms: float
    took_ms: float
    written_bytes: int


@dataclass(slots=True)
class _Underway:
    checkpoint: Checkpoint
    path: Path
    child: int | None
    began_s: float
    paused_ms: float
    wrote_ms: float = 0.0
    keys: Path | None = None
    completing: Future[tuple[Checkpoint, int]] | None = None


class CheckpointWriter:
    """Writes one checkpoint at a time.

    Parameters
    ----------
    store
        Where they go; this run is its owner.
    in_background
        Fork; otherwise the run stands still while the state is written.
    backend
        Whose keys belong to each cut.

    Notes
    -----
    While a checkpoint is written, memory grows by the pages that change meanwhile.
    """

    def __init__(
        self,
        store: CheckpointStore,
        *,
        in_background: bool = True,
        clock: Clock | None = None,
        backend: StateBackend | None = None,
    ) -> None:
        self._store = store
        self._backend = backend
        self._clock = clock or SystemClock()
        self._in_background = in_background and hasattr(os, "fork")
        self._number = store.next_number()
        self._underway: _Underway | None = None
        self._completer = ThreadPoolExecutor(1, thread_name_prefix="gillnet-checkpoint")

    @property
    def busy(self) -> bool:
        """Whether a checkpoint is being written."""
        return self._underway is not None

    def next_number(self) -> int:
        """Return the number that the next checkpoint must have."""
        return self._number

    def begin(self, checkpoint: Checkpoint, write: Callable[[Path], None]) -> None:
        """Begin to write a checkpoint of the state as it is now; `settle` tells when it is complete.

        Parameters
        ----------
        checkpoint
            What is known of it.
        write
            Writes the state to a private file, and returns when it is on the disk.

        Raises
        ------
        StateError
            If the place cannot be written, or a part of the state has no form.
        """
        began_s = self._clock.monotonic_s()
        path = self._store.prepare(checkpoint.number) or upload_path()
        self._number = checkpoint.number + 1
        keys = None
        try:
            keys = None if self._backend is None else self._backend.cut()
            child = _forked(path, write) if self._in_background else None
            if child is None:
                write(path)
        except (StateError, OSError) as error:
            _remove(keys)
            self._store.abandon(checkpoint.number)
            raise StateError(f"Checkpoint {checkpoint.number}: the state was not written: {error}.") from error
        paused_ms = (self._clock.monotonic_s() - began_s) * 1_000
        self._underway = _Underway(checkpoint, path, child, began_s, paused_ms, keys=keys)

    def settle(self, *, wait: bool = False) -> Taken | None:
        """Return the checkpoint that has become complete since; None if none has.

        ``wait``: until the one under way is complete or has failed.

        Raises
        ------
        StateError
            If it failed. The checkpoints before it are untouched.
        """
        underway = self._underway
        if underway is None:
            return None
        if underway.completing is None:
            if not self._written(underway, wait=wait):
                return None
            underway.wrote_ms = (self._clock.monotonic_s() - underway.began_s) * 1_000
            underway.completing = self._completer.submit(self._complete, underway)
        if not (wait or underway.completing.done()):
            return None
        self._underway = None
        whole, written = underway.completing.result()
        took_ms = (self._clock.monotonic_s() - underway.began_s) * 1_000
        return Taken(
            checkpoint=whole,
            paused_ms=underway.paused_ms,
            wrote_ms=underway.wrote_ms,
            took_ms=took_ms,
            written_bytes=written,
        )

    def _complete(self, underway: _Underway) -> tuple[Checkpoint, int]:
        before = self._store.written_bytes
        try:
            whole = self._store.complete(underway.checkpoint, underway.path, underway.keys)
            return whole, self._store.written_bytes - before
        finally:
            _remove(underway.keys)
            if self._store.directory is None:
                underway.path.unlink()  # It was written here to be uploaded.

    def close(self) -> None:
        """Give up what is under way, and release."""
        if self._underway is not None and self._underway.child is not None and self._underway.completing is None:
            os.kill(self._underway.child, signal.SIGKILL)
            os.waitpid(self._underway.child, 0)
            _remove(self._underway.keys)
        self._underway = None
        self._completer.shutdown()

    def _written(self, underway: _Underway, *, wait: bool) -> bool:
        """Whether the child has written the state."""
        if underway.child is None:
            return True
        pid, status = os.waitpid(underway.child, 0 if wait else os.WNOHANG)
        if pid == 0:
            return False
        underway.child = None
        if status != 0:
            self._underway = None
            _remove(underway.keys)
            reason = _reason(underway.path, status)
            self._store.abandon(underway.checkpoint.number)
            raise StateError(f"Checkpoint {underway.checkpoint.number}: the state was not written: {reason}.")
        return True


def _forked(path: Path, write: Callable[[Path], None]) -> int:
    child = os.fork()
    if child:
        return child
    # The child. Nothing may escape from here, and no handler of the parent's may run.
    try:
        gc.disable()
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)
        write(path)
    except BaseException as error:
        try:
            write_durably(_error_path(path), " ".join(str(error).split()).encode())
        finally:
            os._exit(1)
    os._exit(0)


def write_durably(path: Path, data: bytes) -> None:
    """Write a private file, and return when it is on the disk."""
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(handle, view) :]
        os.fsync(handle)
    finally:
        os.close(handle)


def _remove(keys: Path | None) -> None:
    if keys is not None:
        shutil.rmtree(keys, ignore_errors=True)


def upload_path() -> Path:
    """Return a new file of this machine, for what will be uploaded."""
    handle, name = tempfile.mkstemp(prefix="gillnet-checkpoint-")
    os.close(handle)
    return Path(name)


def _error_path(path: Path) -> Path:
    return path.with_suffix(".error")


def _reason(path: Path, status: int) -> str:
    told = _error_path(path)
    if told.exists():
        return told.read_text()
    return f"its process ended with status {status}, as if it was killed or ran out of memory"
