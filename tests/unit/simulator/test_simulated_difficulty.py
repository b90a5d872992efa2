"""The simulated fraud is neither trivial nor hopeless, and memory stays bounded."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from rolling_features import payment_features
from simulated import records
from sklearn.metrics import average_precision_score
from xgboost import XGBClassifier

from gillnet.simulator import Simulation, SimulationConfig


def held_out_precision(difficulty: float) -> tuple[float, float]:
    """Train on the first days; return average precision on later days, and that of the best single feature."""
    config = SimulationConfig(seed=1, duration="16d", cards=5_000, payments_per_day=12_000, difficulty=difficulty)
    simulation = Simulation(config)
    payments = records(simulation, "payments")
    fraudulent = {row["tx_id"] for row in records(simulation, "labels") if row["fraud"]}
    fraud = np.array([p["tx_id"] in fraudulent for p in payments])
    features = payment_features(payments)
    early, later = slice(int(0.15 * len(fraud)), int(0.65 * len(fraud))), slice(int(0.65 * len(fraud)), None)
    model = XGBClassifier(
        n_estimators=150, max_depth=6, learning_rate=0.1, subsample=0.8, colsample_bytree=0.7, n_jobs=1, random_state=0
    )
    model.fit(features[early], fraud[early])
    score = model.predict_proba(features[later])[:, 1]
    single = max(
        average_precision_score(fraud[later], sign * column) for column in features[later].T for sign in (1.0, -1.0)
    )
    return float(average_precision_score(fraud[later], score)), float(single)


@pytest.mark.slow
def test_an_honest_model_finds_much_of_the_fraud_but_not_all():
    model, single = held_out_precision(0.5)
    assert 0.5 < model < 0.85
    assert single < 0.35


@pytest.mark.slow
def test_stealthy_fraud_is_harder_but_not_hopeless():
    loud, stealthy = held_out_precision(0.0)[0], held_out_precision(1.0)[0]
    assert 0.3 < stealthy < loud < 0.95


def test_memory_does_not_grow_with_the_length_of_the_simulation():
    def peak(duration: str) -> int:
        config = SimulationConfig(duration=duration, cards=1_000, payments_per_day=60_000, late_share=0.01)
        stream = Simulation(config).payments()
        next(stream)
        tracemalloc.start()
        for _ in stream:
            pass
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return most

    assert peak("4d") < 1.3 * peak("2d")
