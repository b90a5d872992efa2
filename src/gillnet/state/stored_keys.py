"""The keys that a checkpoint has beside its snapshot, opened for those who need all of them and are no run: upgrades, inspection."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from gillnet.core.ports import StateBackend
from gillnet.state.checkpoints import Checkpoint, CheckpointStore
from gillnet.state.rocksdb import LEAST_MEMORY, RocksDBBackend


@contextmanager
def stored_keys(store: CheckpointStore, checkpoint: Checkpoint) -> Iterator[StateBackend | None]:
    """Open a checkpoint's keys in a temporary directory; None for a checkpoint whose snapshot has all of them.

    Raises
    ------
    ConfigurationError
        If the state backend that wrote them is not installed.
    StateError
        If a file is missing, torn or changed, or there is no room for a copy.
    """
    if not checkpoint.key_files:
        yield None
        return
    backend = RocksDBBackend(memory=LEAST_MEMORY)
    try:
        backend.restore(lambda directory: store.bring_keys(checkpoint, directory))
        yield backend
    finally:
        backend.close()
