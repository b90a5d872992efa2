"""Patterns against the oracle that tries every start: as features, as matches that go out, in any order of arrival."""

from __future__ import annotations

from typing import Any

from effort import examples
from hypothesis import given
from hypothesis import strategies as st
from kernel_engine import SECOND, START, TAKEN, Row, batch_of, event_lists, split, stream_plan
from pattern_strategies import evaluate, features, plan_of

from gillnet._kernel import Batch, BatchEngine, Engine
from gillnet.plan.patterns import PatternNode, SequenceNode
from gillnet.testing.oracle import Event
from gillnet.testing.oracle_patterns import Match, find_matches, read_pattern

KEYS = ("a", "a", "a", "b", None)
cuts = st.lists(st.integers(0, 200), max_size=8)


def as_event(row: Row) -> Event:
    return Event(row["ts"], row["id"], row)


def rows_of(batch: Batch) -> list[Row]:
    table = batch.to_pyarrow()
    return table.to_pylist()


class Consumer:
    """Who keeps the last revision of every match, and checks each against what it replaces."""

    def __init__(self) -> None:
        self.standing: dict[tuple[str, str, str, str], list[tuple[str, str]]] = {}
        self.revisions: dict[tuple[str, str, str, str], int] = {}

    def take(self, engine: Engine | BatchEngine, most: int = 3) -> None:
        while (batch := engine.matches(most)) is not None:
            for row in rows_of(batch):
                identity = (row["pattern"], row["key"], row["first"], row["last"])
                assert row["revision"] == self.revisions.get(identity, -1) + 1
                self.revisions[identity] = row["revision"]
                if row["withdrawn"]:
                    assert row["events"] is None
                    del self.standing[identity]
                    continue
                events = [(event["step"], event["id"]) for event in row["events"]]
                assert (events[0][1], events[-1][1]) == (row["first"], row["last"])
                assert self.standing.get(identity) != events, "a revision changes something"
                self.standing[identity] = events


def stands(name: str, key: str, match: Match) -> tuple[tuple[str, str, str, str], list[tuple[str, str]]]:
    events = [(taken.name, taken.event.id) for taken in match.events]
    return (name, key, events[0][1], events[-1][1]), events


def expected_matches(nodes: list[PatternNode], events: list[Row]) -> dict[Any, Any]:
    """Return all matches of all patterns, each under the name of its first feature."""
    found: dict[Any, Any] = {}
    told: list[SequenceNode] = []
    for node in nodes:
        if node.pattern in told:
            continue
        told.append(node.pattern)
        for key in {row["key"] for row in events} - {None}:
            of_key = [as_event(row) for row in events if row["key"] == key]
            found |= dict(stands(node.name, key, m) for m in find_matches(node.pattern, of_key, None, evaluate))
    return found


@examples(200)
@given(nodes=features(), events=event_lists(25, keys=KEYS), cuts=cuts)
def test_i1_i5_a_pattern_equals_the_oracle_at_every_arrival(nodes, events, cuts):
    """I1, I5: any pattern, any order of arrival, any batches; a row sees what has arrived, and matches follow late events."""
    engine = Engine(plan_of(nodes))
    consumer = Consumer()
    arrived: list[Row] = []
    for batch in split(events, cuts):
        outcomes, rows = engine.process("s", batch_of(batch), START)
        assert set(outcomes) <= TAKEN
        for event, row in zip(batch, rows_of(rows), strict=True):
            arrived.append(event)
            of_key = [as_event(other) for other in arrived if other["key"] == event["key"]]
            for node in nodes:
                wanted = None
                if event["key"] is not None:
                    wanted = read_pattern(node, of_key, event["ts"], as_event(event), evaluate)
                assert row[node.name] == wanted, (node, event)
        consumer.take(engine)
    engine.finish("s")
    consumer.take(engine)
    assert consumer.standing == expected_matches(nodes, events)


def quick_lookups(events: list[Row], keys: tuple[str | None, ...]) -> list[Row]:
    """Return rows of another stream at the very times of events, just before and just after them."""
    moves = (-1, 0, 1, 3 * SECOND)
    return [
        {**row, "id": f"r{number}", "ts": row["ts"] + moves[number % 4], "key": keys[number % len(keys)]}
        for number, row in enumerate(events)
    ]


