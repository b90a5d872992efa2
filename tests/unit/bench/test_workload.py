"""The benchmark's input is the same on every machine, and has the shape that it claims."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace

import numpy as np
from bench.payments.workload import CHUNK_EVENTS, Workload, encode, generate, transaction_id, transaction_number

SMALL = Workload(events=2_000, cards=100, merchants=20)


def values_of(workload: Workload) -> list[bytes]:
    return [value for chunk in generate(workload) for value in encode(chunk)[1]]


def test_same_seed_gives_the_same_bytes_on_every_machine() -> None:
    digest = hashlib.sha256(b"\n".join(values_of(SMALL))).hexdigest()

    assert digest == "54663ab249057498ce61558b03d88d44fe15d0605128843cb72eb84039a486c0"


def test_another_seed_gives_other_payments() -> None:
    assert values_of(SMALL) != values_of(replace(SMALL, seed=SMALL.seed + 1))


def test_short_workload_is_a_prefix_of_a_long_one_across_chunks() -> None:
    long = replace(SMALL, events=CHUNK_EVENTS + 700)
    short = replace(SMALL, events=CHUNK_EVENTS + 300)

    assert values_of(long)[: short.events] == values_of(short)


def test_payment_is_compact_json_with_the_fields_of_the_contract() -> None:
    row = json.loads(values_of(SMALL)[7])

    assert list(row) == ["tx_id", "ts", "card_id", "merchant_id", "amount", "status", "country", "channel"]
    assert row["tx_id"] == "p00000000007" == transaction_id(7)
    assert transaction_number(row["tx_id"]) == 7
    assert row["amount"] > 0


def test_event_time_never_goes_back_and_runs_at_the_given_rate() -> None:
    times_ms = np.concatenate([c.event_time_ms for c in generate(replace(SMALL, events=120_000, event_rate_per_s=50))])

    assert (np.diff(times_ms) >= 0).all()
    assert np.isclose(len(times_ms) / (times_ms[-1] - times_ms[0]) * 1_000, 50, rtol=0.02)


def test_activity_of_cards_follows_zipf() -> None:
    cards = np.concatenate([chunk.card for chunk in generate(replace(SMALL, events=100_000))])
    busiest = np.sort(np.bincount(cards, minlength=100))[::-1] / len(cards)
    harmonic = (1 / np.arange(1, 101)).sum()

    np.testing.assert_allclose(busiest[:5], 1 / np.arange(1, 6) / harmonic, rtol=0.05)
