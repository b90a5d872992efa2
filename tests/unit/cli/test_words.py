"""Reasons and figures as people read them."""

from __future__ import annotations

import pytest

from gillnet.app import load_pipeline
from gillnet.app.loading import BUNDLED
from gillnet.cli.numbers import count, money, number, seconds, share
from gillnet.cli.phrases import PHRASES, SUMMARIES
from gillnet.cli.words import ReasonWords, clock_time, elapsed, instant, milliseconds
from gillnet.runtimes.embedded import Alert


def alert(reasons: tuple[str, ...], **row: object) -> Alert:
    return Alert(id="x", key="k", decision="block", score=0.9, reasons=reasons, row=row)


@pytest.mark.parametrize(
    ("write", "value", "text"),
    [
        (number, None, "-"), (number, True, "yes"), (number, 1_234_567, "1,234,567"), (number, 1_234.6, "1,235"),
        (number, 12.345, "12.3"), (number, 0.01234, "0.0123"), (number, "abc", "abc"),
        (money, 1_234.5, "1,234.50"), (money, None, "-"), (share, 0.256, "26%"), (share, None, "-"),
        (seconds, 12, "12 s"), (seconds, 600, "10 min"), (seconds, 36_000, "10 h"), (seconds, 432_000, "5 days"),
        (milliseconds, None, "-"), (milliseconds, 1.23, "1.2 ms"), (milliseconds, 123.4, "123 ms"), (milliseconds, 12_345.0, "12.3 s"),
        (elapsed, 59.9, "0:59"), (elapsed, 3_661.0, "1:01:01"),
        (clock_time, None, "-"), (clock_time, 1_767_571_200_000_000, "2026-01-05 00:00:00"), (clock_time, 2**62, "the end"),
        (instant, 1_767_571_200_000_001, "2026-01-05T00:00:00.000001Z"), (instant, -5, "1970-01-01T00:00:00.000000Z"),
    ],
)  # fmt: skip
def test_values(write: object, value: object, text: str) -> None:
    assert write(value) == text  # type: ignore[operator]


@pytest.mark.parametrize(
    ("number_of", "noun", "text"),
    [(0, "click", "no clicks"), (1, "click", "1 click"), (2_000, "click", "2,000 clicks"), (2, "address", "2 addresses"),
     (2, "country", "2 countries"), (2, "search", "2 searches")],
)  # fmt: skip
def test_counts(number_of: int, noun: str, text: str) -> None:
    assert count(number_of, noun) == text


def test_every_reason_of_the_bundled_scenarios_has_a_phrase() -> None:
    for name in BUNDLED:
        plan = load_pipeline(name).plan
        model = set() if plan.model is None else {feature for feature, _ in plan.model.features}
        for reason in model | {rule.reason for rule in plan.policy} - SUMMARIES:
            assert reason in PHRASES or reason.removesuffix("_high") in PHRASES, reason


def test_phrases_carry_the_rows_own_values() -> None:
    words = ReasonWords(load_pipeline("payments").plan)
    told = words.of(
        alert(
            ("score_very_high", "device_tries_cards", "abroad_true", "spend_5m_high"),
            device_cards_1d=9, device_declined_1d=5, abroad=True, spend_5m=1234.5,
        )
    )  # fmt: skip
    assert told == [
        "9 cards on this device today, 5 declined",
        "not in the card's country",
        "1,234.50 spent on this card in 5m",
    ]


def test_a_score_alone_is_a_reason_if_there_is_no_other() -> None:
    words = ReasonWords(load_pipeline("payments").plan)
    assert words.of(alert(("score_high",))) == ["score high"]


def test_a_phrase_whose_value_is_missing_falls_back_to_the_plans_words() -> None:
    words = ReasonWords(load_pipeline("payments").plan)
    assert words.of(alert(("countries_1d_missing",))) == ["no countries 1d"]
    assert words.of(alert(("spend_5m_high",))) == ["spend 5m high"]


def test_evidence_comes_in_the_order_in_which_it_convinces() -> None:
    words = ReasonWords(load_pipeline("bots").plan)
    row = {"clicks": 7, "gap_variation": 0.02, "failed_logins": 3}
    told = words.of(alert(("sequential_bot", "evidence_length", "evidence_variation", "evidence_failures"), **row))
    assert told == ["3 failed logins", "gaps between clicks vary by only 2%", "7 clicks so far"]
