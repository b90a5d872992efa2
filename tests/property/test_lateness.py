"""What a watermark delay would have done, vectorised, against a buffer that is looked through event by event."""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np
import pytest
from effort import examples
from hypothesis import given
from hypothesis import strategies as st

import gillnet as gn
from gillnet.connectors.memory import MemorySource
from gillnet.lifecycle.lateness import StreamEvents, measure, read_stream
from gillnet.lifecycle.lateness.delays import (
    behind_frontier,
    behind_partition,
    frontier,
    release_places,
    shares_above,
)
from gillnet.lifecycle.lateness.scores import ON_ARRIVAL, Merged, Sample, blocks
from gillnet.plan.nodes import StreamNode
from gillnet.testing.oracle_lateness import Arrived, reorder

SECOND_US = 1_000_000
START_US = 1_767_571_200 * SECOND_US
LOOKED_UP = ("clicks", "payments")
DELAYS_US = (0, SECOND_US, 7 * SECOND_US, 60 * SECOND_US)

SCHEMA = gn.Schema(
    id=gn.String(), ts=gn.Timestamp("us"), user=gn.String(), received=gn.Timestamp("us"), failed=gn.Boolean()
)
LIMITS = {"idle_after": "10s", "allowed_lateness": "30d", "max_ahead": "1h", "watermark_delay": "0s"}
payments = gn.Stream("payments", schema=SCHEMA, id="id", event_time="ts", **LIMITS)
clicks = gn.Stream("clicks", schema=SCHEMA, id="id", event_time="ts", **LIMITS)
FEATURES = gn.Features(
    payments,
    own=payments.by("user").count(over="20s"),
    last=payments.by("user").seconds_since_last(over="1h"),
    clicked=clicks.by("user").count(over="20s", where=gn.col("failed")).at("user"),
)
PIPELINE = gn.Pipeline(FEATURES, policy=[gn.review(gn.col("own") + gn.col("clicked") > 3, reason="busy")])
PLAN = PIPELINE.plan


@st.composite
def arrivals(draw: st.DrawFn, streams: Sequence[str] = ("payments",)) -> list[Arrived]:
    """Draw events in the order of arrival: some late, some with a clock that is ahead, partitions that fall silent."""
    now, events = START_US, []
    for number in range(draw(st.integers(1, 40))):
        now += draw(st.sampled_from([0, 1, 200_000, SECOND_US, 4 * SECOND_US, 12 * SECOND_US]))
        behind = draw(st.sampled_from([0, 0, 1, 300_000, 2 * SECOND_US, 30 * SECOND_US, -5 * SECOND_US]))
        stream = draw(st.sampled_from(streams))
        events.append(Arrived(stream, draw(st.integers(0, 2)), f"e{number * 37 % 101:03d}", now - behind, now))
    # Other streams are polled first.
    return sorted(events, key=lambda event: (event.at, event.stream == "payments"))


def user(event: Arrived) -> str:
    return "ab"[sum(event.id.encode()) % 2]


def failed(event: Arrived) -> bool:
    return sum(event.id.encode()) % 3 > 0


def read_events(name: str, events: Sequence[Arrived]) -> StreamEvents:
    own = [event for event in events if event.stream == name]
    values = [
        json.dumps({"id": e.id, "ts": e.time, "user": user(e), "received": e.at, "failed": failed(e)}).encode()
        for e in own
    ]
    source = MemorySource(name, values, partitions=[event.partition for event in own])
    return read_stream(source, PLAN.stream(name), arrival="received")


@examples(200)
@given(events=arrivals())
def test_lateness_and_release_of_every_event_are_those_of_a_watermark_with_that_delay(events: list[Arrived]) -> None:
    stream = read_events("payments", events)
    after = frontier(stream.partitions, stream.times, stream.arrivals, 10 * SECOND_US)
    behind, places = behind_frontier(stream.times, after), np.arange(len(events))
    for delay_us in DELAYS_US:
        expected = {one.event.id: one for one in reorder(nodes("payments"), events, delay_us, "payments")}
        released = release_places(stream.times, places, after, delay_us).tolist()
        for place, event in enumerate(events):
            want = expected[event.id]
            assert (behind[place] > delay_us) == want.late
            assert released[place] == (len(events) if want.released_by is None else want.released_by)


def nodes(*names: str) -> dict[str, StreamNode]:
    return {name: PLAN.stream(name) for name in names}


both = arrivals(("payments", "payments", "clicks")).filter(
    lambda events: {event.stream for event in events} == {"payments", "clicks"}
)


@examples(60)
@given(events=both)
def test_rows_see_what_had_arrived_when_the_watermarks_of_all_streams_reached_them(events: list[Arrived]) -> None:
    sample = Sample(PLAN, None, {name: read_events(name, events) for name in ("payments", "clicks")}, 1_000)
    roots = [event for event in events if event.stream == "payments"]
    for delay_us in (*DELAYS_US, ON_ARRIVAL, None):
        released = {
            one.event.id: one.released_by
            for one in reorder(nodes("payments", "clicks"), events, max(delay_us or 0, 0), "payments")
        }
        rows = sample.at(delay_us)
        counted = roots[sample.warm_up :]
        own, last, clicked = (column.to_pylist() for column in rows.features)
        assert len(own) == len(counted)
        for place, event in enumerate(counted):
            by = None if delay_us is None else released[event.id]
            by = events.index(event) if delay_us == ON_ARRIVAL else by
            seen = events if by is None else events[: by + 1]
            assert (own[place], last[place], clicked[place]) == expected_row(event, seen)
            busy = own[place] + clicked[place] > 3
            assert rows.decisions[place].as_py() == ("review" if busy else "allow")


