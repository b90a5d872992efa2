"""Joins in a run: rows in an output of their own, with their keys, their revisions and their figures."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

import gillnet as gn
from gillnet.testing.oracle_joins import last_revisions
from gillnet.testing.scripted import Pause

from .driving import START_MS, Drive, JournalSource, SimulatedClock, drive, payment, payments_stream

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gillnet.testing.scripted import Step

CLICK = gn.Schema(click=gn.String(), ts=gn.Timestamp("ms"), card=gn.String(), url=gn.String(nullable=True))
clicks = gn.Stream("clicks", schema=CLICK, id="click", event_time="ts", allowed_lateness="1h", watermark_delay="1s")


def click(number: int, *, at_s: float, card: str = "c") -> bytes:
    record = {"click": f"k{number}", "ts": START_MS + round(at_s * 1_000), "card": card, "url": f"/{number}"}
    return json.dumps(record).encode()


def pipeline(**options: Any) -> gn.Pipeline:
    stream = payments_stream()
    join = gn.IntervalJoin(
        "clicked",
        stream.by("card"),
        clicks.by("card"),
        lower="-10s",
        upper="0s",
        how="left",
        select={"amount": "payments.amount", "url": "clicks.url"},
        **options,
    )
    return gn.Pipeline(gn.Features(stream, n=stream.by("card").count(over="5m")), joins=[join])


def drive_both(
    script: Sequence[Step], others: Sequence[Step], plan: gn.Pipeline | None = None, **options: Any
) -> Drive:
    clock = SimulatedClock()
    other = JournalSource("clicks", others, clock=clock)
    driven = drive(script, plan=plan or pipeline(), clock=clock, others={"clicks": other}, **options)
    other.journal = driven.journal
    return driven.run()


def test_a_row_says_whose_events_met_and_what_was_selected() -> None:
    driven = drive_both([payment(1, at_s=5, card="c")], [click(1, at_s=4)])
    [row] = driven.outs.rows("joins.clicked")
    assert row == {
        "key": "c",
        "left_id": "p1",
        "left_time": row["left_time"],
        "right_id": "k1",
        "right_time": row["right_time"],
        "columns": {"amount": 1.0, "url": "/1"},
        "revision": 0,
    }
    assert [record.key for record in driven.outs["joins.clicked"].records] == [b"c"]


def test_a_late_match_withdraws_the_row_without_one() -> None:
    later = [click(2, at_s=60, card="other"), Pause(1.0), click(3, at_s=3)]
    driven = drive_both([payment(1, at_s=5, card="c"), Pause(1.0)], later)
    rows = driven.outs.rows("joins.clicked")
    said = [(row["left_id"], row.get("right_id"), row["revision"], row.get("withdrawn")) for row in rows]
    assert said == [("p1", None, 0, None), ("p1", None, 1, True), ("p1", "k3", 0, None)]
    assert [row["right_id"] for row in last_revisions(rows)] == ["k3"]
    assert driven.runtime.metrics.joins == {
        "clicked": {
            "pairs": 1,
            "unmatched": 1,
            "withdrawn": 1,
            "dropped_pairs": 0,
            "dropped_events": 0,
            "incomplete": 0,
        }
    }


def test_the_figures_of_a_join_are_in_the_snapshot() -> None:
    driven = drive_both(
        [payment(1, at_s=5, card="c")], [click(n, at_s=n) for n in range(4)], pipeline(max_pairs_per_event=3)
    )
    figures = driven.runtime.metrics.snapshot()
    assert figures["join_pairs{join=clicked}"] == 3
    assert figures["join_dropped_pairs{join=clicked}"] == 1


@pytest.mark.parametrize("overlap", [True, False])
def test_large_batches_give_every_pair_once(overlap: bool) -> None:
    count = 3_000
    driven = drive_both(
        [payment(n, at_s=n / 1_000, card=f"c{n % 500}") for n in range(count)],
        [click(n, at_s=n / 1_000, card=f"c{n % 500}") for n in range(count)],
        overlap=overlap,
    )
    rows = last_revisions(driven.outs.rows("joins.clicked"))
    # Payment n meets the clicks of its card up to n: those of n, n - 500, n - 1,000 and so on.
    assert len(rows) == sum(n // 500 + 1 for n in range(count))
    assert all("right_id" in row for row in rows)


def test_an_output_that_nobody_takes_is_counted_all_the_same() -> None:
    driven = drive_both([payment(1, at_s=5, card="c")], [click(1, at_s=4)], open_sink=lambda _: None)
    assert driven.runtime.metrics.joins["clicked"]["pairs"] == 1
