"""What is told of the state is what is in it: against sums over events that Python knows, and over what is read back key by key."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from effort import examples
from hypothesis import given
from hypothesis import strategies as st
from kernel_engine import (
    ARRIVAL,
    SECOND,
    aggregates,
    batch_of,
    engine_plan,
    event_lists,
    run,
    same,
    split,
    stream_plan,
    with_times,
)
from test_bounded_state import bursts

from gillnet._kernel import Engine
from gillnet.plan.nodes import AggregateNode, LatestWindow, SessionWindow, SlidingWindow, TumblingWindow

WITHIN = [0, 1, SECOND, 30 * SECOND, 10_000 * SECOND]
RETENTIONS = [0, SECOND, 60 * SECOND]
KEYS = ("a", "a", "a", "b", "c", None)
features = st.lists(st.integers(0, 9), min_size=1, max_size=4, unique=True).flatmap(
    lambda numbers: st.tuples(*(aggregates(f"f{number}") for number in numbers))
)


def naive_gini(sizes: list[int]) -> float:
    total, n = sum(sizes), len(sizes)
    return sum(abs(a - b) for a in sizes for b in sizes) / (2 * n * total) if total else 0.0


def retention(node: AggregateNode) -> int:
    """How long a feature needs an event, in the words of the documents."""
    match node.window:
        case SlidingWindow(size, delay) | TumblingWindow(size, delay):
            return size + delay
        case SessionWindow(gap, longest, delay):
            return gap + longest + delay
    return node.window.delay_us


def windows(engine: Engine, top: int = 100) -> dict[str, Any]:
    (told,) = [state for state in engine.inspect(top, WITHIN, RETENTIONS) if state["kind"] == "windows"]
    return told


@examples(60)
@given(event_lists(80, keys=KEYS), features, st.lists(st.integers(0, 100), max_size=3))
def test_sums_and_largest_keys_are_those_of_the_events(events, nodes, cuts):
    engine = Engine(engine_plan(nodes))
    run(engine, split(events, cuts))
    told = windows(engine)
    by_key: dict[str, list[int]] = defaultdict(list)
    for event in events:
        if event["key"] is not None:
            by_key[event["key"]].append(event["ts"])
    sizes = [len(times) for times in by_key.values()]
    assert (told["keys"], told["events"]) == (len(by_key), sum(sizes))
    assert {(key, count, first, last) for key, count, _, first, last in told["largest"]} == {
        (key, len(times), min(times), max(times)) for key, times in by_key.items()
    }
    assert sum(size for _, _, size, _, _ in told["largest"]) <= told["bytes"]
    assert abs(told["gini"] - naive_gini(sizes)) < 1e-9 if sizes else told["gini"] == 0
    watermark = max(event["ts"] for event in events)
    assert told["reach_us"] == watermark - 10**15
    assert told["retention_us"] == max(map(retention, nodes))


@examples(60)
@given(bursts(), features, st.sampled_from([0, 2 * SECOND, 60 * SECOND]), st.booleans())
def test_what_expires_is_what_is_there_and_old_enough(batches, nodes, lateness_us, revisions):
    """Sweeps have passed over it by chance; whatever is left is counted by its time, and a snapshot tells the same."""
    plan = engine_plan(nodes, stream_plan("s", allowed_lateness_us=lateness_us), revisions=revisions)
    engine = Engine(plan)
    for events in batches:
        engine.process("s", batch_of(events), ARRIVAL)
        engine.revisions(10_000)
    told = windows(engine)
    held = every_event(engine)
    assert told["events"] == sum(map(len, held.values()))
    assert {key: len(times) for key, times in held.items()} == {key: count for key, count, *_ in told["largest"]}
    reach = told["reach_us"]
    for span, (keys, count, size) in zip(WITHIN, told["expiring"], strict=True):
        edge = reach - told["retention_us"] + span
        gone = {key: sum(time < edge for time in times) for key, times in held.items()}
        assert count == sum(gone.values())
        without_events = sum(gone[key] == len(times) for key, times in held.items())
        # What `seconds_since_last` remembers holds a key beyond its events.
        remembers = any(isinstance(node.window, LatestWindow) for node in nodes)
        assert keys <= without_events if remembers else keys == without_events
        assert 0 <= size <= told["bytes"]
    for kept, (_, count, _) in zip(RETENTIONS, told["kept"], strict=True):
        assert count == sum(time >= reach - kept for times in held.values() for time in times)
    assert windows(Engine.restore(plan, engine.snapshot()))["events"] == told["events"]


def every_event(engine: Engine) -> dict[str, list[int]]:
    """All event times by key, read a page at a time."""
    held: dict[str, list[int]] = {}
    begin: int | None = 0
    while begin is not None:
        keys, events, begin = engine.page(0, begin, 7)
        for row in keys.to_pyarrow().to_pylist():
            held[row["key"]] = []
            assert row["events"] == 0 or row["oldest"] <= row["newest"]
        table = events.to_pyarrow()
        for key, time in zip(table["key"].to_pylist(), table["event_time"].cast("int64").to_pylist(), strict=True):
            held[key].append(time)
    return held


@examples(50)
@given(event_lists(60, keys=("a", "b")), features)
def test_a_key_in_clear_has_its_events_in_their_order_and_its_features_as_of_the_last(events, nodes):
    engine = Engine(engine_plan(nodes))
    rows = run(engine, [sorted(events, key=lambda event: (event["ts"], event["id"]))])
    last_row = {row["key"]: row for row in rows}
    for key in {event["key"] for event in events}:
        (told,) = engine.look_at_key(key, max(event["ts"] for event in events if event["key"] == key))
        own = sorted((event["ts"], event["id"]) for event in events if event["key"] == key)
        table = told["events"].to_pyarrow()
        times, ids = table["event_time"].cast("int64").to_pylist(), table["id"].to_pylist()
        assert list(zip(times, ids, strict=True)) == own
        # What the features take of an event: the condition holds, and there is a value.
        by_id = {event["id"]: event for event in events}
        for node, bit in zip(nodes, told["bits"], strict=True):
            taken = [bool(mask >> bit & 1) for mask in table["__mask"].to_pylist()]
            assert taken == [takes(node, by_id[name]) for name in ids]
        # Two events may share the last time: a reading as of it sees both, the row of the first one does not.
        (values,) = with_times(told["values"])
        for node in nodes:
            if node.function != "seconds_since_last":
                assert same(values[node.name], last_row[key][node.name])
    assert engine.look_at_key("nobody", 0) == []


def takes(node: AggregateNode, event: dict[str, Any]) -> bool:
    chosen = node.where is None or event[node.where] is True
    return chosen and (node.input is None or event[node.input] is not None)


@examples(60)
@given(event_lists(60, keys=KEYS), features)
def test_sizes_without_a_walk_count_the_same(events, nodes):
    engine = Engine(engine_plan(nodes, revisions=True))
    run(engine, [events])
    walked = {(state["kind"], state["name"]): state for state in engine.inspect(0, [], [])}
    for kind, name, keys, count, size in engine.sizes():
        state = walked[kind, name]
        assert (keys, count) == (state["keys"], state["events"])
        assert 0 <= size <= state["bytes"]
