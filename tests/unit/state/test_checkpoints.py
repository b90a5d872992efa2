"""A checkpoint is whole or does not exist; the newest whole one is found; one run at a time owns the place."""

from __future__ import annotations

import hashlib
import json
import os
import stat
from pathlib import Path

import pytest

from gillnet.core.errors import ConfigurationError, FencedError, StateError
from gillnet.state import Checkpoint, CheckpointStore
from gillnet.state.writing import CheckpointWriter, write_durably


def checkpoint(number: int, **fields) -> Checkpoint:
    base = {
        "number": number,
        "taken_us": 1_000 + number,
        "started_us": 1,
        "pipeline": "p",
        "marks": {"payments": {0: 10 * number, 3: 7}},
        "counts": {"batches": number},
    }
    return Checkpoint(**{**base, **fields})


def owned(place: Path, **options) -> CheckpointStore:
    store = CheckpointStore(place, **options)
    store.own()
    return store


def put(store: CheckpointStore, number: int, state: bytes | None = None) -> Checkpoint:
    path = store.prepare(number)
    assert path is not None
    path.write_bytes(f"state {number}".encode() if state is None else state)
    return store.complete(checkpoint(number), path)


def test_an_empty_place_has_no_checkpoint(tmp_path):
    assert owned(tmp_path / "new" / "place").latest() is None
    assert CheckpointStore(tmp_path / "nowhere").latest() is None


def test_the_newest_is_found_with_everything_that_was_said_of_it(tmp_path):
    store = owned(tmp_path)
    put(store, 1)
    put(store, 2)
    found, state = CheckpointStore(tmp_path).latest()
    assert state == b"state 2"
    assert (found.number, found.marks, found.counts) == (2, {"payments": {0: 20, 3: 7}}, {"batches": 2})
    assert found.bytes == len(state)
    assert [each.number for each in store.checkpoints()] == [2, 1]


def test_so_many_are_kept_and_torn_ones_before_them_go(tmp_path):
    store = owned(tmp_path, keep=2)
    put(store, 1)
    store.prepare(2)  # Whoever wrote it died.
    for number in (3, 4, 5):
        put(store, number)
    assert store.numbers() == [5, 4]
    store.prepare(6)
    assert store.next_number() == 7


DAMAGE = {
    "its state is cut": lambda d: _cut(d / "state.bin"),
    "its state is another": lambda d: (d / "state.bin").write_bytes(b"stage 2"),
    "its state is gone": lambda d: (d / "state.bin").unlink(),
    "its manifest is cut": lambda d: _cut(d / "manifest.json"),
    "its manifest is empty": lambda d: (d / "manifest.json").write_bytes(b""),
    "its manifest is no JSON object": lambda d: (d / "manifest.json").write_bytes(b"[1]"),
    "its manifest was edited": lambda d: _edit(d / "manifest.json", '\\"batches\\":2', '\\"batches\\":3'),
    "its manifest is of another checkpoint": lambda d: (d / "manifest.json").write_bytes(
        (d.parent / "checkpoint-000000001" / "manifest.json").read_bytes()
    ),
    "its manifest is gone": lambda d: (d / "manifest.json").unlink(),
}


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-3])


def _edit(path: Path, old: str, new: str) -> None:
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_of_a_damaged_one_the_one_before_it_is_taken(tmp_path, damage):
    store = owned(tmp_path)
    put(store, 1)
    put(store, 2)
    damage(tmp_path / "checkpoint-000000002")
    found, state = store.latest()
    assert (found.number, state) == (1, b"state 1")


def test_where_none_is_whole_nothing_begins_in_silence(tmp_path):
    store = owned(tmp_path)
    put(store, 1)
    _cut(tmp_path / "checkpoint-000000001" / "state.bin")
    with pytest.raises(StateError, match="none of 1 is whole; restore the place from a copy, or name an empty place"):
        store.latest()


def test_a_run_that_was_taken_over_writes_no_more(tmp_path):
    zombie = owned(tmp_path)
    put(zombie, 1)
    put(owned(tmp_path), 2)
    with pytest.raises(FencedError, match="another run has taken over"):
        put(zombie, 3)
    assert CheckpointStore(tmp_path).latest()[0].number == 2


def test_files_are_private(tmp_path):
    store = owned(tmp_path / "place")
    writer = CheckpointWriter(store)
    writer.begin(checkpoint(1), lambda path: write_durably(path, b"secret"))
    writer.settle(wait=True)
    writer.close()
    assert stat.S_IMODE((tmp_path / "place").stat().st_mode) == 0o700
    modes = {stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "place").rglob("*") if path.is_file()}
    assert modes == {0o600}


@pytest.mark.parametrize("in_background", [True, False])
def test_the_state_is_written_as_it_was_at_the_cut(tmp_path, in_background):
    store = owned(tmp_path)
    writer = CheckpointWriter(store, in_background=in_background)
    state = bytearray(b"as it was" * 100_000)
    writer.begin(checkpoint(1), lambda path: write_durably(path, bytes(state)))
    state[:] = b"as it is"
    taken = writer.settle(wait=True)
    assert taken.checkpoint.bytes == len(b"as it was" * 100_000)
    assert store.latest()[1] == b"as it was" * 100_000
    assert (writer.busy, writer.settle(), writer.next_number()) == (False, None, 2)
    writer.close()


