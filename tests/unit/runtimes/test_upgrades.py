"""A run that was stopped goes on under another definition (I5): the place's next checkpoint, its warming, and what is refused."""

from __future__ import annotations

import shutil
from typing import Any

import pytest
import structlog

import gillnet as gn
from gillnet.core.errors import ConfigurationError, StateError
from gillnet.lifecycle.state_view import open_state
from gillnet.lifecycle.upgrade import plan_upgrade, write_upgrade
from gillnet.runtimes.embedded import Checkpoints
from gillnet.state import CheckpointStore, FileJournal
from gillnet.state.savepoints import copy_newest
from gillnet.testing.clock import SimulatedClock
from gillnet.testing.scripted import Abort, Aborted, Pause

from .driving import JournalSource, Outs, drive, payment, payments_stream, pipeline

SCRIPT = [payment(number, at_s=number * 7) for number in range(80)]
STREAM = payments_stream()
CARD = STREAM.by("card")
SAME = {"spend_5m": CARD.sum("amount", over="5m")}
MORE = {
    "mean_1m": CARD.mean("amount", over="1m"),
    "spend_2h": CARD.sum("amount", over="2h"),
    "ids": CARD.n_unique("id", over="1m"),
}


def changed(**features: Any) -> gn.Pipeline:
    """`pipeline` without one feature and with others."""
    return gn.Pipeline(
        gn.Features(STREAM, **(features or SAME | MORE)), policy=[gn.block(gn.col("spend_5m") > 1_000, reason="r")]
    )


def rows(outs: Outs) -> dict[str, dict[str, Any]]:
    return {row["id"]: row["features"] for row in outs.rows()}


def upgraded(place: Any, plan: gn.Pipeline, **options: Any) -> Any:
    upgrade = plan_upgrade(str(place), plan.plan, **options)
    return upgrade, write_upgrade(upgrade)


def stopped(place: Any, count: int = 40) -> None:
    """Leave the checkpoints of a run of `pipeline` that was stopped after so many of the records."""
    clock = SimulatedClock()
    source = JournalSource("payments", SCRIPT, clock=clock)
    kept = Checkpoints(CheckpointStore(place), in_background=False, clock=clock, journal=FileJournal(place / "journal"))
    drive(source, checkpoints=kept, max_records=count, max_batch_records=10).run()


def go_on(place: Any, plan: gn.Pipeline) -> Any:
    """Go on from a place to the script's end; return the rows."""
    clock = SimulatedClock()
    outs = Outs()
    source = JournalSource("payments", SCRIPT, clock=clock)
    kept = Checkpoints(CheckpointStore(place), in_background=False, clock=clock, journal=FileJournal(place / "journal"))
    driven = drive(source, outs=outs, plan=plan, checkpoints=kept)
    driven.run()
    return driven, rows(outs)


def test_i5_rows_after_an_upgrade_are_those_of_a_run_that_had_the_definition_from_the_start(tmp_path):
    stopped(tmp_path)
    upgrade, checkpoint = upgraded(tmp_path, changed())
    assert {part.name: part.outcome for part in upgrade.parts if part.kind == "feature"} == {
        "spend_5m": "kept",
        "payments_5m": "dropped",
        "mean_1m": "added",
        "spend_2h": "added",
        "ids": "added",
    }
    assert set(upgrade.warming) <= {"spend_2h", "ids"}
    assert "ids" in upgrade.warming
    driven, after = go_on(tmp_path, changed())
    whole = Outs()
    drive(SCRIPT, outs=whole, plan=changed()).run()
    expected = rows(whole)
    assert after.keys() == {f"p{number}" for number in range(40, 80)}
    for name, features in after.items():
        assert features.keys() == set(SAME | MORE)
        for feature in features.keys() - upgrade.warming.keys():
            assert features[feature] == expected[name][feature]
    # The last come a minute and more after the cut.
    assert after["p79"]["ids"] == expected["p79"]["ids"]
    assert driven.counts.read == 80
    assert checkpoint.number < CheckpointStore(tmp_path).numbers()[0]


def test_a_run_says_what_is_warming_and_its_checkpoints_keep_it(tmp_path):
    stopped(tmp_path)
    upgrade, checkpoint = upgraded(tmp_path, changed())
    assert checkpoint.warming == upgrade.warming
    assert open_state(str(tmp_path)).warming() == upgrade.warming
    with structlog.testing.capture_logs() as logs:
        driven, _ = go_on(tmp_path, changed())
    (line,) = [line for line in logs if line["event"] == "features are warming since an upgrade"]
    assert line["complete_from"].keys() == upgrade.warming.keys()
    figures = driven.runtime.metrics.snapshot()
    assert figures["features_warming"] == len(upgrade.warming)
    assert figures["warming_complete_us{feature=ids}"] == upgrade.warming["ids"]
    assert CheckpointStore(tmp_path).find().warming == upgrade.warming


