"""I2: after the last revision, every row equals the complete answer, whatever the order of arrival and the batches."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from effort import examples
from hypothesis import given
from hypothesis import strategies as st
from kernel_engine import (
    START,
    TAKEN,
    Row,
    aggregates,
    batch_of,
    engine_plan,
    evaluate,
    event_lists,
    same,
    split,
    stream_plan,
    with_times,
)

from gillnet._kernel import Batch, Engine
from gillnet.plan.nodes import AggregateNode
from gillnet.testing.oracle import Event, read

KEYS = ("a", "a", "a", "b", None)
own = st.integers(1, 4).flatmap(lambda n: st.tuples(*(aggregates(f"f{i}") for i in range(n))))
lookups = st.integers(1, 3).flatmap(lambda n: st.tuples(*(aggregates(f"g{i}", stream="o", at="key") for i in range(n))))
cuts = st.lists(st.integers(0, 200), max_size=8)


class Emitted:
    """What a consumer holds who keeps the last revision of every row, and checks each one against what it replaces."""

    def __init__(self, names: list[str]) -> None:
        self.names = names
        self.rows: dict[str, Row] = {}
        self.revisions: dict[str, int] = {}

    def rows_came(self, batch: Batch | None) -> None:
        for row in with_times(batch) if batch is not None else []:
            assert row["id"] not in self.rows
            self.rows[row["id"]] = row
            self.revisions[row["id"]] = 0

    def revisions_came(self, engine: Engine, most: int) -> None:
        while (batch := engine.revisions(most)) is not None:
            for row in with_times(batch):
                before = self.rows[row["id"]]
                assert all(same(row[f"__old.{name}"], before[name]) for name in self.names)
                assert any(not same(row[f"__old.{name}"], row[name]) for name in self.names)
                assert row["__revision"] == self.revisions[row["id"]] + 1
                assert row["__cause_id"] != row["id"]
                self.rows[row["id"]] = before | {name: row[name] for name in self.names}
                self.revisions[row["id"]] += 1


def complete(node: AggregateNode, events: dict[str, list[Event]], row: Row) -> Any:
    """Return the complete answer of a feature for a row, over everything that ever arrives."""
    if row["key"] is None:
        return None
    of_key = [event for event in events[node.stream] if event.row["key"] == row["key"]]
    own_event = Event(row["ts"], row["id"], row) if node.stream == "s" else None
    return read(node, of_key, row["ts"], own_event, evaluate)


def feed(
    engine: Engine,
    emitted: Emitted,
    batches: list[tuple[str, list[Row]]],
    revise_after: Callable[[int], bool],
    most: int,
) -> None:
    for number, (stream, rows) in enumerate(batches):
        outcomes, batch = engine.process(stream, batch_of(rows), START)
        assert set(outcomes) <= TAKEN
        emitted.rows_came(batch)
        if revise_after(number):
            emitted.revisions_came(engine, most)
    emitted.revisions_came(engine, most)


@examples(300)
@given(
    nodes=own,
    looked_up=st.one_of(st.just(()), lookups),
    roots=event_lists(80, keys=KEYS),
    others=event_lists(60, keys=KEYS),
    at_roots=cuts,
    at_others=cuts,
    order=st.randoms(use_true_random=False),
    every=st.sampled_from([1, 1, 2, 5, 1_000]),
    most=st.sampled_from([1, 3, 1_000]),
)
def test_i2_the_last_revision_equals_the_complete_answer(
    nodes, looked_up, roots, others, at_roots, at_others, order, every, most
):
    """I2, I1: any windows, two streams in any order of arrival, any batches, revisions followed up at any time."""
    features = [*nodes, *looked_up]
    others = [row | {"id": f"o{row['id']}"} for row in others] if looked_up else []
    streams = [stream_plan("s"), *([stream_plan("o")] if looked_up else [])]
    engine = Engine(engine_plan(features, *streams, revisions=True))
    batches = [("s", rows) for rows in split(roots, at_roots)]
    batches += [("o", rows) for rows in split(others, at_others)] if others else []
    order.shuffle(batches)
    emitted = Emitted([node.name for node in features])
    feed(engine, emitted, batches, lambda number: number % every == 0, most)
    events = {
        "s": [Event(row["ts"], row["id"], row) for row in roots],
        "o": [Event(row["ts"], row["id"], row) for row in others],
    }
    assert len(emitted.rows) == len(roots)
    for row in emitted.rows.values():
        for node in features:
            expected = complete(node, events, row)
            assert same(row[node.name], expected), (node, row["id"], row[node.name], expected)
    assert engine.stats()["unrevised"] == 0
