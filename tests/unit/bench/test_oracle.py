"""The oracle against the definition of a window, taken literally; the plain-Python card state against the oracle."""

from __future__ import annotations

import json
import math
import random
from decimal import Decimal

import msgspec
import numpy as np
import pytest
from bench.payments.contenders.card_state import CardState
from bench.payments.contenders.card_state import Payment as DecodedPayment
from bench.payments.contract import DAY_MS, FEATURES, HOUR_MS, MINUTE_MS
from bench.payments.oracle import Payment, card_features, feature_matrix, read_payments
from bench.payments.workload import transaction_id

COLUMN = {name: index for index, name in enumerate(FEATURES)}


def payments_of(*rows: tuple[int, str, bool]) -> list[Payment]:
    return [Payment(time_ms, transaction_id(i), Decimal(amount), bad) for i, (time_ms, amount, bad) in enumerate(rows)]


def literal_features(payments: list[Payment], index: int) -> tuple[float, ...]:
    """Compute one row by looking at every earlier payment: quadratic, and obviously what is meant."""
    now = payments[index]

    def window(length_ms: int) -> list[Payment]:
        return [p for p in payments[: index + 1] if now.time_ms - length_ms < p.time_ms <= now.time_ms]

    day = [p.amount for p in window(DAY_MS)]
    return (
        float(now.amount),
        float(now.time_ms // HOUR_MS % 24),
        float(sum(p.amount for p in window(5 * MINUTE_MS))),
        float(len(window(HOUR_MS))),
        float(sum(p.declined for p in window(HOUR_MS))),
        float(max(p.amount for p in window(HOUR_MS))),
        float(sum(day) / len(day)),
        (now.time_ms - payments[index - 1].time_ms) / 1000 if index else math.nan,
    )


def random_card(seed: int) -> list[Payment]:
    """Draw payments whose gaps straddle every window's length, with ties and repeated amounts."""
    draw = random.Random(seed)
    time_ms, rows = 1_767_225_600_000, []
    for _ in range(300):
        time_ms += draw.choice([0, 1, 999, 30_000, 5 * MINUTE_MS, 20 * MINUTE_MS, HOUR_MS, 7 * HOUR_MS])
        rows.append(
            (
                time_ms,
                f"{draw.choice([1, 250, 999, draw.randrange(1, 9_999)])}.{draw.randrange(100):02d}",
                draw.random() < 0.3,
            )
        )
    return payments_of(*rows)


@pytest.mark.parametrize("seed", range(5))
def test_oracle_is_the_definition_taken_literally(seed: int) -> None:
    payments = random_card(seed)

    np.testing.assert_array_equal(
        card_features(payments), [literal_features(payments, i) for i in range(len(payments))]
    )


@pytest.mark.parametrize("seed", range(5))
def test_card_state_of_the_contenders_agrees_with_the_oracle(seed: int) -> None:
    payments, card = random_card(seed), CardState()

    rows = [card.update(p.time_ms, float(p.amount), p.declined) for p in payments]

    np.testing.assert_array_equal(np.array(rows, np.float32), np.array(card_features(payments), np.float32))


def test_window_leaves_out_its_lower_bound_and_keeps_its_upper_one() -> None:
    start = 1_767_225_600_000
    rows = card_features(payments_of((start, "1.10", False), (start + 5 * MINUTE_MS, "2.20", False)))
    inside = card_features(payments_of((start, "1.10", False), (start + 5 * MINUTE_MS - 1, "2.20", False)))

    assert rows[1][COLUMN["spend_5m"]] == 2.20
    assert inside[1][COLUMN["spend_5m"]] == 3.30


def test_sums_are_exact_where_floats_drift() -> None:
    start = 1_767_225_600_000
    rows = card_features(payments_of(*((start + i, "0.10", False) for i in range(10))))

    assert rows[-1][COLUMN["spend_5m"]] == 1.0
    assert sum([0.1] * 10) != 1.0


def test_matrix_is_in_order_of_ids_whatever_the_order_of_arrival() -> None:
    rows = [
        {
            "tx_id": transaction_id(i),
            "ts": 1_767_225_600_000 + 1_000 * i,
            "card_id": f"c{i % 2}",
            "amount": i + 0.25,
            "status": "declined",
        }
        for i in range(6)
    ]
    values = [json.dumps(row).encode() for row in rows]

    matrix = feature_matrix(values)

    np.testing.assert_array_equal(matrix, feature_matrix(values[::-1]))
    np.testing.assert_array_equal(matrix[:, COLUMN["payments_1h"]], [1, 1, 2, 2, 3, 3])
    np.testing.assert_array_equal(matrix[:, COLUMN["declined_1h"]], [1, 1, 2, 2, 3, 3])
    np.testing.assert_array_equal(matrix[:, COLUMN["since_last_s"]], [np.nan, np.nan, 2, 2, 2, 2])


def test_amounts_are_read_without_passing_through_floats() -> None:
    value = b'{"tx_id":"p00000000000","ts":1,"card_id":"c0","amount":0.10,"status":"approved"}'

    assert read_payments([value])["c0"][0].amount == Decimal("0.10")
    assert msgspec.json.decode(value, type=DecodedPayment).amount == 0.1
