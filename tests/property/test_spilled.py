"""A state backend decides where keys lie, never what comes out: keys that leave memory and come back change no bit."""

from __future__ import annotations

from bisect import bisect_left, insort

import pytest
from effort import examples
from engine_scripts import perform, plans, scripts
from hypothesis import event, given
from hypothesis import strategies as st
from kernel_engine import SECOND, START, engine_plan, stream_plan

from gillnet._kernel import Engine
from gillnet.plan.nodes import AggregateNode, SlidingWindow


class KeptKeys:
    """Cold keys in a dictionary, with what expires when in order: `gillnet.core.ports.ColdKeys`, obviously right."""

    def __init__(self, other: KeptKeys | None = None) -> None:
        self.states: dict[bytes, bytes] = dict(other.states) if other else {}
        self.order: list[bytes] = list(other.order) if other else []

    def fetch(self, names: list[bytes]) -> list[bytes | None]:
        return [self.states.get(name) for name in names]

    def keep(self, names: list[bytes], states: list[bytes], expiries: list[bytes]) -> None:
        self.states.update(zip(names, states, strict=True))
        for expiry in expiries:
            if expiry not in self.order[bisect_left(self.order, expiry) :][:1]:
                insort(self.order, expiry)

    def expiries(self, begin: bytes, end: bytes, most: int) -> list[bytes]:
        low, high = bisect_left(self.order, begin), bisect_left(self.order, end)
        return self.order[low:high][:most]

    def names_from(self, begin: bytes, most: int) -> tuple[list[bytes], list[bytes]]:
        names = sorted(name for name in self.states if name >= begin)[:most]
        return names, [self.states[name] for name in names]

    def forget(self, names: list[bytes], expiries: list[bytes]) -> None:
        for name in names:
            self.states.pop(name, None)
        self.order = [expiry for expiry in self.order if expiry not in expiries]


KEYS = ("a", *"abcdefghijkl", None)
NODE = AggregateNode(
    name="n", type="int64", stream="s", key="key", function="count", window=SlidingWindow(SECOND), input=None
)
budgets = st.sampled_from([1, 1, 1, 1_000, 5_000])


@examples(250)
@given(plan=plans(), script=scripts(KEYS), budget=budgets, writes=st.lists(st.booleans(), min_size=1, max_size=5))
def test_a_backend_changes_no_row_outcome_revision_or_session(plan, script, budget, writes):
    """Any plan, events and batches with a tiny budget, so that keys leave after nearly every call."""
    memory, spilled = Engine(plan), Engine(plan)
    spilled.spill_to(KeptKeys(), budget, False)
    now = START
    for number, step in enumerate(script):
        now += step[1] if step[0] == "silence" else SECOND
        assert perform(spilled, step, now, sizes=False) == perform(memory, step, now, sizes=False), step
        if writes[number % len(writes)]:
            spilled.begin_write_behind()
    event("keys came back" if spilled.spill_stats()[1] else "no key came back")


@examples(150)
@given(plan=plans(), script=scripts(KEYS), budget=budgets, restores=st.lists(st.booleans(), min_size=1, max_size=9))
def test_i5_a_snapshot_and_the_keys_kept_at_the_same_cut_are_the_whole_state(plan, script, budget, restores):
    """I5: restored at any points from the snapshot and a copy of what was kept then, it goes on as the memory backend does."""
    memory, spilled, kept = Engine(plan), Engine(plan), KeptKeys()
    spilled.spill_to(kept, budget, False)
    now = START
    for number, step in enumerate(script):
        now += step[1] if step[0] == "silence" else SECOND
        assert perform(spilled, step, now, sizes=False) == perform(memory, step, now, sizes=False), step
        if restores[number % len(restores)]:
            snapshot, kept = spilled.snapshot(), KeptKeys(kept)
            spilled.begin_write_behind()
            spilled = Engine.restore(plan, snapshot)
            spilled.spill_to(kept, budget, True)


@examples(100)
@given(plan=plans(), script=scripts(KEYS), budget=budgets, loads=st.lists(st.booleans(), min_size=1, max_size=5))
def test_i5_a_snapshot_and_all_kept_keys_loaded_are_the_whole_state(plan, script, budget, loads):
    """I5: with every kept key in memory the backend is not needed, to go on or to be moved to another plan."""
    memory, spilled, kept = Engine(plan), Engine(plan), KeptKeys()
    spilled.spill_to(kept, budget, False)
    now, left = START, False
    for number, step in enumerate(script):
        now += step[1] if step[0] == "silence" else SECOND
        assert perform(spilled, step, now, sizes=False) == perform(memory, step, now, sizes=False), step
        if loads[number % len(loads)] and not left:
            event(f"{min(len(kept.states), 3)} keys were kept")
            spilled, left = Engine.restore(plan, spilled.snapshot()), True
            spilled.load_keys(kept)
            spilled = Engine.restore(plan, spilled.snapshot())


def test_what_is_no_key_of_the_plan_is_refused():
    plan = engine_plan([NODE], stream_plan("s"))
    engine = Engine(plan)
    for name, state in ((b"\0", b""), (b"\0\7a", bytes(9)), (b"\0\0\xff", b""), (b"\0\0a", b"short")):
        kept = KeptKeys()
        kept.states[name] = state
        with pytest.raises(ValueError, match="state: "):
            engine.load_keys(kept)


@examples(60)
@given(plan=plans(), script=scripts(KEYS), backends=st.lists(st.booleans(), min_size=1, max_size=5))
def test_i5_state_moves_from_memory_into_a_backend(plan, script, backends):
    """I5: a snapshot of the memory backend goes on under another one."""
    memory, other = Engine(plan), Engine(plan)
    now, moved = START, False
    for number, step in enumerate(script):
        now += step[1] if step[0] == "silence" else SECOND
        assert perform(other, step, now, sizes=False) == perform(memory, step, now, sizes=False), step
        if backends[number % len(backends)] and not moved:
            other, moved = Engine.restore(plan, other.snapshot()), True
            other.spill_to(KeptKeys(), 1, False)
