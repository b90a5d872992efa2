"""Interval joins against nested loops over every accepted event: out of order, late, null keys, any batches."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

from effort import examples
from hypothesis import given
from hypothesis import strategies as st
from kernel_engine import (
    ARRIVAL,
    SECOND,
    START,
    TAKEN,
    Row,
    batch_of,
    engine_plan,
    event_lists,
    in_parts,
    same,
    stream_plan,
    with_times,
)

from gillnet._kernel import Batch, BatchEngine, Engine
from gillnet.plan.expressions import Call, Column, Literal, Node
from gillnet.plan.joins import HOWS, IntervalJoinNode, JoinSide, SelectNode, join_to_json
from gillnet.testing.oracle import Event
from gillnet.testing.oracle_joins import interval_join, last_revisions

keys = ("a", "a", "a", "b", None)
offsets = st.sampled_from([-60 * SECOND, -3 * SECOND, -1, 0, 1, SECOND, 20 * SECOND, 1_000 * SECOND])
latenesses = st.sampled_from([0, SECOND, 20 * SECOND, 10**15])
SELECT = {f"{side}_{column}": f"{side}.{column}" for side in "lr" for column in "idfsb"}
# Both sides' columns together; null where either is.
MORE: Node = Call("gt", (Column("r.i"), Column("l.i")))
CONDITIONS: dict[str, tuple[Node | None, Any]] = {
    "none": (None, lambda left, right: True),
    "more": (MORE, lambda left, right: None not in (left["i"], right["i"]) and right["i"] > left["i"]),
    "flagged": (Column("l.b"), lambda left, right: left["b"] is True),
    "never": (Literal(False, "bool"), lambda left, right: False),
}


@st.composite
def joins(draw: st.DrawFn) -> tuple[IntervalJoinNode, Any]:
    """Draw a join of ``l`` with ``r``, and what its condition means."""
    lower, upper = sorted([draw(offsets), draw(offsets)])
    condition, meaning = CONDITIONS[draw(st.sampled_from(sorted(CONDITIONS)))]
    node = IntervalJoinNode(
        name="j",
        left=JoinSide("l", "key"),
        right=JoinSide("r", "key"),
        lower_us=lower,
        upper_us=upper,
        how=draw(st.sampled_from(HOWS)),
        condition=condition,
        select=tuple(SelectNode(name, "", Column(column)) for name, column in SELECT.items()),
    )
    return node, meaning


class Joined:
    """An engine with one join, its rows so far, and the events that its gates let in."""

    def __init__(self, node: IntervalJoinNode, **settings: dict[str, int]) -> None:
        streams = [stream_plan(name, **settings.get(name, {})) for name in "lr"]
        self.node = node
        self.engine = Engine(engine_plan([], *streams, joins=[join_to_json(node)]))
        self.events: dict[str, list[Event]] = {"l": [], "r": []}
        self.rows: list[Row] = []

    def arrive(self, stream: str, events: list[Row], now: int = ARRIVAL) -> None:
        outcomes, _ = self.engine.process(stream, batch_of(events), now)
        taken = [event for event, outcome in zip(events, outcomes, strict=True) if outcome in TAKEN]
        self.events[stream] += [Event(event["ts"], event["id"], event) for event in taken]
        self.drain()

    def drain(self, most: int = 7) -> None:
        while (joined := self.engine.joined(most)) is not None:
            self.rows += plain(joined[1])

    def finish(self) -> None:
        for stream in "lr":
            self.engine.finish(stream)
        self.drain()

    @property
    def counts(self) -> dict[str, int]:
        return self.engine.join_counts()["j"]

    def assert_equals_the_oracle(self, meaning: Any) -> None:
        assert_are_the_oracles(self.rows, self.node, meaning, self.events["l"], self.events["r"])


def plain(rows: Batch) -> list[Row]:
    return [{name.removeprefix("__"): value for name, value in row.items()} for row in with_times(rows)]


def assert_are_the_oracles(
    rows: list[Row], node: IntervalJoinNode, meaning: Any, lefts: list[Event], rights: list[Event]
) -> None:
    """Hold the last revisions of emitted rows against nested loops."""
    table = {(row["left_id"], row["right_id"]): row for row in last_revisions(rows)}
    expected = interval_join(node, lefts, rights, lambda left, right: meaning(left.row, right.row))
    assert {ids(pair) for pair in expected} == set(table)
    for left, right in expected:
        row = table[ids((left, right))]
        assert (row["left_time"], row["right_time"]) == (left and left.time, right and right.time)
        assert row["key"] == (left or right).row["key"]
        for name in SELECT:
            event = left if name[0] == "l" else right
            assert same(row[name], event and event.row[name[2:]]), (name, row)


def ids(pair: tuple[Event | None, Event | None]) -> tuple[str | None, str | None]:
    left, right = pair
    return left and left.id, right and right.id


def kind_of(row: Row) -> str:
    """Which figure counts a row."""
    if row["withdrawn"]:
        return "withdrawn"
    return "pairs" if row["left_id"] and row["right_id"] else "unmatched"


def turns_of(left: list[Row], right: list[Row], cuts: Any) -> list[tuple[str, list[Row]]]:
    """Cut both streams into batches and let them take turns, each in its own order."""
    turns = []
    rest = {"l": left, "r": right}
    while any(rest.values()):
        stream = cuts.choice([name for name, events in rest.items() if events])
        size = cuts.choice([1, 1, 2, 5, 40])
        turns.append((stream, rest[stream][:size]))
        rest[stream] = rest[stream][size:]
    return turns


@examples(200)
@given(
    join=joins(),
    left=event_lists(40, keys=keys),
    right=event_lists(40, keys=keys),
    lateness=st.tuples(latenesses, latenesses),
    delay=st.sampled_from([0, 5 * SECOND]),
    cuts=st.randoms(use_true_random=False),
)
def test_i2_the_last_revisions_of_a_join_are_the_batch_answer(join, left, right, lateness, delay, cuts):
    """I2, I3: whatever the order of arrival, what is late and too late, and where batches end."""
    node, meaning = join
    settings = {
        name: {"allowed_lateness_us": late, "watermark_delay_us": delay}
        for name, late in zip("lr", lateness, strict=True)
    }
    joined = Joined(node, **settings)
    for stream, events in turns_of(left, right, cuts):
        joined.arrive(stream, events)
    joined.finish()
    joined.assert_equals_the_oracle(meaning)
    assert joined.counts == dict.fromkeys(joined.counts, 0) | Counter(map(kind_of, joined.rows))
    assert not any(row["saturated"] for row in joined.rows)


@examples(60)
@given(
    join=joins(),
    left=event_lists(30, keys=keys),
    right=event_lists(30, keys=keys),
    first=st.randoms(use_true_random=False),
    second=st.randoms(use_true_random=False),
)
def test_i5_pairs_depend_on_the_set_of_events_only(join, left, right, first, second):
    """The same events in two orders and two cuts come to the same table, and to the same pairs."""
    node, _ = join
    tables = []
    for order in (first, second):
        joined = Joined(node)
        shuffled = [order.sample(events, len(events)) for events in (left, right)]
        for stream, events in turns_of(*shuffled, order):
            joined.arrive(stream, events)
        joined.finish()
        table = last_revisions(joined.rows)
        tables.append((sorted(map(repr, table)), joined.counts["pairs"]))
    assert tables[0] == tables[1]


@st.composite
def advancing(draw: st.DrawFn) -> list[tuple[str, Row | int]]:
    """Events of both sides whose times mostly advance, and silences between them, in µs of processing time."""
    step = draw(st.sampled_from([100_000, SECOND, 5 * SECOND]))
    behind = st.sampled_from([0, 0, 1, SECOND, 5 * SECOND, 60 * SECOND])
    turns: list[tuple[str, Row | int]] = []
    for number in range(draw(st.integers(1, 80))):
        kind = draw(st.sampled_from(["l", "l", "r", "r", "r", "silence"]))
        if kind == "silence":
            turns.append((kind, draw(st.sampled_from([SECOND, 40 * SECOND]))))
            continue
        values = {"i": number % 5, "d": None, "f": number / 7, "s": "xyz"[number % 3], "b": number % 2 == 0}
        event = {"id": f"e{number}", "ts": START + number * step - draw(behind), "key": draw(st.sampled_from(keys))}
        turns.append((kind, event | values))
    return turns


@examples(150)
@given(join=joins(), turns=advancing(), lateness=st.tuples(latenesses, latenesses))
def test_i7_a_join_is_exact_or_says_that_it_may_miss_pairs(join, turns, lateness):
    """I7: state is forgotten only where nothing acceptable could match it, or a side was idle and its event is counted."""
    node, meaning = join
    settings = {
        name: {"allowed_lateness_us": late, "idle_after_us": 30 * SECOND}
        for name, late in zip("lr", lateness, strict=True)
    }
    joined, now, was_idle = Joined(node, **settings), ARRIVAL, False
    heard = dict.fromkeys("lr", ARRIVAL)
    joined.engine.pass_time(now)
    for kind, event in turns:
        if kind == "silence":
            now += event
            joined.engine.pass_time(now)
            joined.drain()
            was_idle |= any(now - last > 30 * SECOND for last in heard.values())
            continue
        heard[kind] = now
        joined.arrive(kind, [event], now)
    joined.finish()
    if joined.counts["incomplete"]:
        assert was_idle
    else:
        joined.assert_equals_the_oracle(meaning)


@examples(30)
@given(
    join=joins(),
    left=event_lists(60, keys=keys),
    right=event_lists(60, keys=keys),
    order=st.randoms(use_true_random=False),
)
def test_i7_the_state_of_a_join_comes_back(join, left, right, order):
    """Once both streams have ended nothing is held, whatever came in."""
    joined = Joined(join[0])
    for stream, events in turns_of(left, right, order):
        joined.arrive(stream, events)
    joined.finish()
    joined.drain()
    stats = joined.engine.stats()
    assert (stats["join_keys"], stats["join_events"], stats["join_timers"]) == (0, 0, 0)


class BatchJoined:
    """The twin over all events, cut into parts: the rows of its one join."""

    def __init__(self, node: IntervalJoinNode, shards: int, threads: int) -> None:
        plan = engine_plan([], stream_plan("l"), stream_plan("r"), joins=[join_to_json(node)])
        self.engine = BatchEngine(plan, shards, threads)
        self.rows: list[Row] = []

    def run(self, left: list[Row], right: list[Row], cuts: list[int], most: int) -> list[Row]:
        for part, end in in_parts({"l": left, "r": right}, cuts):
            self.engine.process(part, end)
            while (joined := self.engine.joined(most)) is not None:
                self.rows += plain(joined[1])
        return self.rows


many_cuts = st.lists(st.integers(0, 1_000), max_size=6)
shard_counts = st.sampled_from([1, 2, 8])


@examples(200)
@given(
    join=joins(),
    left=event_lists(60, keys=keys),
    right=event_lists(60, keys=keys),
    cuts=many_cuts,
    shards=shard_counts,
    threads=st.sampled_from([1, 2]),
    most=st.sampled_from([1, 7, 10_000]),
    kept=st.sampled_from([1, 100_000]),
)
def test_i2_the_batch_twin_gives_a_join_of_all_events_and_takes_nothing_back(
    join, left, right, cuts, shards, threads, most, kept
):
    """I2, I7: whatever the parts, shards, threads and how rows are taken; however many events a key has; and nothing stays."""
    node, meaning = join
    twin = BatchJoined(replace(node, max_events_per_key=kept), shards, threads)
    rows = twin.run(left, right, cuts, most)
    events = [[Event(row["ts"], row["id"], row) for row in side] for side in (left, right)]
    assert_are_the_oracles(rows, node, meaning, *events)
    assert not any(row["revision"] or row["withdrawn"] or row["saturated"] for row in rows)
    assert twin.engine.held() == (0, 0)


@examples(60)
@given(
    join=joins(),
    left=event_lists(40, keys=keys),
    right=event_lists(40, keys=keys),
    cuts=many_cuts,
    shards=shard_counts,
    most=st.sampled_from([1, 10_000]),
)
def test_i2_which_pairs_the_batch_twin_leaves_out_at_the_limit_depends_on_no_part(
    join, left, right, cuts, shards, most
):
    """I2, I7: an event brings the newest of its partners before it, as many as the limit allows."""
    node = replace(join[0], max_pairs_per_event=2)
    whole = BatchJoined(node, 1, 1).run(left, right, [], 10_000)
    cut = BatchJoined(node, shards, 1).run(left, right, cuts, most)
    assert sorted(map(repr, cut)) == sorted(map(repr, whole))
