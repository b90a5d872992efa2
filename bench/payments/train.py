"""Train the model that all contenders evaluate: XGBoost, 100 trees of depth 6, on the oracle's features.

The label is synthetic: a noisy logistic of the features, so that no tree collapses and the scores spread over the
whole range. What it predicts means nothing; what it costs to evaluate does.
"""

from __future__ import annotations

import argparse
from itertools import chain
from pathlib import Path

import numpy as np
import numpy.typing as npt

from bench.payments.contract import FEATURES
from bench.payments.oracle import FloatArray, feature_matrix
from bench.payments.workload import Workload, encode, generate

TREES = 100
DEPTH = 6
TRAINING = Workload(events=200_000, seed=7)


def synthetic_labels(matrix: FloatArray, seed: int) -> npt.NDArray[np.int8]:
    """Draw fraud labels whose odds rise with spending, declines and haste; about one row in ten is positive."""
    column = {name: matrix[:, index].astype(np.float64) for index, name in enumerate(FEATURES)}
    since_last_s = np.nan_to_num(column["since_last_s"], nan=3_600.0)
    risk = (
        0.35 * np.log1p(column["spend_5m"])
        + 0.8 * np.log1p(column["declined_1h"])
        + 0.6 * np.log1p(column["amount"] / (column["mean_1d"] + 1))
        + 0.4 * (column["amount"] >= column["max_1h"])
        - 0.15 * np.log1p(since_last_s)
        - 0.2 * np.log1p(column["payments_1h"])
    )
    logit = 2.0 * (risk - np.quantile(risk, 0.92))  # centred so that the share of fraud does not hang on the workload
    drawn = np.random.default_rng(seed).random(len(matrix)) < 1.0 / (1.0 + np.exp(-logit))
    return drawn.astype(np.int8)


def train(path: Path) -> None:
    """Train and write the model as UBJ; the same library version writes the same bytes."""
    import xgboost

    matrix = feature_matrix(chain.from_iterable(encode(chunk)[1] for chunk in generate(TRAINING)))
    labels = synthetic_labels(matrix, TRAINING.seed)
    parameters = {
        "objective": "binary:logistic",
        "max_depth": DEPTH,
        "eta": 0.1,
        "tree_method": "hist",
        "seed": TRAINING.seed,
        "nthread": 1,
    }
    data = xgboost.DMatrix(matrix, labels, feature_names=list(FEATURES))
    booster = xgboost.train(parameters, data, num_boost_round=TREES)
    path.parent.mkdir(parents=True, exist_ok=True)
    booster.save_model(path)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("path", type=Path, nargs="?", default=Path("bench/results/local/payments-model.ubj"))
    train(parser.parse_args().path)
