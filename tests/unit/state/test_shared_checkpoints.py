"""Checkpoints of a backend's keys share files: written once, gone with the last that names them, a torn one found."""

from __future__ import annotations

import shutil
import stat
from pathlib import Path

import pytest

from gillnet.core.errors import ConfigurationError, StateError
from gillnet.state import Checkpoint, CheckpointStore, RocksDBBackend
from gillnet.state.rocksdb import LEAST_MEMORY
from gillnet.state.savepoints import copy_newest
from gillnet.state.writing import CheckpointWriter, Taken, write_durably


class Keys:
    """A backend with numbered keys, whose checkpoints go to one place."""

    def __init__(self, tmp_path: Path, **options) -> None:
        self.place = tmp_path / "place"
        self.store = CheckpointStore(self.place, **options)
        self.store.own()
        self.backend = RocksDBBackend(tmp_path / "state", memory=LEAST_MEMORY)
        self.writer = CheckpointWriter(self.store, backend=self.backend)

    def put(self, numbers: range, value: bytes) -> None:
        names = [b"%08d" % number for number in numbers]
        self.backend.keep(names, [value + name * 20 for name in names], [b"t" + name for name in names])

    def take(self) -> Taken:
        number = self.writer.next_number()
        checkpoint = Checkpoint(number=number, taken_us=number, started_us=0, pipeline="p", marks={})
        self.writer.begin(checkpoint, lambda path: write_durably(path, b"state %d" % number))
        taken = self.writer.settle(wait=True)
        assert taken is not None
        return taken

    def shared(self) -> set[str]:
        return {path.name for path in (self.place / "shared").iterdir()}

    def close(self) -> None:
        self.writer.close()
        self.backend.close()


@pytest.fixture
def keys(tmp_path):
    made = Keys(tmp_path, keep=2)
    yield made
    made.close()


@pytest.fixture
def other(tmp_path):
    backend = RocksDBBackend(tmp_path / "other", memory=LEAST_MEMORY)
    yield backend
    backend.close()


def test_a_checkpoint_writes_only_what_has_changed(keys):
    keys.put(range(20_000), b"one")
    first = keys.take()
    keys.put(range(100), b"two")
    second = keys.take()
    assert first.written_bytes >= first.checkpoint.bytes * 0.9
    assert second.written_bytes < first.written_bytes / 10
    assert second.checkpoint.bytes >= first.checkpoint.bytes
    assert not list(keys.backend.directory.glob("cut-*"))


def test_each_checkpoint_gives_back_its_own_cut(keys, other):
    keys.put(range(1_000), b"one")
    keys.take()
    keys.put(range(500), b"two")
    keys.take()
    checkpoint, state = keys.store.latest(other)
    assert (checkpoint.number, state) == (2, b"state 2")
    assert [value[:3] for value in other.fetch([b"%08d" % number for number in (0, 499, 500, 999)])] == [
        b"two",
        b"two",
        b"one",
        b"one",
    ]


def test_what_is_restored_can_change_without_harm_to_the_checkpoint(keys, other):
    keys.put(range(1_000), b"one")
    keys.take()
    for _ in range(2):
        keys.store.latest(other)
        assert other.fetch([b"%08d" % 7])[0][:3] == b"one"
        other.keep([b"%08d" % number for number in range(1_000)], [b"xxx"] * 1_000, [b"x"] * 1_000)
        other.compact()
        assert other.fetch([b"%08d" % 7]) == [b"xxx"]


def test_shared_files_go_with_the_last_checkpoint_that_names_them(keys):
    keys.put(range(2_000), b"one")
    first = keys.take()
    keys.put(range(2_000), b"two")
    keys.backend.compact()
    keys.take()
    named = {stored.sha256 for stored in first.checkpoint.files if stored.name.endswith(".sst")}
    assert named <= keys.shared()
    keys.take()
    assert not named & keys.shared()
    assert keys.shared() == {
        stored.sha256
        for checkpoint in keys.store.checkpoints()
        for stored in checkpoint.files
        if stored.name.startswith("keys/")
    }


