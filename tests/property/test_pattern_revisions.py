"""I2, I5 for patterns: after the last revision, and in the batch twin, what they say of a row is the complete answer; restored
from snapshots, too.
"""

from __future__ import annotations

from effort import examples
from hypothesis import given
from hypothesis import strategies as st
from kernel_engine import SECOND, START, TAKEN, Row, batch_of, event_lists, in_parts, split, stream_plan, with_times
from pattern_strategies import evaluate, features, plan_of, seldom
from test_patterns import Consumer, expected_matches
from test_revisions import EMISSIONS, Emitted, Run

from gillnet._kernel import BatchEngine, Engine
from gillnet.plan.patterns import PatternNode
from gillnet.testing.oracle import Event
from gillnet.testing.oracle_patterns import read_pattern

KEYS = ("a", "a", "a", "b", None)
cuts = st.lists(st.integers(0, 200), max_size=8)
looked_up = st.one_of(st.just([]), features("o", at="key"))


def complete(node: PatternNode, events: dict[str, list[Row]], row: Row) -> bool | int | None:
    """Return the answer of a feature over everything that ever arrives."""
    if row["key"] is None:
        return None
    of_key = [Event(other["ts"], other["id"], other) for other in events[node.stream] if other["key"] == row["key"]]
    own = Event(row["ts"], row["id"], row) if node.at is None else None
    return read_pattern(node, of_key, row["ts"], own, evaluate)


def renamed(nodes: list[PatternNode]) -> list[PatternNode]:
    return [
        PatternNode(
            name=f"g{number}", type=n.type, stream=n.stream, key=n.key, over_us=n.over_us, pattern=n.pattern, at=n.at
        )
        for number, n in enumerate(nodes)
    ]


@examples(200)
@given(
    own=features(),
    lookups=looked_up,
    roots=event_lists(20, keys=KEYS),
    others=event_lists(20, keys=KEYS),
    at_roots=cuts,
    at_others=cuts,
    order=st.randoms(use_true_random=False),
    every=st.sampled_from([1, 1, 2, 1_000]),
    emission=st.sampled_from(EMISSIONS),
    lateness=st.sampled_from([10**15, 10**15, 0, SECOND, 20 * SECOND]),
    crashes=st.one_of(st.just(frozenset()), st.frozensets(st.integers(0, 12), max_size=4)),
)
def test_i2_the_last_revision_of_a_pattern_equals_the_complete_answer(
    own, lookups, roots, others, at_roots, at_others, order, every, emission, lateness, crashes
):
    """I2, I5, I8: two streams in any order of arrival, any batches, lateness, emission and crashes, revised at any time."""
    nodes = [*own, *renamed(lookups)]
    names = ["s", "o"] if lookups else ["s"]
    streams = [stream_plan(name, allowed_lateness_us=lateness) for name in names]
    plan = plan_of(nodes, *streams, revisions=True, emission=emission)
    others = [row | {"id": f"o{row['id']}"} for row in others] if lookups else []
    batches = [("s", rows) for rows in split(roots, at_roots)]
    batches += [("o", rows) for rows in split(others, at_others)] if others else []
    order.shuffle(batches)
    run = Run(plan, batches, Emitted([node.name for node in nodes]), every, 3, 2, crashes)
    run.to_the_end()
    accepted = {name: run.accepted_of(name) for name in ("s", "o")}
    assert run.emitted.table.keys() == {row["id"] for row in accepted["s"]}
    for row in run.emitted.table.values():
        for node in nodes:
            assert row[node.name] == complete(node, accepted, row), (node, row["id"])
    assert run.engine.stats()["unrevised"] == 0


@examples(200)
@given(
    own=features(),
    lookups=looked_up,
    roots=event_lists(20, keys=KEYS),
    others=event_lists(20, keys=KEYS),
    cuts=st.lists(st.integers(0, 1_000), max_size=6),
    shards=st.sampled_from([1, 2, 5]),
    threads=st.sampled_from([1, 2]),
    most=st.sampled_from([1, 3, 1_000]),
)
def test_i2_the_batch_answer_of_a_pattern_is_the_complete_answer(
    own, lookups, roots, others, cuts, shards, threads, most
):
    """I2: rows and matches, whatever the parts, shards and threads; a match is said once. I7: in the end nothing is held."""
    nodes = [*own, *renamed(lookups)]
    others = [row | {"id": f"o{row['id']}"} for row in others] if lookups else []
    streams = [stream_plan("s"), *([stream_plan("o")] if lookups else [])]
    engine = BatchEngine(plan_of(nodes, *streams), shards, threads)
    events = {"s": roots, **({"o": others} if lookups else {})}
    consumer, rows = Consumer(), []
    for batches, end in in_parts(events, cuts):
        rows += with_times(engine.process(batches, end)[0])
        consumer.take(engine, most)
    assert [(row["ts"], row["id"]) for row in rows] == sorted((row["ts"], row["id"]) for row in roots)
    for row in rows:
        for node in nodes:
            assert row[node.name] == complete(node, events, row), (node, row["id"])
    assert consumer.standing == expected_matches(own, roots) | expected_matches(renamed(lookups), others)
    assert set(consumer.revisions.values()) <= {0}
    assert engine.held() == (0, 0)


