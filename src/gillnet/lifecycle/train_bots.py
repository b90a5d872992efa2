"""Fit the weights of the bots scenario's sequential score: ``python -m gillnet.lifecycle.train_bots``.

1. Simulate people and bots at each difficulty, and take the rows that the pipeline itself gives for them.
2. Look at every session after 3, 4, 5, … clicks (`CHECKPOINTS`), as long as it lasts: surviving to a checkpoint is
   evidence too, so that the odds there, over the odds of sessions, are the likelihood ratio of all that was seen.
3. Put each feature into bins and fit one weight per bin by logistic regression. Levels and kinds of bots weigh the
   same, bots together as much as people, so that the log-odds are the log-likelihood ratio.
4. Measure on a simulation that was not fitted, next to boosted trees on the same features and to the rate alone.

Take-overs are neither people nor bots here: they are left out of the fit and of the false alarms.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import typer
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from gillnet.api.pipeline import Pipeline
from gillnet.lifecycle.bot_prefixes import CHECKPOINTS, Prefixes, prefixes
from gillnet.scenarios.bots import (
    BLOCK_FALSE_ALARMS,
    EVIDENCE_FILE,
    MIN_CLICKS,
    REVIEW_FALSE_ALARMS,
    bot_sessions,
)
from gillnet.scenarios.sequential import EvidenceTerm, SequentialScore, wald_threshold
from gillnet.simulator import Simulation, SimulationConfig

if TYPE_CHECKING:
    from collections.abc import Sequence
Floats = NDArray[np.float64]

LEVELS = (0, 1, 2)
KINDS = ("scraper", "credential_stuffing")
TRAIN_SEED, VALIDATION_SEED = 1_000, 2_000
REGULARISATION = 1.0
"""scikit-learn's C, with rows weighing 1 on average: 0.01 halves the weights and costs level 2 a third more clicks."""

BINS: dict[str, tuple[str, tuple[float, ...]]] = {
    "evidence_length": ("clicks", (5, 8, 12, 17, 24, 33, 41, 48, 57, 80, 115)),
    "evidence_pace": ("clicks_per_minute", (2, 4, 8, 12, 16, 20, 25, 30, 40, 60, 90)),
    "evidence_variation": ("gap_variation", (0.02, 0.2, 0.35, 0.5, 0.7, 0.9, 1.2, 1.6, 2.2, 3)),
    "evidence_steadiness": ("steady_gaps", (0.5, 1, 2, 3, 4, 5, 6, 8, 10, 14, 20)),
    "evidence_regularity": ("regular_gaps", (2, 3, 4, 5, 6, 8, 10, 14, 20)),
    "evidence_paths": ("unique_path_ratio", (0.2, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.999)),
    "evidence_repeats": ("repeated_urls", (1, 2, 3, 4, 6, 8, 12, 16)),
    "evidence_entropy": ("url_entropy", (1, 1.5, 2, 2.5, 3, 3.5, 4, 4.5)),
    "evidence_failures": ("failed_logins", (1, 2, 3, 4, 5, 6, 8, 12)),
    "evidence_errors": ("other_errors", (1, 2, 3, 4)),
    "evidence_addresses": ("addresses", (2, 3, 4, 5, 7)),
    "evidence_agents": ("agents", (2, 3, 4)),
    "evidence_accounts": ("accounts", (1, 2, 3, 4, 6)),
    "evidence_referrers": ("unreferred", (2, 3, 4, 6)),
    "evidence_scripts": ("scripted", (1,)),
    "evidence_searches": ("searches", (1, 2, 4, 7)),
    "evidence_sweep": ("swept_products", (0.1, 0.5, 1.5, 2.5, 4, 8)),
    "evidence_neighbours": ("neighbour_products", (1, 2, 3, 4, 6, 8)),
}
"""Term to the feature that it looks at and its edges: counts one by one where they are small, then coarser."""


def simulate(seed: int, days: int) -> list[Prefixes]:
    """Return prefixes at each level; bots are more frequent than usual, since the fit weighs them anyway."""
    plan = Pipeline(bot_sessions()).plan
    return [prefixes(Simulation(simulation_config(seed, days, level)), plan) for level in LEVELS]


def simulation_config(seed: int, days: int, level: int) -> SimulationConfig:
    """Return what is simulated for a level."""
    return SimulationConfig(
        seed=seed + level,
        duration=f"{days}d",
        bot_difficulty=level,
        payments_per_day=15_000,
        sessions_per_day=15_000,
        bots_per_day=400,
    )


