"""The demo's stories as sentences, and on the live page at the widths that terminals have."""

from __future__ import annotations

import io
from datetime import datetime
from typing import Any

import pytest
from command_line import StepClock
from demo_records import PLAN, alert, instant, ms
from rich.console import Console

from gillnet.cli.demo_stories import EventTimeStories, LateStory, Matched, SequenceStory
from gillnet.cli.demo_story_text import StoriesPanel, counts_text, late_text, sequence_text
from gillnet.cli.words import ReasonWords
from gillnet.core.time import DAY, HOUR, MINUTE, SECOND

WORDS = ReasonWords(PLAN)
LOGIN = {"click_id": "k", "ts": ms(-95), "user_id": "u", "event": "login"}


def late(
    cause: dict[str, Any] | None = None,
    *,
    old: dict[str, Any] | None = None,
    new: dict[str, Any] | None = None,
    decisions: tuple[str, str] = ("allow", "allow"),
    scores: tuple[float, float] = (0.04, 0.01),
    behind_us: int = 28 * MINUTE,
) -> LateStory:
    cause = LOGIN if cause is None else cause
    old, new = old or {"clicked": 4}, new or {"clicked": 5}
    return LateStory(
        id="t42", event_time=instant(0), old=old, new=new, decisions=decisions, scores=scores, changed=tuple(old),
        cause_stream="payments" if "amount" in cause else "clicks", cause=cause, behind_us=behind_us,
    )  # fmt: skip


def sequence(*times_s: float, payment: Any = None) -> SequenceStory:
    """Failed logins at these times, and a reset at the last of them."""
    steps = ["failed_login"] * (len(times_s) - 1) + ["password_reset"]
    return SequenceStory(
        "u7", tuple(Matched(step, "k", instant(at)) for step, at in zip(steps, times_s, strict=True)), payment
    )


