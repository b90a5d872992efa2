"""I2: after the last revision, every row equals the complete answer, whatever the order of arrival and the batches."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
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
from gillnet.plan.nodes import AggregateNode, SlidingWindow
from gillnet.testing.oracle import Event, read

KEYS = ("a", "a", "a", "b", None)
own = st.integers(1, 4).flatmap(lambda n: st.tuples(*(aggregates(f"f{i}") for i in range(n))))
lookups = st.integers(1, 3).flatmap(lambda n: st.tuples(*(aggregates(f"g{i}", stream="o", at="key") for i in range(n))))
EMISSIONS = (
    {"kind": "on_arrival"},
    {"kind": "on_arrival"},
    {"kind": "max_wait", "max_wait_us": 2 * SECOND},
    {"kind": "on_watermark"},
)
cuts = st.lists(st.integers(0, 200), max_size=8)


class Emitted:
    """What a consumer holds who keeps the last revision of every row, and checks each one against what it replaces."""

    def __init__(self, names: list[str]) -> None:
        self.names = names
        self.rows: dict[str, Row] = {}
        self.revisions: dict[str, int] = {}
        self.table: dict[str, Row] = {}
        """What came last of each row, over all crashes: at-least-once, so some of it came again."""

    def as_of_now(self) -> Emitted:
        """Return a copy that goes on apart from this one, with the same table."""
        copied = Emitted(self.names)
        copied.rows, copied.revisions, copied.table = dict(self.rows), dict(self.revisions), self.table
        return copied

    def rows_came(self, batch: Batch | None) -> None:
        for row in with_times(batch) if batch is not None else []:
            assert row["id"] not in self.rows
            self.rows[row["id"]] = self.table[row["id"]] = row
            self.revisions[row["id"]] = 0

    def revisions_came(self, engine: Engine, most: int, *, replaying: bool = False) -> None:
        while (batch := engine.revisions(most)) is not None:
            for row in with_times(batch):
                before = self.rows[row["id"]]
                assert all(same(row[f"__old.{name}"], before[name]) for name in self.names)
                changed = [name for name in self.names if not same(row[f"__old.{name}"], row[name])]
                assert row["__changed"] == changed
                assert changed or replaying
                assert all(row[f"__was.{name}"] is None for name in self.names if name not in changed)
                assert all(same(row[f"__was.{name}"], row[f"__old.{name}"]) for name in changed)
                assert row["__revision"] == self.revisions[row["id"]] + 1
                assert row["__cause_id"] != row["id"]
                self.rows[row["id"]] = self.table[row["id"]] = before | {name: row[name] for name in self.names}
                self.revisions[row["id"]] += 1


def complete(node: AggregateNode, events: dict[str, list[Event]], row: Row) -> Any:
    """Return the complete answer of a feature for a row, over everything that ever arrives."""
    if row["key"] is None:
        return None
    of_key = [event for event in events[node.stream] if event.row["key"] == row["key"]]
    own_event = Event(row["ts"], row["id"], row) if node.stream == "s" else None
    return read(node, of_key, row["ts"], own_event, evaluate)


@dataclass(slots=True)
class Run:
    """A run over batches that arrive a second apart. It loses its engine now and then, and goes on from the last snapshot.

    What it reads again it looks at when that is over, and not when the lost run did.
    """

    plan: str
    batches: list[tuple[str, list[Row]]]
    emitted: Emitted
    revise_every: int
    most: int
    snapshot_every: int = 10**9
    crashes: frozenset[int] = frozenset()
    engine: Engine = field(init=False)
    accepted: dict[int, list[Row]] = field(init=False, default_factory=dict)
    replayed_to: int = field(init=False, default=-1)

    def to_the_end(self) -> None:
        self.engine = Engine(self.plan)
        crashes, number = set(self.crashes), 0
        while number < len(self.batches):
            if number % self.snapshot_every == 0:
                saved = number, self.engine.snapshot(), self.emitted.as_of_now()
            self._arrive(number)
            if number in crashes:
                crashes.remove(number)
                self.replayed_to = max(self.replayed_to, number)
                number, snapshot, self.emitted = saved[0], saved[1], saved[2].as_of_now()
                self.engine = Engine.restore(self.plan, snapshot)
                self.engine.set_replaying(True)
            else:
                number += 1
        self.emitted.rows_came(self.engine.release(ARRIVAL + len(self.batches) * SECOND, True))
        self.emitted.revisions_came(self.engine, self.most)

    def _arrive(self, number: int) -> None:
        stream, rows = self.batches[number]
        now = ARRIVAL + (number + 1) * SECOND
        outcomes, batch = self.engine.process(stream, batch_of(rows), now)
        taken = [row for row, outcome in zip(rows, outcomes, strict=True) if outcome in TAKEN]
        # What is read again after a crash is no duplicate: the snapshot has not seen it.
        assert self.accepted.setdefault(number, taken) == taken
        self.emitted.rows_came(batch)
        self.engine.pass_time(now)
        self.emitted.rows_came(self.engine.release(now, False))
        replaying = number <= self.replayed_to
        if (number == self.replayed_to) if replaying else (number % self.revise_every == 0):
            self.emitted.revisions_came(self.engine, self.most, replaying=replaying)
            self.engine.set_replaying(False)

    def accepted_of(self, stream: str) -> list[Row]:
        return [row for number, rows in self.accepted.items() if self.batches[number][0] == stream for row in rows]


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
    emission=st.sampled_from(EMISSIONS),
    lateness=st.sampled_from([10**15, 10**15, 0, SECOND, 20 * SECOND]),
    snapshot_every=st.integers(1, 6),
    crashes=st.one_of(st.just(frozenset()), st.frozensets(st.integers(0, 12), max_size=4)),
)
def test_i2_the_last_revision_equals_the_complete_answer(
    nodes,
    looked_up,
    roots,
    others,
    at_roots,
    at_others,
    order,
    every,
    most,
    emission,
    lateness,
    snapshot_every,
    crashes,
):
    """I2, I1, I5, I8: any windows, two streams in any order of arrival, any batches, lateness, emission, revisions and crashes."""
    features = [*nodes, *looked_up]
    others = [row | {"id": f"o{row['id']}"} for row in others] if looked_up else []
    streams = [stream_plan(name, allowed_lateness_us=lateness) for name in (["s", "o"] if looked_up else ["s"])]
    plan = engine_plan(features, *streams, revisions=True, emission=emission)
    batches = [("s", rows) for rows in split(roots, at_roots)]
    batches += [("o", rows) for rows in split(others, at_others)] if others else []
    order.shuffle(batches)
    run = Run(plan, batches, Emitted([node.name for node in features]), every, most, snapshot_every, crashes)
    run.to_the_end()
    events = {name: [Event(row["ts"], row["id"], row) for row in run.accepted_of(name)] for name in ("s", "o")}
    assert run.emitted.table == run.emitted.rows
    assert run.emitted.table.keys() == {row["id"] for row in run.accepted_of("s")}
    for row in run.emitted.table.values():
        for node in features:
            expected = complete(node, events, row)
            assert same(row[node.name], expected), (node, row["id"], row[node.name], expected)
    assert run.engine.stats()["unrevised"] == 0


def rows_at(number: int, count: int, *, key: str = "a") -> list[Row]:
    """Rows 10 ms apart; batch ``number`` begins where the one before it ended."""
    values = {"key": key, "i": 1, "d": None, "f": 0.5, "s": "x", "b": True}
    ids = range(number * count, (number + 1) * count)
    return [{"id": f"r{i}", "ts": START + i * 10_000, **values} for i in ids]


NODE = AggregateNode(
    name="n", type="int64", stream="s", key="key", function="count", window=SlidingWindow(SECOND), input=None
)
BATCH = 1_000  # 10 s of event time


def test_i7_rows_are_kept_for_the_allowed_lateness_and_memory_comes_back():
    stream = stream_plan("s", allowed_lateness_us=60 * SECOND)
    engine = Engine(engine_plan([NODE], stream, revisions=True))
    rows, sizes = [], []
    for number in range(100):
        engine.process("s", batch_of(rows_at(number, BATCH)), ARRIVAL)
        assert engine.revisions(1_000) is None
        stats = engine.stats()
        rows.append(stats["revisable_rows"])
        sizes.append(stats["revisable_bytes"])
    assert max(rows) < 6_000 + 4_096 + 2 * BATCH  # The lateness, a segment, and what this batch brings.
    assert max(sizes[50:]) < 1.2 * max(sizes[:50])


def test_i7_a_stream_that_is_idle_does_not_keep_rows_for_ever_and_what_it_misses_is_counted():
    streams = [stream_plan(name, allowed_lateness_us=60 * SECOND, idle_after_us=30 * SECOND) for name in ("s", "o")]
    looked_up = replace(NODE, name="g", stream="o", at="key", window=SlidingWindow(3_600 * SECOND))
    engine = Engine(engine_plan([NODE, looked_up], *streams, revisions=True))
    engine.process("o", batch_of([{**rows_at(0, 1)[0], "id": "o1"}]), START)
    kept = []
    for number in range(60):
        now = START + (number + 1) * 10 * SECOND
        engine.process("s", batch_of(rows_at(number, BATCH)), now)
        engine.pass_time(now)
        assert engine.revisions(1_000) is None
        kept.append(engine.stats()["revisable_rows"])
    assert max(kept) < 6_000 + 3_000 + 4_096 + 2 * BATCH
    engine.process("o", batch_of([{**rows_at(0, 1)[0], "id": "o2", "ts": START + SECOND}]), now)
    revised = 0
    while (batch := engine.revisions(100_000)) is not None:
        revised += batch.num_rows
    assert 6_000 <= revised < 60 * BATCH - 100
    assert engine.stats()["unrevised"] == 1


def test_a_saturated_key_is_not_revised_by_what_is_left_of_it():
    """Events that a row saw are gone: what it said is nearer to the truth, and the row is counted."""
    engine = Engine(engine_plan([NODE], stream_plan("s"), revisions=True, limits={"max_events_per_key": 50}))
    rows = rows_at(0, 90)
    engine.process("s", batch_of(rows), ARRIVAL)
    engine.process("s", batch_of([{**rows[0], "id": "late", "ts": rows[85]["ts"] + 1}]), ARRIVAL)
    assert engine.revisions(1_000) is None
    assert engine.stats()["unrevised"] > 0
