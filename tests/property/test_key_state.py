"""The bytes of a key's state (I5): a function of the events kept, read back whole or refused."""

from __future__ import annotations

import struct
from dataclasses import replace

import pytest
from effort import examples
from hypothesis import given
from hypothesis import strategies as st
from kernel_engine import SECOND, START, Row, aggregates, engine_plan, event_lists, run, same, split, stream_plan

from gillnet._kernel import Engine
from gillnet.plan.nodes import AggregateNode, LatestWindow, SessionWindow, SlidingWindow

HEADER = struct.Struct("<2sBBQIIIQ")  # magic, version, 0, fingerprint, rows, floors, texts, checksum
MASK = 2**64 - 1

features = st.integers(1, 5).flatmap(lambda n: st.tuples(*(aggregates(f"f{number}") for number in range(n))))
cuts = st.lists(st.integers(0, 1_000), max_size=4)
latenesses = st.sampled_from([0, 2 * SECOND, 30 * SECOND, 10**15])


def retention_us(nodes: tuple[AggregateNode, ...]) -> int:
    """How far back of a reading the events of a key are kept."""

    def reach(node: AggregateNode) -> int:
        match node.window:
            case SessionWindow(gap_us=gap, max_length_us=longest, delay_us=delay):
                return gap + longest + delay
            case LatestWindow(delay_us=delay):
                return delay
            case window:
                return window.size_us + window.delay_us

    return max(map(reach, nodes))


def checksum(header: bytes, body: bytes) -> int:
    """FNV-1a over words, as the codec has it: lets a test forge bytes that are sound on the outside."""
    total = 0xCBF29CE484222325
    for part in (header, body):
        for at in range(0, len(part), 8):
            total = ((total ^ int.from_bytes(part[at : at + 8].ljust(8, b"\0"), "little")) * 0x100000001B3) & MASK
            total = (total << 23 | total >> 41) & MASK
    return total


@examples(150)
@given(nodes=features, events=event_lists(160), cuts=st.tuples(cuts, cuts), lateness=latenesses, shuffle=st.randoms())
def test_i5_bytes_do_not_depend_on_the_order_of_arrival(nodes, events, cuts, lateness, shuffle):
    """I5: any order that is accepted, any batches, small or large keys, before and after expiry: the same bytes."""
    plan = engine_plan(nodes, stream_plan("s", allowed_lateness_us=lateness))
    in_order = sorted(events, key=lambda event: (event["ts"], event["id"]))
    late = {event["id"]: shuffle.randint(0, min(lateness, 10**10)) for event in events}
    jumbled = sorted(events, key=lambda event: event["ts"] + late[event["id"]])
    one, other = Engine(plan), Engine(plan)
    run(one, split(in_order, cuts[0]))
    run(other, split(jumbled, cuts[1]))
    horizon = in_order[-1]["ts"] - lateness - retention_us(nodes)
    assert sorted(one.keys(0)) == sorted(other.keys(0))
    for key in one.keys(0):
        assert one.encode_key(0, key, horizon) == other.encode_key(0, key, horizon)


@examples(120)
@given(nodes=features, events=event_lists(140), lateness=latenesses, at=st.integers(1, 140))
def test_i5_a_decoded_key_goes_on_as_the_original(nodes, events, lateness, at):
    """I5: rows after a restore equal those without it; what is encoded again is the same."""
    events = sorted(events, key=lambda event: (event["ts"], event["id"]))
    plan = engine_plan(nodes, stream_plan("s", allowed_lateness_us=lateness))
    original, restored = Engine(plan), Engine(plan)
    before, after = events[:at], events[at:]
    run(original, [before])
    horizon = before[-1]["ts"] - lateness - retention_us(nodes)
    for key in original.keys(0):
        state = original.encode_key(0, key, horizon)
        restored.decode_key(0, key, state)
        assert restored.encode_key(0, key, horizon) == state
    if after:
        for row, again in zip(run(original, [after]), run(restored, [after]), strict=True):
            assert all(same(row[node.name], again[node.name]) for node in nodes), (row, again)


