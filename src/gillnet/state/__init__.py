"""Keyed state that outlives a run: checkpoints, in a directory or an object store."""

from gillnet.state.checkpoints import Checkpoint, CheckpointStore

__all__ = ["Checkpoint", "CheckpointStore"]
