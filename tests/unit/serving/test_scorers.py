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


def train_any(rows: np.ndarray, objective: str, targets: int = 1, **params: object) -> xgb.Booster:
    """Train a small model of any objective; ``targets`` labels a row."""
    label = np.nan_to_num(rows[:, 0]) + 100 * np.nan_to_num(rows[:, 3]) > 80
    labels = np.column_stack([label] * targets) if targets > 1 else label
    data = xgb.DMatrix(rows, labels, feature_names=[name for name, _ in SIGNATURE])
    if objective.startswith("rank:"):
        data.set_group([len(rows) // 4] * 4)
    return xgb.train({"objective": objective, "nthread": 1, "seed": 1, **params}, data, 4)


ONE_SCORE_A_ROW: dict[str, tuple[str, dict[str, object], str]] = {
    "binary:logistic": ("binary:logistic", {}, "kernel"),
    "reg:logistic": ("reg:logistic", {}, "kernel"),
    "reg:squarederror": ("reg:squarederror", {}, "kernel"),
    "a random forest": ("binary:logistic", {"num_parallel_tree": 3, "subsample": 0.5}, "kernel"),
    "dart": ("binary:logistic", {"booster": "dart", "rate_drop": 0.5}, "xgboost"),
    "binary:logitraw": ("binary:logitraw", {}, "xgboost"),
    "binary:hinge": ("binary:hinge", {}, "xgboost"),
    "reg:absoluteerror": ("reg:absoluteerror", {}, "xgboost"),
    "count:poisson": ("count:poisson", {}, "xgboost"),
    "rank:pairwise": ("rank:pairwise", {}, "xgboost"),
    "one quantile": ("reg:quantileerror", {"quantile_alpha": 0.9}, "xgboost"),
}

ANOTHER_KIND: dict[str, tuple[str, dict[str, object], str]] = {
    "multi:softprob": ("multi:softprob", {"num_class": 3}, "3 outputs a row"),
    "multi:softprob of two": ("multi:softprob", {"num_class": 2}, "2 outputs a row"),
    "multi:softmax": ("multi:softmax", {"num_class": 3}, "3 outputs a row"),
    "multi:softmax of two": ("multi:softmax", {"num_class": 2}, "2 outputs a row"),
    "two targets": ("binary:logistic", {"targets": 2}, "2 outputs a row"),
    "trees of two targets": (
        "reg:squarederror",
        {"targets": 2, "multi_strategy": "multi_output_tree"},
        "2 outputs a row",
    ),
    "two quantiles": ("reg:quantileerror", {"quantile_alpha": [0.1, 0.9]}, "2 outputs a row"),
    "gblinear": ("binary:logistic", {"booster": "gblinear"}, "XGBoost says 'Inplace predict is not supported"),
}


@pytest.mark.parametrize(("objective", "params", "kind"), ONE_SCORE_A_ROW.values(), ids=ONE_SCORE_A_ROW)
@pytest.mark.parametrize("suffix", ["ubj", "json"])
def test_a_model_of_one_score_a_row_is_scored_as_xgboost_scores_it(rows, tmp_path, objective, params, kind, suffix):
    booster = train_any(rows, objective, **params)
    path = tmp_path / f"m.{suffix}"
    booster.save_model(path)
    scorer = choose_scorer(load_model(path))
    assert scorer.kind == kind
    np.testing.assert_array_equal(scorer.predict(rows), booster.inplace_predict(rows, validate_features=False))
    assert scorer.score(as_batch(rows)).num_rows == len(rows)
    assert scorer.contributions(rows).shape == (len(rows), len(SIGNATURE) + 1)


@pytest.mark.parametrize(("objective", "params", "said"), ANOTHER_KIND.values(), ids=ANOTHER_KIND)
@pytest.mark.parametrize("suffix", ["ubj", "json"])
def test_a_model_of_another_kind_is_refused_before_a_row_is_scored(rows, tmp_path, objective, params, said, suffix):
    path = tmp_path / f"m.{suffix}"
    train_any(rows, objective, **params).save_model(path)
    with pytest.raises(ModelError) as caught:
        choose_scorer(load_model(path))
    text = str(caught.value)
    assert text.startswith(f"The model m ({path}, objective {objective}) ")
    assert said in text
    assert "such as binary:logistic" in text
    assert "\n" not in text
    assert "workspace" not in text


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