def filled(nodes: tuple[AggregateNode, ...], events: list[Row]) -> tuple[Engine, bytes]:
    """Return an engine with the events, and the state of key ``a``."""
    engine = Engine(engine_plan(nodes))
    run(engine, [[{**event, "key": "a"} for event in events]])
    state = engine.encode_key(0, "a", 0)
    assert state is not None
    return engine, state


@examples(80)
@given(nodes=features, events=event_lists(20), data=st.data())
def test_i5_changed_bytes_are_refused(nodes, events, data):
    """I5: any flipped byte and any torn end is an error that changes nothing, never a panic."""
    engine, state = filled(nodes, events)
    place = data.draw(st.integers(0, len(state) - 1))
    flipped = bytearray(state)
    flipped[place] ^= data.draw(st.integers(1, 255))
    for broken in (bytes(flipped), state[:place], state + b"\0", state + state):
        with pytest.raises(ValueError, match="key state"):
            engine.decode_key(0, "a", broken)
    assert engine.encode_key(0, "a", 0) == state
    assert engine.stats()["events"] == len(events)


@examples(80)
@given(
    nodes=features,
    events=event_lists(8),
    sizes=st.tuples(*[st.one_of(st.integers(0, 40), st.integers(0, 2**32 - 1))] * 3),
    noise=st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), max_size=3),
)
def test_i5_forged_bytes_are_refused_or_sound(nodes, events, sizes, noise):
    """I5: sizes that the bytes do not fill, rows and texts that are not there: no panic and no absurd allocation."""
    engine, state = filled(nodes, events)
    head, body = list(HEADER.unpack_from(state)), bytearray(state[HEADER.size :])
    if not noise:
        head[4:7] = sizes
    for place, value in noise:
        body[place % len(body)] = value
    checked = HEADER.pack(*head)[:-8]
    forged = checked + checksum(checked, bytes(body)).to_bytes(8, "little") + bytes(body)
    try:
        engine.decode_key(0, "a", forged)
    except ValueError as error:
        assert "key state" in str(error)  # noqa: PT017 - both ends are right
        assert engine.encode_key(0, "a", 0) == state
    run(engine, [[{**events[0], "id": "later", "key": "a", "ts": START + 10**9}]])


COUNT = AggregateNode(
    name="n", type="int64", stream="s", key="key", function="count", window=SlidingWindow(60 * SECOND)
)
TOTAL = replace(COUNT, name="total", function="sum", input="i")
LATEST = replace(COUNT, name="since", type="float64", function="seconds_since_last", window=LatestWindow(60 * SECOND))
EVENT = {"id": "e", "ts": START, "key": "a", "i": 1, "d": None, "f": 0.5, "s": "x", "b": True}


@pytest.mark.parametrize(
    ("written", "reader"),
    [
        ([TOTAL], [replace(TOTAL, input="b")]),
        ([COUNT], [replace(COUNT, where="b")]),
        ([COUNT], [replace(COUNT, window=SlidingWindow(61 * SECOND))]),
        ([COUNT], [replace(COUNT, window=SlidingWindow(60 * SECOND, 1))]),
        ([COUNT], [replace(COUNT, key="s")]),
        ([COUNT], [replace(COUNT, key=None)]),
        ([COUNT, LATEST], [COUNT, replace(LATEST, window=LatestWindow(59 * SECOND))]),
    ],
    ids=["input", "where", "window", "delay", "key column", "no key column", "floor"],
)
def test_i5_another_definition_of_equal_width_is_refused(written, reader):
    _, state = filled(tuple(written), [EVENT])
    with pytest.raises(
        ValueError, match=r"another definition \(fingerprint \w{16}\) than the one of entity 's\.(key|s|\*)'"
    ):
        Engine(engine_plan(reader)).decode_key(0, "a", state)


def test_i5_another_aggregate_over_the_same_rows_reads_the_state():
    _, state = filled((TOTAL,), [EVENT])
    engine = Engine(engine_plan([replace(TOTAL, type="float64", function="mean")]))
    engine.decode_key(0, "a", state)
    (row,) = run(engine, [[{**EVENT, "id": "f", "i": 4}]])
    assert row["total"] == 2.5
