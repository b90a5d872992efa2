"""Reason codes: which features raised the score of a flagged row, and to what value.

Computed for flagged rows only, at some 60 µs a row. A code is stable text that a rule, a case-management system and an
audit can hold on to; the value is what the row carried.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from gillnet.serving.scorers import Scorer, feature_matrix

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from gillnet._kernel import Batch
    from gillnet.serving.model import Model


@dataclass(frozen=True, slots=True)
class Reason:
    """One feature's part in a row's score.

    Attributes
    ----------
    code
        Stable text: the feature's name, followed by ``_missing`` where the row has no value, ``_true`` or ``_false``
        for a boolean, ``_high`` or ``_low`` where the model carries a typical value to compare with.
    feature
        The feature's name.
    contribution
        What it adds to the margin (log-odds for a logistic model); above 0.
    value
        The row's value; None if missing.
    """

    code: str
    feature: str
    contribution: float
    value: float | None

    def __str__(self) -> str:
        return self.code if self.value is None else f"{self.code}={self.value:g}"


def explain(scorer: Scorer, batch: Batch, rows: Sequence[int], *, top: int = 3) -> list[list[Reason]]:
    """Give the reasons of flagged rows of a batch.

    Parameters
    ----------
    scorer
        The scorer that scored the batch.
    batch
        The batch, with the model's features by name.
    rows
        The flagged rows' positions.
    top
        At most so many reasons a row.

    Returns
    -------
    list of list of Reason
        One list per flagged row, the largest contribution first; shorter where fewer features raise the score.
    """
    if not len(rows):
        return []
    return explain_matrix(scorer, feature_matrix(batch, scorer.model.feature_names, rows), top=top)


def explain_matrix(scorer: Scorer, matrix: NDArray[np.float32], *, top: int = 3) -> list[list[Reason]]:
    """Give the reasons of every row of a float32 matrix (rows, features); see `explain`."""
    parts = scorer.contributions(matrix)[:, :-1]
    # A stable sort: of equal contributions the model's earlier feature comes first, on every machine.
    order = np.argsort(-parts, axis=1, kind="stable")[:, :top]
    return [
        [_reason(scorer.model, column, float(row[column]), values[column]) for column in columns if row[column] > 0]
        for row, values, columns in zip(parts, matrix, order, strict=True)
    ]


def _reason(model: Model, column: int, contribution: float, raw: np.float32) -> Reason:
    name, value_type = model.signature[column]
    # The shortest decimal that means this float32: 0.1 reads as 0.1, not as 0.10000000149.
    value = None if math.isnan(raw) else float(str(raw))
    return Reason(name + _suffix(value, value_type, model.reference.get(name)), name, contribution, value)


def _suffix(value: float | None, value_type: str, typical: float | None) -> str:
    if value is None:
        return "_missing"
    if value_type == "bool":
        return "_true" if value else "_false"
    if typical is None or value == typical:
        return ""
    return "_high" if value > typical else "_low"
