"""Savepoints: a checkpoint in a place of its own, whole, where no run's clean-up comes.

A savepoint is a place of checkpoints like any other, with one in it, so whatever reads checkpoints reads it. It has no journal: a
run that begins from it reads on where the sources stood at its cut, and rows of what came behind that go out again.
"""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

from gillnet.core.errors import ConfigurationError, StateError
from gillnet.state.checkpoints import STATE, Checkpoint, CheckpointStore
from gillnet.state.writing import upload_path, write_durably


def copy_newest(place: str | Path, target: str | Path) -> Checkpoint:
    """Write the newest whole checkpoint of ``place`` to ``target``, self-contained; return it as it is there.

    Every file is held against its checksum on the way.

    Raises
    ------
    ConfigurationError
        If there are checkpoints at the target already, or the place is that of a run with workers.
    StateError
        If the place holds no whole checkpoint, or the target cannot be written.
    """
    source, to = CheckpointStore(place), CheckpointStore(target, keep=1)
    if to.numbers() or to.lanes():
        raise ConfigurationError(
            f"{to.place} holds checkpoints already; name an empty place, so that none of them is lost."
        )
    checkpoint, state = _newest_whole(source)
    with tempfile.TemporaryDirectory(prefix="gillnet-savepoint-") as scratch:
        keys = Path(scratch) / "keys"
        keys.mkdir()
        source.bring_keys(checkpoint, keys)
        to.own()
        path = to.prepare(checkpoint.number)
        written = path or upload_path()
        try:
            write_durably(written, state)
            bare = replace(checkpoint, files=(), journal={})
            return to.complete(bare, written, keys if checkpoint.key_files else None)
        finally:
            if path is None:
                written.unlink()


def _newest_whole(store: CheckpointStore) -> tuple[Checkpoint, bytes]:
    store.find()  # Says what is the matter where there is none at all.
    for checkpoint in store.checkpoints():
        try:
            return checkpoint, store.state(checkpoint)
        except StateError:
            continue
    raise StateError(f"Checkpoints {store.place}: none is whole, so there is nothing to keep: {STATE} of each is torn.")