@examples(150)
@given(nodes=features(at="key"), others=event_lists(20, keys=KEYS), order=st.randoms(use_true_random=False))
def test_i6_a_pattern_is_looked_up_as_of_the_rows_time(nodes, others, order):
    """I6: a pattern of another stream sees what has arrived at or before the row's time, in any order of both streams."""
    engine = Engine(plan_of(nodes, stream_plan("r"), stream_plan("s")))
    consumer = Consumer()
    turns = [("s", row) for row in others] + [("r", row) for row in quick_lookups(others, KEYS)]
    order.shuffle(turns)
    arrived: list[Row] = []
    for stream, event in turns:
        _, rows = engine.process(stream, batch_of([event]), START)
        if stream == "s":
            arrived.append(event)
            consumer.take(engine)
            continue
        (row,) = rows_of(rows)
        of_key = [as_event(other) for other in arrived if other["key"] == event["key"]]
        for node in nodes:
            wanted = read_pattern(node, of_key, event["ts"], None, evaluate) if event["key"] is not None else None
            assert row[node.name] == wanted, (node, event)
    engine.finish("s")
    consumer.take(engine)
    assert consumer.standing == expected_matches(nodes, others)


@examples(150)
@given(
    nodes=features(), events=event_lists(60, keys=("a", "a", "b")), lateness=st.sampled_from([0, SECOND, 5 * SECOND])
)
def test_i7_forgetting_changes_nothing_and_memory_comes_back(nodes, events, lateness):
    """I7, I5: with events forgotten behind the allowed lateness, rows and matches are the same; in the end nothing is kept."""
    bounded = Engine(plan_of(nodes, stream_plan("s", allowed_lateness_us=lateness)))
    free = Engine(plan_of(nodes))
    told, all_told = Consumer(), Consumer()
    for event in events:
        outcomes, rows = bounded.process("s", batch_of([event]), START)
        told.take(bounded)
        if outcomes[0] in TAKEN:
            _, wanted = free.process("s", batch_of([event]), START)
            assert [row[node.name] for row in rows_of(rows) for node in nodes] == [
                row[node.name] for row in rows_of(wanted) for node in nodes
            ]
            all_told.take(free)
    for engine, consumer in ((bounded, told), (free, all_told)):
        engine.finish("s")
        consumer.take(engine)
    assert told.standing == all_told.standing
    for _ in range(3):
        bounded.process("s", batch_of([]), START)
    stats = bounded.stats()
    assert (stats["pattern_events"], stats["partial_matches"]) == (0, 0)


@examples(150)
@given(nodes=features(), events=event_lists(40), most=st.integers(1, 4))
def test_i7_with_few_partial_matches_a_count_is_exact_or_says_that_it_may_miss_some(nodes, events, most):
    """I7: beyond the limit the oldest partial match goes; rows that may miss a match say ``saturated``."""
    engine = Engine(plan_of(nodes, limits={"max_partial_matches": most}))
    exact = Engine(plan_of(nodes))
    for event in events:
        (row,) = rows_of(engine.process("s", batch_of([event]), START)[1])
        (wanted,) = rows_of(exact.process("s", batch_of([event]), START)[1])
        states = row["__feature_states"] or ""
        assert wanted["__feature_states"] is None
        for node in nodes:
            if node.pattern.skip != "past_last_event" and f"{node.name}=saturated" not in states:
                assert row[node.name] == wanted[node.name], (node, event)
    patterns = []
    for node in nodes:
        if node.pattern not in patterns:
            patterns.append(node.pattern)
    stats = engine.stats()
    assert stats["partial_matches"] <= most * 2 * len(patterns)
    assert exact.stats()["partial_matches_dropped"] == 0


@examples(100)
@given(nodes=features(), events=event_lists(40), most=st.integers(1, 3), order=st.randoms(use_true_random=False))
def test_i5_the_limit_of_partial_matches_does_not_depend_on_the_order_of_arrival(nodes, events, most, order):
    """I5, I7: which partial matches are given up, and which rows say so, follows from the set of events alone."""
    plan = plan_of(nodes, limits={"max_partial_matches": most})
    consumers = []
    shuffled = list(events)
    order.shuffle(shuffled)
    for arrival in (sorted(events, key=lambda row: (row["ts"], row["id"])), shuffled):
        engine, consumer = Engine(plan), Consumer()
        for event in arrival:
            engine.process("s", batch_of([event]), START)
            consumer.take(engine)
        engine.finish("s")
        consumer.take(engine)
        consumers.append(consumer.standing)
    assert consumers[0] == consumers[1]
