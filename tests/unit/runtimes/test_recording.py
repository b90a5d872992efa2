"""A run's figures are recorded beside it: in its own time, each with its name in the catalogue, and a full disk stops nothing."""

from __future__ import annotations

import json
import re
from itertools import pairwise
from pathlib import Path

from gillnet.app.recording import EVERY_S, RunRecorder
from gillnet.observability.history import read_history
from gillnet.observability.metrics import CATALOGUE
from gillnet.runtimes.embedded import RuntimeOptions
from gillnet.testing.clock import SimulatedClock

from .driving import drive, payments, pipeline


def test_a_run_is_sampled_in_its_own_time_and_every_figure_is_in_the_catalogue(tmp_path: Path) -> None:
    clock = SimulatedClock()
    recorder = RunRecorder(tmp_path, pipeline().plan, RuntimeOptions(), clock=clock)
    turns = 0

    def on_turn() -> None:
        nonlocal turns
        turns += 1
        recorder.on_turn()
        if recorder._writing is not None:
            recorder._writing.result()
        clock.sleep(1.0)

    driven = drive(payments(3_000), clock=clock, on_turn=on_turn, max_batch_records=20)
    recorder.watch(driven.runtime)
    driven.run()
    recorder.close()
    found = read_history(tmp_path)
    names = {re.sub(r"\{.*|_p\d\d$", "", name) for one in found for name in one.figures}
    assert names <= set(CATALOGUE)
    assert {"state_bytes", "latency_ms", "process_rss_bytes", "loop_cpu_s", "disk_free_bytes"} <= names
    assert [one.settings is not None for one in found] == [True] + [False] * (len(found) - 1)
    assert json.dumps(found[0].settings)
    gaps = [(later.at_us - earlier.at_us) / 1e6 for earlier, later in pairwise(found)]
    assert gaps == sorted(gaps), "more often at first"
    assert max(gaps) <= EVERY_S + 1
    assert turns > 5 * len(found)
    last = found[-1].figures
    assert last["state_events{kind=windows,operator=payments.card}"] == last["records_scored{stream=payments}"] > 0


def test_a_disk_that_is_full_is_told_once_and_the_run_goes_on(tmp_path: Path) -> None:
    clock = SimulatedClock()
    (tmp_path / "file").write_text("no directory")
    recorder = RunRecorder(tmp_path / "file", pipeline().plan, RuntimeOptions(), clock=clock)
    told = []

    def on_turn() -> None:
        recorder.on_turn()
        if recorder._writing is not None:
            recorder._writing.result()
        told.append(recorder._told_failure)
        clock.sleep(5)

    driven = drive(payments(100), clock=clock, on_turn=on_turn, max_batch_records=20)
    recorder.watch(driven.runtime)
    driven.run()
    recorder.close()
    assert driven.counts.scored == 100
    assert all(told)
    assert (tmp_path / "file").read_text() == "no directory"
