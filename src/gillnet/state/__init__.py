"""Keyed state: where keys are that memory has no room for, and checkpoints, in a directory or an object store."""

from gillnet.state.checkpoints import Checkpoint, CheckpointStore
from gillnet.state.rocksdb import RocksDBBackend

__all__ = ["Checkpoint", "CheckpointStore", "RocksDBBackend"]
