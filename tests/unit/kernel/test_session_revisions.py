"""Late clicks and sessions that are out already: which rows go out again, and how one says that it is no more (I2)."""

from __future__ import annotations

import pytest
from kernel_engine import ARRIVAL, SECOND, START, batch_of, engine_plan, stream_plan, with_times

from gillnet._kernel import Engine
from gillnet.operators.features import Outcome
from gillnet.plan.nodes import AggregateNode, SessionWindow, SlidingWindow

GAP, LONGEST = 10 * SECOND, 60 * SECOND
CLICKS = AggregateNode(
    name="clicks", type="int64", stream="s", key="key", function="count", window=SessionWindow(GAP, LONGEST)
)
RECENT = AggregateNode(
    name="recent", type="int64", stream="s", key="key", function="count", window=SlidingWindow(40 * SECOND)
)


def engine_with(*nodes: AggregateNode, **settings: int) -> Engine:
    sessions = {"key": "key", "gap_us": GAP, "max_length_us": LONGEST}
    return Engine(engine_plan(nodes, stream_plan("s", **settings), sessions=sessions))


def sessions_after(engine: Engine, *clicks: tuple[str, int]) -> list[tuple]:
    """Let clicks (visitor, second) arrive in one batch; return rows (visitor, start, end, revision, replaced by, clicks)."""
    events = [{"id": f"{key}{at}", "ts": START + at * SECOND, "key": key} for key, at in clicks]
    engine.process("s", batch_of(events), ARRIVAL)
    return drained(engine)


def drained(engine: Engine) -> list[tuple]:
    rows = []
    while (closed := engine.closed_sessions(1_000)) is not None:
        rows += with_times(closed)
    second = lambda at: None if at is None else (at - START) // SECOND  # noqa: E731 - once
    return [
        (
            row["key"],
            second(row["session_start"]),
            second(row["session_end"]),
            row["revision"],
            second(row["replaced_by"]),
            row["clicks"],
        )
        for row in rows
    ]


@pytest.mark.parametrize(
    ("late", "rows"),
    [
        ([5], [("a", 0, 10, 1, None, 3)]),
        ([18], [("a", 0, 18, 1, None, 3)]),
        ([20], [("a", 0, 20, 1, None, 3)]),
        ([21], [("a", 21, 21, 0, None, 1)]),
        ([-3], [("a", 0, 10, 1, -3, None), ("a", -3, 10, 0, None, 3)]),
        ([35], [("a", 35, 52, 0, None, 3), ("a", 42, 52, 1, 35, None)]),
        (
            [18, 26, 34],
            [
                ("a", 0, 18, 1, None, 3),
                ("a", 0, 26, 2, None, 4),
                ("a", 0, 52, 3, None, 7),
                ("a", 42, 52, 1, 0, None),
            ],
        ),
        ([-60], [("a", -60, -60, 0, None, 1)]),
    ],
    ids=[
        "inside",
        "extends",
        "at the gap",
        "beyond the gap",
        "begins earlier",
        "begins the next earlier",
        "bridges",
        "alone",
    ],
)
def test_a_late_click_sends_what_it_changes_again(late, rows):
    engine = engine_with(CLICKS)
    assert sessions_after(engine, ("a", 0), ("a", 10), ("a", 42), ("a", 52), ("z", 200)) == [
        ("a", 0, 10, 0, None, 2),
        ("a", 42, 52, 0, None, 2),
    ]
    assert sorted(sessions_after(engine, *(("a", at) for at in late))) == sorted(rows)
    assert drained(engine) == []


def test_a_session_is_revised_though_one_that_it_replaced_began_later():
    engine = engine_with(CLICKS)
    assert sessions_after(engine, ("a", 20), ("z", 40)) == [("a", 20, 20, 0, None, 1)]
    sessions_after(engine, ("a", 12), ("a", 29), ("a", 38), ("z", 60))  # One session of them all, from 12 on.
    [(_, start, end, _, _, clicks)] = sessions_after(engine, ("a", 33))
    assert (start, end, clicks) == (12, 38, 5)


