"""I5: a run that is stopped, gets another definition and goes on from its state says what a run of that definition would have said."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pyarrow as pa
import pytest
from effort import examples
from engine_scripts import CLICKS, EMISSIONS, JOIN, LATENESSES, PACE, SESSION, plans, scripts
from engine_scripts import perform as seen
from engine_scripts import told as in_words
from hypothesis import given
from hypothesis import strategies as st
from kernel_engine import (
    ARRIVAL,
    SCHEMA,
    SECOND,
    START,
    Row,
    aggregates,
    any_window,
    batch_of,
    engine_plan,
    evaluate,
    run,
    same,
    stream_plan,
    with_times,
)

from gillnet._kernel import Batch, Engine
from gillnet.plan.joins import join_to_json
from gillnet.plan.nodes import AggregateNode, LatestWindow, SessionWindow, SlidingWindow
from gillnet.testing.oracle import Event, read

ALL = 1_000_000
Told = dict[str, tuple[bool, int | None]]


class Said:
    """What an engine said, by row and feature: the last word counts (I2)."""

    def __init__(self) -> None:
        self.outcomes: list[bytes] = []
        self.rows: dict[str, Row] = {}
        self.sessions: dict[tuple[Any, int], Row] = {}
        self.saturated: set[tuple[str, str]] = set()
        self.joined: list[Row] = []

    def take(self, batch: Batch | None) -> None:
        for row in with_times(batch) if batch is not None else ():
            for state in (row.get("__feature_states") or "").split(","):
                if state.endswith("=saturated"):
                    self.saturated.add((row["id"], state.removesuffix("=saturated")))
            self.rows[row["id"]] = row


def perform(engine: Engine, step: tuple[str, Any], now: int, said: Said) -> None:
    kind, what = step
    match kind:
        case "s" | "o":
            engine.register_partition(kind, 1, now)
            outcomes, rows = engine.process(kind, batch_of(what), now, [len(row["id"]) % 2 for row in what])
            said.outcomes.append(outcomes)
            said.take(rows)
        case "sessions" | "drain":
            while (closed := engine.closed_sessions(ALL)) is not None:
                said.sessions |= {(row["key"], row["session_start"]): row for row in with_times(closed)}
            if kind == "drain":
                said.take(engine.release(now, True))
        case "finish":
            engine.finish(what)
            said.take(engine.release(now, what == "s"))
        case _:
            engine.pass_time(now)
            said.take(engine.release(now, False))
    while (revised := engine.revisions(ALL)) is not None:
        said.take(revised)
    while (joined := engine.joined(ALL)) is not None:
        said.joined += with_times(joined[1])


@st.composite
def changes(draw: st.DrawFn) -> tuple[str, str]:
    """Two plans over the same streams: features are dropped and added, and some have another window."""
    shared = [draw(aggregates(f"f{i}")) for i in range(draw(st.integers(0, 3)))]
    shared += [draw(aggregates(f"g{i}", stream="o", at="key")) for i in range(draw(st.integers(0, 2)))]
    dropped = [draw(aggregates(f"a{i}")) for i in range(draw(st.integers(0, 2)))]
    added = [draw(aggregates(f"b{i}")) for i in range(draw(st.integers(0, 2)))]
    added += [draw(aggregates(f"h{i}", stream="o", at="key")) for i in range(draw(st.integers(0, 1)))]
    after = [
        replace(node, window=draw(any_window))
        if not isinstance(node.window, LatestWindow) and draw(st.booleans())
        else node
        for node in shared
    ]
    parts: dict[str, Any] = {"revisions": draw(st.booleans())}
    if draw(st.booleans()):
        parts["sessions"] = {"key": "key", "gap_us": SESSION.gap_us, "max_length_us": SESSION.max_length_us}
        shared, after = [*shared, CLICKS], [*after, PACE, CLICKS]
    else:
        parts["emission"] = draw(st.sampled_from(EMISSIONS))
    if draw(st.booleans()):
        parts["joins"] = [join_to_json(JOIN)]
    settings = {"allowed_lateness_us": draw(LATENESSES), "idle_after_us": 30 * SECOND}
    streams = [stream_plan(name, watermark_delay_us=draw(st.sampled_from([0, SECOND])), **settings) for name in "so"]
    order = draw(st.randoms(use_true_random=False))
    new = [*after, *added]
    order.shuffle(new)
    count = replace(CLICKS, name="count", window=SlidingWindow(SECOND))
    old_plan = json.loads(engine_plan([*shared, *dropped] or [count], *streams, **parts))
    new_plan = json.loads(engine_plan(new or [count], *streams, **parts))
    for plan in (old_plan, new_plan):
        first = plan["features"][0]["name"]
        plan["features"].append({"kind": "expression", "name": "again", "expression": {"column": first}})
        if "sessions" in parts:
            over = {"over_us": 60 * SECOND, "step_us": SECOND, "min_count": 1}
            plan["features"].append({"kind": "baseline", "name": "usual", "of": "clicks", "quantile": 0.5, **over})
    return json.dumps(old_plan), json.dumps(new_plan)


def definitions(plan: str) -> dict[str, Any]:
    return {feature["name"]: feature for feature in json.loads(plan)["features"]}


@examples(250)
@given(plans=changes(), script=scripts(), cut=st.integers(0, 30))
def test_i5_what_is_complete_is_as_if_the_new_plan_had_run_from_the_start(plans, script, cut):
    """I5: outcomes; every feature of every row behind the cut from the time on at which it is complete; sessions; and what was there
    before and is the same, of rows before the cut, whatever late events still change of them."""
    before, after = plans
    cut %= len(script)
    script = [*script[:cut], ("drain", None), *script[cut:]]
    upgraded, whole = Engine(before), Engine(after)
    said, expected = Said(), Said()
    told: Told = {}
    early: set[str] = set()
    early_sessions: set[tuple[Any, int]] = set()
    now = START
    for number, step in enumerate(script):
        now += step[1] if step[0] == "silence" else SECOND
        perform(upgraded, step, now, said)
        perform(whole, step, now, expected)
        if number == cut:
            upgraded, features = Engine.restore(before, upgraded.snapshot()).upgraded(before, after)
            told = {name: (now_complete, time) for name, now_complete, time in features}
            early, early_sessions = set(said.rows), set(said.sessions)
            upgraded = Engine.restore(after, upgraded.snapshot())
    assert said.outcomes == expected.outcomes
    assert said.rows.keys() == expected.rows.keys()
    assert repr(said.joined) == repr(expected.joined)
    unchanged = [name for name, feature in definitions(after).items() if definitions(before).get(name) == feature]
    for ident, row in expected.rows.items():
        names = (
            [n for n in unchanged if told[n][0] and n != "again"] if ident in early else complete_at(told, row["ts"])
        )
        for name in names:
            if (ident, name) not in said.saturated | expected.saturated:
                assert same(said.rows[ident][name], row[name]), (ident, name, told[name])
    assert said.sessions.keys() == expected.sessions.keys()
    for key, row in expected.sessions.items():
        for name in complete_at(told, row["session_end"]) if key not in early_sessions else ():
            if name in row and row["replaced_by"] is None:
                assert same(said.sessions[key][name], row[name]), (key, name)


@examples(150)
@given(plan=plans(), script=scripts(), upgrades=st.lists(st.booleans(), min_size=1, max_size=9))
def test_i5_an_upgrade_to_the_same_plan_changes_nothing(plan, script, upgrades):
    """I5: windows, lookups, sessions, baselines, revisions and joins: whatever it says afterwards is what it would have said."""
    plan = json.dumps({name: part for name, part in json.loads(plan).items() if name != "limits"})
    original, upgraded = Engine(plan), Engine(plan)
    now = START
    for number, step in enumerate(script):
        now += step[1] if step[0] == "silence" else SECOND
        assert seen(original, step, now, sizes=False) == seen(upgraded, step, now, sizes=False), step
        while (closed := original.closed_sessions(ALL)) is not None:
            assert in_words(closed) == in_words(upgraded.closed_sessions(ALL))
        assert upgraded.closed_sessions(ALL) is None
        if upgrades[number % len(upgrades)] and not upgraded.stats()["pending_rows"]:
            upgraded, told = Engine.restore(plan, upgraded.snapshot()).upgraded(plan, plan)
            assert all(complete for _, complete, _ in told)


def complete_at(told: Told, time: int) -> list[str]:
    return [name for name, (now, since) in told.items() if now or (since is not None and time >= since)]


def events(*times: int) -> list[Row]:
    return [
        {"id": f"e{time}", "ts": START + time * SECOND, "key": "a", "i": time, "d": None, "f": 0.5, "s": "x", "b": True}
        for time in times
    ]


SUM = AggregateNode(
    name="n", type="int64", stream="s", key="key", function="sum", window=SlidingWindow(10 * SECOND), input="i"
)
STREAM = stream_plan("s", allowed_lateness_us=0)


def test_a_feature_that_is_warming_counts_what_was_kept_of_its_events():
    """A wider window: events that were still kept at the cut, and those behind it, by the oracle over them."""
    wider = replace(SUM, name="wide", window=SlidingWindow(60 * SECOND))
    before, after = engine_plan([SUM], STREAM), engine_plan([SUM, wider], STREAM)
    old = Engine(before)
    run(old, [events(*range(0, 100, 5))])
    upgraded, told = Engine.restore(before, old.snapshot()).upgraded(before, after)
    (name, now, since), swept = told[1], START + 90 * SECOND
    assert (name, now) == ("wide", False)
    assert told[0] == ("n", True, None)
    assert since is not None
    kept_from = since - 60 * SECOND + 1
    assert swept - 15 * SECOND <= kept_from <= swept
    rows = run(upgraded, [events(*range(100, 180, 5))])
    taken = [Event(row["ts"], row["id"], row) for row in events(*range(0, 180, 5))]
    kept = [event for event in taken if event.time >= kept_from]
    whole = 0
    for row in rows:
        own = next(event for event in taken if event.id == row["id"])
        seen = [event for event in taken if event.order <= own.order]
        assert row["wide"] == read(wider, [e for e in seen if e in kept], row["ts"], own, evaluate)
        if row["ts"] >= since:
            whole += 1
            assert row["wide"] == read(wider, seen, row["ts"], own, evaluate)
    assert 0 < whole < len(rows)


def test_a_feature_over_a_column_that_was_not_kept_counts_what_comes():
    texts = replace(SUM, name="kinds", function="n_unique", input="s", window=SlidingWindow(10 * SECOND))
    before, after = engine_plan([SUM], STREAM), engine_plan([SUM, texts], STREAM)
    old = Engine(before)
    run(old, [events(0, 5)])
    upgraded, told = Engine.restore(before, old.snapshot()).upgraded(before, after)
    assert told[1] == ("kinds", False, START + 15 * SECOND)
    assert [row["kinds"] for row in run(upgraded, [events(8, 12)])] == [1, 1]


def test_what_the_mask_still_tells_needs_no_warming():
    """A count, a mean over a summed column, and a condition that was counted: all events that are kept tell them."""
    chosen = replace(SUM, name="c", function="count", input=None, where="b")
    more = [
        replace(SUM, name="count", function="count", input=None),
        replace(SUM, name="mean", type="float64", function="mean"),
        replace(SUM, name="max", function="max", where="b"),
    ]
    before = engine_plan([SUM, chosen], STREAM)
    old = Engine(before)
    run(old, [events(1, 5)])
    upgraded, told = Engine.restore(before, old.snapshot()).upgraded(before, engine_plan([*more, SUM], STREAM))
    assert all(now for _, now, _ in told)
    (row,) = run(upgraded, [events(8)])
    assert (row["count"], row["mean"], row["max"], row["n"]) == (3, 14 / 3, 8, 14)


def test_what_was_dropped_holds_no_bytes():
    many = [replace(SUM, name=f"n{i}", window=SlidingWindow((i + 1) * 20 * SECOND), input=c) for i, c in enumerate("i")]
    texts = replace(SUM, name="texts", function="n_unique", input="s", window=SlidingWindow(1000 * SECOND))
    before = engine_plan([*many, texts], STREAM)
    after = engine_plan(many, STREAM)
    old, fresh = Engine(before), Engine(after)
    for engine in (old, fresh):
        run(engine, [events(*range(500))])
    upgraded, _ = Engine.restore(before, old.snapshot()).upgraded(before, after)
    assert upgraded.stats()["events"] <= fresh.stats()["events"] < old.stats()["events"]
    assert len(upgraded.snapshot()) < len(old.snapshot()) / 2
    run(upgraded, [events(500)])


def test_a_session_that_was_under_way_may_be_cut_elsewhere_until_the_key_pauses():
    session = replace(SUM, name="session", function="count", input=None, window=SessionWindow(5 * SECOND, 20 * SECOND))
    before = engine_plan([SUM], STREAM)
    old = Engine(before)
    run(old, [events(*range(0, 50, 2))])
    _, told = Engine.restore(before, old.snapshot()).upgraded(before, engine_plan([SUM, session], STREAM))
    assert told[1] == ("session", False, None)


def test_columns_may_stand_in_another_order():
    """Rows that can be revised and events that a join keeps hold each value under its own name."""
    before = json.loads(
        engine_plan([SUM], stream_plan("s"), stream_plan("o"), revisions=True, joins=[join_to_json(JOIN)])
    )
    turned = [stream | {"schema": stream["schema"][::-1]} for stream in before["streams"]]
    after = json.dumps(before | {"streams": turned})
    old, whole = Engine(json.dumps(before)), Engine(after)
    kept = [row | {"s": f"text {row['id']}", "f": float(row["i"])} for row in events(1, 5, 12)]
    others = [row | {"id": f"o{row['id']}"} for row in kept]
    for name, rows in (("s", kept[1:]), ("o", others[:2])):
        old.process(name, batch_of(rows), ARRIVAL)
        whole.process(name, batch_of(rows, pa.schema(list(SCHEMA)[::-1])), ARRIVAL)
    for engine in (old, whole):
        while engine.joined(ALL) is not None:
            pass
    upgraded, _ = Engine.restore(json.dumps(before), old.snapshot()).upgraded(json.dumps(before), after)
    said: list[list[str]] = []
    for engine in (upgraded, whole):
        late = pa.schema(list(SCHEMA)[::-1])
        engine.process("s", batch_of(kept[:1], late), ARRIVAL)
        engine.process("o", batch_of(others[2:], late), ARRIVAL)
        joined, revised = engine.joined(ALL), engine.revisions(ALL)
        assert joined is not None
        assert revised is not None
        said.append([repr(with_times(joined[1])), repr(with_times(revised))])
    assert said[0] == said[1]
    assert "text e5" in said[0][0]


PLAN = json.loads(engine_plan([SUM], STREAM, stream_plan("o")))


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"root": "o"}, "the root stream is another one"),
        ({"streams": [STREAM | {"id": "key"}, stream_plan("o")]}, "stream 's' has another id or event time column"),
        ({"streams": [stream_plan("s", allowed_lateness_us=1), stream_plan("o")]}, "would allow more lateness"),
        ({"sessions": {"key": "key", "gap_us": 1, "max_length_us": 1}}, "sessions cannot begin in the middle"),
    ],
)
def test_what_would_be_wrong_is_refused(change, why):
    old = Engine(json.dumps(PLAN))
    with pytest.raises(ValueError, match=f"state: the state cannot be moved to the new plan: .*{why}"):
        old.upgraded(json.dumps(PLAN), json.dumps(PLAN | {"features": []} | change))


def test_rows_that_wait_are_refused():
    plan = json.dumps(PLAN | {"emission": {"kind": "on_watermark"}})
    old = Engine(plan)
    old.process("s", batch_of(events(1)), ARRIVAL)
    with pytest.raises(ValueError, match="1 rows wait to leave under the old definition"):
        old.upgraded(plan, plan)
