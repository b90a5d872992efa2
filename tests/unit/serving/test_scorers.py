from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pytest
import structlog.testing
import xgboost as xgb

from gillnet._kernel import Batch
from gillnet.core.errors import ModelError
from gillnet.serving import KernelScorer, Scorer, XGBoostScorer, choose_scorer, load_model, save_model, scorers

from .conftest import SIGNATURE, train


def as_batch(rows: np.ndarray) -> Batch:
    columns = {name: pa.array(rows[:, index], from_pandas=True) for index, (name, _) in enumerate(SIGNATURE)}
    return Batch.from_pyarrow(pa.record_batch(columns))


def test_importing_serving_does_not_load_xgboost():
    code = "import sys, gillnet.serving; sys.exit('xgboost' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_kernel_is_chosen_where_it_gives_xgboosts_bits(model):
    with structlog.testing.capture_logs() as logs:
        scorer = choose_scorer(model)
    assert isinstance(scorer, KernelScorer)
    assert isinstance(scorer, Scorer)
    assert logs == []


def test_the_check_rows_lie_on_the_thresholds(model):
    rows = scorers._threshold_rows(model, 1_024)
    assert np.isnan(rows).any()
    assert np.isinf(rows).any()
    data = xgb.DMatrix(np.clip(rows, -3e38, 3e38), feature_names=model.feature_names)
    reached = model.booster.predict(data, pred_leaf=True)
    trees = json.loads(model.booster.save_raw("json"))["learner"]["gradient_booster"]["model"]["trees"]
    leaves = sum(tree["left_children"].count(-1) for tree in trees)
    # A leaf that no row reaches is a leaf that is not compared.
    assert sum(len(np.unique(tree)) for tree in reached.T) > 0.9 * leaves


def test_xgboost_is_chosen_with_a_log_line_for_models_that_the_kernel_refuses(rows, tmp_path):
    path = tmp_path / "m.ubj"
    save_model(train(rows, "binary:logitraw"), path, signature=SIGNATURE)
    model = load_model(path)
    with pytest.raises(ModelError, match="binary:logitraw"):
        KernelScorer(model)
    with structlog.testing.capture_logs() as logs:
        scorer = choose_scorer(model)
    assert isinstance(scorer, XGBoostScorer)
    assert isinstance(scorer, Scorer)
    assert "binary:logitraw" in logs[0]["reason"]


def test_xgboost_is_chosen_with_a_warning_if_one_bit_differs(model, monkeypatch):
    honest = KernelScorer.predict

    def one_bit_off(self, matrix):
        scores = honest(self, matrix)
        scores.view(np.uint32)[-1] ^= 1
        return scores

    monkeypatch.setattr(KernelScorer, "predict", one_bit_off)
    with structlog.testing.capture_logs() as logs:
        assert isinstance(choose_scorer(model), XGBoostScorer)
    assert logs[0]["log_level"] == "warning"
    assert "differs" in logs[0]["reason"]


def test_both_scorers_give_the_same_batch(model, rows):
    kernel, xgboost = KernelScorer(model), XGBoostScorer(model)
    for count in (0, 1, 5, 400):
        batch = as_batch(rows[:count])
        assert kernel.score(batch).to_pyarrow().equals(xgboost.score(batch).to_pyarrow())
    for scorer in (kernel, xgboost):
        with pytest.raises(ValueError, match="'score' already"):
            scorer.score(scorer.score(as_batch(rows)))


def test_both_scorers_take_any_memory_layout_and_no_rows(model, rows):
    for scorer in (KernelScorer(model), XGBoostScorer(model)):
        plain = scorer.predict(rows)
        np.testing.assert_array_equal(scorer.predict(np.asfortranarray(rows)), plain)
        np.testing.assert_array_equal(scorer.predict(rows[::2]), plain[::2])
        assert scorer.predict(rows[:0]).shape == (0,)
        assert scorer.contributions(rows[:0]).shape == (0, 5)


def test_both_scorers_stop_at_the_best_round(model, rows):
    from dataclasses import replace

    short = replace(model, rounds=7)
    expected = model.booster.inplace_predict(rows, iteration_range=(0, 7), validate_features=False)
    for scorer in (KernelScorer(short), XGBoostScorer(short)):
        np.testing.assert_array_equal(scorer.predict(rows), expected)
    np.testing.assert_allclose(
        KernelScorer(short).contributions(rows), XGBoostScorer(short).contributions(rows), atol=1e-4
    )
