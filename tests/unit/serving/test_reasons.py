from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from gillnet._kernel import Batch
from gillnet.serving import KernelScorer, Reason, XGBoostScorer, explain, explain_matrix

from .conftest import SIGNATURE


@pytest.fixture(params=[KernelScorer, XGBoostScorer])
def scorer(request, model):
    return request.param(model)


def margin(scores: np.ndarray) -> np.ndarray:
    return np.log(scores / (1 - scores.astype(np.float64)))


def test_contributions_sum_to_the_margin(scorer, rows):
    parts = scorer.contributions(rows)
    assert parts.shape == (len(rows), len(SIGNATURE) + 1)
    np.testing.assert_allclose(parts.sum(axis=1), margin(scorer.predict(rows)), atol=1e-4)


def test_both_scorers_give_the_same_contributions(model, rows):
    rows = np.vstack([rows, np.full((1, 4), np.inf, np.float32), np.full((1, 4), -np.inf, np.float32)])
    np.testing.assert_allclose(
        KernelScorer(model).contributions(rows), XGBoostScorer(model).contributions(rows), atol=1e-4
    )


def test_reasons_are_the_largest_positive_contributions_in_order(scorer, rows):
    parts = scorer.contributions(rows)[:, :-1]
    for reasons, row in zip(explain_matrix(scorer, rows, top=2), parts, strict=True):
        assert [reason.contribution for reason in reasons] == sorted(row[row > 0], reverse=True)[:2]


def test_codes_say_which_way_the_value_lies(scorer):
    row = np.array([[250.1, np.nan, 0.1, 1.0]], np.float32)
    codes = {reason.feature: reason for reason in explain_matrix(scorer, row, top=4)[0]}
    assert codes["spend_5m"].code == "spend_5m_high"
    # The float32 nearest to 250.1 reads as 250.1.
    assert codes["spend_5m"].value == 250.1
    assert str(codes["spend_5m"]) == "spend_5m_high=250.1"
    assert codes["took_over"].code == "took_over_true"


@pytest.mark.parametrize(
    ("row", "code"),
    [
        ([5.0, 0.0, 0.0, 0.0], "spend_5m_low"),
        ([20.0, 0.0, 0.0, 0.0], "spend_5m"),
        ([np.nan, 0.0, 0.0, 0.0], "spend_5m_missing"),
    ],
)
def test_every_kind_of_code(model, row, code):
    class OneSided(KernelScorer):
        def contributions(self, matrix):
            return np.tile(np.array([1, -1, 0, -1, 0], np.float32), (len(matrix), 1))

    (reasons,) = explain_matrix(OneSided(model), np.array([row], np.float32))
    assert [reason.code for reason in reasons] == [code]
    assert str(Reason("spend_5m_missing", "spend_5m", 1.0, None)) == "spend_5m_missing"


def test_only_the_flagged_rows_of_a_batch_are_explained(scorer, rows):
    columns = {name: pa.array(rows[:, index]) for index, (name, _) in enumerate(SIGNATURE)}
    batch = Batch.from_pyarrow(pa.record_batch({"id": pa.array([str(i) for i in range(len(rows))]), **columns}))
    assert explain(scorer, batch, []) == []
    assert explain(scorer, batch, [7, 3]) == explain_matrix(scorer, rows[[7, 3]])
    with pytest.raises(ValueError, match="row 400 is asked of a batch of 400 rows"):
        explain(scorer, batch, [400])
    assert explain(scorer, batch, np.array([7, 3])) == explain_matrix(scorer, rows[[7, 3]])
