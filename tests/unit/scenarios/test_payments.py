"""The bundled payments scenario: its definition, its shipped model, and what it finds among people it has not seen."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from gillnet.connectors.memory import MemorySink
from gillnet.lifecycle.dataset import FeatureTable, compute_features
from gillnet.lifecycle.evaluate import at_alert_rate, average_precision
from gillnet.lifecycle.labels import Labels, read_labels
from gillnet.lifecycle.report_payments import run_in_memory, unseen
from gillnet.plan.explain import explain
from gillnet.plan.serde import dumps, loads
from gillnet.runtimes.embedded import EmbeddedRuntime, Outputs
from gillnet.scenarios.payments import ALERT_BUDGET, THRESHOLDS, build, pipeline
from gillnet.serving import ModelRegistry, check_signature, choose_scorer
from gillnet.simulator import LABEL_SCHEMA, Simulation, SimulationConfig, interleaved_sources

if TYPE_CHECKING:
    from gillnet.serving import Model

GOLDEN = Path(__file__).parent / "golden"


@pytest.fixture(scope="module")
def model() -> Model:
    return ModelRegistry().load("fraud@champion")


@pytest.fixture(scope="module")
def week() -> Simulation:
    return Simulation(
        SimulationConfig(
            seed=314,
            duration="7d",
            cards=3_200,
            merchants=320,
            payments_per_day=8_000,
            sessions_per_day=1_600,
            bots_per_day=16,
            disorder_s=2,
            malformed_share=0.002,
            duplicate_share=0.002,
        )
    )


@pytest.fixture(scope="module")
def rows(week: Simulation) -> FeatureTable:
    return compute_features(pipeline.plan, interleaved_sources(week, "payments", "clicks", simulated_arrival=True))


@pytest.fixture(scope="module")
def labels(week: Simulation) -> Labels:
    return read_labels((chunk.values for chunk in week.labels()), LABEL_SCHEMA)


@pytest.mark.parametrize(("clicks", "golden"), [(True, "payments.txt"), (False, "payments_only.txt")])
def test_the_printed_plan_is_the_golden_one(clicks, golden):
    assert explain(build(clicks).plan) == (GOLDEN / golden).read_text("utf-8")


def test_the_plan_survives_its_json():
    assert loads(dumps(pipeline.plan)) == pipeline.plan


def test_between_twenty_and_forty_features_go_to_the_model():
    assert 20 <= len(pipeline.plan.model.features) <= 40


def test_the_shipped_model_takes_exactly_the_pipelines_features(model):
    check_signature(model, pipeline.plan.model.features)
    assert model.signature == pipeline.plan.model.features


def test_the_thresholds_are_those_that_the_training_measured(model):
    measured = model.metadata["metrics"]["thresholds"]
    assert list(measured) == list(THRESHOLDS) == list(ALERT_BUDGET)
    assert pytest.approx(measured, abs=0.0006) == THRESHOLDS


def test_the_shipped_models_figures_lie_beside_it(model):
    assert json.loads((model.path.parent / "metrics.json").read_text("utf-8")) == dict(model.metadata)
    assert 0.4 < model.metadata["metrics"]["average_precision"] < 0.9


def test_the_kernel_gives_xgboosts_very_scores(model, rows):
    scorer = choose_scorer(model)
    assert scorer.kind == "kernel"
    expected = model.booster.inplace_predict(rows.matrix[:5_000], validate_features=False)
    assert np.array_equal(scorer.predict(rows.matrix[:5_000]).view(np.uint32), expected.view(np.uint32))


def test_a_live_run_gives_the_scores_of_the_training_path(model, week, rows):
    """No skew: features computed for training and in a run are the same bits, so the scores are."""
    sink = MemorySink()
    # Real arrival times here, simulated ones in training: no feature may depend on them.
    EmbeddedRuntime(
        pipeline.plan,
        sources=interleaved_sources(week, "payments", "clicks"),
        outputs=Outputs(lambda name: sink if name == "decisions" else None),
        scorer=choose_scorer(model),
    ).run()
    # A score is written as the shortest text that reads back as the model's float32.
    live = {row["tx_id"]: np.float32(row["score"]) for row in map(json.loads, sink.values)}
    expected = model.booster.inplace_predict(rows.matrix, validate_features=False)
    assert live == dict(zip(rows.ids.to_pylist(), expected, strict=True))


def test_the_shipped_model_finds_much_of_the_fraud_of_unseen_people_but_not_all(model, week, rows, labels):
    later = rows.between(week.config.start_us + 3 * 86_400_000_000, week.config.end_us)
    fraud = labels.positive[labels.places(later.ids)]
    score = choose_scorer(model).predict(later.matrix)
    precision = average_precision(fraud, score)
    assert 50 * fraud.mean() < precision < 0.9
    assert 0.25 < at_alert_rate(fraud, score, 0.005).recall < 0.95


def test_flagged_payments_carry_reasons_and_the_score_rules_come_from_the_score():
    simulation = Simulation(unseen(12, 2))
    sinks = {"alerts": MemorySink(), "decisions": MemorySink()}
    EmbeddedRuntime(
        pipeline.plan,
        sources=interleaved_sources(simulation, "payments", "clicks"),
        outputs=Outputs(sinks.get),
        scorer=choose_scorer(ModelRegistry().load(pipeline.plan.model.ref)),
    ).run()
    alerts, decisions = ([json.loads(value) for value in sinks[name].values] for name in ("alerts", "decisions"))
    assert alerts
    # Only what is flagged is explained, in the decisions as in the alerts.
    explained = {row["tx_id"]: row["contributions"] for row in decisions if row.get("contributions")}
    assert explained == {alert["tx_id"]: alert["contributions"] for alert in alerts}
    allowed = [row for row in decisions if row["decision"] == "allow"]
    assert len(allowed) == len(decisions) - len(alerts) > 1_000
    assert not any("contributions" in row for row in allowed)
    for alert in alerts:
        assert alert["reasons"]
        assert alert["contributions"]
        assert ("score_very_high" in alert["reasons"]) == (alert["score"] >= THRESHOLDS["block"])
        if "device_tries_cards" in alert["reasons"]:
            assert alert["decision"] == "block"


def test_a_run_in_memory_decides_every_measured_payment():
    simulation = Simulation(unseen(3, 2))
    observed = run_in_memory(simulation, state_days=1)
    start_us = simulation.config.start_us + 86_400_000_000
    expected = sum(int((chunk.event_time_us >= start_us).sum()) for chunk in simulation.payments())
    assert len(observed.decisions) == expected
    assert observed.latency_ms["p99"] > 0
