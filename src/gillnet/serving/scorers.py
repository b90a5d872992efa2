"""Scorers: rows in, scores out. The kernel's trees where they give XGBoost's very bits, XGBoost elsewhere.

Keeps "one score on every runtime" true: which scorer runs is decided once per model version, by comparing the two on
rows that lie on the model's own thresholds, and never by the size of a batch.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np
import structlog

from gillnet._kernel import Batch, Forest
from gillnet._kernel import feature_matrix as _fill_feature_matrix
from gillnet.core.errors import ModelError
from gillnet.serving import boosters

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from gillnet.serving.model import Model

    Matrix = NDArray[np.float32]

SCORE_COLUMN = "score"
"""The Float32 column that scorers append."""

_CHECKED_ROWS = 1_024

_log = structlog.get_logger(__name__)


@runtime_checkable
class Scorer(Protocol):
    """What the scoring operator and the reason codes need of a model."""

    @property
    def kind(self) -> str:
        """``kernel`` or ``xgboost``, for logs and ``gillnet explain``."""
        ...

    @property
    def model(self) -> Model:
        """The model version that is scored."""
        ...

    def score(self, batch: Batch) -> Batch:
        """Append the Float32 column ``score``; the features are found by name."""
        ...

    def predict(self, matrix: Matrix) -> Matrix:
        """Score a float32 matrix (rows, features), NaN where a value is missing; float32 of shape (rows,)."""
        ...

    def contributions(self, matrix: Matrix) -> Matrix:
        """Attribute each row's margin by TreeSHAP; float32 of shape (rows, features + 1), the bias last."""
        ...


class KernelScorer:
    """Scores in the kernel: 0.3 µs a row in batches and 1 µs alone (100 trees of depth 6), the GIL released.

    Raises
    ------
    ModelError
        If the kernel does not evaluate models of this kind; use `choose_scorer`, which falls back to XGBoost.
    """

    kind = "kernel"

    def __init__(self, model: Model) -> None:
        self.model = model
        try:
            self._forest = Forest.from_json(boosters.booster_json(model.booster), model.feature_names, model.rounds)
        except ValueError as error:
            raise ModelError(
                f"The model {model.label} is not evaluated by the kernel ({error}); score it with XGBoost."
            ) from error

    def score(self, batch: Batch) -> Batch:
        """Append the Float32 column ``score``."""
        return self._forest.score(batch)

    def predict(self, matrix: Matrix) -> Matrix:
        """Score a float32 matrix."""
        matrix = _as_matrix(matrix)
        scores = np.empty(len(matrix), np.float32)
        self._forest.predict_matrix(matrix, scores)
        return scores

    def contributions(self, matrix: Matrix) -> Matrix:
        """Attribute margins, 50 µs a row at 100 trees of depth 6; past 32 features on a path XGBoost does it."""
        matrix = _as_matrix(matrix)
        parts = np.empty((len(matrix), matrix.shape[1] + 1), np.float32)
        if not self._explain(matrix, parts):
            return boosters.contributions(self.model.booster, matrix, self.model.rounds)
        return parts

    def explains(self, matrix: Matrix) -> bool:
        """Whether the kernel attributes margins itself."""
        return self._explain(_as_matrix(matrix), np.empty((len(matrix), matrix.shape[1] + 1), np.float32))

    def _explain(self, matrix: Matrix, parts: Matrix) -> bool:
        try:
            self._forest.contributions(matrix, parts)
        except ValueError:
            return False
        return True


class XGBoostScorer:
    """Scores through ``Booster.inplace_predict`` with one thread: more of them make small batches slower."""

    kind = "xgboost"

    def __init__(self, model: Model) -> None:
        self.model = model
        model.booster.set_param({"nthread": 1})

    def score(self, batch: Batch) -> Batch:
        """Append the Float32 column ``score``."""
        import pyarrow as pa

        scores = self.predict(feature_matrix(batch, self.model.feature_names))
        if SCORE_COLUMN in batch.column_names:
            raise ValueError(f"batch: the batch has a column '{SCORE_COLUMN}' already; rename that feature")
        field = pa.field(SCORE_COLUMN, pa.float32(), nullable=False)
        return Batch.from_pyarrow(batch.to_pyarrow().append_column(field, pa.array(scores, pa.float32())))

    def predict(self, matrix: Matrix) -> Matrix:
        """Score a float32 matrix."""
        return boosters.predict(self.model.booster, _as_matrix(matrix), self.model.rounds)

    def contributions(self, matrix: Matrix) -> Matrix:
        """Attribute margins by XGBoost's own TreeSHAP."""
        return boosters.contributions(self.model.booster, _as_matrix(matrix), self.model.rounds)


