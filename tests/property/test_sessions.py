"""Closed sessions against the oracle: whatever the order of arrival, the batches and the moments of asking."""

from __future__ import annotations

from dataclasses import dataclass, field
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
    same,
    stream_plan,
    with_times,
)

from gillnet._kernel import Engine
from gillnet.plan.nodes import AggregateNode, SessionWindow
from gillnet.testing.oracle import Event, read, sessions

SessionId = tuple[str, int]


@dataclass(slots=True)
class Sink:
    """What a consumer of session rows ends up with: the last revision of each, without those that are no more."""

    rows: dict[SessionId, Row] = field(default_factory=dict)
    revisions: dict[SessionId, int] = field(default_factory=dict)

    def add(self, row: Row) -> None:
        session = row["key"], row["session_start"]
        # A first row is revision 0, each further one counts on: none is lost, none repeated.
        assert row["revision"] == self.revisions.get(session, -1) + 1
        self.revisions[session] = row["revision"]
        if row["replaced_by"] is None:
            assert row != self.rows.get(session), "a revision that changes nothing"
            self.rows[session] = row
        else:
            assert row["replaced_by"] < row["session_start"]
            del self.rows[session]

    def drain(self, engine: Engine, most: int) -> None:
        while (closed := engine.closed_sessions(most)) is not None:
            for row in with_times(closed):
                self.add(row)


@st.composite
def clicks(draw: st.DrawFn) -> list[Row]:
    """Clicks of two visitors with short and long gaps, some far behind."""
    step = draw(st.sampled_from([SECOND // 2, SECOND, 3 * SECOND]))
    behind = draw(st.sampled_from([(0, 0, 0, 1), (0, 0, 2, 9), (0, 5, 30, 60)]))
    return [
        {
            "id": f"e{number:03d}",
            "ts": START + max(0, number * step - draw(st.sampled_from(behind)) * SECOND),
            "key": draw(st.sampled_from(["a", "a", "b"])),
            "i": number % 4,
            "d": None,
            "f": 1 / (number + 1),
            "s": "xyz"[number % 3],
            "b": number % 2 == 0,
        }
        for number in range(draw(st.integers(1, 70)))
    ]


@st.composite
def definitions(draw: st.DrawFn) -> tuple[SessionWindow, list[AggregateNode]]:
    """A session window, and features that read it or any other window."""
    window = SessionWindow(draw(st.sampled_from([2, 5])) * SECOND, draw(st.sampled_from([6, 20, 10**6])) * SECOND)
    own = st.just(window)
    nodes = [draw(aggregates("own_0", windows=own)), draw(aggregates("own_1", windows=own))]
    if draw(st.booleans()):
        nodes.append(draw(aggregates("other")))
    return window, nodes


def expected(window: SessionWindow, nodes: list[AggregateNode], accepted: list[Row]) -> dict[SessionId, Row]:
    """Cut the accepted clicks into sessions, and read every feature as of each one's last click."""
    found: dict[SessionId, Row] = {}
    for key in {row["key"] for row in accepted}:
        events = [Event(row["ts"], row["id"], row) for row in accepted if row["key"] == key]
        for session in sessions(events, window.gap_us, window.max_length_us):
            last = session[-1].time
            values: Row = {node.name: read(node, events, last, None, evaluate) for node in nodes}
            found[key, session[0].time] = {"session_end": last, **values}
    return found


@examples(250)
@given(
    definition=definitions(),
    events=clicks(),
    sizes=st.lists(st.integers(1, 12), min_size=1, max_size=6),
    settings=st.fixed_dictionaries(
        {
            "allowed_lateness_us": st.sampled_from([0, 3 * SECOND, 60 * SECOND, 10**15]),
            "watermark_delay_us": st.sampled_from([0, SECOND]),
        }
    ),
    most=st.sampled_from([1, 3, 1_000]),
    asks=st.lists(st.booleans(), min_size=1, max_size=5),
)
def test_i2_i5_last_revisions_are_the_sessions_of_the_accepted_events(definition, events, sizes, settings, most, asks):
    """I2, I5: late clicks extend, bridge, begin earlier or move the cut of sessions that are out; the last rows are right."""
    window, nodes = definition
    session_plan = {"key": "key", "gap_us": window.gap_us, "max_length_us": window.max_length_us}
    engine = Engine(engine_plan(nodes, stream_plan("s", **settings), sessions=session_plan))
    sink, accepted = Sink(), []
    start = turn = 0
    while start < len(events):
        batch = events[start : start + sizes[turn % len(sizes)]]
        outcomes, _ = engine.process("s", batch_of(batch), ARRIVAL)
        accepted += [row for row, outcome in zip(batch, outcomes, strict=True) if outcome in TAKEN]
        if asks[turn % len(asks)]:
            sink.drain(engine, most)
        start, turn = start + len(batch), turn + 1
    engine.finish("s")
    sink.drain(engine, most)

    wanted = expected(window, nodes, accepted)
    assert sorted(sink.rows) == sorted(wanted)
    for session, values in wanted.items():
        for name, value in values.items():
            got: Any = sink.rows[session][name]
            assert same(got, value), (session, name, got, value)
    assert engine.stats()["timers"] <= len(sink.revisions)
