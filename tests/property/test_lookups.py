"""Another stream's features, looked up as of the root row's event time, against the oracle that never forgets."""

from __future__ import annotations

from typing import Any

from effort import examples
from hypothesis import given
from hypothesis import strategies as st
from kernel_engine import (
    ARRIVAL,
    SCHEMA,
    SECOND,
    START,
    TAKEN,
    Row,
    aggregates,
    batch_of,
    engine_plan,
    evaluate,
    event_lists,
    same,
    stream_plan,
    with_times,
)

from gillnet._kernel import Engine
from gillnet.plan.nodes import AggregateNode
from gillnet.testing.oracle import Event, read

lookups = st.integers(1, 5).flatmap(lambda n: st.tuples(*(aggregates(f"f{i}", at="key") for i in range(n))))
keys = ("a", "a", "a", "b", None)
latenesses = st.sampled_from([0, SECOND, 20 * SECOND, 10**15])


def expected(node: AggregateNode, arrived: dict[str | None, list[Event]], row: Row) -> Any:
    """Read a lookup over everything that has arrived; of no key it is null."""
    if row["key"] is None:
        return None
    return read(node, arrived.get(row["key"], []), row["ts"], None, evaluate)


@examples(120)
@given(nodes=lookups, others=event_lists(keys=keys), roots=event_lists(40, keys=keys), order=st.randoms())
def test_i6_a_lookup_equals_the_oracle_as_of_the_rows_time(nodes, others, roots, order):
    """I6, I1: both streams out of order, null keys, delay, where, keys that no event has."""
    engine = Engine(engine_plan(nodes, stream_plan("r"), stream_plan("s")))
    turns = ["s"] * len(others) + ["r"] * len(roots)
    order.shuffle(turns)
    arrived: dict[str | None, list[Event]] = {}
    others, roots = iter(others), iter(roots)
    for turn in turns:
        event = next(others if turn == "s" else roots)
        _, batch = engine.process(turn, batch_of([event]), ARRIVAL)
        if turn == "s":
            arrived.setdefault(event["key"], []).append(Event(event["ts"], event["id"], event))
            continue
        (row,) = with_times(batch)
        for node in nodes:
            assert same(row[node.name], expected(node, arrived, row)), (node, event, row[node.name])


@st.composite
def interleaved(draw: st.DrawFn) -> list[tuple[str, Row | int]]:
    """Records of both streams whose times mostly advance, and silences between them, in µs of processing time."""
    step = draw(st.sampled_from([100_000, SECOND, 5 * SECOND]))
    turns: list[tuple[str, Row | int]] = []
    unheard = draw(st.integers(0, 60))  # The root may begin long after the other stream, and further back.
    behind = st.sampled_from([0, 0, 1, SECOND, 5 * SECOND, 60 * SECOND])
    for number in range(unheard + draw(st.integers(1, 60))):
        kind = draw(st.sampled_from(["r", "r", "s", "s", "s", "silence"])) if number >= unheard else "s"
        if kind == "silence":
            turns.append((kind, draw(st.sampled_from([SECOND, 40 * SECOND]))))
            continue
        time = START + number * step - draw(behind)
        values = {"i": number % 5, "d": None, "f": number / 7, "s": "xyz"[number % 3], "b": number % 2 == 0}
        turns.append((kind, {"id": f"e{number}", "ts": time, "key": draw(st.sampled_from(keys)), **values}))
    return turns


@examples(150)
@given(nodes=lookups, turns=interleaved(), root_lateness=latenesses, lateness=latenesses)
def test_i7_a_lookup_is_exact_or_says_that_it_may_miss_events(nodes, turns, root_lateness, lateness):
    """I7, I6: state is forgotten only where no acceptable row could read it, or the root was idle and the row says so."""
    root = stream_plan("r", allowed_lateness_us=root_lateness, idle_after_us=30 * SECOND)
    other = stream_plan("s", allowed_lateness_us=lateness, idle_after_us=30 * SECOND)
    engine = Engine(engine_plan(nodes, root, other))
    nothing = batch_of([], SCHEMA)
    arrived: dict[str | None, list[Event]] = {}
    now, root_heard, root_was_idle = ARRIVAL, ARRIVAL, False
    engine.pass_time(now)
    for kind, event in turns:
        if kind == "silence":
            now += event
            engine.pass_time(now)
            root_was_idle |= now - root_heard > 30 * SECOND
            engine.process("s", nothing, now)
            continue
        outcomes, batch = engine.process(kind, batch_of([event]), now)
        if outcomes[0] not in TAKEN:
            continue
        if kind == "s":
            arrived.setdefault(event["key"], []).append(Event(event["ts"], event["id"], event))
            continue
        root_heard = now
        (row,) = with_times(batch)
        states = dict(part.split("=") for part in (row["__feature_states"] or "").split(",") if part)
        for node in nodes:
            if states.get(node.name) == "saturated":
                assert root_was_idle
            else:
                assert same(row[node.name], expected(node, arrived, row)), (node, event, row[node.name])
