"""Checkpoints in a real object store (S3's protocol, signatures and all): runs go on from them, and a place stays clean."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from pyarrow import fs

from gillnet.core.errors import FencedError
from gillnet.state import Checkpoint, CheckpointStore
from gillnet.state.checkpoints import KEPT
from gillnet.state.writing import CheckpointWriter, write_durably

from .faulty import APP
from .object_store import BUCKET, KEY, SECRET, LocalObjectStore

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.kafka, pytest.mark.slow]  # Java and Maven, as the broker needs them.

RECORDS = 3_000
# S3Proxy knows no checksums behind a body, which clients of today send unless told otherwise.
ACCESS = {
    "AWS_ACCESS_KEY_ID": KEY,
    "AWS_SECRET_ACCESS_KEY": SECRET,
    "AWS_REQUEST_CHECKSUM_CALCULATION": "when_required",
    "AWS_EC2_METADATA_DISABLED": "true",
}
BACKENDS = {"memory": (), "rocksdb": ("--state-backend", "rocksdb", "--state-memory", "64MB")}
OFTEN = ("--set", "options.checkpoint_interval=1ms", "--set", "options.max_batch_records=50")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalObjectStore]:
    with pytest.MonkeyPatch.context() as patch, LocalObjectStore(tmp_path_factory.mktemp("store")) as started:
        for name, value in ACCESS.items():
            patch.setenv(name, value)
        yield started


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """One pipeline, and payments of 97 cards that come late now and then."""
    (tmp_path / "app.py").write_text(APP)
    with (tmp_path / "payments.ndjson").open("w") as file:
        for number in range(RECORDS):
            at_ms = 1_767_225_600_000 + number * 1_000 - (90_000 if number % 50 == 7 else 0)
            record = {"id": f"p{number}", "ts": at_ms, "card": f"c{number % 97}", "amount": "1.25"}
            file.write(json.dumps(record) + "\n")
    return tmp_path


def run(directory: Path, *options: str, environment: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "gillnet.cli.main", "run", "app.py", "-s", "payments=payments.ndjson", "--plain"]
    return subprocess.run(
        [*command, *options],
        cwd=directory,
        env={**os.environ, **ACCESS, **(environment or {})},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def decisions(directory: Path) -> dict[str, object]:
    rows = [json.loads(line) for line in (directory / "decisions.ndjson").read_bytes().splitlines()]
    return {row["id"]: (row["decision"], row["features"]) for row in rows}


def objects(store: LocalObjectStore, place: str) -> list[str]:
    found = store.files().get_file_info(fs.FileSelector(f"{BUCKET}/{place}", recursive=True))
    return sorted(info.path.removeprefix(f"{BUCKET}/{place}/") for info in found if info.type == fs.FileType.File)


@pytest.mark.parametrize("backend", BACKENDS)
def test_i5_a_run_goes_on_from_its_checkpoints(store: LocalObjectStore, directory: Path, backend: str) -> None:
    place, chosen = store.uri(f"runs/{backend}"), BACKENDS[backend]
    begun = run(
        directory, "--checkpoints", place, "--sinks", "out", *chosen, *OFTEN, "--set", "options.max_records=1000"
    )
    assert begun.returncode == 0, begun.stderr
    went_on = run(directory, "--checkpoints", place, "--sinks", "out", *chosen)
    assert went_on.returncode == 0, went_on.stderr
    assert "going on from a checkpoint" in went_on.stderr, begun.stderr + went_on.stderr
    whole = run(directory, "--sinks", "whole")
    assert whole.returncode == 0, whole.stderr
    assert decisions(directory / "out") == decisions(directory / "whole")
    assert len(decisions(directory / "whole")) == RECORDS
    kept = objects(store, f"runs/{backend}")
    assert len({name.partition("/")[0] for name in kept if name.startswith("checkpoint-")}) <= KEPT
    shared = {name.removeprefix("shared/") for name in kept if name.startswith("shared/")}
    named = {file.sha256 for known in CheckpointStore(place).checkpoints() for file in known.files}
    assert shared <= named
    assert bool(shared) == (backend == "rocksdb")


def test_an_object_that_was_changed_is_passed_over(store: LocalObjectStore) -> None:
    place = CheckpointStore(store.uri("changed"))
    take(place, b"first")
    take(place, b"second")
    with store.files().open_output_stream(f"{BUCKET}/changed/checkpoint-000000002/state.bin") as stream:
        stream.write(b"forged")
    found = CheckpointStore(store.uri("changed")).latest()
    assert found is not None
    assert (found[0].number, found[1]) == (1, b"first")


def test_a_run_that_was_taken_over_writes_no_more(store: LocalObjectStore) -> None:
    zombie, heir = CheckpointStore(store.uri("fenced")), CheckpointStore(store.uri("fenced"))
    take(zombie, b"of the zombie")
    take(heir, b"of its heir")
    with pytest.raises(FencedError, match="another run has taken over"):
        take(zombie, b"too late", own=False)
    found = CheckpointStore(store.uri("fenced")).latest()
    assert found is not None
    assert found[1] == b"of its heir"


def take(place: CheckpointStore, state: bytes, *, own: bool = True) -> None:
    if own:
        place.own()
    writer = CheckpointWriter(place)
    number = writer.next_number()
    writer.begin(
        Checkpoint(number=number, taken_us=number, started_us=0, pipeline="p", marks={}),
        lambda path: write_durably(path, state),
    )
    try:
        writer.settle(wait=True)
    finally:
        writer.close()


def test_a_wrong_secret_is_one_readable_error_that_does_not_show_it(store: LocalObjectStore, directory: Path) -> None:
    wrong = {"AWS_SECRET_ACCESS_KEY": "no-such-secret"}
    refused = run(directory, "--checkpoints", store.uri("refused"), "--sinks", "out", environment=wrong)
    assert refused.returncode == 1
    assert "cannot read" in " ".join(refused.stderr.split())
    assert "SIGNATURE_DOES_NOT_MATCH" in refused.stderr
    assert "Traceback" not in refused.stderr
    assert "no-such-secret" not in refused.stderr
