"""The doctor on runs of the simulator's payments: one with all that makes state grow, and one that is well."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import gillnet as gn
from gillnet.app.recording import RunRecorder
from gillnet.connectors.memory import MemorySink
from gillnet.lifecycle.doctor import diagnose, gather
from gillnet.lifecycle.doctor.findings import Finding
from gillnet.lifecycle.doctor.readings import Readings
from gillnet.runtimes.embedded import Checkpoints, EmbeddedRuntime, Outputs, RuntimeOptions
from gillnet.simulator import PAYMENT_SCHEMA, Simulation, SimulationConfig
from gillnet.state import CheckpointStore
from gillnet.testing.clock import SimulatedClock
from gillnet.testing.scripted import Pause, Record, ScriptedSource

GB = 1e9
PARTITIONS = 4
STALLED = 3
MINUTES = 20


def payments(**options: Any) -> gn.Stream:
    return gn.Stream("payments", schema=PAYMENT_SCHEMA, id="tx_id", event_time="ts", **options)


def growing() -> gn.Pipeline:
    """A month of events for one feature, and silent partitions are waited for without end."""
    stream = payments(allowed_lateness="1h", idle_after="7d")
    card = stream.by("card_id")
    features = gn.Features(
        stream,
        spend_5m=card.sum("amount", over="5m"),
        spend_30d=card.sum("amount", over="30d"),
        shop_1h=stream.by("merchant_id").count(over="1h"),
    )
    return gn.Pipeline(features, policy=[gn.review(gn.col("spend_5m") > 500)], name="growing")


def modest() -> gn.Pipeline:
    stream = payments(allowed_lateness="10m")
    features = gn.Features(stream, spend_5m=stream.by("card_id").sum("amount", over="5m"))
    return gn.Pipeline(features, policy=[gn.review(gn.col("spend_5m") > 500)], name="modest")


def script(*, ill: bool) -> list[Any]:
    """Payments of some minutes in four partitions; where ``ill``, one of them stops soon, and every other payment is of one card."""
    config = SimulationConfig(duration=f"{MINUTES}m", payments_per_day=2_200_000, cards=2_000, merchants=100)
    records: list[Any] = []
    lines = [line for chunk in Simulation(config).stream("payments") for line in chunk.values]
    for number, line in enumerate(lines):
        partition = number % PARTITIONS
        if ill and partition == STALLED and number > 200:
            partition = 0
        if ill and number % 2:
            line = json.dumps({**json.loads(line), "card_id": "unknown"}).encode()  # noqa: PLW2901
        records.append(Record(line, partition=partition))
        if number % 500 == 499:
            records.append(Pause(10.0))
    return records


def run(plan: gn.Pipeline, steps: list[Any], place: Path) -> SimulatedClock:
    """Run it, stopped a little before its end, with figures and checkpoints."""
    clock = SimulatedClock(SimulationConfig().start_us + MINUTES * 60_000_000)
    read = sum(isinstance(step, Record) for step in steps) - 10
    options = RuntimeOptions(max_records=read, checkpoint_interval_s=60.0)
    checkpoints = Checkpoints(CheckpointStore(place), interval_s=60.0, in_background=False, clock=clock)
    source = ScriptedSource("payments", steps, clock=clock, partitions=frozenset(range(PARTITIONS)))
    recorder = RunRecorder(place, plan.plan, options, clock=clock)

    def on_turn() -> None:
        recorder.on_turn()
        if recorder._writing is not None:
            recorder._writing.result()
        # A thread of its own completes it, whose time is not this clock's.
        checkpoints.settle({"payments": source}, runtime.metrics, wait=True)

    runtime = EmbeddedRuntime(
        plan.plan,
        sources={"payments": source},
        outputs=Outputs(lambda name: MemorySink()),
        options=options,
        clock=clock,
        checkpoints=checkpoints,
        on_turn=on_turn,
    )
    recorder.watch(runtime)
    runtime.run()
    recorder.close()
    return clock


def of_the_run(readings: Readings) -> list[Finding]:
    """Findings but for the heap of the process, which here is that of all tests before."""
    return [finding for finding in diagnose(readings) if finding.rule != "free_heap"]


@pytest.fixture(scope="module")
def ill(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, SimulatedClock]:
    place = tmp_path_factory.mktemp("ill")
    return place, run(growing(), script(ill=True), place)


def test_what_makes_state_grow_is_found_in_the_order_in_which_to_act(ill: tuple[Path, SimulatedClock]) -> None:
    place, clock = ill
    full = gather(str(place), clock=clock).full_bytes
    assert full > 2 * GB
    found = of_the_run(gather(str(place), clock=clock, limit_bytes=0.9 * full))
    assert [finding.rule for finding in found if not finding.symptom] == ["watermark_held", "long_window", "skewed_key"]
    assert [finding.rule for finding in found if finding.symptom] == ["state_will_not_fit"]
    assert found[0].rule == "state_will_not_fit"
    rules = {finding.rule: finding for finding in found}
    assert rules["state_will_not_fit"].figures["operators"].keys() >= {"payments.card_id"}
    assert rules["watermark_held"].figures["partition"] == STALLED
    behind_us = rules["watermark_held"].figures["behind_others_us"]
    assert (MINUTES - 2) * 60e6 < behind_us < MINUTES * 60e6
    assert rules["watermark_held"].settings == ('Stream("payments", idle_after="30s")',)
    assert rules["long_window"].figures["features"] == ["spend_30d"]
    assert rules["skewed_key"].figures["key"] == "unknown"
    assert rules["skewed_key"].figures["share"] == pytest.approx(0.5, abs=0.01)


def test_figures_of_the_run_are_what_it_did(ill: tuple[Path, SimulatedClock]) -> None:
    place, clock = ill
    readings = gather(str(place), clock=clock)
    (stream,) = readings.streams
    total = sum(isinstance(step, Record) for step in script(ill=True))
    (cards,) = [one for one in readings.operators if one.name == "payments.card_id"]
    assert cards.events == total - 10
    assert cards.kept_us is not None
    assert cards.kept_us / 60e6 == pytest.approx(30 * 1_440 + 60)
    assert cards.covered_us / 60e6 == pytest.approx(MINUTES, abs=1)
    assert stream.partitions == PARTITIONS
    assert readings.checkpoints.interval_s == 60.0
    assert readings.checkpoints.completed >= 2
    assert readings.live
    assert readings.memory.rss
    full = cards.bytes * cards.kept_us / cards.covered_us
    assert cards.full_bytes == pytest.approx(full)


def test_without_the_state_the_history_alone_is_read(ill: tuple[Path, SimulatedClock]) -> None:
    place, clock = ill
    quick, whole = gather(str(place), clock=clock, with_state=False), gather(str(place), clock=clock)
    assert {(one.kind, one.name) for one in quick.operators} == {(one.kind, one.name) for one in whole.operators}
    assert quick.state_bytes <= whole.state_bytes * 1.2
    assert [finding.rule for finding in of_the_run(quick)] == ["watermark_held"]


def test_a_run_that_is_well_has_nothing_to_do(tmp_path: Path) -> None:
    clock = run(modest(), script(ill=False), tmp_path)
    readings = gather(str(tmp_path), clock=clock, limit_bytes=64 * GB)
    assert of_the_run(readings) == []
    assert readings.streams[0].late_share < 0.5
