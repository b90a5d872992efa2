"""Figures of merit for rare events, from scores and outcomes; plain arrays in, numbers out.

Alert rates stand for an analyst's day: a model is judged by what it finds within the alerts that people can look at.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from gillnet.core.errors import DefinitionError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    Scores = NDArray[np.floating]
    Positive = NDArray[np.bool_]


class AtAlertRate(NamedTuple):
    """What a model finds within a budget of alerts; `threshold` is the least score that is an alert."""

    alert_rate: float
    threshold: float
    recall: float
    precision: float


def average_precision(positive: Positive, score: Scores) -> float:
    """Return the average precision: the mean of the precision over the positives, ranked by falling score.

    Rows of equal score count as one step, so that their order does not matter; 0.0 without positives.

    References
    ----------
    ``sklearn.metrics.average_precision_score``, which it equals.
    """
    positive = _checked(positive, score)
    total = int(positive.sum())
    if not total:
        return 0.0
    order = np.argsort(-score, kind="stable")
    ranked = score[order]
    last_of_tie = np.flatnonzero(np.append(ranked[1:] != ranked[:-1], True))
    found = np.cumsum(positive[order])[last_of_tie]
    precision = found / (last_of_tie + 1)
    return float((np.diff(found, prepend=0) * precision).sum() / total)


def budget_threshold(score: Scores, alert_rate: float) -> float:
    """Return the least score at and above which at most ``alert_rate`` (0 to 1) of the rows lie.

    Infinity where ties at the top would already exceed the budget: a budget is kept, not met on average.
    """
    if not 0 <= alert_rate <= 1:
        raise DefinitionError(f"budget_threshold: alert_rate={alert_rate} must be from 0 to 1; 0.005 is 0.5 %.")
    allowed = int(alert_rate * len(score) + 1e-9)
    if allowed >= len(score):
        return float(score.min()) if len(score) else float("inf")
    ranked = np.sort(score)[::-1]
    within = ranked[:allowed][ranked[:allowed] > ranked[allowed]]
    return float(within[-1]) if len(within) else float("inf")


def at_alert_rate(positive: Positive, score: Scores, alert_rate: float) -> AtAlertRate:
    """Return recall and precision where at most ``alert_rate`` of the rows are alerts; 0.0 where undefined."""
    positive = _checked(positive, score)
    threshold = budget_threshold(score, alert_rate)
    alert = score >= threshold
    hits = int((alert & positive).sum())
    return AtAlertRate(
        alert_rate=float(alert.mean()) if len(alert) else 0.0,
        threshold=threshold,
        recall=hits / max(1, int(positive.sum())),
        precision=hits / max(1, int(alert.sum())),
    )


def recall_by_kind(kinds: NDArray[np.object_], alert: Positive, *, of: Sequence[str]) -> dict[str, float]:
    """Return, for each kind of positive in ``of``, the share of its rows that are alerts; kinds without rows are left out."""
    return {kind: float(alert[kinds == kind].mean()) for kind in of if (kinds == kind).any()}


def action_thresholds(score: Scores, budget: Mapping[str, float]) -> dict[str, float]:
    """Return the score from which each action applies, so that each takes its share of the rows.

    Parameters
    ----------
    score
        Scores of days that neither the model nor the report has seen.
    budget
        Action to its share of the rows, strictest first: the first takes the highest scores.
    """
    spent, thresholds = 0.0, {}
    for action, share in budget.items():
        spent += share
        thresholds[action] = budget_threshold(score, spent)
    return thresholds


def _checked(positive: Positive, score: Scores) -> Positive:
    if len(positive) != len(score):
        raise DefinitionError(f"{len(positive)} outcomes for {len(score)} scores; give one for each row.")
    if np.isnan(score).any():
        raise DefinitionError("a score is NaN and has no rank; look for the row that the model could not score.")
    return positive.astype(np.bool_)
