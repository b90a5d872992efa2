"""The right answer, in plain Python: sorted payments, exact decimals, one XGBoost prediction over everything.

It shares no code with the generator's arrays or with any contender: it reads the bytes that are produced to Kafka.
Each card's payments are sorted by (event time, id); sums are `Decimal`, so no order of addition can matter.
"""

from __future__ import annotations

import json
import math
from collections import deque
from decimal import Decimal
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from bench.payments.contract import DAY_MS, FEATURES, HOUR_MS, MINUTE_MS
from bench.payments.workload import transaction_number

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

FloatArray = npt.NDArray[np.float32]


class Payment(NamedTuple):
    """What the features need of one payment. Sorts by (event time, id)."""

    time_ms: int
    tx_id: str
    amount: Decimal
    declined: bool


def read_payments(values: Iterable[bytes]) -> dict[str, list[Payment]]:
    """Parse payments and group them by card, each card's sorted."""
    cards: dict[str, list[Payment]] = {}
    for value in values:
        row = json.loads(value, parse_float=Decimal)
        payment = Payment(row["ts"], row["tx_id"], Decimal(row["amount"]), row["status"] == "declined")
        cards.setdefault(row["card_id"], []).append(payment)
    for payments in cards.values():
        payments.sort()
    return cards


def card_features(payments: list[Payment]) -> list[tuple[float, ...]]:
    """Compute the features of one card's payments, which must be sorted.

    Returns
    -------
    list of tuple of float
        One row a payment, in the order of `FEATURES`.
    """
    rows: list[tuple[float, ...]] = []
    spend_5m, amount_1d = Decimal(0), Decimal(0)
    declined_1h = 0
    start_5m = start_1h = start_1d = 0
    peaks: deque[Payment] = deque()  # the payments of the last hour that no later one exceeds, largest first
    for index, now in enumerate(payments):
        spend_5m += now.amount
        amount_1d += now.amount
        declined_1h += now.declined
        while peaks and peaks[-1].amount <= now.amount:
            peaks.pop()
        peaks.append(now)
        while payments[start_5m].time_ms <= now.time_ms - 5 * MINUTE_MS:
            spend_5m -= payments[start_5m].amount
            start_5m += 1
        while payments[start_1h].time_ms <= now.time_ms - HOUR_MS:
            declined_1h -= payments[start_1h].declined
            start_1h += 1
        while payments[start_1d].time_ms <= now.time_ms - DAY_MS:
            amount_1d -= payments[start_1d].amount
            start_1d += 1
        while peaks[0].time_ms <= now.time_ms - HOUR_MS:
            peaks.popleft()
        rows.append(
            (
                float(now.amount),
                float(now.time_ms // HOUR_MS % 24),
                float(spend_5m),
                float(index + 1 - start_1h),
                float(declined_1h),
                float(peaks[0].amount),
                float(amount_1d / (index + 1 - start_1d)),
                (now.time_ms - payments[index - 1].time_ms) / 1000 if index else math.nan,
            )
        )
    return rows


def feature_matrix(values: Iterable[bytes]) -> FloatArray:
    """Compute all features.

    Parameters
    ----------
    values
        Payments as JSON. Their ids must be ``p0``, ``p1``, … without a gap, in any order.

    Returns
    -------
    numpy.ndarray
        float32, shape (payments, features); row *i* belongs to the payment with number *i*.
    """
    cards = read_payments(values)
    matrix = np.full((sum(map(len, cards.values())), len(FEATURES)), np.nan, dtype=np.float32)
    for payments in cards.values():
        matrix[[transaction_number(payment.tx_id) for payment in payments]] = card_features(payments)
    return matrix


def score(matrix: FloatArray, model: Path) -> FloatArray:
    """Predict every row with XGBoost itself."""
    import xgboost

    booster = xgboost.Booster(model_file=model)
    if booster.feature_names != list(FEATURES):
        raise ValueError(
            f"{model} was trained on {booster.feature_names}; train it again: python -m bench.payments.train"
        )
    scores: FloatArray = booster.inplace_predict(matrix, validate_features=False)
    return scores