def test_an_extended_session_waits_until_it_is_closed_again():
    engine = engine_with(CLICKS)
    assert sessions_after(engine, ("a", 0), ("z", 11)) == [("a", 0, 0, 0, None, 1)]
    assert sessions_after(engine, ("a", 9)) == [], "its gap is not over at 11"
    assert sessions_after(engine, ("a", 12), ("z", 23)) == [("a", 0, 12, 1, None, 3), ("z", 11, 11, 0, None, 1)]


def test_a_click_before_a_long_session_moves_where_it_is_cut():
    """Sessions of sixty seconds: what began at 60 begins at 54 now, as another first click takes the cut along."""
    engine = engine_with(CLICKS)
    clicks = [("a", at) for at in range(0, 90, 6)]
    assert sessions_after(engine, *clicks, ("z", 300)) == [("a", 0, 54, 0, None, 10), ("a", 60, 84, 0, None, 5)]
    assert sorted(sessions_after(engine, ("a", -6))) == [
        ("a", -6, 48, 0, None, 10),
        ("a", 0, 54, 1, -6, None),
        ("a", 54, 84, 0, None, 6),
        ("a", 60, 84, 1, 54, None),
    ]
    assert sorted(sessions_after(engine, ("a", -12))) == [
        ("a", -12, 42, 0, None, 10),
        ("a", -6, 48, 1, -12, None),
        ("a", 48, 84, 0, None, 7),
        ("a", 54, 84, 1, 48, None),
    ]


def test_a_session_goes_out_again_for_a_feature_that_reaches_back_beyond_it():
    engine = engine_with(CLICKS, RECENT)
    sessions_after(engine, ("a", 0), ("a", 30), ("a", 90), ("z", 200))
    assert sorted(sessions_after(engine, ("a", 15))) == [("a", 15, 15, 0, None, 1), ("a", 30, 30, 1, None, 1)]


def test_a_session_is_emitted_before_its_clicks_may_be_forgotten():
    """One batch moves the watermark far beyond the allowed lateness: the clicks that close with it still count."""
    engine = engine_with(CLICKS, allowed_lateness_us=0)
    assert sessions_after(engine, ("a", 0), ("a", 5), ("z", 10_000)) == [("a", 0, 5, 0, None, 2)]
    for _ in range(3):
        engine.process("s", batch_of([]), ARRIVAL)
    assert engine.keys(0) == ["z"]


def test_what_was_said_of_sessions_is_forgotten_with_them():
    engine = engine_with(CLICKS, allowed_lateness_us=60 * SECOND)
    for minute in range(0, 200, 3):
        sessions_after(engine, ("a", 60 * minute), ("b", 60 * minute + 15))
    assert engine.stats()["timers"] < 8


def test_i2_closing_sessions_forgets_no_event_that_a_row_is_still_to_be_revised_by():
    """The host looks for closed sessions before it looks for revisions; the events behind the watermark must be there yet."""
    sessions = {"key": "key", "gap_us": GAP, "max_length_us": LONGEST}
    stream = stream_plan("s", allowed_lateness_us=0)
    engine = Engine(engine_plan([CLICKS], stream, sessions=sessions, revisions=True))
    times = [("a", 12), ("a", 5), ("b", 500)]
    events = [{"id": f"{key}{at}", "ts": START + at * SECOND, "key": key} for key, at in times]
    engine.register_partition("s", 0, ARRIVAL)
    engine.register_partition("s", 1, ARRIVAL)
    outcomes, _ = engine.process("s", batch_of(events), ARRIVAL, [0, 1, 0])
    assert set(outcomes) == {Outcome.ACCEPTED}
    engine.process("s", batch_of([{"id": "b501", "ts": START + 501 * SECOND, "key": "b"}]), ARRIVAL, [1])
    drained(engine)
    engine.process("s", batch_of([]), ARRIVAL, [])
    drained(engine)
    revised = engine.revisions(10)
    assert revised is not None
    assert [(row["id"], row["clicks"]) for row in with_times(revised)] == [("a12", 2)]
    assert engine.stats()["unrevised"] == 0
