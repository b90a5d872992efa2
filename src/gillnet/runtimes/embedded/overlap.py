"""The second half of the flow behind a thread: while one batch is scored and written, the next one's features are computed.

Worth it under load only. Kernel and model work without the GIL, so two large batches overlap on two cores; a small batch is
done at once, by the caller, since handing it over would cost more latency than it saves.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import SimpleQueue

HAND_OVER_RECORDS = 512
"""Batches of at least so many records go to the thread."""

WAITING_BATCHES = 4
"""Batches that wait for the thread at the most; then `submit` blocks: that is the back-pressure."""


class OverlappedStage:
    """Does tasks one after the other, in the order of `submit`: small ones at once, large ones on a thread of its own.

    So what the tasks use, sinks above all, is never used by two threads at a time. A failure on the thread is raised by the
    next call, and no task is done after it: what follows would be out of order.

    Parameters
    ----------
    hand_over_records
        Tasks on at least so many records go to the thread; None: everything is done at once.
    """

    def __init__(self, hand_over_records: int | None = HAND_OVER_RECORDS) -> None:
        self._hand_over_records = hand_over_records
        self._tasks: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._room = threading.BoundedSemaphore(WAITING_BATCHES)
        self._idle = threading.Event()
        self._idle.set()
        self._waiting = 0
        self._lock = threading.Lock()
        self._failure: BaseException | None = None
        self._thread: threading.Thread | None = None

    def submit(self, records: int, task: Callable[[], None]) -> None:
        """Do a task that works on ``records`` records, now or after those before it."""
        # Idle first: a failure is noted before the thread is idle, so none can slip in between.
        small = self._hand_over_records is None or records < self._hand_over_records
        direct = self._idle.is_set() and small
        self._raise_failure()
        if direct:
            task()
        else:
            self._hand_over(task)

    def submit_large(self, task: Callable[[], None]) -> None:
        """Do a task that takes long, whatever it works on, after those before it."""
        self._raise_failure()
        if self._hand_over_records is None:
            task()
        else:
            self._hand_over(task)

    def drain(self) -> None:
        """Return when everything submitted so far is done."""
        self._idle.wait()
        self._raise_failure()

    def close(self) -> None:
        """Do what waits, unless a task has failed, and end the thread."""
        if self._thread is not None:
            self._tasks.put(None)
            self._thread.join()
            self._thread = None

    def _hand_over(self, task: Callable[[], None]) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="gillnet-score", daemon=True)
            self._thread.start()
        self._room.acquire()
        with self._lock:
            self._waiting += 1
            self._idle.clear()
        self._tasks.put(task)

    def _work(self) -> None:
        while (task := self._tasks.get()) is not None:
            try:
                if self._failure is None:
                    task()
            except BaseException as failure:  # handed to the caller, whatever it is
                self._failure = failure
            self._room.release()
            with self._lock:
                self._waiting -= 1
                if not self._waiting:
                    self._idle.set()

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise self._failure