def test_a_snapshot_that_fails_leaves_no_checkpoint_and_says_why(tmp_path):
    store = owned(tmp_path)
    put(store, 1)
    writer = CheckpointWriter(store)

    def write(_path: Path) -> None:
        raise StateError("a part has no form")

    writer.begin(checkpoint(2), write)
    with pytest.raises(StateError, match="Checkpoint 2: the state was not written: a part has no form"):
        writer.settle(wait=True)
    assert store.numbers() == [1]
    assert not writer.busy
    writer.close()


def test_a_writer_that_is_killed_leaves_no_checkpoint(tmp_path):
    store = owned(tmp_path)
    writer = CheckpointWriter(store)

    def write(_path: Path) -> None:
        os.kill(os.getpid(), 9)

    writer.begin(checkpoint(1), write)
    with pytest.raises(StateError, match="ended with status 9"):
        writer.settle(wait=True)
    assert store.latest() is None
    writer.close()


def test_a_run_that_closes_ends_the_process_that_writes(tmp_path):
    writer = CheckpointWriter(owned(tmp_path))
    read_end, write_end = os.pipe()

    def write(_path: Path) -> None:
        os.close(write_end)
        os.read(read_end, 1)  # Until the parent's end is closed, that is for ever.

    writer.begin(checkpoint(1), write)
    child = writer._underway.child
    writer.close()
    with pytest.raises(ProcessLookupError):
        os.kill(child, 0)
    os.close(read_end)
    os.close(write_end)


def test_an_owner_file_that_is_none_is_told(tmp_path):
    (tmp_path / "owner.json").write_text(json.dumps({"name": "me"}))
    with pytest.raises(StateError, match="is this a place of checkpoints"):
        owned(tmp_path)


@pytest.mark.parametrize("place", ["gs3://bucket/x", "https://example.org/x"])
def test_a_place_that_is_no_uri_is_told(place):
    with pytest.raises(ConfigurationError, match="Give a directory, or a URI"):
        CheckpointStore(place)


def test_nothing_can_be_written_below_a_file(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StateError, match="cannot write"):
        owned(tmp_path / "file" / "place")


def test_a_uri_is_written_by_its_filesystem(tmp_path):
    """The way of object stores: the state is made elsewhere and uploaded."""
    store = CheckpointStore(f"file://{tmp_path}/place")
    store.directory = None
    store.own()
    writer = CheckpointWriter(store)
    writer.begin(checkpoint(1), lambda path: write_durably(path, b"far away"))
    writer.settle(wait=True)
    writer.close()
    assert CheckpointStore(tmp_path / "place").latest()[1] == b"far away"


def sealed_text(text: str) -> bytes:
    return json.dumps({"sha256": hashlib.sha256(text.encode()).hexdigest(), "checkpoint": text}).encode()


def manifest_with(store: CheckpointStore, data: bytes) -> Path:
    assert store.directory is not None
    [path] = store.directory.glob("checkpoint-*/manifest.json")
    path.write_bytes(data)
    return path


WHOLE = {
    "format": 1,
    "number": 1,
    "taken_us": 1,
    "started_us": 0,
    "pipeline": "p",
    "marks": {"s": {"0": 3}},
    "counts": {},
    "files": [{"name": "state.bin", "bytes": 1, "sha256": ""}],
}


@pytest.mark.parametrize(
    "data",
    [
        b"[" * 5_000,
        sealed_text("[" * 5_000),
        sealed_text('{"format": 1, "counts": ' + "[" * 5_000),
        sealed_text("7"),
        *(
            sealed_text(json.dumps(WHOLE | {name: wrong}))
            for name, wrong in [
                ("number", "1"),
                ("taken_us", 1.5),
                ("pipeline", None),
                ("marks", {"s": {"zero": 3}}),
                ("marks", {"s": {"0": "3"}}),
                ("marks", ["s"]),
                ("counts", 7),
                ("files", [{"name": "state.bin"}]),
                ("files", 7),
            ]
        ),
    ],
    ids=range(13),
)
def test_a_manifest_whose_checksum_fits_and_whose_contents_lie_is_passed_over(tmp_path: Path, data: bytes) -> None:
    store = CheckpointStore(tmp_path)
    store.own()
    state = store.prepare(1)
    assert state is not None
    state.write_bytes(b"x")
    store.complete(Checkpoint(number=1, taken_us=1, started_us=0, pipeline="p", marks={}), state)
    manifest_with(store, data)
    assert list(CheckpointStore(tmp_path).checkpoints()) == []


@pytest.mark.parametrize("data", [b"[" * 5_000, b'{"owner": 1e400}', b'{"owner": "x"}', b"\xff", b""])
def test_an_owner_s_file_that_cannot_be_read_is_named(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "owner.json").write_bytes(data)
    with pytest.raises(StateError, match=r"owner\.json is no owner's file"):
        CheckpointStore(tmp_path).own()
