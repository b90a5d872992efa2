"""Train the payments model from the simulator, through the project's own features: ``python -m gillnet.lifecycle.train_payments``.

The calendar is that of a payment company. Rows to train on are old enough at the cut-off for their labels to be known; the
thresholds are taken from the days after the cut-off, and the figures from the days after those:

```
state builds up │ training rows │ labels mature (30 days) │ cut-off │ validation │ test
day 0           2               20                        50        50           53    57
```

The same arguments give the same model.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import numpy as np

from gillnet.core.time import DAY, duration_us
from gillnet.lifecycle.dataset import FeatureTable, compute_features
from gillnet.lifecycle.evaluate import action_thresholds, at_alert_rate, average_precision, recall_by_kind
from gillnet.lifecycle.labels import PENDING, Labels, mature, outcomes_as_known, read_labels
from gillnet.scenarios.payments import ALERT_BUDGET, build
from gillnet.serving import ModelRegistry, save_model
from gillnet.simulator import LABEL_SCHEMA, Simulation, SimulationConfig, interleaved_sources
from gillnet.simulator.schemas import SCENARIOS

if TYPE_CHECKING:
    from collections.abc import Sequence


ALERT_RATE = 0.005
ROUNDS = 100
BOOSTING: dict[str, Any] = {
    "objective": "binary:logistic",
    "tree_method": "hist",
    "max_depth": 6,
    "eta": 0.1,
    # Fraud is rare and mixed: leaves of a few rows would learn single campaigns by heart.
    "min_child_weight": 10,
    "colsample_bytree": 0.6,
    "seed": 7,
    "nthread": 2,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Calendar:
    """The days, from the simulation's start, at which each part begins; ``end`` ends the test."""

    train: int = 2
    train_end: int = 20
    cut_off: int = 50
    test: int = 53
    end: int = 57


