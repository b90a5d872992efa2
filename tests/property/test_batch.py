"""I2, I1: the batch twin equals the oracle bit for bit, over any plan and events, shards, threads and parts."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest
from effort import examples
from hypothesis import given
from hypothesis import strategies as st
from kernel_engine import (
    START,
    Row,
    aggregates,
    batch_of,
    engine_plan,
    evaluate,
    event_lists,
    in_parts,
    run,
    same,
    stream_plan,
    with_times,
)

from gillnet._kernel import BatchEngine, Engine
from gillnet.plan.nodes import AggregateNode, SessionWindow
from gillnet.testing.oracle import Event, read, sessions

KEYS = ("a", "a", "a", "b", "c", None)
own = st.integers(1, 4).flatmap(lambda n: st.tuples(*(aggregates(f"f{i}") for i in range(n))))
lookups = st.integers(1, 3).flatmap(lambda n: st.tuples(*(aggregates(f"g{i}", stream="o", at="key") for i in range(n))))
cuts = st.lists(st.integers(0, 1_000), max_size=6)
shard_counts = st.sampled_from([1, 2, 3, 8])


def batch_rows(engine: BatchEngine, events: dict[str, list[Row]], cuts: list[int]) -> tuple[list[Row], list[Row]]:
    """Run parts through; all rows, and all closed sessions."""
    rows: list[Row] = []
    closed: list[Row] = []
    for batches, end in in_parts(events, cuts):
        given_rows, given_sessions = engine.process(batches, end)
        rows += with_times(given_rows)
        closed += [] if given_sessions is None else with_times(given_sessions)
    return rows, closed


def complete(node: AggregateNode, events: dict[str, list[Event]], row: Row) -> Any:
    """Return the answer of a feature over everything that ever arrives."""
    if row["key"] is None:
        return None
    of_key = [event for event in events[node.stream] if event.row["key"] == row["key"]]
    own_event = Event(row["ts"], row["id"], row) if node.stream == "s" else None
    return read(node, of_key, row["ts"], own_event, evaluate)


def known(rows: list[Row]) -> list[Event]:
    return [Event(row["ts"], row["id"], row) for row in rows]


@examples(250)
@given(
    nodes=own,
    looked_up=st.one_of(st.just(()), lookups),
    roots=event_lists(80, keys=KEYS),
    others=event_lists(60, keys=KEYS),
    cuts=cuts,
    shards=shard_counts,
    threads=st.sampled_from([1, 2]),
)
def test_i2_the_batch_answer_is_the_complete_answer(nodes, looked_up, roots, others, cuts, shards, threads):
    features = [*nodes, *looked_up]
    others = [row | {"id": f"o{row['id']}"} for row in others] if looked_up else []
    streams = [stream_plan("s"), *([stream_plan("o")] if looked_up else [])]
    engine = BatchEngine(engine_plan(features, *streams), shards, threads)
    rows, _ = batch_rows(engine, {"s": roots, **({"o": others} if looked_up else {})}, cuts)
    events = {"s": known(roots), "o": known(others)}
    assert [(row["ts"], row["id"]) for row in rows] == sorted((row["ts"], row["id"]) for row in roots)
    for row in rows:
        assert row["__feature_states"] is None
        for node in features:
            expected = complete(node, events, row)
            assert same(row[node.name], expected), (node, row["id"], row[node.name], expected)
    assert engine.held() == (0, 0)  # I7: with the end of time everything is given back.


COUNT = AggregateNode(
    name="clicks", type="int64", stream="s", key="key", function="count", window=SessionWindow(3_000_000, 10_000_000)
)
BASELINE = {
    "kind": "baseline",
    "name": "usual",
    "of": "clicks",
    "quantile": 0.5,
    "over_us": 20_000_000,
    "step_us": 5_000_000,
    "min_count": 1,
}


def sessions_plan(**parts: Any) -> str:
    import json

    plan = json.loads(engine_plan([COUNT], sessions={"key": "key", "gap_us": 3_000_000, "max_length_us": 10_000_000}))
    plan["features"] += [BASELINE]
    return json.dumps(plan | parts)


@examples(150)
@given(events=event_lists(80, keys=KEYS), cuts=cuts, shards=shard_counts)
def test_i2_sessions_close_as_they_are_in_the_end_whatever_the_parts(events, cuts, shards):
    rows, closed = batch_rows(BatchEngine(sessions_plan(), shards, 2), {"s": events}, cuts)
    expected = [
        {"key": key, "session_start": found[0].time, "session_end": found[-1].time, "clicks": len(found)}
        for key in {row["key"] for row in events} - {None}
        for found in sessions(known([row for row in events if row["key"] == key]), 3_000_000, 10_000_000)
    ]
    expected.sort(key=lambda session: (session["session_end"], session["key"], session["session_start"]))
    assert [{name: session[name] for name in expected[0]} for session in closed] == expected if expected else not closed
    for row in rows:
        counts = sorted(
            session["clicks"]
            for session in expected
            if row["ts"] // 5_000_000 - 4 <= (session["session_end"] + 3_000_000) // 5_000_000 < row["ts"] // 5_000_000
        )
        assert (row["usual"] is None) == (not counts)
        if counts:
            median = counts[(len(counts) + 1) // 2 - 1]
            assert row["usual"] == pytest.approx(median, rel=0.011)


@examples(60)
@given(events=event_lists(60, keys=KEYS), cuts=cuts, shards=shard_counts)
def test_i2_sessions_equal_the_last_revisions_of_a_live_run(events, cuts, shards):
    """Every column that a closed session has, the live engine's against the twin's."""
    _, closed = batch_rows(BatchEngine(sessions_plan(), shards, 1), {"s": events}, cuts)
    live = Engine(sessions_plan())
    run(live, [events])
    live.finish("s")
    last: dict[tuple[Any, int], Row] = {}
    while (batch := live.closed_sessions(1_000)) is not None:
        for session in with_times(batch):
            last[session["key"], session["session_start"]] = session
    kept = {place: session for place, session in last.items() if session["replaced_by"] is None}
    assert {(s["key"], s["session_start"]): s | {"revision": 0} for s in closed} == {
        place: session | {"revision": 0} for place, session in kept.items()
    }


@pytest.mark.parametrize(
    ("part", "until", "told"),
    [
        ([("x", [])], None, "no stream 'x'"),
        ([("s", [5, 4])], None, "not in the order of time and id"),
        ([("s", [5, 5])], None, "duplicate"),
        ([("s", [5, 9])], 9, "not within"),
    ],
)
def test_a_part_that_is_not_what_was_promised_is_refused(part, until, told):
    engine = BatchEngine(engine_plan([COUNT], stream_plan("s")), 2, 1)
    rows = [
        (name, batch_of([{"id": f"e{time}", "ts": START + time, "key": "a"} for time in times])) for name, times in part
    ]
    with pytest.raises(ValueError, match=told):
        engine.process(rows, None if until is None else START + until)


def test_a_part_before_one_that_was_handed_in_is_refused():
    engine = BatchEngine(engine_plan([COUNT], stream_plan("s")), 1, 1)
    engine.process([], START)
    with pytest.raises(ValueError, match="not within"):
        engine.process([("s", batch_of([{"id": "e", "ts": START - 1, "key": "a"}]))], None)
    with pytest.raises(ValueError, match="after"):
        engine.process([], START - 1)


def test_further_columns_of_the_events_go_through_to_the_rows():
    event = {"id": "e", "ts": START, "key": "a"}
    table = batch_of([event]).to_pyarrow().append_column("__offset", pa.array([7]))
    engine = BatchEngine(engine_plan([COUNT], stream_plan("s")), 1, 1)
    rows, _ = engine.process([("s", type(batch_of([event])).from_pyarrow(table))])
    assert with_times(rows)[0]["__offset"] == 7


def test_i7_a_key_over_its_limit_says_so():
    events = [{"id": f"e{number:02}", "ts": START + number, "key": "a"} for number in range(20)]
    plan = engine_plan([COUNT], stream_plan("s"), limits={"max_events_per_key": 5})
    rows, _ = BatchEngine(plan, 2, 1).process([("s", batch_of(events))])
    states = [row["__feature_states"] for row in with_times(rows)]
    assert states == [None] * 5 + ["clicks=saturated"] * 15