@pytest.mark.parametrize(
    ("story", "text"),
    [
        (
            late(),
            "payment t42 of 12:00:00: allow, with 4 clicks in 10m on this user; a login at 11:58:25 came 28 min late; "
            "revised to 5 clicks in 10m on this user: score 0.04 → 0.01, still allow",
        ),
        (
            late(scores=(0.301, 0.298), decisions=("step_up", "step_up")),
            "payment t42 of 12:00:00: step up, with 4 clicks in 10m on this user; a login at 11:58:25 came 28 min late; "
            "revised to 5 clicks in 10m on this user: score stays 0.30, still step up",
        ),
        (
            late({**LOGIN, "event": "login_failed"}, decisions=("allow", "step_up"), behind_us=90 * SECOND),
            "payment t42 of 12:00:00: allow, with 4 clicks in 10m on this user; a failed login at 11:58:25 came 90 s late; "
            "revised to 5 clicks in 10m on this user: allow → step up",
        ),
        (
            late({**LOGIN, "event": "add_to_cart", "ts": ms(-DAY // SECOND)}, behind_us=24 * HOUR),
            "payment t42 of 12:00:00: allow, with 4 clicks in 10m on this user; an add to cart at 2026-01-04 12:00:00 "
            "came 24 h late; revised to 5 clicks in 10m on this user: score 0.04 → 0.01, still allow",
        ),
        (
            late({"tx_id": "t1", "ts": ms(-60), "amount": 12.5}, old={"card_1h": 0}, new={"card_1h": 1}),
            "payment t42 of 12:00:00: allow, with 0 payments in 1h on this card; a payment of 12.50 at 11:59:00 came "
            "28 min late; revised to 1 payments in 1h on this card: score 0.04 → 0.01, still allow",
        ),
        (  # The first feature that reads another way: a sum of 1,000 does not, to three digits.
            late(old={"spent": 1_000.1, "card_1h": 3}, new={"spent": 1_000.2, "card_1h": 4}),
            "payment t42 of 12:00:00: allow, with 3 payments in 1h on this card; a login at 11:58:25 came 28 min late; "
            "revised to 4 payments in 1h on this card: score 0.04 → 0.01, still allow",
        ),
        (
            late(old={"spent": 1_000.1}, new={"spent": 1_000.2}),
            "payment t42 of 12:00:00: allow, with its features; a login at 11:58:25 came 28 min late; "
            "revised to 1 other value: score 0.04 → 0.01, still allow",
        ),
    ],
)  # fmt: skip
def test_a_late_event_in_a_sentence(story: LateStory, text: str) -> None:
    assert late_text(story, WORDS).plain == text


@pytest.mark.parametrize(
    ("story", "text"),
    [
        (sequence(0, 30), "user u7: failed login 12:00:00, password reset 12:00:30"),
        (sequence(0, 1, 2, 30), "user u7: failed login 12:00:00, 12:00:01, 12:00:02, password reset 12:00:30"),
        (sequence(0, 1, 2, 9, 30), "user u7: 4 failed logins 12:00:00 to 12:00:09, password reset 12:00:30"),
        (
            sequence(0, 30, payment=alert("t9", "step_up", at_s=95)),
            "user u7: failed login 12:00:00, password reset 12:00:30; then payment t9 of 99.68 at 12:01:35: step up",
        ),
    ],
)
def test_a_sequence_in_a_sentence(story: SequenceStory, text: str) -> None:
    assert sequence_text(story).plain == text


class Told(EventTimeStories):
    """Stories that are there already."""

    def __init__(self, late: LateStory | None, sequence: SequenceStory | None) -> None:
        self._late, self._sequence = late, sequence
        self.revised, self.flipped, self.matched = 2_006, 1, 20

    def late(self) -> LateStory | None:
        return self._late

    def sequence(self) -> SequenceStory | None:
        return self._sequence


LONG = late({**LOGIN, "event": "password_reset", "ts": ms(-DAY // SECOND)}, decisions=("step_up", "review"))
FOLLOWED = sequence(0, 1, 2, 9, 30, payment=alert("t000000077658", "step_up", at_s=95, amount=1_234.56))


def drawn(panel: StoriesPanel, width: int, rows: int) -> tuple[list[str], int]:
    body, height = panel(width, rows)
    console = Console(width=width, record=True, file=io.StringIO())
    console.print(body)
    return console.export_text().splitlines(), height


def unwrapped(lines: list[str]) -> str:
    return " ".join(" ".join(line.strip("│ ") for line in lines[1:-1]).split())


@pytest.mark.parametrize("width", [60, 80, 120, 200])
def test_the_panel_tells_both_in_full_where_there_is_room(width: int) -> None:
    lines, height = drawn(StoriesPanel(Told(LONG, FOLLOWED), PLAN), width, 40)
    assert len(lines) == height
    assert max(map(len, lines)) == width
    assert "…" not in "".join(lines[1:])
    assert unwrapped(lines) == f"{late_text(LONG, WORDS).plain} {sequence_text(FOLLOWED).plain}"


@pytest.mark.parametrize("width", [80, 120])
def test_the_title_counts_both_and_fits(width: int) -> None:
    told = Told(LONG, FOLLOWED)
    assert counts_text(told) == "late data, while live: 2,006 revisions, 1 decision changed · 20 sequences"
    assert counts_text(told) in drawn(StoriesPanel(told, PLAN), width, 40)[0][0]


@pytest.mark.parametrize(("width", "rows"), [(80, 10), (120, 9)])
def test_where_rows_are_few_both_take_turns(width: int, rows: int) -> None:
    clock = StepClock()
    panel = StoriesPanel(Told(LONG, FOLLOWED), PLAN, clock=clock)
    shown = set()
    for _ in range(4):
        lines, height = drawn(panel, width, rows)
        assert len(lines) == height <= rows - 4  # Alerts have the rest.
        shown.add(unwrapped(lines))
        clock.sleep(6)
    assert shown == {late_text(LONG, WORDS).plain, sequence_text(FOLLOWED).plain}


@pytest.mark.parametrize("width", [80, 120])
def test_before_there_is_a_story_the_panel_says_so(width: int) -> None:
    lines, _ = drawn(StoriesPanel(Told(None, None), PLAN), width, 40)
    assert unwrapped(lines) == "no late event has changed a row so far no sequence so far"


def test_times_are_of_the_day_unless_another_day_is_meant() -> None:
    assert instant(0) == datetime.fromisoformat("2026-01-05T12:00:00Z")
    assert "at 2026-01-04" in late_text(LONG, WORDS).plain