@dataclass(frozen=True, slots=True, kw_only=True)
class Training:
    """What to train on, all of it named in the model's metadata."""

    seed: int = 20_260_105
    cards: int = 8_000
    merchants: int = 800
    payments_per_day: int = 20_000
    calendar: Calendar = field(default_factory=Calendar)

    def simulation(self) -> Simulation:
        """Return the population and its traffic, with the faults of a real road."""
        return Simulation(
            SimulationConfig(
                seed=self.seed,
                duration=f"{self.calendar.end}d",
                cards=self.cards,
                merchants=self.merchants,
                payments_per_day=self.payments_per_day,
                sessions_per_day=self.payments_per_day // 5,
                bots_per_day=self.payments_per_day // 500,
                disorder_s=3,
                late_share=0.005,
                duplicate_share=0.002,
                malformed_share=0.001,
            )
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """A booster, and what save_model and the report need beside it."""

    booster: Any
    signature: tuple[tuple[str, str], ...]
    reference: dict[str, float]
    metadata: dict[str, Any]


def train(training: Training, *, clicks: bool = True, progress: TextIO = sys.stderr) -> Trained:
    """Simulate, compute features, join the labels known at the cut-off, train, and evaluate on later days."""
    plan, simulation, calendar = build(clicks).plan, training.simulation(), training.calendar
    start_us = simulation.config.start_us
    days = {name: start_us + day * DAY for name, day in asdict(calendar).items()}
    print(f"computing the features of {calendar.end} days of payments", file=progress, flush=True)
    others: tuple[Any, ...] = ("clicks",) if clicks else ()
    sources = interleaved_sources(simulation, "payments", *others, simulated_arrival=True)
    keep = [(days["train"], days["train_end"]), (days["cut_off"], days["end"])]
    rows = compute_features(plan, sources, keep=keep)
    labels = read_labels((chunk.values for chunk in simulation.labels()), LABEL_SCHEMA)

    training_rows, outcomes, pending = _training_set(rows, labels, simulation, days)
    print(f"training on {len(training_rows)} rows, {int(outcomes.sum())} of them fraud", file=progress, flush=True)
    booster = _boost(training_rows, outcomes)
    later = rows.between(days["cut_off"], days["test"]), rows.between(days["test"], days["end"])
    counts = {"rows": len(training_rows), "fraud": int(outcomes.sum()), "pending": pending}
    assert plan.model is not None, "the scenario has a model"
    return Trained(
        booster=booster,
        signature=plan.model.features,
        reference=_medians(training_rows, outcomes),
        metadata={
            "trained_on": {**counts, "first_day": calendar.train, "last_day": calendar.train_end},
            "metrics": evaluate(booster, *later, labels),
            "simulation": asdict(simulation.config),
            "calendar": asdict(calendar),
            "boosting": {**BOOSTING, "rounds": ROUNDS},
        },
    )


def evaluate(booster: Any, validation: FeatureTable, test: FeatureTable, labels: Labels) -> dict[str, Any]:
    """Take the thresholds from the validation days, and every figure from the test days, as known in the end."""
    thresholds = action_thresholds(_scores(booster, validation), ALERT_BUDGET)
    places, score = labels.places(test.ids), _scores(booster, test)
    fraud, kinds = labels.positive[places], labels.kinds[places]
    at = at_alert_rate(fraud, score, ALERT_RATE)
    by_action = {action: float((score >= threshold).mean()) for action, threshold in thresholds.items()}
    return {
        "test_rows": len(test),
        "test_fraud": int(fraud.sum()),
        "base_rate": _rounded(fraud.mean()),
        "average_precision": _rounded(average_precision(fraud, score)),
        "alert_rate": ALERT_RATE,
        "recall": _rounded(at.recall),
        "precision": _rounded(at.precision),
        "recall_by_scenario": {
            kind: _rounded(recall)
            for kind, recall in recall_by_kind(kinds, score >= at.threshold, of=SCENARIOS[1:]).items()
        },
        "thresholds": {action: _rounded(threshold) for action, threshold in thresholds.items()},
        "share_at_threshold": {action: _rounded(share) for action, share in by_action.items()},
    }


def write(trained: Trained, directory: Path, *, name: str = "fraud", version: int = 1) -> Path:
    """Write a version into a registry's layout, make it the champion, and put ``metrics.json`` beside it."""
    home = directory / name / str(version)
    home.mkdir(parents=True, exist_ok=True)
    path = home / "model.ubj"
    save_model(
        trained.booster, path, signature=trained.signature, metadata=trained.metadata, reference=trained.reference
    )
    (home / "metrics.json").write_text(json.dumps(trained.metadata, indent=2) + "\n", "utf-8")
    ModelRegistry(directory).set_alias(name, "champion", version)
    return path


def _training_set(
    rows: FeatureTable, labels: Labels, simulation: Simulation, days: dict[str, int]
) -> tuple[FeatureTable, np.ndarray[Any, np.dtype[np.int8]], int]:
    rows = rows.between(days["train"], days["train_end"])
    maturity_us = duration_us(simulation.config.label_maturity, what="label_maturity")
    rows = rows.take(mature(rows.event_time_us, at_us=days["cut_off"], maturity_us=maturity_us))
    outcomes = outcomes_as_known(rows.ids, labels, days["cut_off"])
    known = outcomes != PENDING
    return rows.take(known), outcomes[known], int((~known).sum())


def _boost(rows: FeatureTable, outcomes: np.ndarray[Any, np.dtype[np.int8]]) -> Any:
    import xgboost

    data = xgboost.DMatrix(rows.matrix, outcomes, feature_names=list(rows.names), nthread=BOOSTING["nthread"])
    return xgboost.train(BOOSTING, data, ROUNDS)


def _scores(booster: Any, rows: FeatureTable) -> np.ndarray[Any, np.dtype[np.float32]]:
    scores: np.ndarray[Any, np.dtype[np.float32]] = booster.inplace_predict(rows.matrix, validate_features=False)
    return scores


def _medians(rows: FeatureTable, outcomes: np.ndarray[Any, np.dtype[np.int8]]) -> dict[str, float]:
    """Return what is typical of legitimate payments, for reason codes; a feature that is never there has none."""
    usual = rows.matrix[outcomes == 0]
    there = ~np.isnan(usual).all(axis=0)
    medians = np.nanmedian(usual[:, there], axis=0)
    return {name: _rounded(value) for name, value in zip(np.array(rows.names)[there].tolist(), medians, strict=True)}


def _rounded(value: float) -> float:
    return round(float(value), 6)


def main(arguments: Sequence[str] | None = None) -> None:
    """Train, write, and print the figures."""
    parser = argparse.ArgumentParser(prog="python -m gillnet.lifecycle.train_payments", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="the model registry's directory")
    parser.add_argument("--seed", type=int, default=Training().seed, help="of the simulation")
    parser.add_argument("--no-clicks", action="store_true", help="train on payments alone, as 'fraud-payments-only'")
    options = parser.parse_args(arguments)
    trained = train(Training(seed=options.seed), clicks=not options.no_clicks)
    name = "fraud-payments-only" if options.no_clicks else "fraud"
    path = write(trained, options.out, name=name)
    print(json.dumps(trained.metadata["metrics"], indent=2))  # noqa: T201 - a program's output
    print(f"written to {path}", file=sys.stderr)  # noqa: T201


if __name__ == "__main__":
    main()
