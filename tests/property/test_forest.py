"""The kernel's trees against XGBoost itself: the same 32 bits for every row, whatever the model and the rows."""

from __future__ import annotations

import json
import re
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pytest
import xgboost as xgb
from effort import examples
from hypothesis import HealthCheck, given
from hypothesis import strategies as st

from gillnet._kernel import Batch, Forest, feature_matrix

ROWS = 600

relaxed = examples(60, suppress_health_check=[HealthCheck.too_slow])


def names(width: int) -> list[str]:
    return [f"feature_{index}" for index in range(width)]


def draw_rows(rng: np.random.Generator, width: int, kind: str) -> np.ndarray:
    if kind == "ties":
        rows = rng.integers(-3, 4, (ROWS, width)).astype(np.float32) / 2
    elif kind == "denormal":
        rows = (rng.integers(-50, 51, (ROWS, width)) * np.float32(1e-45)).astype(np.float32)
    elif kind == "wide":
        rows = (rng.normal(size=(ROWS, width)) * 10.0 ** rng.integers(-30, 30, (ROWS, width))).astype(np.float32)
    else:
        rows = rng.normal(size=(ROWS, width)).astype(np.float32)
    rows[rng.random(rows.shape) < 0.1] = np.nan
    return rows


def hostile_rows(rng: np.random.Generator, booster: xgb.Booster, rows: np.ndarray) -> np.ndarray:
    """Rows on the thresholds, one float beside them, and at the ends of the number line."""
    trees = json.loads(booster.save_raw("json"))["learner"]["gradient_booster"]["model"]["trees"]
    cuts = np.concatenate([np.array(tree["split_conditions"], np.float32) for tree in trees])
    extremes = np.array([0.0, -0.0, np.inf, -np.inf, np.nan, 1e-45, -1e-45, 3.4e38, -3.4e38], np.float32)
    pool = np.concatenate(
        [cuts, np.nextafter(cuts, np.float32(np.inf)), np.nextafter(cuts, -np.float32(np.inf)), extremes]
    )
    return rng.choice(pool, rows.shape)


def train(rng: np.random.Generator, rows: np.ndarray, params: dict, rounds: int) -> xgb.Booster:
    signal = np.nan_to_num(np.sign(rows[:, 0])) + rng.normal(size=len(rows))
    label = signal if params["objective"] == "reg:squarederror" else (signal > 0.3).astype(np.float32)
    data = xgb.DMatrix(rows, label, feature_names=names(rows.shape[1]))
    return xgb.train({"nthread": 1, "verbosity": 0, **params}, data, rounds)


def kernel_scores(booster: xgb.Booster, rows: np.ndarray, rounds: int | None = None) -> np.ndarray:
    forest = Forest.from_json(bytes(booster.save_raw("json")), names(rows.shape[1]), rounds)
    out = np.empty(len(rows), np.float32)
    forest.predict_matrix(rows, out)
    return out


def assert_same_bits(got: np.ndarray, expected: np.ndarray) -> None:
    assert got.dtype == expected.dtype == np.float32
    np.testing.assert_array_equal(got.view(np.uint32), expected.view(np.uint32))


@relaxed
@given(
    seed=st.integers(0, 2**32 - 1),
    width=st.sampled_from([1, 2, 7, 33]),
    kind=st.sampled_from(["normal", "ties", "denormal", "wide"]),
    objective=st.sampled_from(["binary:logistic", "reg:logistic", "reg:squarederror"]),
    depth=st.sampled_from([1, 2, 3, 6, 8, 11]),
    grow=st.sampled_from(["depthwise", "lossguide"]),
    base_score=st.sampled_from([None, 0.5, 0.001, 0.9]),
    parallel=st.sampled_from([1, 3]),
    rounds=st.sampled_from([1, 7, 8, 9, 30]),
)
def test_every_row_gets_xgboosts_bits(seed, width, kind, objective, depth, grow, base_score, parallel, rounds):
    rng = np.random.default_rng(seed)
    rows = draw_rows(rng, width, kind)
    params = {
        "objective": objective,
        "max_depth": depth,
        "grow_policy": grow,
        "tree_method": "hist",
        "num_parallel_tree": parallel,
        "subsample": 0.7,
        "min_child_weight": 0.1,
        "seed": seed % 1000,
    }
    if base_score is not None:
        params["base_score"] = base_score
    booster = train(rng, rows, params, rounds)
    for probe in (rows, hostile_rows(rng, booster, rows)):
        assert_same_bits(kernel_scores(booster, probe), booster.inplace_predict(probe))


@pytest.mark.parametrize("rows", [1, 2, 7, 8, 9, 15, 63, 64, 65, 71, 128, 600])
@pytest.mark.parametrize("depth", [0, 6, 14])
def test_the_number_of_rows_does_not_change_a_score(rows, depth):
    rng = np.random.default_rng(11)
    data = draw_rows(rng, 5, "normal")
    params = {
        "objective": "binary:logistic",
        "max_depth": depth or 1,
        "gamma": 0 if depth else 1e9,
        "min_child_weight": 0,
    }
    booster = train(rng, data, params, 21)
    alone = np.concatenate([kernel_scores(booster, data[row : row + 1]) for row in range(rows)])
    assert_same_bits(kernel_scores(booster, data[:rows]), alone)
    assert_same_bits(alone, booster.inplace_predict(data[:rows]))


