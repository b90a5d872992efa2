"""A sink behind a thread: while one batch is encoded and produced, the next is computed.

Worth it under load only. The kernel works without the GIL, so a large batch's writing overlaps with the next one's
features; a small batch is written at once, by the caller, since handing it over would cost more latency than it saves.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from queue import SimpleQueue

from gillnet.core.messages import OutputRecord
from gillnet.core.ports import Sink

Encoded = tuple[Sequence[bytes], Sequence[bytes | None] | None]
"""Records for `Sink.write`: values, and their keys."""

HAND_OVER_RECORDS = 512
"""Batches of at least so many records go to the thread."""

WAITING_BATCHES = 4
"""Batches that wait for the thread at the most; then `write` blocks: that is the back-pressure."""


class OverlappedSink:
    """Passes records on to a sink, in order; large batches from a thread of its own.

    A failure in the thread is raised by the next call. `flush` returns when everything before it is durable.
    """

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._tasks: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._room = threading.BoundedSemaphore(WAITING_BATCHES)
        self._idle = threading.Event()
        self._idle.set()
        self._waiting = 0
        self._lock = threading.Lock()
        self._failure: BaseException | None = None
        self._thread: threading.Thread | None = None

    def write(self, rows: int, encode: Callable[[], Encoded]) -> None:
        """Take ``rows`` records in order; ``encode`` makes them, here or on the thread."""
        # Idle first: a failure is noted before the thread is idle, so none can slip in between.
        direct = self._idle.is_set() and rows < HAND_OVER_RECORDS
        self._raise_failure()
        if direct:
            self._sink.write(*encode())
        else:
            self._hand_over(lambda: self._sink.write(*encode()))

    def write_records(self, records: Sequence[OutputRecord]) -> None:
        """Take records with headers, after those before them."""
        self._drain()
        self._sink.write_records(records)

    def flush(self) -> None:
        """Return when everything written so far is durable."""
        self._drain()
        self._sink.flush()

    def close(self) -> None:
        """End the thread, then flush and release the sink."""
        if self._thread is not None:
            self._tasks.put(None)
            self._thread.join()
            self._thread = None
        try:
            self._sink.close()
        finally:
            self._raise_failure()  # The first failure is the cause of what `close` may say.

    def _hand_over(self, task: Callable[[], None]) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="gillnet-writer", daemon=True)
            self._thread.start()
        self._room.acquire()
        with self._lock:
            self._waiting += 1
            self._idle.clear()
        self._tasks.put(task)

    def _work(self) -> None:
        while (task := self._tasks.get()) is not None:
            try:
                # After a failure nothing more is written: what follows would be out of order.
                if self._failure is None:
                    task()
            except BaseException as failure:  # handed to the caller, whatever it is
                self._failure = failure
            self._room.release()
            with self._lock:
                self._waiting -= 1
                if not self._waiting:
                    self._idle.set()

    def _drain(self) -> None:
        self._idle.wait()
        self._raise_failure()

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise self._failure
