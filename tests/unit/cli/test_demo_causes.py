"""Which late event may be told as the cause of a revision: one that every changed feature surely reads."""

from __future__ import annotations

import json

import pytest
from demo_records import PLAN, click, payment

from gillnet.cli.demo_causes import RecordIndex, behind_us, events_read
from gillnet.core.time import MINUTE, SECOND

READS = events_read(PLAN)
HOUR_S = 3_600


@pytest.mark.parametrize(
    ("feature", "stream", "event", "read"),
    [
        ("clicked", "clicks", click(at_s=-60), True),
        ("clicked", "clicks", click(at_s=0), True),
        ("clicked", "clicks", click(at_s=1), False),  # After the row.
        ("clicked", "clicks", click(at_s=-599), True),
        ("clicked", "clicks", click(at_s=-600), False),  # The window is open at its start.
        ("clicked", "clicks", click(at_s=-60, user_id="other"), False),
        ("clicked", "payments", payment(at_s=-60), False),  # Of another stream.
        ("failures", "clicks", click(at_s=-60, event="login_failed"), True),
        ("failures", "clicks", click(at_s=-60, event="locked"), True),
        ("failures", "clicks", click(at_s=-60, event="login"), False),
        ("logins", "clicks", click(at_s=-60, event="login"), True),
        ("logins", "clicks", click(at_s=-60, event="login_failed"), False),
        ("odd", "clicks", click(at_s=-60, event="login"), False),  # It meets the condition, but that is not looked into.
        ("card_1h", "payments", payment(at_s=-60), True),
        ("card_1h", "payments", payment(at_s=-60, card_id="other"), False),
        ("card_before", "payments", payment(at_s=-1 * HOUR_S), False),  # Inside the delay.
        ("card_before", "payments", payment(at_s=-2 * HOUR_S), True),
        ("card_before", "payments", payment(at_s=-26 * HOUR_S + 1), True),
        ("card_before", "payments", payment(at_s=-26 * HOUR_S), False),
        ("account_reset", "clicks", click(at_s=-60, event="password_reset"), True),
        ("account_reset", "clicks", click(at_s=-60, event="login_failed"), True),
        ("account_reset", "clicks", click(at_s=-60, event="view"), False),  # No step of the pattern.
    ],
)  # fmt: skip
def test_a_feature_reads_an_event_by_stream_key_condition_and_window(
    feature: str, stream: str, event: bytes, read: bool
) -> None:
    [reads] = READS[feature]
    assert reads.holds(stream, json.loads(event), json.loads(payment())) is read


def test_an_expression_reads_what_its_features_read() -> None:
    assert READS["quick"] == READS["card_1h"] | READS["failures"]
    assert READS["dear"] == frozenset()


def test_a_record_is_found_by_its_id_and_no_other_field() -> None:
    values = [click("k1", user_id="k2"), b"{", click("k2", at_s=5), click("k2", at_s=9)]
    index = RecordIndex("click_id")
    assert index.find([], "k2") is None
    assert index.find(values[:2], "k2") is None
    assert index.find(values, "k2") == (2, json.loads(values[2]))  # Has come since; of two the first.
    assert index.find(values, "k1") == (0, json.loads(values[0]))
    assert index.find(values, "k") is None


@pytest.mark.parametrize(
    ("before", "at_s", "behind"),
    [
        ([10, 11, 12], 2, 9 * SECOND),
        ([10, 11, 12], 11, 0),
        ([10, 11, 12], 13, -2 * SECOND),
        ([100, 11, 12], 2, 10 * SECOND),  # One that is ahead does not count,
        ([10, -5_000, 12], 2, 8 * SECOND),  # nor one that is late itself.
        ([-9_000] * 20 + [600] * 9, 0, 10 * MINUTE),  # Only those just before.
        ([], 2, None),
    ],
)
def test_how_far_an_event_is_behind_its_stream(before: list[float], at_s: float, behind: int | None) -> None:
    values = [click(at_s=at) for at in before] + [click(at_s=at_s), click(at_s=5_000)]
    assert behind_us(values, len(before), json.loads(click(at_s=at_s))["ts"]) == behind


@pytest.mark.parametrize("damaged", [b"", b"{", b"[]", b'{"ts":"yesterday"}', b'{"ip":"\xff"}'])
def test_damaged_records_do_not_tell_the_time(damaged: bytes) -> None:
    assert behind_us([damaged, click(at_s=60), damaged, click(at_s=0)], 3, json.loads(click())["ts"]) == MINUTE
    assert behind_us([damaged, click(at_s=0)], 1, json.loads(click())["ts"]) is None
