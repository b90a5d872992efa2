"""State that is given back, and what is read after it (I7): TTL with its floors, and the limit of events of a key."""

from __future__ import annotations

import random

import pytest
from effort import examples
from hypothesis import given
from hypothesis import strategies as st
from kernel_engine import (
    ARRIVAL,
    SECOND,
    START,
    TAKEN,
    Row,
    aggregates,
    batch_of,
    engine_plan,
    evaluate,
    run,
    same,
    stream_plan,
    with_times,
)

from gillnet._kernel import Engine
from gillnet.plan.nodes import AggregateNode, SlidingWindow, TumblingWindow
from gillnet.testing.oracle import Event, read

features = st.integers(1, 5).flatmap(lambda n: st.tuples(*(aggregates(f"f{number}") for number in range(n))))
SWEEPS = 200
"""Batches after which every key and every id was looked at."""


@st.composite
def bursts(draw: st.DrawFn) -> list[list[Row]]:
    """Batches of events that advance in bursts, so that keys grow large, shrink, are forgotten and come back."""
    seed = draw(st.randoms(use_true_random=False))
    batches: list[list[Row]] = []
    now, number = START, 0
    for _ in range(draw(st.integers(1, 6))):
        count, step = draw(st.integers(1, 70)), draw(st.sampled_from([10_000, 300_000, 4 * SECOND]))
        behind = draw(st.sampled_from([0, SECOND, 15 * SECOND]))
        events = []
        for _ in range(count):
            now, number = now + step, number + 1
            values = {
                "i": seed.randrange(9),
                "d": None,
                "f": seed.choice([0.1, 1e300, -1e300, 7.0]),
                "s": seed.choice("xyz"),
            }
            time = max(START, now - seed.randint(0, behind))
            key, flag = seed.choice("aaaaab"), seed.choice([True, False, None])
            events.append({"id": f"e{number:04d}", "ts": time, "key": key, **values, "b": flag})
        size = draw(st.sampled_from([1, 7, 70]))
        batches += [events[at : at + size] for at in range(0, count, size)]
        now += draw(st.sampled_from([0, 3 * SECOND, 40 * SECOND, 500 * SECOND]))
    return batches


@examples(150)
@given(nodes=features, batches=bursts(), lateness=st.sampled_from([0, SECOND, 20 * SECOND]))
def test_i7_readings_after_expiry_equal_the_oracle_that_never_forgets(nodes, batches, lateness):
    """I7, I1: floors stand for dropped events; late ones arrive behind what was dropped; keys are promoted and demoted."""
    engine = Engine(engine_plan(nodes, stream_plan("s", allowed_lateness_us=lateness)))
    arrived: dict[str, list[Event]] = {}
    for batch in batches:
        outcomes, rows = engine.process("s", batch_of(batch), ARRIVAL)
        accepted = [event for event, outcome in zip(batch, outcomes, strict=True) if outcome in TAKEN]
        for event, row in zip(accepted, with_times(rows), strict=True):
            own = Event(event["ts"], event["id"], event)
            arrived.setdefault(event["key"], []).append(own)
            for node in nodes:
                expected = read(node, arrived[event["key"]], own.time, own, evaluate)
                assert same(row[node.name], expected), (node, event, row[node.name], expected)
            assert row["__feature_states"] is None


@examples(40)
@given(nodes=features, batches=bursts(), lateness=st.sampled_from([0, 20 * SECOND]))
def test_i7_keys_events_and_ids_are_gone_once_the_watermark_is_past_them(nodes, batches, lateness):
    engine = Engine(engine_plan(nodes, stream_plan("s", allowed_lateness_us=lateness)))
    for batch in batches:
        engine.process("s", batch_of(batch), ARRIVAL)
    last = {**batches[-1][-1], "id": "last", "ts": START + 10**10, "key": "last"}
    for events in [[last], *[[]] * SWEEPS]:
        engine.process("s", batch_of(events), ARRIVAL)
    stats = engine.stats()
    assert (engine.keys(0), stats["keys"], stats["events"], stats["ids"]) == (["last"], 1, 1, 1)


