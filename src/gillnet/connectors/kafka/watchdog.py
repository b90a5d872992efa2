"""Ends the process when a call of librdkafka hangs: a thread that waits in C can be neither interrupted nor given up.

Every call that waits for the broker has a timeout of its own and should come back by then. Where one does not, the run would stand
still with exit code and lag unchanged; a process that ends is started again by its supervisor, and goes on from its checkpoint.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import structlog

MARGIN_S = 60.0
"""So long beyond its own timeout a call may take: a machine that is out of memory or CPU is slow, and not hung."""

EXIT_CODE = 1

_TICK_S = 1.0

_log = structlog.get_logger("gillnet.kafka")


class Watchdog:
    """Watches calls; its thread starts with the first one, and ends with the process.

    Parameters
    ----------
    what
        Names the client in the log.
    margin_s
        See `MARGIN_S`.

    Notes
    -----
    Time is counted by the thread's own ticks and read from no clock, so that a process that was stopped and goes on has lost none.
    """

    def __init__(self, what: str, *, margin_s: float = MARGIN_S) -> None:
        self._what = what
        self._margin_s = margin_s
        self._under_way: dict[int, list[Any]] = {}  # By thread: the call, its timeout, and how long it has taken.
        self._started = False

    @contextmanager
    def over(self, call: str, timeout_s: float) -> Iterator[None]:
        """Watch one call of this thread, which should come back within ``timeout_s``."""
        if not self._started:
            self._started = True
            threading.Thread(target=self._watch, name="kafka-watchdog", daemon=True).start()
        me = threading.get_ident()
        self._under_way[me] = [call, timeout_s, 0.0]
        try:
            yield
        finally:
            del self._under_way[me]

    def _watch(self) -> None:
        tick = threading.Event()
        while not tick.wait(_TICK_S):
            for entry in list(self._under_way.values()):
                entry[2] += _TICK_S
                call, timeout_s, taken_s = entry
                if taken_s > timeout_s + self._margin_s:
                    self._end(call, timeout_s, taken_s)

    def _end(self, call: str, timeout_s: float, taken_s: float) -> None:
        _log.error(
            "a call of librdkafka hangs, so the process ends",
            client=self._what,
            call=call,
            timeout_s=timeout_s,
            taken_s=taken_s,
            mend="start the run again, or let a supervisor do it: it goes on from its last checkpoint or commit; nothing that was not "
            "committed counts. Should it come again, look at the broker's log, and report it with the version of librdkafka",
        )
        os._exit(EXIT_CODE)


class WatchedProducer:
    """librdkafka's producer, with a watchdog over its calls that wait for the broker.

    Parameters
    ----------
    client
        A `confluent_kafka.Producer`.
    what
        Names it in the log.
    """

    def __init__(self, client: Any, *, what: str, margin_s: float = MARGIN_S) -> None:
        self._client = client
        self._watchdog = Watchdog(what, margin_s=margin_s)
        # These are called most, and come back at once or within the moment that they are given.
        self.produce, self.produce_batch = client.produce, client.produce_batch
        self.poll, self.purge, self.list_topics = client.poll, client.purge, client.list_topics

    def __len__(self) -> int:
        """Return the records that wait for their acknowledgement."""
        return len(self._client)

    def init_transactions(self, timeout_s: float) -> None:
        """Register under the transactional id, and abort what is open of it."""
        with self._watchdog.over("init_transactions", timeout_s):
            self._client.init_transactions(timeout_s)

    def begin_transaction(self) -> None:
        """Begin a transaction, which asks nobody."""
        with self._watchdog.over("begin_transaction", 0.0):
            self._client.begin_transaction()

    def commit_transaction(self, timeout_s: float) -> None:
        """Commit the transaction that is open."""
        with self._watchdog.over("commit_transaction", timeout_s):
            self._client.commit_transaction(timeout_s)

    def abort_transaction(self, timeout_s: float) -> None:
        """Abort it."""
        with self._watchdog.over("abort_transaction", timeout_s):
            self._client.abort_transaction(timeout_s)

    def flush(self, timeout_s: float) -> int:
        """Wait for acknowledgements; return how many records still wait."""
        with self._watchdog.over("flush", timeout_s):
            return int(self._client.flush(timeout_s))
