"""The bundled take-over scenario: its definition, and how its report holds first and last decisions against the labels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa

from gillnet.lifecycle.labels import Labels
from gillnet.lifecycle.report_takeover import TAKEOVER, Observed, judge, run_in_memory
from gillnet.observability.metrics import RunMetrics
from gillnet.plan.explain import explain
from gillnet.plan.serde import dumps, loads
from gillnet.scenarios.takeover import build, pipeline
from gillnet.simulator import Simulation, SimulationConfig

GOLDEN = Path(__file__).parent / "golden"


def test_the_printed_plan_is_the_golden_one() -> None:
    assert explain(build().plan) == (GOLDEN / "takeover.txt").read_text("utf-8")


def test_the_plan_survives_its_json() -> None:
    assert loads(dumps(pipeline.plan)) == pipeline.plan


def test_the_report_tells_what_revisions_caught_lost_and_cleared() -> None:
    kinds = {"a": TAKEOVER, "b": TAKEOVER, "c": TAKEOVER, "d": "legitimate", "e": "legitimate", "f": "quiet_fraud"}
    labels = Labels(
        ids=pa.array(list(kinds), pa.string()),
        positive=np.array([kind != "legitimate" for kind in kinds.values()]),
        kinds=np.array(list(kinds.values()), dtype=object),
        known_at_us=np.zeros(len(kinds), dtype=np.int64),
    )
    first = {"a": "block", "b": "allow", "c": "review", "d": "review", "e": "allow", "f": "review"}
    last = {**first, "b": "block", "c": "allow", "d": "allow"}
    found = judge(
        Observed(first=first, last=last, revised=4, metrics=RunMetrics()),
        labels,
        seed=1,
        late_share=0.02,
        click_delay="2m",
    )
    assert (found.payments, found.takeovers, found.revised, found.flipped) == (6, 3, 4, 3)
    assert (found.caught_by_revision, found.lost_by_revision, found.cleared_by_revision) == (1, 1, 1)
    at_first, in_the_end = found.at_first, found.in_the_end
    assert (at_first.flagged, at_first.precision, at_first.recall, at_first.any_fraud) == (4, 0.5, 0.6667, 0.75)
    assert (at_first.block_precision, at_first.block_recall) == (1.0, 0.3333)
    assert (in_the_end.flagged, in_the_end.precision, in_the_end.recall) == (3, 0.6667, 0.6667)
    assert (in_the_end.block_precision, in_the_end.block_recall) == (1.0, 0.6667)


def test_a_run_in_its_own_time_accounts_for_every_record_and_revises_rows() -> None:
    config = SimulationConfig(
        seed=4, duration="1d", cards=300, merchants=64, payments_per_day=2_000, sessions_per_day=400, late_share=0.05
    )
    observed = run_in_memory(Simulation(config), state_days=0, click_delay="2m")
    streams = observed.metrics.streams
    assert all(counts.balanced for counts in streams.values())
    assert min(counts.late for counts in streams.values()) > 0
    assert min(counts.too_late for counts in streams.values()) > 0
    assert len(observed.first) == len(observed.last) == streams["payments"].scored
    assert 0 < observed.revised <= observed.metrics.revisions
