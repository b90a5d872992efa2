"""Keyed state: where keys are that memory has no room for, checkpoints in a directory or an object store, and the journal behind them."""

from gillnet.state.checkpoints import Checkpoint, CheckpointStore
from gillnet.state.journal import FileJournal
from gillnet.state.rocksdb import RocksDBBackend
from gillnet.state.stored_keys import stored_keys
from gillnet.state.warming import still_warming, warming_words

__all__ = [
    "Checkpoint",
    "CheckpointStore",
    "FileJournal",
    "RocksDBBackend",
    "still_warming",
    "stored_keys",
    "warming_words",
]
