"""The one module that imports XGBoost, and only when a model is read, written or scored by it.

Everything else in `gillnet.serving` holds a booster as an opaque value. Whatever XGBoost raises leaves here as a
`ModelError` of one paragraph.
"""

from __future__ import annotations

import os
import re
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gillnet.core.errors import ModelError

if TYPE_CHECKING:
    from types import ModuleType

    from numpy.typing import NDArray

    Matrix = NDArray[np.float32]

SUFFIXES = (".ubj", ".json")
"""File formats of XGBoost that are read and written; the suffix says which."""


def read_booster(path: Path) -> Any:
    """Read an XGBoost model file, to be scored by one thread.

    Raises
    ------
    ModelError
        If XGBoost is not installed, or the file is missing, has another suffix, or is broken.
    """
    xgboost = _import_xgboost()
    if path.suffix not in SUFFIXES:
        raise ModelError(
            f"The model file {path} ends in {path.suffix or 'no suffix'!r}; Gillnet reads XGBoost models as .ubj "
            "or .json. Save it with booster.save_model('model.ubj')."
        )
    if not path.is_file():
        raise ModelError(
            f"The model file {path} does not exist. Check the path, or write the model there with "
            "gillnet.serving.save_model."
        )
    try:
        booster = xgboost.Booster(params={"nthread": 1}, model_file=path)
        booster.num_features()
    except (xgboost.core.XGBoostError, ValueError, UnicodeDecodeError) as error:
        raise ModelError(
            f"The model file {path} is broken or is no XGBoost model ({_first_line(error)}). "
            "Copy it again from where it was trained, or train it again."
        ) from error
    return booster


def write_booster(booster: Any, path: Path, attributes: dict[str, str], feature_names: list[str]) -> None:
    """Write a copy of a booster with attributes and feature names; readers see the old file or the new one, never half.

    Raises
    ------
    ModelError
        If the directory does not exist or cannot be written.
    """
    xgboost = _import_xgboost()
    marked = booster.copy()
    try:
        marked.feature_names = feature_names
    except ValueError as error:
        raise ModelError(f"XGBoost does not take these feature names: {_first_line(error)}.") from error
    marked.set_attr(**attributes)
    try:
        # The suffix decides the format, so the temporary file carries it too.
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=".writing-") as directory:
            temporary = Path(directory) / f"model{path.suffix}"
            marked.save_model(temporary)
            with temporary.open("rb") as written:
                os.fsync(written.fileno())
            temporary.replace(path)
    except (OSError, xgboost.core.XGBoostError) as error:
        raise ModelError(f"The model file {path} cannot be written: {_first_line(error)}.") from error


def booster_json(booster: Any) -> bytes:
    """Write a booster in XGBoost's JSON schema; floats are written so that they read back to the same bits."""
    return bytes(booster.save_raw("json"))


def predict(booster: Any, matrix: Matrix, rounds: int | None) -> Matrix:
    """Score a float32 matrix, NaN where a value is missing, with the first ``rounds`` boosting rounds (None: all)."""
    if not len(matrix):
        return np.empty(0, np.float32)
    scores: Matrix = booster.inplace_predict(matrix, iteration_range=(0, rounds or 0), validate_features=False)
    return scores


def contributions(booster: Any, matrix: Matrix, rounds: int | None) -> Matrix:
    """Attribute margins by TreeSHAP: float32, shape (rows, features + 1), the bias last."""
    if not len(matrix):
        return np.empty((0, matrix.shape[1] + 1), np.float32)
    # XGBoost refuses infinities in a DMatrix unless they are called missing, which would change the answer.
    finite = np.clip(matrix, np.finfo(np.float32).min, np.finfo(np.float32).max)
    data = _import_xgboost().DMatrix(finite, nthread=1)
    parts: Matrix = booster.predict(data, pred_contribs=True, iteration_range=(0, rounds or 0), validate_features=False)
    return parts


def check_outputs(booster: Any, features: int, rounds: int | None, *, what: str) -> None:
    """Score two rows on trial, so that a model of another kind stops the start and not the first batch.

    Parameters
    ----------
    booster
        The booster.
    features
        How many features it takes.
    rounds
        As for `predict`.
    what
        The model's name, file and objective, for the message.

    Raises
    ------
    ModelError
        If XGBoost cannot score it in place, or it does not give one number a row, with one margin behind it.
    """
    rows = np.zeros((2, features), np.float32)
    rows[1] = np.nan
    try:
        scores = predict(booster, rows, rounds)
        # multi:softmax gives the likeliest class's number: one number a row, but no score, and no one margin behind it.
        parts = contributions(booster, rows, rounds) if scores.shape == (len(rows),) else scores
    except (_import_xgboost().core.XGBoostError, ValueError) as error:
        raise ModelError(
            f"{what} cannot be scored: XGBoost says '{_first_line(error)}'. Train it with booster='gbtree' and an objective "
            "that gives one score a row, such as binary:logistic."
        ) from error
    outputs = parts.size // len(rows) // (1 if parts is scores else features + 1)
    if outputs != 1:
        raise ModelError(
            f"{what} has {outputs} outputs a row, and a pipeline takes one score a row. Train it with an objective that gives "
            "one, such as binary:logistic (fraud or not), and one label a row."
        )


def _import_xgboost() -> ModuleType:
    try:
        import xgboost
    except ImportError as error:
        raise ModelError("Models need XGBoost, which is not installed: pip install 'gillnet[xgboost]'.") from error
    return xgboost


def _first_line(error: Exception) -> str:
    """Cut XGBoost's stack trace off, and the time and the place in its sources."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    first = re.sub(r"^\[[\d:]+\] \S+:\d+: ", "", lines[0]) if lines else type(error).__name__
    return first.rstrip(".")