def fit(data: Sequence[Prefixes]) -> SequentialScore:
    """Fit one weight per bin."""
    from sklearn.linear_model import LogisticRegression  # type: ignore[import-untyped,unused-ignore]

    rows = [_training_rows(part) for part in data]
    indicators = np.vstack([_indicators(part, chosen) for part, chosen in zip(data, rows, strict=True)])
    bot = np.concatenate([part.bot[part.session[chosen]] for part, chosen in zip(data, rows, strict=True)])
    model = LogisticRegression(C=REGULARISATION, max_iter=1_000)
    model.fit(indicators, bot, sample_weight=_weights(data, rows))
    return SequentialScore(bias=round(float(model.intercept_[0]), 4), terms=_terms(model.coef_[0]))


def total(score: SequentialScore, part: Prefixes) -> Floats:
    """Return the score of every row, as the row expressions compute it."""
    result = np.full(len(part.session), score.bias)
    for term in score.terms:
        values = part.features[term.of]
        weights = np.array([*term.weights, term.missing])
        result += weights[_bins(values, term.edges)]
    return result


def measure(data: Sequence[Prefixes], scores: Sequence[Floats], threshold: float) -> dict[str, Any]:
    """Return false alarms per 1,000 human sessions, and for each level and kind the recall and the clicks it takes."""
    alarms = people = 0
    found: dict[str, Any] = {}
    for level, part, score in zip(LEVELS, data, scores, strict=True):
        first = clicks_to_detection(part, score, threshold)
        human = part.kind == "human"
        alarms, people = alarms + int(np.isfinite(first[human]).sum()), people + int(human.sum())
        for kind in KINDS:
            clicks = first[part.kind == kind]
            seen = clicks[np.isfinite(clicks)]
            found[f"level {level} {kind}"] = {
                "recall": round(len(seen) / len(clicks), 4),
                "clicks_p50": float(np.quantile(seen, 0.5)) if len(seen) else None,
                "clicks_p90": float(np.quantile(seen, 0.9)) if len(seen) else None,
            }
    return {"threshold": round(threshold, 3), "false_alarms_per_1000": round(1_000 * alarms / people, 3), **found}


def clicks_to_detection(part: Prefixes, score: Floats, threshold: float) -> Floats:
    """Return, for each session, the clicks after which the score first exceeds the threshold; infinite if never."""
    first = np.full(len(part.bot), np.inf)
    hit = (score > threshold) & (part.clicks >= MIN_CLICKS)
    np.minimum.at(first, part.session[hit], part.clicks[hit])
    return first


def threshold_at(data: Sequence[Prefixes], scores: Sequence[Floats], false_alarms: float) -> float:
    """Return the threshold that this share of human sessions exceeds at some click."""
    highest = []
    for part, score in zip(data, scores, strict=True):
        most = np.full(len(part.bot), -np.inf)
        np.maximum.at(most, part.session, np.where(part.clicks >= MIN_CLICKS, score, -np.inf))
        highest.append(most[part.kind == "human"])
    return float(np.quantile(np.concatenate(highest), 1 - false_alarms))


def compare(score: SequentialScore, train: Sequence[Prefixes], unseen: Sequence[Prefixes]) -> dict[str, Any]:
    """Measure the score, boosted trees on the same features, and the rate alone, at one false alarm in 1,000."""
    sequential = [total(score, part) for part in unseen]
    contenders = {
        "sequential": sequential,
        "boosted trees": _boosted(train, unseen),
        "rate alone": [np.where(part.clicks >= 5, part.features["clicks_per_minute"], -1.0) for part in unseen],
    }
    measured = {
        f"sequential, Wald at {share}": measure(unseen, sequential, wald_threshold(share))
        for share in (BLOCK_FALSE_ALARMS, REVIEW_FALSE_ALARMS)
    }
    for name, scores in contenders.items():
        measured[f"{name}, 1 false alarm in 1,000"] = measure(unseen, scores, threshold_at(unseen, scores, 0.001))
    return measured


def _training_rows(part: Prefixes) -> NDArray[np.bool_]:
    counted: NDArray[np.bool_] = part.kind != "account_takeover"
    return part.at_checkpoints() & counted[part.session]