def test_what_an_upgrade_left_warming_the_next_one_does_not_call_complete(tmp_path):
    """The second feature reads what the first one still misses, though its events are kept for as long by now."""
    stopped(tmp_path)
    upgraded(tmp_path, changed())
    again = changed(**SAME, **MORE, ids_30s=CARD.n_unique("id", over="30s"), twice=gn.col("ids") * 2)
    upgrade, _ = upgraded(tmp_path, again)
    assert upgrade.warming["ids"] == upgrade.warming["twice"]
    assert upgrade.warming["ids_30s"] == upgrade.warming["ids"] - 30_000_000
    assert "mean_1m" not in upgrade.warming


def test_a_changed_definition_is_refused_by_the_run_with_what_differs_and_the_command(tmp_path):
    stopped(tmp_path)
    with pytest.raises(
        StateError, match=r"(?s)feature 'mean_1m' added.*feature 'payments_5m' dropped.*gillnet upgrade APP --from"
    ):
        go_on(tmp_path, changed())


def test_a_run_that_was_killed_is_refused_until_its_own_definition_has_ended_it(tmp_path):
    clock = SimulatedClock()
    script = [*SCRIPT[:20], Pause(60.0), *SCRIPT[20:40], Abort(), *SCRIPT[40:]]
    source = JournalSource("payments", script, clock=clock)
    kept = Checkpoints(
        CheckpointStore(tmp_path),
        interval_s=30,
        in_background=False,
        clock=clock,
        journal=FileJournal(tmp_path / "journal"),
    )
    with pytest.raises(Aborted):
        drive(source, checkpoints=kept, max_batch_records=10).run()
    with pytest.raises(StateError, match="the run has not ended: its journal goes on behind checkpoint"):
        plan_upgrade(str(tmp_path), changed().plan)
    source = source.reopen()
    kept = Checkpoints(
        CheckpointStore(tmp_path), in_background=False, clock=clock, journal=FileJournal(tmp_path / "journal")
    )
    drive(source, checkpoints=kept, max_records=40).run()
    assert upgraded(tmp_path, changed())[1].upgraded


def test_steps_behind_an_upgraded_checkpoint_are_refused_by_the_run(tmp_path):
    """As where the journal is a topic, which is not looked at by the upgrade."""
    stopped(tmp_path)
    _, checkpoint = upgraded(tmp_path, changed())
    journal = FileJournal(tmp_path / "journal")
    sequence = int(checkpoint.journal["sequence"]) + 1
    journal.append(f'{{"run":{checkpoint.started_us},"sequence":{sequence},"steps":[["look"]]}}'.encode())
    journal.close()
    with pytest.raises(StateError, match="steps behind the checkpoint that was upgraded"):
        go_on(tmp_path, changed())


def test_what_is_refused_writes_nothing(tmp_path):
    stopped(tmp_path)
    before = CheckpointStore(tmp_path).numbers()
    by_id = gn.Pipeline(gn.Features(STREAM, spend_5m=STREAM.by("id").sum("amount", over="5m")), name="payments")
    upgrade = plan_upgrade(str(tmp_path), by_id.plan)
    assert [part.name for part in upgrade.refused] == ["spend_5m"]
    with pytest.raises(StateError, match="feature 'spend_5m' refused"):
        write_upgrade(upgrade)
    with pytest.raises(ConfigurationError, match="--drop nothing: neither definition has"):
        plan_upgrade(str(tmp_path), by_id.plan, drop=["nothing"])
    assert CheckpointStore(tmp_path).numbers() == before
    assert not plan_upgrade(str(tmp_path), by_id.plan, drop=["spend_5m"]).refused


def test_a_savepoint_outlives_the_run_and_another_begins_from_it(tmp_path):
    place, target, other = tmp_path / "place", tmp_path / "savepoint", tmp_path / "other"
    stopped(place)
    kept = copy_newest(place, target)
    assert (kept.journal, kept.number) == ({}, CheckpointStore(place).find().number)
    shutil.rmtree(place)
    copy_newest(target, other)
    _, after = go_on(other, pipeline())
    assert after.keys() >= {f"p{number}" for number in range(40, 80)}
    with pytest.raises(ConfigurationError, match="holds checkpoints already"):
        copy_newest(other, target)
    (target / f"checkpoint-{kept.number:09}" / "state.bin").write_bytes(b"torn")
    with pytest.raises(StateError, match="none is whole"):
        copy_newest(target, tmp_path / "more")
