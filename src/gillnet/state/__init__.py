"""Keyed state that outlives a run: checkpoints, in a directory or an object store, and the journal of what came after them."""

from gillnet.state.checkpoints import Checkpoint, CheckpointStore
from gillnet.state.journal import FileJournal

__all__ = ["Checkpoint", "CheckpointStore", "FileJournal"]