def choose_scorer(model: Model) -> Scorer:
    """Take the kernel if it gives XGBoost's bits on a sample made for this model, XGBoost if not.

    The sample lies where the two could differ: on the thresholds of the model, one float beside them, at zero,
    infinity and missing. It costs some 50 ms, once per load. A fallback is logged with its reason.

    Parameters
    ----------
    model
        A model from `load_model` or the registry.

    Returns
    -------
    Scorer
        A `KernelScorer` or an `XGBoostScorer`.

    Raises
    ------
    ModelError
        If the model does not give one score a row: several classes or targets, or a booster without trees.
    """
    reference = XGBoostScorer(model)
    what = f"The model {model.label} ({model.path}, objective {model.objective})"
    boosters.check_outputs(model.booster, len(model.signature), model.rounds, what=what)
    try:
        kernel = KernelScorer(model)
    except ModelError as error:
        _log.info("scorer.fallback", model=model.label, scorer=reference.kind, reason=str(error))
        return reference
    rows = _threshold_rows(model, _CHECKED_ROWS)
    for part in (rows[:1], rows[1:8], rows):
        expected, got = reference.predict(part), kernel.predict(part)
        if not np.array_equal(expected.view(np.uint32), got.view(np.uint32)):
            different = int((expected.view(np.uint32) != got.view(np.uint32)).sum())
            reason = f"the kernel differs from XGBoost in {different} of {len(part)} checked rows"
            _log.warning("scorer.fallback", model=model.label, scorer=reference.kind, reason=reason)
            return reference
    return kernel


def feature_matrix(batch: Batch, columns: Sequence[str], rows: Sequence[int] | None = None) -> Matrix:
    """Convert feature columns of a batch as the kernel's own scorer does: null is NaN, decimals are rounded correctly.

    Parameters
    ----------
    batch
        The batch.
    columns
        Names of numeric columns.
    rows
        Positions of the rows to take, in that order; None takes all.

    Returns
    -------
    ndarray
        float32 of shape (rows, columns).
    """
    taken = None if rows is None else [int(row) for row in rows]
    matrix = np.empty((batch.num_rows if taken is None else len(taken), len(columns)), np.float32)
    _fill_feature_matrix(batch, list(columns), matrix, taken)
    return matrix


def _as_matrix(matrix: Matrix) -> Matrix:
    return np.ascontiguousarray(matrix, dtype=np.float32)


def _threshold_rows(model: Model, rows: int) -> Matrix:
    """Make rows from the model's own thresholds, the same ones every time."""
    trees = json.loads(boosters.booster_json(model.booster))["learner"]["gradient_booster"]["model"]["trees"]
    thresholds: list[list[float]] = [[] for _ in model.signature]
    for tree in trees:
        for left, feature, threshold in zip(
            tree["left_children"], tree["split_indices"], tree["split_conditions"], strict=True
        ):
            if left >= 0:
                thresholds[feature].append(threshold)
    matrix = np.empty((rows, len(thresholds)), np.float32)
    for feature, values in enumerate(thresholds):
        on = np.array(values or [0.0], np.float32)
        infinity = np.float32(np.inf)
        special = np.array([0.0, -0.0, np.nan, np.nan, np.inf, -np.inf], np.float32)
        below, above = np.nextafter(on, -infinity), np.nextafter(on, infinity)
        pool = np.concatenate([on, below, above, np.resize(special, len(on) // 4 + 6)])
        place = np.arange(rows, dtype=np.uint64) * np.uint64(len(thresholds)) + np.uint64(feature + 1)
        matrix[:, feature] = pool[_mix(place) % np.uint64(len(pool))]
    return matrix


def _mix(place: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Spread counters like random draws, without a generator: the finaliser of SplitMix64."""
    mixed = place * np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))
