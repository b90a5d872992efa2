"""What the demo tells of late data and of sequences, picked from what a run put out; what is not sure is not told."""

from __future__ import annotations

from typing import Any

import pytest
from demo_records import PLAN, Feed, alert, click, instant, match, payment, revision

from gillnet.cli.demo_stories import EventTimeStories, ListeningSink
from gillnet.connectors.memory import MemorySink
from gillnet.core.messages import OutputRecord
from gillnet.core.time import MINUTE
from gillnet.runtimes.embedded import Alert


def feed(late: bytes | None = None, **others: Any) -> Feed:
    """A payment at noon, clicks up to ten past, and then one that is late."""
    come = [click(f"k{at}", at_s=at, user_id="others") for at in range(0, 601, 60)]
    given = {"payments": [payment("p")], "clicks": [*come, *([] if late is None else [late])], **others}
    return Feed(**given)


def stories(given: Feed, *revisions: bytes) -> EventTimeStories:
    found = EventTimeStories(PLAN, given)
    found.revisions_written(revisions)
    return found


LATE = click("late", at_s=-60)
CLICKED = {"old": {"clicked": 4}, "new": {"clicked": 5}}


def test_a_late_event_is_told_with_the_row_as_it_was_and_as_it_is() -> None:
    found = stories(feed(LATE), revision(old={"clicked": 4}, new={"clicked": 5, "logins": 1}, scores=(0.3, 0.1)))
    story = found.late()
    assert story is not None
    assert (story.id, story.event_time, story.decisions, story.scores) == (
        "p",
        instant(0),
        ("allow", "allow"),
        (0.3, 0.1),
    )
    assert (story.cause_stream, story.cause["click_id"], story.cause["event"]) == ("clicks", "late", "login")
    assert story.behind_us == 7 * MINUTE  # Behind the median of the nine before it: six past noon.
    assert (story.old["clicked"], story.new["clicked"]) == (4, 5)
    assert (story.old["logins"], story.new["logins"]) == (None, 1)  # What is absent was null.
    assert (story.old["amount"], story.new["amount"]) == (20.0, 20.0)
    assert not story.flipped


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (feed(), CLICKED),  # The cause came before the run was live,
        (feed(LATE, payments=[]), CLICKED),  # or the row did.
        (feed(click("late", at_s=478)), CLICKED),  # Out of order by less than the watermark waits.
        (Feed(payments=[payment("p")], clicks=[LATE]), CLICKED),  # Nothing before it says where the stream was.
        (feed(click("late", at_s=-60, user_id="other")), CLICKED),
        (feed(click("late", at_s=-700)), CLICKED),  # Not in the window.
        (feed(click("late", at_s=-60, event="view")), {"old": {"failures": 0}, "new": {"failures": 1}}),
        (feed(LATE), {"old": {"clicked": 4}, "new": {"clicked": 6}}),  # Another one came with it.
        (feed(LATE), {"old": {"clicked": 4}, "new": {"clicked": 3}}),
        (feed(LATE), {"old": {"clicked": 4, "card_1h": 1}, "new": {"clicked": 5, "card_1h": 2}}),  # A click is no payment.
    ],
)  # fmt: skip
def test_what_is_not_surely_the_cause_is_not_told(given: Feed, told: dict[str, Any]) -> None:
    found = stories(given, revision(**told))
    assert found.late() is None
    assert found.revised == 1


def test_the_event_that_changed_a_decision_is_told_or_else_the_score_that_moved_most() -> None:
    names = ["still", "little", "much", "unsure", "decided"]
    given = feed(LATE, payments=[payment(name) for name in names])
    assert stories(given).late() is None
    found = stories(given, revision("still", **CLICKED, scores=(0.5, 0.5)))
    for row, told in [
        (None, "still"),
        (revision("much", **CLICKED, scores=(0.2, 0.9)), "much"),
        (revision("little", **CLICKED, scores=(0.3, 0.1)), "much"),
        (revision("unsure", old={"clicked": 4}, new={"clicked": 9}, scores=(0.0, 1.0)), "much"),
        (revision("decided", **CLICKED, scores=(0.49, 0.51), decisions=("allow", "review")), "decided"),
    ]:
        found.revisions_written([] if row is None else [row])
        story = found.late()
        assert story is not None
        assert story.id == told
    assert (found.revised, found.flipped) == (5, 1)