def expected_row(event: Arrived, seen: Sequence[Arrived]) -> tuple[int, float | None, int]:
    alike = [e for e in seen if user(e) == user(event) and e.time <= event.time]
    own = [e for e in alike if e.stream == "payments" and (e.time, e.id) <= (event.time, event.id)]
    inside = [e for e in alike if e.time > event.time - 20 * SECOND_US]
    before = sorted((e.time, e.id) for e in own if e is not event and e.time > event.time - 3_600 * SECOND_US)
    return (
        sum(e in inside for e in own),
        (event.time - before[-1][0]) / SECOND_US if before else None,
        sum(e.stream == "clicks" and failed(e) for e in inside),
    )


@examples(40)
@given(events=both)
def test_the_report_counts_what_differs_from_the_complete_rows(events: list[Arrived]) -> None:
    streams = [read_events(name, events) for name in ("payments", "clicks")]
    report = measure(streams, plan=PLAN, delays_us=DELAYS_US)
    assert report.scores is not None
    roots = [event for event in events if event.stream == "payments"][report.scores.warm_up :]
    assert report.scores.counted == len(roots)
    for at in report.scores.delays:
        waited = reorder(nodes("payments", "clicks"), events, at.delay_us, "payments")
        released = {one.event.id: one.released_by for one in waited}
        stale = flipped = 0
        for event in roots:
            by = released[event.id]
            found, right = expected_row(event, events if by is None else events[: by + 1]), expected_row(event, events)
            stale += found != right
            flipped += (found[0] + found[2] > 3) != (right[0] + right[2] > 3)
        assert at.stale_share * len(roots) == pytest.approx(stale)
        assert at.flipped_share * len(roots) == pytest.approx(flipped)


@examples(100)
@given(roots=st.lists(st.tuples(st.booleans(), st.integers(0, 12)), max_size=200))
def test_a_block_lets_no_row_see_what_comes_after_it(roots: list[tuple[bool, int]]) -> None:
    is_root, times = np.array([r for r, _ in roots], np.bool_), np.array([t for _, t in roots], np.int64)
    cuts = list(blocks(is_root, times))
    assert [place for first, end in cuts for place in range(first, end)] == list(range(len(roots)))
    for first, end in cuts:
        for row in range(first, end):
            for other in range(row + 1, end):
                assert not (is_root[row] and not is_root[other] and times[other] <= times[row])


@examples(50)
@given(events=arrivals())
def test_how_far_an_event_is_behind_the_newest_of_its_partition(events: list[Arrived]) -> None:
    stream = read_events("payments", events)
    behind = behind_partition(stream.partitions, stream.times, stream.arrivals).tolist()
    for place, event in enumerate(events):
        newest = max(min(e.time, e.at) for e in events[: place + 1] if e.partition == event.partition)
        assert behind[place] == newest - min(event.time, event.at)


@examples(50)
@given(values=st.lists(st.integers(-5, 5)), limits=st.lists(st.integers(-6, 6), min_size=1))
def test_shares_above_limits(values: list[int], limits: list[int]) -> None:
    shares = shares_above(np.array(values, np.int64), np.array(limits, np.int64))
    counts = [sum(value > limit for value in values) for limit in limits]
    assert np.allclose(shares * len(values), counts)


def test_streams_are_merged_up_to_where_each_was_read() -> None:
    events = [
        Arrived(name, 0, f"{name[0]}{n}", START_US + n, START_US + n)
        for n in range(10)
        for name in ("payments", "clicks")
    ]
    whole = {name: read_events(name, events) for name in ("payments", "clicks")}
    short = {**whole, "clicks": whole["clicks"].take(np.arange(4))}
    short["clicks"] = StreamEvents(
        **{name: getattr(short["clicks"], name) for name in StreamEvents.__slots__} | {"whole": False}
    )
    assert len(Merged.of(PLAN, whole).times) == 20
    assert len(Merged.of(PLAN, short).times) == 8


def test_a_join_beside_the_rows_changes_nothing_of_them() -> None:
    own = payments.by("user")
    joined = gn.IntervalJoin("seen", own, clicks.by("user"), lower="-1m", upper="0s")
    features = gn.Features(payments, n=own.count(over="20s"))
    events = [Arrived(name, 0, f"{name[0]}{n}", START_US + n, START_US + n) for n in range(20) for name in LOOKED_UP]
    streams = [read_events(name, events) for name in LOOKED_UP]
    alone = measure(streams, plan=gn.Pipeline(features).plan, delays_us=DELAYS_US)
    beside = measure(streams, plan=gn.Pipeline(features, joins=[joined]).plan, delays_us=DELAYS_US)
    assert alone.scores is not None
    assert beside.scores is not None
    assert beside.scores.delays == alone.scores.delays
    assert beside.scores.counted == alone.scores.counted == 16