def _weights(data: Sequence[Prefixes], rows: Sequence[NDArray[np.bool_]]) -> Floats:
    """Give people 1 a session, and bots of each level and kind an equal part of as much in all."""
    people = sum(int((part.kind == "human").sum()) for part in data)
    weights = []
    for part, chosen in zip(data, rows, strict=True):
        of_session = np.ones(len(part.bot))
        for kind in KINDS:
            members = part.kind == kind
            of_session[members] = people / (len(data) * len(KINDS) * members.sum())
        weights.append(of_session[part.session[chosen]])
    joined = np.concatenate(weights)
    return np.asarray(joined / joined.mean())


def _bins(values: Floats, edges: Sequence[float]) -> NDArray[np.int64]:
    """Return each value's bin; null has one of its own after the last."""
    bins = np.searchsorted(np.asarray(edges, dtype=np.float64), values, side="right")
    return np.where(np.isnan(values), len(edges) + 1, bins)


def _indicators(part: Prefixes, rows: NDArray[np.bool_]) -> NDArray[np.float32]:
    columns = [
        np.eye(len(edges) + 2, dtype=np.float32)[_bins(part.features[feature][rows], edges)]
        for feature, edges in BINS.values()
    ]
    return np.hstack(columns)


def _terms(coefficients: Floats) -> tuple[EvidenceTerm, ...]:
    terms, start = [], 0
    for name, (feature, edges) in BINS.items():
        weights = [round(float(value), 4) for value in coefficients[start : start + len(edges) + 2]]
        terms.append(EvidenceTerm(name=name, of=feature, edges=edges, weights=tuple(weights[:-1]), missing=weights[-1]))
        start += len(weights)
    return tuple(terms)


def _boosted(train: Sequence[Prefixes], unseen: Sequence[Prefixes]) -> list[Floats]:
    import xgboost as xgb

    names = sorted({feature for feature, _ in BINS.values()})
    rows = [_training_rows(part) for part in train]
    matrix = np.vstack([part.matrix(names)[chosen] for part, chosen in zip(train, rows, strict=True)])
    bot = np.concatenate([part.bot[part.session[chosen]] for part, chosen in zip(train, rows, strict=True)])
    options = {"objective": "binary:logistic", "max_depth": 5, "eta": 0.1, "subsample": 0.7, "min_child_weight": 5}
    booster = xgb.train(options | {"seed": 1}, xgb.DMatrix(matrix, label=bot, weight=_weights(train, rows)), 200)
    return [
        np.asarray(booster.predict(xgb.DMatrix(part.matrix(names)), output_margin=True), dtype=np.float64)
        for part in unseen
    ]


def _provenance(train: Sequence[Prefixes], days: int, measured: dict[str, Any]) -> dict[str, Any]:
    return {
        "fitted_by": "python -m gillnet.lifecycle.train_bots",
        "simulation": {"seed": TRAIN_SEED, "validation_seed": VALIDATION_SEED, "days": days, "levels": list(LEVELS)},
        "sessions": {
            "human": sum(int((part.kind == "human").sum()) for part in train),
            "bot": sum(int(part.bot.sum()) for part in train),
        },
        "checkpoints": list(CHECKPOINTS),
        "regularisation": REGULARISATION,
        "unit": "nats; log-likelihood ratio of bot over human",
        "validation": measured,
    }


def _show(measured: dict[str, Any]) -> None:
    table = Table(title="Unseen sessions: recall (clicks at detection, median/p90)")
    cases = [f"level {level} {kind}" for level in LEVELS for kind in KINDS]
    for heading in ("", "threshold", "false alarms /1,000", *cases):
        table.add_column(heading)
    for name, figures in measured.items():
        cells = []
        for case in cases:
            found = figures[case]
            clicks = "-" if found["clicks_p50"] is None else f"{found['clicks_p50']:.0f}/{found['clicks_p90']:.0f}"
            cells.append(f"{found['recall']:.3f} ({clicks})")
        table.add_row(name, f"{figures['threshold']:.2f}", f"{figures['false_alarms_per_1000']:.2f}", *cells)
    Console(width=200).print(table)


def main(days: int = 3, output: Path = EVIDENCE_FILE) -> None:
    """Fit, measure, and write the score."""
    train, unseen = simulate(TRAIN_SEED, days), simulate(VALIDATION_SEED, max(1, days - 1))
    score = fit(train)
    measured = compare(score, train, unseen)
    _show(measured)
    SequentialScore(bias=score.bias, terms=score.terms, provenance=_provenance(train, days, measured)).save(output)
    Console().print(f"wrote {output.name}: {len(score.terms)} terms")


if __name__ == "__main__":
    typer.run(main)