def test_of_many_revisions_the_best_are_kept() -> None:
    names = [f"p{number}" for number in range(500)]
    given = feed(LATE, payments=[payment(name) for name in names])
    rows = [revision(name, **CLICKED, scores=(0.0, number / 500)) for number, name in enumerate(names)]
    for first in range(0, 500, 50):
        found = stories(given, *rows[first:], *rows[:first])
        story = found.late()
        assert story is not None
        assert story.id == "p499"


def test_what_is_not_sure_does_not_crowd_out_what_is() -> None:
    """Through a broker a payment may overtake its clicks: hundreds of rows are revised by what is out of order, and not late."""
    names = [f"p{number}" for number in range(1_500)]
    given = feed(LATE, payments=[payment(name) for name in [*names, "p"]])
    found = stories(given, revision(**CLICKED, scores=(0.1, 0.1)))
    found.revisions_written([revision(name, cause=("clicks", "k600"), **CLICKED, scores=(0.1, 0.9)) for name in names])
    story = found.late()
    assert story is not None
    assert (story.id, story.cause["click_id"]) == ("p", "late")


def test_nothing_is_told_of_what_filled_the_windows() -> None:
    given = feed(LATE, live=False)
    found = stories(given, revision(**CLICKED))
    found.matches_written([match("f", "r")])
    given.live = True
    assert (found.late(), found.sequence(), found.revised, found.matched) == (None, None, 0, 0)


@pytest.mark.parametrize(
    ("matches", "alerts", "told", "payment_id", "matched"),
    [
        ([], [], None, None, 0),
        ([match("f", "r")], [], "f", None, 1),
        ([match("f", "r", pattern="tested")], [], None, None, 0),
        ([match("f", "r"), match("f1", "f2", "r2", key="v")], [], "f1", None, 2),  # The one of more events.
        ([match("f", "r"), match("f1", "f2", "r2", key="v")], [alert("p", at_s=5)], "f", "p", 2),  # One before a payment.
        (
            [match("f", "r"), match("f1", "r1", key="v")],
            [alert("p", "review", at_s=5), alert("q", at_s=5, user_id="v")],
            "f1",
            "q",
            2,
        ),  # One before a payment that was blocked.
        ([match("f", "r")], [alert("p", at_s=5, reset=False)], "f", None, 1),
        ([match("f", "r")], [alert("p", at_s=-5)], "f", None, 1),  # The payment was before it,
        ([match("f", "r")], [alert("p", at_s=7_200)], "f", None, 1),  # or so long after it that the row does not say so.
        ([match("f", "r")], [alert("p", at_s=7_199)], "f", "p", 1),
        ([match("f", "r")], [alert("p", "review"), alert("q", "block"), alert("s", "step_up")], "f", "q", 1),
        ([match("f", "r"), match("f", "r", revision=1, withdrawn=True)], [], None, None, 0),
        ([match("f", "r"), match("f", "r", revision=1)], [], "f", None, 1),  # Revised: still one.
    ],
)  # fmt: skip
def test_a_sequence_is_told_with_the_flagged_payment_that_followed(
    matches: list[bytes], alerts: list[Alert], told: str | None, payment_id: str | None, matched: int
) -> None:
    found = EventTimeStories(PLAN, Feed())
    for one in matches:
        found.matches_written([one])
    found.on_alerts(alerts)
    story = found.sequence()
    assert found.matched == matched
    assert (None if story is None else story.events[0].id) == told
    assert (None if story is None or story.payment is None else story.payment.id) == payment_id


@pytest.mark.parametrize("behind", [None, MemorySink()])
def test_a_sink_that_is_listened_to_passes_everything_on(behind: MemorySink | None) -> None:
    heard: list[bytes] = []
    sink = ListeningSink(behind, heard.extend)
    sink.write([b"a", b"b"], [b"1", None])
    sink.write_records([OutputRecord(value=b"c", key=None, headers=[])])
    sink.flush()
    sink.close()
    assert heard == [b"a", b"b"]
    if behind is not None:
        assert [(record.value, record.key) for record in behind.records] == [(b"a", b"1"), (b"b", None), (b"c", None)]
        assert behind.flushed_records == 3
