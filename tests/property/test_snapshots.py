"""I5: an engine that is restored from its snapshot goes on as the one that was written would have, bit for bit."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from effort import examples
from engine_scripts import JOIN, KEYS, Step, perform, plans, scripts
from hypothesis import given
from hypothesis import strategies as st
from kernel_engine import SECOND, START, Row, engine_plan, event_lists, stream_plan
from snapshot_bytes import HEADER, plain, sealed

from gillnet._kernel import Engine
from gillnet.plan.joins import join_to_json
from gillnet.plan.nodes import AggregateNode, SlidingWindow


@examples(250)
@given(plan=plans(), script=scripts(), restores=st.lists(st.booleans(), min_size=1, max_size=9))
def test_i5_a_restored_engine_goes_on_as_the_original(plan, script, restores):
    """I5: any plan, events and batches, restored at any points: rows, outcomes, revisions, sessions and sizes are the same."""
    original, restored = Engine(plan), Engine(plan)
    now = START
    for number, step in enumerate(script):
        now += step[1] if step[0] == "silence" else SECOND
        assert perform(original, step, now) == perform(restored, step, now), step
        if restores[number % len(restores)]:
            snapshot = restored.snapshot()
            restored = Engine.restore(plan, snapshot)
            assert restored.snapshot() == snapshot
            assert Engine.restore(plan, plain(snapshot)).snapshot() == snapshot, "version 1 is the same state"


def filled(plan: str, script: list[Step]) -> Engine:
    engine = Engine(plan)
    for number, step in enumerate(script):
        perform(engine, step, START + number * SECOND)
    return engine


@examples(120)
@given(plan=plans(), script=scripts(), data=st.data())
def test_i5_changed_and_torn_snapshots_are_refused(plan, script, data):
    """I5: any flipped byte and any torn or lengthened end is an error that says so, never a panic or another state."""
    snapshot = filled(plan, script[: len(script) // 2]).snapshot()
    place = data.draw(st.integers(0, len(snapshot) - 1))
    flipped = bytearray(snapshot)
    flipped[place] ^= data.draw(st.integers(1, 255))
    for broken in (bytes(flipped), snapshot[:place], snapshot + b"\0", snapshot + snapshot, b""):
        with pytest.raises(ValueError, match=r"engine snapshot.*; restore an earlier one, or read the sources again"):
            Engine.restore(plan, broken)


@examples(60)
@given(plan=plans(), rows=event_lists(6, keys=KEYS), data=st.data())
def test_i5_forged_snapshots_are_refused_or_sound(plan, rows, data):
    """I5: bytes with a right checksum that make no sense inside: no panic and no absurd allocation.

    Without kept rows: what is inside an Arrow stream is arrow's, which trusts what the checksum has let through.
    """
    plan = json.dumps(json.loads(plan) | {"revisions": False, "emission": {"kind": "on_arrival"}, "joins": []})
    snapshot = plain(filled(plan, [("s", rows), ("sessions", 50), ("sessions", 50)]).snapshot())
    body = bytearray(snapshot[HEADER:])
    for place, value in data.draw(st.lists(st.tuples(st.integers(0, len(body) - 1), st.integers(0, 255)), max_size=2)):
        body[place] = value
    cut = data.draw(st.integers(0, len(body)))
    for forged in (bytes(body), bytes(body[:cut])):
        try:
            engine = Engine.restore(plan, sealed(snapshot[:HEADER] + forged))
        except ValueError as error:
            assert str(error).startswith(("state: ", "definition: "))  # noqa: PT017 - both ends are right
        else:
            engine.stats()


NODE = AggregateNode(
    name="n", type="int64", stream="s", key="key", function="count", window=SlidingWindow(SECOND), input=None
)
LOOKED_UP = replace(NODE, name="g", stream="o", at="key")
ROWS: list[Row] = [
    {"id": f"e{number}", "ts": START + number, "key": "a", "i": 1, "d": None, "f": 0.5, "s": "x", "b": True}
    for number in range(3)
]
WRITTEN = json.loads(engine_plan([NODE, LOOKED_UP], stream_plan("s"), stream_plan("o"), revisions=True))
WIDER = engine_plan([replace(NODE, window=SlidingWindow(2 * SECOND)), LOOKED_UP], stream_plan("s"), stream_plan("o"))
RULE = {"when": {"column": "i"}}


@pytest.mark.parametrize(
    ("change", "difference"),
    [
        ({"features": json.loads(WIDER)["features"]}, "feature 'n' is another one"),
        ({"features": WRITTEN["features"][::-1]}, "streams or features are in another order"),
        ({"features": WRITTEN["features"][:1]}, "this plan has no feature 'g'"),
        ({"streams": [stream_plan("s", allowed_lateness_us=1), stream_plan("o")]}, "stream 's' is another one"),
        ({"streams": [*WRITTEN["streams"], stream_plan("p")]}, "it had no stream 'p'"),
        ({"revisions": False}, "this plan has no revisions"),
        ({"emission": {"kind": "on_watermark"}}, "it had no emission"),
        ({"joins": [join_to_json(JOIN)]}, "it had no join 'j'"),
        ({"sessions": {"key": "key", "gap_us": 1, "max_length_us": 1}}, "it had no sessions"),
        ({"policy": [RULE]}, "columns of the policy is another one"),
    ],
)
def test_i5_a_snapshot_of_another_plan_is_refused_by_what_differs(change, difference):
    snapshot = filled(json.dumps(WRITTEN), [("s", ROWS)]).snapshot()
    with pytest.raises(ValueError, match=f"written under another plan: {difference}; restore it with the definition"):
        Engine.restore(json.dumps(WRITTEN | change), snapshot)


def test_i5_name_model_limits_and_thresholds_may_change():
    plan = WRITTEN | {"name": "before", "policy": [RULE]}
    snapshot = filled(json.dumps(plan), [("s", ROWS)]).snapshot()
    negated = {"when": {"call": "not", "of": [RULE["when"]]}}
    other = plan | {"name": "after", "model": {"ref": "m"}, "policy": [negated], "limits": {"max_events_per_key": 9}}
    assert Engine.restore(json.dumps(other), snapshot).stats()["events"] == len(ROWS)


def test_a_part_that_cannot_be_written_yet_is_refused_by_name():
    plan = json.dumps(WRITTEN | {"geofences": [{"name": "home"}]})
    with pytest.raises(ValueError, match="the plan has 'geofences', whose state cannot be written to a snapshot yet"):
        Engine(plan).snapshot()


def test_another_version_is_refused():
    plan = json.dumps(WRITTEN)
    snapshot = bytearray(Engine(plan).snapshot())
    snapshot[8] += 1
    with pytest.raises(ValueError, match="engine snapshot has version 3, and this build reads the versions 1 to 2"):
        Engine.restore(plan, bytes(snapshot))


def test_a_snapshot_is_written_to_a_private_file_as_it_is_returned(tmp_path):
    engine = filled(json.dumps(WRITTEN), [("s", ROWS)])
    engine.write_snapshot(tmp_path / "state.bin")
    assert (tmp_path / "state.bin").read_bytes() == engine.snapshot()
    assert (tmp_path / "state.bin").stat().st_mode & 0o777 == 0o600


def test_a_disk_that_is_full_is_an_error():
    with pytest.raises(ValueError, match="state: No space left on device"):
        filled(json.dumps(WRITTEN), [("s", ROWS)]).write_snapshot("/dev/full")
