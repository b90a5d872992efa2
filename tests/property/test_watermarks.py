"""Watermarks and the gate of a stream (I8, I3) against an oracle that goes over everything heard."""

from __future__ import annotations

from itertools import groupby
from typing import Any

from effort import examples
from hypothesis import given
from hypothesis import strategies as st
from kernel_engine import SECOND, START, TAKEN, batch_of, engine_plan, stream_plan, with_times

from gillnet._kernel import Engine
from gillnet.core.schema import Schema, String
from gillnet.operators.features import Outcome
from gillnet.plan.nodes import StreamNode
from gillnet.testing.oracle import Gate

partitions = st.integers(0, 3)
WILD = (-(10**12), 1, START - 10**12, START + 10**12, 2**62)
"""Event times that no record of the stream can have: before its earliest, or too far ahead of when it was read."""

records = st.tuples(
    st.just("record"), partitions, st.one_of(st.integers(-20, 20).map(lambda s: s * SECOND), st.sampled_from(WILD))
)
steps = st.one_of(
    records,
    records,
    records,
    st.tuples(st.just("register"), partitions, st.none()),
    st.tuples(st.just("time"), st.none(), st.sampled_from([SECOND, 3 * SECOND, 12 * SECOND])),
)


@st.composite
def gates(draw: st.DrawFn) -> StreamNode:
    return StreamNode(
        name="s",
        schema=Schema(id=String()),
        id="id",
        event_time="ts",
        watermark_delay_us=draw(st.sampled_from([0, 2 * SECOND])),
        allowed_lateness_us=draw(st.sampled_from([0, 5 * SECOND, 10**15])),
        idle_after_us=10 * SECOND,
        earliest_us=START - 1_000 * SECOND,
        max_ahead_us=1_000 * SECOND,
    )


def kernel_of(stream: StreamNode) -> Engine:
    names = ("watermark_delay_us", "allowed_lateness_us", "idle_after_us", "earliest_us", "max_ahead_us")
    return Engine(engine_plan([], stream_plan("s", **{name: getattr(stream, name) for name in names})))


@examples(300)
@given(stream=gates(), script=st.lists(steps, min_size=1, max_size=60), repeats=st.lists(st.booleans(), min_size=1))
def test_i8_watermarks_are_the_minimum_over_partitions_that_are_not_idle(stream, script, repeats):
    """I8, I3: per partition, idle ones left out, unheard ones waited for, never back; wild times are refused and push nothing."""
    engine, gate = kernel_of(stream), Gate(stream)
    now, number, marks = START, 0, []
    for kind, group in groupby(script, key=lambda step: step[0]):
        if kind == "record":
            now, number = now + 100_000, number + 1
            check_batch(engine, gate, [step[1:] for step in group], now, number, repeats)
            continue
        for _, partition, silence in group:
            if kind == "register":
                engine.register_partition("s", partition, now)
                gate.register(partition, now)
            else:
                now += silence
                engine.pass_time(now)
                gate.pass_time(now)
            check_progress(engine, gate)
        marks.append(gate.watermark)
    known = [mark for mark in marks if mark is not None]
    assert known == sorted(known)


def check_batch(
    engine: Engine, gate: Gate, records: list[tuple[int, int]], now: int, number: int, repeats: list[bool]
) -> None:
    """Let records of (partition, seconds ahead of now or a wild time) arrive in one batch, and compare record by record."""
    events: list[dict[str, Any]] = []
    for place, (_, offset) in enumerate(records):
        name = f"e{number}" if repeats[place % len(repeats)] else f"e{number}.{place}"
        events.append({"id": name, "ts": offset if offset in WILD else now + offset, "key": "a"})
    outcomes, batch = engine.process("s", batch_of(events), now, [partition for partition, _ in records])
    rows = iter(with_times(batch))
    for (partition, _), event, outcome in zip(records, events, outcomes, strict=True):
        before = gate.watermark
        taken = gate.take(partition, event["id"], event["ts"], now)
        late = taken == "accepted" and before is not None and event["ts"] < before
        assert Outcome(outcome).name.lower() == ("late" if late else taken)
        if outcome in TAKEN:
            row = next(rows)
            assert (row["__watermark"], row["__late"]) == (before, late)
    assert next(rows, None) is None
    check_progress(engine, gate)


def check_progress(engine: Engine, gate: Gate) -> None:
    """What is shown of a stream is what its watermark rests on."""
    watermark, held_by, partitions = engine.progress("s")
    assert watermark == engine.watermark("s")[0] == gate.watermark
    assert partitions == gate.partitions()
    waited_for = {number: newest or 0 for number, newest, _, idle in partitions if not idle}
    assert (held_by is None) == (not waited_for)
    assert held_by is None or waited_for[held_by] == min(waited_for.values())


def test_i8_a_fast_clock_does_not_make_honest_events_late():
    """One device fifty minutes ahead, inside `max_ahead`: the watermark goes to its arrival, and not a step further."""
    engine = Engine(engine_plan([], stream_plan("s", allowed_lateness_us=0, max_ahead_us=3_600 * SECOND)))
    offsets = [0, 3_000, 0, 1, 2]
    outcomes = [
        engine.process(
            "s", batch_of([{"id": f"e{n}", "ts": START + (n + ahead) * SECOND, "key": "a"}]), START + n * SECOND
        )
        for n, ahead in enumerate(offsets)
    ]
    assert [Outcome(outcome[0]) for outcome, _ in outcomes] == [Outcome.ACCEPTED] * len(offsets)
    assert engine.watermark("s")[0] == START + 4 * SECOND