@examples(100)
@given(
    nodes=features(),
    events=event_lists(30, keys=KEYS),
    cuts=st.lists(st.integers(0, 1_000), max_size=6),
    most=st.integers(1, 4),
    order=st.randoms(use_true_random=False),
)
def test_i2_with_few_partial_matches_live_and_batch_find_the_same(nodes, events, cuts, most, order):
    """I2, I7: which partial matches are given up follows from the events, in the batch twin as live."""
    plan = plan_of(nodes, limits={"max_partial_matches": most})
    live, batch = Consumer(), Consumer()
    shuffled = list(events)
    order.shuffle(shuffled)
    engine = Engine(plan)
    for event in shuffled:
        engine.process("s", batch_of([event]), START)
        live.take(engine)
    engine.finish("s")
    live.take(engine)
    twin = BatchEngine(plan, 2, 1)
    for batches, end in in_parts({"s": events}, cuts):
        twin.process(batches, end)
        batch.take(twin)
    assert batch.standing == live.standing


def test_matches_that_nobody_takes_are_not_held():
    """I7: an engine that is not asked for matches gives its events back with each part; one that is, once they were taken."""
    rows = [{"id": f"e{number:03}", "ts": START + number * SECOND, "key": "a", "b": True} for number in range(300)]
    parts = in_parts({"s": rows}, [50, 100, 150, 200, 250])
    told, untold = BatchEngine(plan_of([seldom()]), 2, 1), BatchEngine(plan_of([seldom()]), 2, 1, False)
    for batches, end in parts:
        told.process(batches, end)
        untold.process(batches, end)
        assert untold.held()[1] <= 60
    assert untold.matches(10) is None
    assert untold.held() == (0, 0)
    assert told.held()[1] == 300
    found = 0
    while (batch := told.matches(10)) is not None:
        found += batch.num_rows
    assert (found, told.held()) == (150, (0, 0))


def test_a_key_over_its_limit_tells_of_its_matches_before_their_events_go():
    rows = [{"id": f"e{number:03}", "ts": START + number * SECOND, "key": "a", "b": True} for number in range(100)]
    twin = BatchEngine(plan_of([seldom()], limits={"max_events_per_key": 7}), 1, 1)
    twin.process([("s", batch_of(rows))])
    consumer = Consumer()
    consumer.take(twin)
    assert sorted(consumer.standing) == [("f", "a", f"e{n:03}", f"e{n + 1:03}") for n in range(0, 100, 2)]


@examples(150)
@given(
    own=features(),
    lookups=looked_up,
    roots=event_lists(20, keys=KEYS),
    others=event_lists(20, keys=KEYS),
    order=st.randoms(use_true_random=False),
    lateness=st.sampled_from([0, SECOND, 10**15]),
    most=st.sampled_from([1, 3, 1_000]),
)
def test_i5_a_restored_engine_goes_on_with_its_patterns(own, lookups, roots, others, order, lateness, most):
    """I5: rows, matches, revisions and sizes are the same, restored at any points."""
    nodes = [*own, *renamed(lookups)]
    names = ["s", "o"] if lookups else ["s"]
    streams = [stream_plan(name, allowed_lateness_us=lateness) for name in names]
    plan = plan_of(nodes, *streams, revisions=True, limits={"max_partial_matches": most})
    turns = [("s", row) for row in roots] + [("o", row | {"id": f"o{row['id']}"}) for row in others if lookups]
    order.shuffle(turns)
    engine, restored = Engine(plan), Engine(plan)
    for stream, row in turns:
        if order.random() < 0.3:
            restored = Engine.restore(plan, restored.snapshot())
        ask = order.random() < 0.7
        assert told(engine, stream, row, ask=ask) == told(restored, stream, row, ask=ask)


def told(engine: Engine, stream: str, row: Row, *, ask: bool) -> list[object]:
    """Let an event arrive; return the rows, and the matches and revisions if asked for them."""
    batches = [engine.process(stream, batch_of([row]), START)[1]]
    if ask:
        for next_batch in (engine.matches, engine.revisions):
            while (batch := next_batch(2)) is not None:
                batches.append(batch)
    stats = {name: value for name, value in engine.stats().items() if "bytes" not in name}
    return [stats, *(None if batch is None else with_times(batch) for batch in batches)]


def test_i2_a_late_event_revises_the_rows_that_see_the_match_which_it_completes():
    engine = Engine(plan_of([seldom()], stream_plan("s"), revisions=True))
    common = {"key": "a", "i": 0, "d": None, "f": 0.5, "s": "x", "b": False}
    rows = [{**common, "id": f"r{number:03}", "ts": START + number * SECOND} for number in range(300)]
    assert set(engine.process("s", batch_of(rows), START)[0]) <= TAKEN
    first, second = ({**common, "id": f"t{at}", "ts": START + at * SECOND + 1, "b": True} for at in (100, 105))
    engine.process("s", batch_of([first]), START)
    assert engine.revisions(1_000) is None
    engine.process("s", batch_of([second]), START)
    revised = engine.revisions(1_000)
    assert revised is not None
    assert revised.num_rows == 10
