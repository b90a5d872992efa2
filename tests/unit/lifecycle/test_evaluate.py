"""Figures of merit: against scikit-learn, against counting by hand, and their edges."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from gillnet.core.errors import DefinitionError
from gillnet.lifecycle.evaluate import (
    action_thresholds,
    at_alert_rate,
    average_precision,
    budget_threshold,
    recall_by_kind,
)


@pytest.mark.parametrize("distinct", [3, 50, 100_000])
def test_average_precision_equals_scikit_learns_with_ties_and_without(distinct):
    rng = np.random.default_rng(5)
    positive = rng.random(4_000) < 0.02
    score = (rng.integers(0, distinct, 4_000) / distinct + 0.3 * positive).astype(np.float32)
    assert average_precision(positive, score) == pytest.approx(average_precision_score(positive, score), abs=1e-12)


def test_average_precision_does_not_depend_on_the_order_of_rows():
    rng = np.random.default_rng(6)
    positive, score = rng.random(500) < 0.1, rng.integers(0, 9, 500).astype(np.float64)
    shuffled = rng.permutation(500)
    assert average_precision(positive, score) == average_precision(positive[shuffled], score[shuffled])


def test_without_positives_nothing_is_found():
    score = np.array([0.2, 0.9])
    assert average_precision(np.zeros(2, bool), score) == 0.0
    assert at_alert_rate(np.zeros(2, bool), score, 0.5).recall == 0.0


def test_recall_and_precision_within_the_budget():
    score = np.linspace(1, 0, 1_000)
    positive = np.zeros(1_000, bool)
    positive[[0, 1, 3, 10, 500]] = True
    at = at_alert_rate(positive, score, 0.005)
    assert at.alert_rate == 0.005
    assert at.threshold == score[4]
    assert at.recall == pytest.approx(3 / 5)
    assert at.precision == pytest.approx(3 / 5)


def test_ties_never_exceed_the_budget():
    score = np.array([0.9, 0.8, 0.8, 0.8, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1])
    assert budget_threshold(score, 0.2) == 0.9
    assert budget_threshold(score, 0.4) == 0.8
    assert budget_threshold(np.ones(10), 0.5) == np.inf
    assert budget_threshold(score, 0.0) == np.inf
    assert budget_threshold(score, 1.0) == 0.1


def test_each_action_takes_its_share():
    score = np.arange(1_000) / 1_000
    thresholds = action_thresholds(score, {"block": 0.01, "step_up": 0.02, "review": 0.03})
    assert [int((score >= threshold).sum()) for threshold in thresholds.values()] == [10, 30, 60]
    assert list(thresholds) == ["block", "step_up", "review"]


def test_recall_by_kind_leaves_out_what_is_not_there():
    kinds = np.array(["spree", "spree", "quiet", "legitimate"], object)
    alert = np.array([True, False, False, True])
    assert recall_by_kind(kinds, alert, of=["spree", "quiet", "collusion"]) == {"spree": 0.5, "quiet": 0.0}


@pytest.mark.parametrize(
    ("call", "word"),
    [
        (lambda: average_precision(np.ones(2, bool), np.ones(3)), "2 outcomes for 3 scores"),
        (lambda: average_precision(np.ones(2, bool), np.array([1, np.nan])), "NaN"),
        (lambda: budget_threshold(np.ones(3), 5), "from 0 to 1"),
    ],
)
def test_what_has_no_answer_is_an_error(call, word):
    with pytest.raises(DefinitionError, match=word):
        call()
