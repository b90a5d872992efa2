"""Patterns against the oracle that tries every start: as features, as matches that go out, in any order of arrival."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from effort import examples
from hypothesis import given
from hypothesis import strategies as st
from kernel_engine import COLUMNS, SECOND, START, TAKEN, Row, batch_of, engine_plan, event_lists, split, stream_plan

from gillnet._kernel import Batch, Engine
from gillnet.api.expressions import Expr, col
from gillnet.plan.expressions import Column, Node
from gillnet.plan.patterns import (
    AbsentNode,
    AlternativeNode,
    PatternNode,
    SequenceNode,
    StepNode,
    earlier_columns,
    sequence_to_json,
)
from gillnet.testing.oracle import Event
from gillnet.testing.oracle_expressions import evaluate_row
from gillnet.testing.oracle_patterns import Match, find_matches, read_pattern

KEYS = ("a", "a", "a", "b", None)
TYPES = {"id": ("string", False), "ts": ("timestamp", False), "key": ("string", True)}
TYPES |= {name: (dtype, True) for name, dtype in COLUMNS.items()}
NAMES = ("p", "q", "r", "t")
KNOWN = {**TYPES, **earlier_columns(NAMES, TYPES)}
cuts = st.lists(st.integers(0, 200), max_size=8)
spans = st.sampled_from([1, SECOND, 3 * SECOND, 10 * SECOND, 60 * SECOND, 1_000 * SECOND])


def evaluate(condition: Node, row: Mapping[str, Any]) -> Any:
    return evaluate_row(condition, row, KNOWN)


def earlier(place: str, column: str) -> Expr:
    return Expr(Column(f"{place}.{column}"))


@st.composite
def conditions(draw: st.DrawFn, names: tuple[str, ...]) -> Node | None:
    """Draw a condition over the event, and over what steps ``names`` took before it."""
    alone = st.sampled_from([None, None, col("b"), ~col("b"), col("i") > 1, col("s") < "m", col("d").is_null()])
    place = draw(st.sampled_from(["previous", *(f"{name}.{which}" for name in names for which in ("first", "last"))]))
    gap = col("ts").dt.epoch("us") - earlier(place, "ts").dt.epoch("us")
    of_run = st.sampled_from(
        [
            None,
            None,
            None,
            (gap < 2 * SECOND) | earlier(place, "ts").is_null(),
            (col("i") > earlier(place, "i")).fill_null(True),
            col("s") != earlier(place, "s"),
            col("d") >= earlier(place, "d"),
            (col("f") < earlier(place, "f")) | earlier(place, "b"),
        ]
    )
    parts = [part for part in (draw(alone), draw(of_run)) if part is not None]
    return (parts[0] & parts[1] if len(parts) == 2 else parts[0]).node if parts else None


@st.composite
def sequences(draw: st.DrawFn) -> SequenceNode:
    """Draw any pattern of up to four names."""
    count = draw(st.integers(1, 3))
    both = draw(st.integers(0, count))
    steps: list[StepNode] = []
    names: tuple[str, ...] = ()
    for number in range(count):
        own = NAMES[len(names) : len(names) + (2 if number == both else 1)]
        names += own
        least = draw(st.sampled_from([1, 1, 1, 2, 3]))
        last = number == count - 1
        steps.append(
            StepNode(
                alternatives=tuple(AlternativeNode(name=name, where=draw(conditions(names))) for name in own),
                least=least,
                most=draw(st.sampled_from([least, least, least + 1, None])),
                optional=not last and draw(st.integers(0, 4)) == 0,
                greedy=not last and draw(st.booleans()),
                strict=draw(st.integers(0, 3)) == 0,
                unless=tuple(
                    guard
                    for guard in [
                        draw(conditions(names[: -len(own)])) if number and draw(st.integers(0, 2)) == 0 else None
                    ]
                    if guard is not None
                ),
            )
        )
    tail = draw(conditions(names)) if draw(st.integers(0, 2)) == 0 else None
    return SequenceNode(
        steps=tuple(steps),
        within_us=draw(spans),
        absent=None if tail is None else AbsentNode(where=tail, for_us=draw(spans)),
        skip=draw(st.sampled_from(["past_last_event", "to_next", "no_skip"])),
    )


@st.composite
def features(draw: st.DrawFn, stream: str = "s", at: str | None = None) -> list[PatternNode]:
    """Draw features over one or two patterns."""
    patterns = draw(st.lists(sequences(), min_size=1, max_size=2))
    drawn = draw(
        st.lists(
            st.tuples(st.sampled_from(patterns), st.sampled_from(["bool", "int64"]), spans), min_size=1, max_size=3
        )
    )
    return [
        PatternNode(name=f"f{i}", type=dtype, stream=stream, key="key", over_us=over, pattern=pattern, at=at)
        for i, (pattern, dtype, over) in enumerate(drawn)
    ]


def plan_of(nodes: list[PatternNode], *streams: dict[str, Any], **parts: Any) -> str:
    """Return a plan for the kernel whose features are patterns."""
    plan = json.loads(engine_plan((), *streams, **parts))
    plan["features"] = [
        {
            "kind": "pattern",
            **{name: getattr(node, name) for name in ("name", "type", "stream", "key", "at", "over_us")},
            "pattern": sequence_to_json(node.pattern),
        }
        for node in nodes
    ]
    return json.dumps(plan)


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

    def take(self, engine: Engine, most: int = 3) -> None:
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