def test_extreme_margins_go_through_the_sigmoid_as_in_xgboost():
    rng = np.random.default_rng(3)
    rows = draw_rows(rng, 3, "normal")
    params = {"objective": "reg:squarederror", "max_depth": 4, "eta": 1.0}
    data = xgb.DMatrix(rows, rng.normal(size=ROWS) * 60, feature_names=names(3))
    booster = xgb.train({"nthread": 1, **params}, data, 4)
    raw = bytes(booster.save_raw("json")).replace(b"reg:squarederror", b"binary:logistic")
    raw = raw.replace(booster_base_score(booster), b"[5E-1]")
    logistic = xgb.Booster(params={"nthread": 1})
    logistic.load_model(bytearray(raw))
    expected = logistic.inplace_predict(rows)
    assert expected.min() < 1e-30
    assert expected.max() == 1.0
    assert_same_bits(kernel_scores(logistic, rows), expected)


def booster_base_score(booster: xgb.Booster) -> bytes:
    raw = bytes(booster.save_raw("json"))
    start = raw.index(b'"base_score":"') + len(b'"base_score":"')
    return raw[start : raw.index(b'"', start)]


def test_early_stopping_scores_with_the_best_round_only():
    rng = np.random.default_rng(5)
    rows = draw_rows(rng, 4, "normal")
    label = rng.integers(0, 2, ROWS)
    train_set = xgb.DMatrix(rows[:300], label[:300], feature_names=names(4))
    valid = xgb.DMatrix(rows[300:], label[300:], feature_names=names(4))
    params = {"objective": "binary:logistic", "num_parallel_tree": 2, "nthread": 1}
    booster = xgb.train(params, train_set, 50, evals=[(valid, "v")], early_stopping_rounds=3, verbose_eval=False)
    kept = booster.best_iteration + 1
    assert kept < booster.num_boosted_rounds()
    assert_same_bits(kernel_scores(booster, rows, kept), booster.inplace_predict(rows, iteration_range=(0, kept)))


@pytest.mark.parametrize(("depth", "width"), [(3, 4), (6, 35), (12, 20), (20, 40)])
def test_contributions_are_xgboosts_and_sum_to_the_margin(depth, width):
    rng = np.random.default_rng(7)
    rows = draw_rows(rng, width, "normal")
    params = {"objective": "binary:logistic", "max_depth": depth, "min_child_weight": 0.01, "colsample_bynode": 0.3}
    booster = train(rng, rows, params, 20)
    forest = Forest.from_json(bytes(booster.save_raw("json")), names(width))
    got = np.empty((ROWS, width + 1), np.float32)
    forest.contributions(rows, got)
    data = xgb.DMatrix(rows, feature_names=names(width))
    np.testing.assert_allclose(got, booster.predict(data, pred_contribs=True), atol=1e-4, rtol=0)
    np.testing.assert_allclose(got.sum(axis=1), booster.predict(data, output_margin=True), atol=1e-4, rtol=0)


def test_a_batch_is_scored_as_the_matrix_that_a_python_user_would_build():
    rng = np.random.default_rng(9)
    count = 200
    cents = [None if rng.random() < 0.1 else int(value) for value in rng.integers(-(10**17), 10**17, count)]
    columns = {
        "feature_0": pa.array([None if c is None else Decimal(c).scaleb(-3) for c in cents], pa.decimal128(38, 3)),
        "feature_1": pa.array([None if rng.random() < 0.1 else float(v) for v in rng.normal(size=count)], pa.float64()),
        "feature_2": pa.array([int(v) for v in rng.integers(-(2**62), 2**62, count)], pa.int64()),
        "feature_3": pa.array([None if rng.random() < 0.2 else bool(v) for v in rng.integers(0, 2, count)]),
        "feature_4": pa.array(rng.normal(size=count).astype(np.float32)),
    }
    nan = np.float32(np.nan)
    matrix = np.array(
        [
            [nan if c is None else np.float32(float(Decimal(c).scaleb(-3))) for c in cents],
            [nan if v is None else np.float32(v) for v in columns["feature_1"].to_pylist()],
            columns["feature_2"].to_numpy().astype(np.float32),
            [nan if v is None else np.float32(v) for v in columns["feature_3"].to_pylist()],
            columns["feature_4"].to_numpy(),
        ],
        np.float32,
    ).T.copy()
    data = xgb.DMatrix(matrix, rng.integers(0, 2, count), feature_names=names(5))
    booster = xgb.train({"objective": "binary:logistic", "nthread": 1}, data, 20)
    # Columns in another order, among others, and in a slice: they are found by name.
    shuffled = {"id": pa.array([str(row) for row in range(count)]), **dict(reversed(columns.items()))}
    batch = Batch.from_pyarrow(pa.record_batch(shuffled).slice(3, 150))
    forest = Forest.from_json(bytes(booster.save_raw("json")), names(5))

    scored = forest.score(batch).to_pyarrow()

    expected = booster.inplace_predict(matrix[3:153])
    assert scored.schema.names == [*shuffled, "score"]
    assert_same_bits(scored.column("score").to_numpy(), expected)
    assert_same_bits(forest.predict(batch).to_numpy(), expected)
    converted = np.empty((150, 5), np.float32)
    feature_matrix(batch, names(5), converted)
    np.testing.assert_array_equal(converted, matrix[3:153])


