"""I8: rows leave on arrival, after a bounded wait for the other stream, or on the watermark; none is lost meanwhile."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import gillnet as gn
from gillnet.testing.scripted import Abort, Aborted, Pause, ScriptedSource

from .driving import JournalSource, Outs, SimulatedClock, drive, payment, payments_stream
from .test_streams import CLICK, click

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gillnet.testing.scripted import Step


def waiting(**options: Any) -> gn.Pipeline:
    stream = payments_stream(watermark_delay="5s", idle_after="1h")
    clicks = gn.Stream("clicks", schema=CLICK, id="click", event_time="ts", watermark_delay="1s", idle_after="1h")
    looked_up = clicks.by("card").count(over="10m").at("card")
    features = gn.Features(stream, clicks_10m=looked_up, payments_5m=stream.by("card").count(over="5m"))
    return gn.Pipeline(features, **options)


def alone(**options: Any) -> gn.Pipeline:
    stream = payments_stream(watermark_delay="5s", idle_after="1h")
    return gn.Pipeline(gn.Features(stream, payments_5m=stream.by("card").count(over="5m")), **options)


def drive_both(script: Sequence[Step], clicks: Sequence[Step], plan: gn.Pipeline):
    clock = SimulatedClock()
    driven = drive(script, plan=plan, clock=clock, others={"clicks": ScriptedSource("clicks", clicks, clock=clock)})
    return driven.run()


def summary(outs: Outs) -> list[tuple[str, int]]:
    return [(row["id"], row["features"]["clicks_10m"]) for row in outs.rows()]


def test_i8_on_arrival_a_row_leaves_with_what_is_known() -> None:
    clicks: list[Step] = [Pause(0.02), click(1, at_s=1), click(2, at_s=3)]
    driven = drive_both([payment(2, card="c"), Pause(1)], clicks, waiting())
    assert summary(driven.outs) == [("p2", 0)]
    [revision] = driven.outs.rows("decisions.revisions")
    assert (revision["old"]["features"]["clicks_10m"], revision["new"]["features"]["clicks_10m"]) == (0, 1)
    assert revision["cause"] == {"stream": "clicks", "id": "k1"}


def test_i8_max_wait_lets_the_other_stream_catch_up() -> None:
    clicks: list[Step] = [Pause(0.02), click(1, at_s=1), click(2, at_s=3)]
    driven = drive_both([payment(2, card="c"), Pause(1)], clicks, waiting(max_wait="30ms"))
    [row] = driven.outs.rows()
    assert row["features"]["clicks_10m"] == 1
    assert driven.outs.rows("decisions.revisions") == []
    assert 19 < driven.runtime.metrics.latency_ms.maximum <= 30


def test_i8_max_wait_is_bounded() -> None:
    clicks: list[Step] = [Pause(0.5), click(1, at_s=1), click(2, at_s=3)]
    driven = drive_both([payment(2, card="c"), Pause(1)], clicks, waiting(max_wait="30ms"))
    assert summary(driven.outs) == [("p2", 0)]
    assert 29 < driven.runtime.metrics.latency_ms.maximum < 90
    assert [row["new"]["features"]["clicks_10m"] for row in driven.outs.rows("decisions.revisions")] == [1]


def test_i8_on_watermark_rows_leave_in_order_and_complete() -> None:
    disorder = [
        payment(3, card="c"),
        payment(1, card="c"),
        Pause(1),
        payment(2, card="c"),
        payment(60, card="d"),
        Pause(1),
    ]
    driven = drive(disorder, plan=alone(emission="on_watermark")).run()
    rows = driven.outs.rows()
    assert [(row["id"], row["features"]["payments_5m"]) for row in rows] == [
        ("p1", 1),
        ("p2", 2),
        ("p3", 3),
        ("p60", 1),
    ]
    assert driven.outs.rows("decisions.revisions") == []


def test_i8_on_watermark_a_late_row_leaves_at_once_and_revises_the_others() -> None:
    script = [
        payment(1, card="c"),
        payment(60, card="c"),
        Pause(1),
        payment(120, card="c"),
        payment(30, card="c"),
        Pause(1),
    ]
    driven = drive(script, plan=alone(emission="on_watermark"), revision_interval_s=0.0).run()
    seen = [(row["id"], row["features"]["payments_5m"]) for row in driven.outs.rows()]
    # The last one waits for a watermark that the end brings: by then p30 is known to it.
    assert seen == [("p1", 1), ("p30", 2), ("p60", 3), ("p120", 4)]
    late = [
        payment(1, card="c"),
        payment(60, card="c"),
        payment(120, card="c"),
        Pause(1),
        payment(30, card="c"),
        Pause(1),
    ]
    driven = drive(late, plan=alone(emission="on_watermark"), revision_interval_s=0.0).run()
    assert [row["id"] for row in driven.outs.rows()] == ["p1", "p60", "p30", "p120"]
    [revision] = driven.outs.rows("decisions.revisions")
    assert (revision["id"], revision["new"]["features"]["payments_5m"]) == ("p60", 3)


def test_i8_a_silent_stream_is_not_waited_for_once_it_is_idle() -> None:
    stream = payments_stream(watermark_delay="5s", idle_after="30s")
    features = gn.Features(stream, payments_5m=stream.by("card").count(over="5m"))
    seen_at: list[float] = []
    driven = drive([payment(1), Pause(300)], plan=gn.Pipeline(features, emission="on_watermark"))
    driven.runtime._on_turn = lambda: seen_at.append(driven.clock.monotonic_s()) if driven.outs.ids() else None
    driven.run()
    assert 30 < seen_at[0] < 31


def test_offsets_are_not_committed_beyond_a_row_that_waits() -> None:
    """At-least-once: the run dies while a row waits, and the next one reads it again."""
    script: list[Step] = [
        payment(1, card="c"),
        payment(60, card="c"),
        Pause(5),
        payment(61, card="c"),
        Pause(5),
        Abort(),
    ]
    outs = Outs()
    driven = drive(script, plan=alone(emission="on_watermark"), outs=outs)
    try:
        driven.run()
        raise AssertionError("the script lets the run die")
    except Aborted:
        assert outs.ids() == ["p1"]
    assert driven.source.committed_records == 0
    again = JournalSource("payments", driven.source._script, clock=driven.clock)
    again._spent = set(driven.source._spent)
    drive(again, plan=alone(emission="on_watermark"), outs=outs).run()
    assert set(outs.ids()) == {"p1", "p60", "p61"}


def test_offsets_follow_the_rows_that_have_left() -> None:
    script: list[Step] = []
    for number in range(1, 40):
        script += [payment(number, card="c"), Pause(1)]
    driven = drive(script, plan=alone(emission="on_watermark"), commit_interval_s=1.0)
    committed: list[tuple[int, int]] = []
    driven.runtime._on_turn = lambda: committed.append((driven.source.committed_records, len(driven.outs.ids())))
    driven.run()
    assert all(offset <= written for offset, written in committed)
    assert committed[len(committed) // 2][0] > 10


def test_a_stop_lets_the_rows_go_that_wait() -> None:
    stop = threading.Event()
    driven = drive([payment(1), Pause(60), payment(2)], plan=alone(emission="on_watermark"))
    driven.runtime._on_turn = lambda: stop.set() if driven.counts.read else None
    driven.run(stop)
    assert driven.outs.ids() == ["p1"]
    assert driven.source.committed_records == 1
