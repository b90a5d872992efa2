"""Ids that came more than once, found with bounded memory: an id names one event, and the first to arrive is it."""

from __future__ import annotations

from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np

from gillnet import _kernel

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

BUFFERED_IDS = 8_000_000
"""Ids in memory at the most (24 bytes each); beyond, they go to bucket files by their hash, and are judged bucket by bucket."""

_BATCHES_AHEAD = 64


class RepeatedIds:
    """Takes the ids of all events of a stream; then says which events repeat one.

    Parameters
    ----------
    directory
        Where bucket files may go.
    name
        Begins their names.
    threads
        How many buckets are judged at a time.
    """

    def __init__(self, directory: Path, name: str, *, threads: int = 1, buffered: int = BUFFERED_IDS) -> None:
        self._paths = [directory / f"{name}.ids-{bucket:02}" for bucket in range(_kernel.RepeatedIds.BUCKETS)]
        self._limit = buffered
        self._threads = threads
        self._ids = _kernel.RepeatedIds()
        # Beside the caller, who reads and sorts meanwhile; one thread, so that ids come in the order of arrival.
        self._taker = ThreadPoolExecutor(1, thread_name_prefix="gillnet-ids")
        self._taking: deque[Future[None]] = deque()

    def add(self, batch: _kernel.Batch, id_column: str, first_sequence: int) -> None:
        """Take a batch's ids; its events are numbered from ``first_sequence`` on, in the order of arrival."""
        self._taking.append(self._taker.submit(self._take, batch, id_column, first_sequence))
        while self._taking and (len(self._taking) > _BATCHES_AHEAD or self._taking[0].done()):
            self._taking.popleft().result()

    def _take(self, batch: _kernel.Batch, id_column: str, first_sequence: int) -> None:
        self._ids.add(batch, id_column, first_sequence)
        if self._ids.held() > self._limit:
            for bucket, path in enumerate(self._paths):
                with path.open("ab") as file:
                    file.write(self._ids.take(bucket))

    def repeated(self) -> NDArray[np.int64]:
        """Return the numbers of all events but the first of each id, sorted. Forgets everything."""
        while self._taking:
            self._taking.popleft().result()
        self._taker.shutdown()
        with ThreadPoolExecutor(self._threads, thread_name_prefix="gillnet-ids") as judges:
            found = list(judges.map(self._judge, range(len(self._paths))))
        self._ids = _kernel.RepeatedIds()
        return np.sort(np.concatenate(found))

    def _judge(self, bucket: int) -> NDArray[np.int64]:
        path = self._paths[bucket]
        before = path.read_bytes() if path.exists() else b""
        path.unlink(missing_ok=True)
        places: NDArray[np.int64] = self._ids.repeated(bucket, before).to_numpy()
        return places
