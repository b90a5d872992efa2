"""A run with keys in RocksDB goes on from checkpoints that share files as one in memory that never ended (I5)."""

from __future__ import annotations

from typing import Any

import pytest

from gillnet.core.errors import ConfigurationError
from gillnet.observability.metrics import CATALOGUE
from gillnet.runtimes.embedded import Checkpoints
from gillnet.state import CheckpointStore, RocksDBBackend
from gillnet.state.rocksdb import LEAST_MEMORY
from gillnet.testing.clock import SimulatedClock
from gillnet.testing.scripted import Abort, Aborted, Pause

from .driving import JournalSource, Outs, drive, payment

SCRIPT = [payment(number, at_s=number * 7 % 50, card=f"c{number * 5 % 13}") for number in range(60)]


def run_through(script: list[Any], tmp_path: Any, outs: Outs, *, in_background: bool) -> list[int]:
    """Run a script to its end, each time with an empty backend; return from which checkpoints it went on."""
    clock, restored = SimulatedClock(), []
    source = JournalSource("payments", script, clock=clock)
    while True:
        backend = RocksDBBackend(tmp_path / "state", memory=LEAST_MEMORY)
        backend.budget = 1
        store = CheckpointStore(tmp_path / "place")
        kept = Checkpoints(store, interval_s=0.0, in_background=in_background, clock=clock, backend=backend)
        restored += [kept.restored.number] if kept.restored else []
        driven = drive(source, outs=outs, checkpoints=kept)
        try:
            driven.run()
        except Aborted:
            source = source.reopen()
        else:
            assert driven.runtime.features._engine.spill_stats()[1] > 0, "no key has come back"
            return restored
        finally:
            backend.close()


@pytest.mark.parametrize("in_background", [True, False])
def test_i5_rows_after_crashes_are_those_of_a_run_in_memory_that_never_crashed(tmp_path, in_background):
    first, second, third = SCRIPT[:20], SCRIPT[20:40], SCRIPT[40:]
    pauses = [Pause(1.0), Pause(1.0)]
    script = [
        *first,
        *pauses,
        *second[:9],
        Abort("poll"),
        *second[9:],
        *pauses,
        *third[:5],
        Abort("commit"),
        *third[5:],
    ]
    outs, plain = Outs(), Outs()
    restored = run_through(script, tmp_path, outs, in_background=in_background)
    drive(SCRIPT, outs=plain).run()
    whole = {row["id"]: row["features"] for row in plain.rows()}
    assert {row["id"]: row["features"] for row in outs.rows()} == whole
    if not in_background:  # A child that writes may not be done when the run dies.
        assert len(restored) == 2
        assert restored[0] < restored[1]


def test_its_figures_are_in_the_catalogue(tmp_path):
    backend = RocksDBBackend(tmp_path / "state", memory=LEAST_MEMORY)
    backend.budget = 1
    driven = drive(SCRIPT, backend=backend)
    driven.run()
    figures = {name: value for name, value in driven.runtime.metrics.snapshot().items() if name.startswith("backend_")}
    assert set(figures) == {name for name in CATALOGUE if name.startswith("backend_")}
    # There is no memory for any of the 13 cards: each of them left, and came back.
    assert figures["backend_keys_fetched"] >= 13
    assert figures["backend_keys_kept"] >= figures["backend_keys_fetched"]
    assert figures["backend_budget_bytes"] == 1
    assert figures["backend_disk_bytes"] > 0


def test_the_runtime_closes_its_backend(tmp_path):
    backend = RocksDBBackend(tmp_path / "state", memory=LEAST_MEMORY)
    drive(SCRIPT, backend=backend).run()
    RocksDBBackend(tmp_path / "state", memory=LEAST_MEMORY).close()


def test_a_run_in_memory_does_not_go_on_from_keys_that_it_would_lose(tmp_path):
    run_through(SCRIPT, tmp_path, Outs(), in_background=False)
    with pytest.raises(ConfigurationError, match="go on with --state-backend rocksdb"):
        Checkpoints(CheckpointStore(tmp_path / "place"))