def refused(params: dict, label: np.ndarray, **data: object) -> str:
    rng = np.random.default_rng(1)
    rows = (
        draw_rows(rng, 3, "ties") if "feature_types" not in data else rng.integers(0, 4, (ROWS, 3)).astype(np.float32)
    )
    matrix = xgb.DMatrix(rows, label, feature_names=names(3), **data)
    booster = xgb.train({"nthread": 1, "verbosity": 0, **params}, matrix, 3)
    with pytest.raises(ValueError, match="plan: forest") as caught:
        Forest.from_json(bytes(booster.save_raw("json")), names(3))
    return str(caught.value)


def test_models_of_other_kinds_are_refused_by_name():
    two = np.arange(ROWS) % 2
    assert "'count:poisson'" in refused({"objective": "count:poisson"}, two)
    assert "'binary:logitraw'" in refused({"objective": "binary:logitraw"}, two)
    assert "'dart'" in refused({"booster": "dart", "objective": "binary:logistic"}, two)
    assert "'gblinear'" in refused(
        {"booster": "gblinear", "objective": "binary:logistic", "updater": "coord_descent"}, two
    )
    assert "classes" in refused({"objective": "multi:softprob", "num_class": 3}, np.arange(ROWS) % 3)
    assert "targets" in refused({"objective": "reg:squarederror"}, np.stack([two, two], axis=1))
    categorical = refused(
        {"objective": "binary:logistic", "max_cat_to_onehot": 1},
        two,
        feature_types=["c", "c", "c"],
        enable_categorical=True,
    )
    assert "categorical" in categorical


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (b"", "not a tree model"),
        (b"{}", "not a tree model"),
        (b'{"learner": {"objective": {"name": 3}}}', "not a tree model"),
    ],
)
def test_bytes_that_are_no_model_are_refused(broken, message):
    with pytest.raises(ValueError, match=message):
        Forest.from_json(broken, names(3))


def test_trees_with_wild_indices_are_refused():
    rng = np.random.default_rng(2)
    rows = draw_rows(rng, 2, "normal")
    booster = train(rng, rows, {"objective": "binary:logistic", "max_depth": 1}, 1)
    raw = bytes(booster.save_raw("json"))
    for good, bad, message in [
        (b'"left_children":[1,', b'"left_children":[7,', "does not exist"),
        (b'"left_children":[1,', b'"left_children":[0,', "two parents"),
        (b'"split_indices":[0,', b'"split_indices":[9,', "splits on feature 9"),
        (b'"default_left":[', b'"default_left":[0,', "torn"),
        (b'"num_feature":"2"', b'"num_feature":"3"', "takes 3 features"),
    ]:
        assert good in raw
        with pytest.raises(ValueError, match=message):
            Forest.from_json(raw.replace(good, bad), names(2))


def test_numbers_that_are_no_32_bit_floats_are_refused():
    rng = np.random.default_rng(2)
    booster = train(rng, draw_rows(rng, 2, "normal"), {"objective": "binary:logistic", "max_depth": 1}, 1)
    raw = bytes(booster.save_raw("json"))
    for number, message in [(b"1e999", "outside the range"), (b"null", "not a number"), (b"NaN", "not a tree model")]:
        torn = re.sub(rb'("split_conditions":\[)[^,]+', rb"\g<1>" + number, raw)
        with pytest.raises(ValueError, match=message):
            Forest.from_json(torn, names(2))


def test_a_batch_without_the_columns_is_refused():
    rng = np.random.default_rng(2)
    rows = draw_rows(rng, 2, "normal")
    booster = train(rng, rows, {"objective": "binary:logistic"}, 2)
    forest = Forest.from_json(bytes(booster.save_raw("json")), names(2))
    floats, texts = pa.array([1.0]), pa.array(["x"])
    for columns, message in [
        ({"feature_0": floats}, "'feature_1' is missing"),
        ({"feature_0": floats, "feature_1": texts}, "'feature_1' is Utf8"),
        ({"feature_0": floats, "feature_1": floats, "score": floats}, "'score' already"),
    ]:
        with pytest.raises(ValueError, match=message):
            forest.score(Batch.from_pyarrow(pa.record_batch(columns)))
    with pytest.raises(ValueError, match="rows of 2 features"):
        forest.predict_matrix(np.zeros((3, 5), np.float32), np.zeros(3, np.float32))