def test_i7_bytes_come_back_with_the_events():
    """Tens of thousands of keys, some of them large, with long texts: nearly all of their memory is given back."""
    nodes = [
        AggregateNode(
            name="n", type="int64", stream="s", key="key", function="count", window=SlidingWindow(60 * SECOND)
        ),
        AggregateNode(
            name="u",
            type="int64",
            stream="s",
            key="key",
            function="n_unique",
            input="s",
            window=SlidingWindow(60 * SECOND),
        ),
    ]
    engine = Engine(engine_plan(nodes, stream_plan("s", allowed_lateness_us=SECOND)))
    rng = random.Random(7)
    for start in range(0, 40_000, 4_000):
        events = [
            {
                "id": f"e{n}",
                "ts": START + n,
                "key": f"k{n}" if n % 2 else f"large{rng.randrange(20)}",
                "s": f"a text too long to be kept inline, {n}",
            }
            for n in range(start, start + 4_000)
        ]
        run(engine, [events])
    full = engine.stats()
    assert full["keys"] > 20_000
    run(engine, [[{"id": "last", "ts": START + 10**9, "key": "last", "s": "x"}]])
    for _ in range(500):
        engine.process("s", batch_of([]), ARRIVAL)
    empty = engine.stats()
    assert (empty["keys"], empty["events"], empty["ids"]) == (1, 1, 1)
    # What stays is a page of keys and one of strings.
    assert empty["bytes"] * 30 < full["bytes"], (full, empty)
    assert empty["id_bytes"] * 2 < full["id_bytes"], (full, empty)


panes = st.builds(
    lambda kind, size, delay: kind(size, delay),
    st.sampled_from([SlidingWindow, TumblingWindow]),
    st.sampled_from([SECOND, 10 * SECOND, 60 * SECOND]),
    st.sampled_from([0, 2 * SECOND]),
)


@examples(40)
@given(
    node=aggregates("out", windows=panes).filter(lambda node: node.function != "seconds_since_last"),
    batches=bursts(),
    limit=st.sampled_from([1, 5, 17, 60, 300]),
)
def test_i7_a_key_over_its_limit_says_so_and_reads_what_is_kept(node, batches, limit):
    """I7: never more events than the limit; a reading that misses events is `saturated`, and is over the newest ones."""
    engine = Engine(engine_plan([node], limits={"max_events_per_key": limit}))
    kept: list[Event] = []
    everything: list[Event] = []
    for event in (event for batch in batches for event in batch):
        (row,) = run(engine, [[{**event, "key": "a"}]])
        own = Event(event["ts"], event["id"], event)
        count = engine.stats()["events"]
        assert count <= limit
        # Room was made before the event came.
        kept = sorted([*kept[len(kept) - count + 1 :], own], key=lambda e: e.order)
        everything.append(own)
        assert same(row["out"], read(node, kept, own.time, own, evaluate)), (node, event)
        whole = same(row["out"], read(node, everything, own.time, own, evaluate))
        assert whole or row["__feature_states"] == "out=saturated"
    assert engine.stats()["saturated_keys"] == (len(everything) > len(kept))


def test_i7_saturation_outlives_a_restore_and_ends_with_the_events_that_went():
    node = AggregateNode(
        name="n", type="int64", stream="s", key="key", function="count", window=SlidingWindow(10 * SECOND)
    )
    plan = engine_plan([node], stream_plan("s", allowed_lateness_us=0), limits={"max_events_per_key": 10})
    engine, restored = Engine(plan), Engine(plan)
    run(engine, [[{"id": f"e{n:03d}", "ts": START + n, "key": "a"} for n in range(20)]])
    restored.decode_key(0, "a", engine.encode_key(0, "a", START - 10 * SECOND))
    for one in (engine, restored):
        (soon,) = run(one, [[{"id": "soon", "ts": START + SECOND, "key": "a"}]])
        assert (soon["n"], soon["__feature_states"]) == (10, "n=saturated")
        (later,) = run(one, [[{"id": "later", "ts": START + 20 * SECOND, "key": "a"}]])
        assert (later["n"], later["__feature_states"]) == (1, None)
        assert one.stats()["saturated_keys"] == 0


@pytest.mark.parametrize("limit", [0, -1])
def test_a_limit_that_keeps_nothing_is_refused(limit):
    with pytest.raises(ValueError, match=r"max.events|expected usize|number"):
        Engine(engine_plan([], limits={"max_events_per_key": limit}))
