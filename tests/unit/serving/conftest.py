from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import xgboost as xgb

from gillnet.serving import Model, load_model, save_model

if TYPE_CHECKING:
    from pathlib import Path

SIGNATURE = [("spend_5m", "decimal(2)"), ("payments_1h", "int64"), ("burst", "float64"), ("took_over", "bool")]
REFERENCE = {"spend_5m": 20.0, "payments_1h": 1.0}


def make_rows(count: int = 400) -> np.ndarray:
    rng = np.random.default_rng(17)
    rows = np.column_stack(
        [
            np.round(rng.gamma(1.5, 40, count), 2),
            rng.poisson(2, count),
            rng.normal(size=count),
            rng.random(count) < 0.1,
        ]
    ).astype(np.float32)
    rows[rng.random(rows.shape) < 0.05] = np.nan
    return rows


def train(rows: np.ndarray, objective: str = "binary:logistic", **params: object) -> xgb.Booster:
    label = np.nan_to_num(rows[:, 0]) + 100 * np.nan_to_num(rows[:, 3]) > 80
    data = xgb.DMatrix(rows, label, feature_names=[name for name, _ in SIGNATURE])
    return xgb.train({"objective": objective, "max_depth": 4, "nthread": 1, "seed": 1, **params}, data, 30)


@pytest.fixture(scope="session")
def rows() -> np.ndarray:
    return make_rows()


@pytest.fixture(scope="session")
def booster(rows: np.ndarray) -> xgb.Booster:
    return train(rows)


@pytest.fixture
def model_path(booster: xgb.Booster, tmp_path: Path) -> Path:
    path = tmp_path / "fraud.ubj"
    save_model(booster, path, signature=SIGNATURE, metadata={"average_precision": 0.61}, reference=REFERENCE)
    return path


@pytest.fixture
def model(model_path: Path) -> Model:
    return load_model(model_path)