DAMAGE = {
    "cut": lambda path: path.write_bytes(path.read_bytes()[:-3]),
    "changed": lambda path: path.write_bytes(bytes([path.read_bytes()[0] ^ 1]) + path.read_bytes()[1:]),
    "gone": lambda path: path.unlink(),
}


def damage(keys: Keys, taken: Taken, before: Taken | None, way: str) -> None:
    older = {stored.sha256 for stored in before.checkpoint.files} if before else set()
    stored = next(f for f in taken.checkpoint.files if f.name.endswith(".sst") and f.sha256 not in older)
    path = keys.place / "shared" / stored.sha256
    # Not the backend's own file, which may be the same one.
    data = path.read_bytes()
    path.unlink()
    path.write_bytes(data)
    DAMAGE[way](path)


@pytest.mark.parametrize("way", DAMAGE)
def test_of_a_torn_shared_file_the_checkpoint_before_is_taken(keys, other, way):
    keys.put(range(1_000), b"one")
    first = keys.take()
    keys.put(range(500), b"two")
    damage(keys, keys.take(), first, way)
    checkpoint, state = keys.store.latest(other)
    assert (checkpoint.number, state) == (1, b"state 1")
    assert other.fetch([b"%08d" % 7])[0][:3] == b"one"


@pytest.mark.parametrize("way", DAMAGE)
def test_where_none_is_whole_nothing_begins_in_silence(keys, other, way):
    keys.put(range(1_000), b"one")
    damage(keys, keys.take(), None, way)
    with pytest.raises(StateError, match="none of 1 is whole"):
        keys.store.latest(other)


def test_a_shared_file_that_is_torn_is_written_again(keys, other):
    keys.put(range(1_000), b"one")
    damage(keys, keys.take(), None, "cut")
    keys.take()
    assert keys.store.latest(other)[0].number == 2


def test_the_memory_backend_refuses_keys_that_it_would_lose(keys):
    keys.put(range(10), b"one")
    keys.take()
    with pytest.raises(ConfigurationError, match="go on with --state-backend rocksdb"):
        keys.store.latest()


def test_shared_files_are_private(keys):
    keys.put(range(10), b"one")
    keys.take()
    assert {stat.S_IMODE(path.stat().st_mode) for path in (keys.place / "shared").iterdir()} == {0o600}


def test_an_object_store_shares_too(tmp_path, other):
    keys = Keys(tmp_path, keep=2)
    keys.store = CheckpointStore((tmp_path / "objects").as_uri())
    keys.store.directory = keys.store._shared._directory = None  # As if it were none of this machine's.
    keys.store.own()
    keys.writer.close()
    keys.writer = CheckpointWriter(keys.store, backend=keys.backend)
    keys.put(range(20_000), b"one")
    first = keys.take()
    keys.put(range(100), b"two")
    assert keys.take().written_bytes < first.written_bytes / 10
    keys.store.latest(other)
    assert [value[:3] for value in other.fetch([b"%08d" % 7, b"%08d" % 700])] == [b"two", b"one"]
    keys.close()


def test_a_name_that_leaves_the_directory_is_refused(keys, other, tmp_path):
    keys.put(range(10), b"one")
    taken = keys.take()
    stored = taken.checkpoint.files[-1]
    with pytest.raises(StateError, match="which is none of a backend's"):
        keys.store._shared.bring(type(stored)("keys/../out", stored.bytes, stored.sha256), tmp_path)


def test_a_savepoint_has_the_keys_files_and_needs_nothing_of_where_it_came_from(keys, other, tmp_path):
    keys.put(range(200), b"value")
    taken = keys.take()
    kept = copy_newest(keys.place, tmp_path / "kept")
    assert {stored.name for stored in kept.files} == {stored.name for stored in taken.checkpoint.files}
    shutil.rmtree(keys.place)
    found = CheckpointStore(tmp_path / "kept").latest(other)
    assert found is not None
    assert found[1] == f"state {kept.number}".encode()
    assert other.fetch([b"%08d" % 7])[0].startswith(b"value")
    for path in (tmp_path / "kept" / "shared").iterdir():
        path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(StateError, match="torn or was changed"):
        copy_newest(tmp_path / "kept", tmp_path / "again")
