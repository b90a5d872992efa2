"""The comparison with the oracle finds every way to be wrong."""

from __future__ import annotations

import json

import numpy as np
import pytest
from bench.payments.check import TOLERANCE, compare
from bench.payments.contract import decide
from bench.payments.workload import transaction_id

EXPECTED = np.array([0.1, 0.6, 0.95, 0.2], dtype=np.float32)


def output(number: int, score: float, decision: str | None = None) -> bytes:
    return json.dumps({"tx_id": transaction_id(number), "score": score, "decision": decision or decide(score)}).encode()


def right_outputs() -> list[bytes]:
    return [output(number, float(score)) for number, score in enumerate(EXPECTED)]


def test_right_output_in_any_order_is_right() -> None:
    found = compare(right_outputs()[::-1], EXPECTED)

    assert found.right
    assert found.max_difference == 0
    assert found.rows == 4


def test_missing_row_is_found() -> None:
    found = compare(right_outputs()[1:], EXPECTED)

    assert found.missing == 1
    assert not found.right


def test_row_that_comes_twice_is_found() -> None:
    assert compare([*right_outputs(), output(2, 0.95)], EXPECTED).duplicates == 1


def test_score_beyond_the_tolerance_is_found() -> None:
    found = compare([*right_outputs()[:3], output(3, float(EXPECTED[3]) + 3 * TOLERANCE)], EXPECTED)

    assert found.differing == 1
    assert found.max_difference == pytest.approx(3 * TOLERANCE, rel=0.1)


def test_decision_that_does_not_follow_from_the_score_is_found() -> None:
    assert compare([*right_outputs()[:3], output(3, 0.2, "block")], EXPECTED).wrong_decisions == 1
