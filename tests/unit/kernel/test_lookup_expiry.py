"""How long the state of a looked-up stream is kept: while a root row could still read it, and not for ever."""

from __future__ import annotations

from typing import Any

import pytest
from kernel_engine import ARRIVAL, SECOND, START, TAKEN, batch_of, engine_plan, stream_plan, with_times

from gillnet._kernel import Engine
from gillnet.plan.nodes import AggregateNode, SlidingWindow

IDLE = 30 * SECOND
CLICKS = AggregateNode(
    name="clicks", type="int64", stream="s", key="key", at="key", function="count", window=SlidingWindow(10 * SECOND)
)


class Pipeline:
    """A root stream ``r`` that looks up clicks of ``s`` in the last ten seconds."""

    def __init__(self, root_lateness_us: int = 0) -> None:
        common = {"idle_after_us": IDLE, "allowed_lateness_us": 0}
        root = stream_plan("r", **common | {"allowed_lateness_us": root_lateness_us})
        self.engine = Engine(engine_plan([CLICKS], root, stream_plan("s", **common)))
        self.now = ARRIVAL
        self._ids = iter(range(10**6))
        self.engine.pass_time(self.now)

    def click(self, at_s: float) -> None:
        self._arrive("s", at_s)

    def pay(self, at_s: float) -> tuple[int, str | None]:
        """Return the row's clicks and their state."""
        (row,) = self._arrive("r", at_s)
        return row["clicks"], row["__feature_states"]

    def pass_time(self, seconds: int) -> None:
        self.now += seconds * SECOND
        self.engine.pass_time(self.now)

    @property
    def events(self) -> int:
        return self.engine.stats()["events"]

    def _arrive(self, stream: str, at_s: float) -> list[dict[str, Any]]:
        event = {"id": f"e{next(self._ids)}", "ts": START + round(at_s * SECOND), "key": "a"}
        outcomes, rows = self.engine.process(stream, batch_of([event]), self.now)
        assert outcomes[0] in TAKEN
        return [] if rows is None else with_times(rows)


def test_clicks_wait_for_a_root_that_was_never_heard():
    pipeline = Pipeline()
    for second in range(100):
        pipeline.click(second)
    assert pipeline.events == 100
    assert pipeline.pay(20) == (10, None)


def test_clicks_wait_for_a_root_partition_that_was_assigned_and_not_heard():
    pipeline = Pipeline()
    pipeline.engine.register_partition("r", 0, pipeline.now)
    pipeline.engine.register_partition("r", 1, pipeline.now)
    pipeline.pay(20)
    for second in range(100):
        pipeline.click(second)
    assert pipeline.events == 100
    assert pipeline.pay(20) == (10, None)


def test_clicks_wait_for_a_root_that_is_behind():
    pipeline = Pipeline()
    pipeline.pay(15)
    for second in range(100):
        pipeline.click(second)
    assert pipeline.pay(16) == (10, None)
    assert 94 <= pipeline.events < 100, "the window behind the root"


@pytest.mark.parametrize("heard", [False, True])
def test_an_idle_root_does_not_keep_clicks_for_ever(heard):
    """Then it is taken to be where the clicks are; a row from further back says that it may miss some."""
    pipeline = Pipeline(root_lateness_us=20 * SECOND)
    if heard:
        pipeline.pay(0)
    pipeline.pass_time(31)
    for second in range(100):
        pipeline.click(second)
    assert pipeline.events == 31, "window, allowed lateness of the root, and the newest click"
    assert pipeline.pay(50)[1] == "clicks=saturated"
    assert pipeline.pay(79) == (10, None)


def test_a_root_that_falls_idle_again_counts_again():
    pipeline = Pipeline()
    pipeline.pass_time(31)
    pipeline.click(0)
    pipeline.pay(1)
    for second in range(2, 40):
        pipeline.click(second)
    assert pipeline.pay(5) == (5, None)


def test_clicks_of_a_stream_that_has_ended_stay_for_an_idle_root():
    """They are no more than there were; nothing presses to forget them."""
    pipeline = Pipeline()
    for second in range(20):
        pipeline.click(second)
    pipeline.engine.finish("s")
    pipeline.pass_time(31)
    pipeline.engine.process("s", batch_of([]), pipeline.now)
    assert pipeline.pay(12) == (10, None)


def test_clicks_of_an_idle_stream_stay_as_they_are():
    pipeline = Pipeline()
    for second in range(20):
        pipeline.click(second)
    pipeline.pay(19)
    pipeline.pass_time(31)
    for second in range(20, 200):
        assert pipeline.pay(second) == (max(29 - second, 0), None)
    assert pipeline.events > 0


def test_features_are_stale_until_the_other_stream_has_said_all():
    pipeline = Pipeline()
    assert pipeline.pay(0) == (0, "clicks=stale"), "never heard"
    pipeline.click(5)
    assert pipeline.pay(5) == (1, None)
    assert pipeline.pay(6) == (1, "clicks=stale")
    pipeline.pass_time(31)
    assert pipeline.pay(7) == (1, None), "idle: nothing is waited for"


def test_features_of_a_stream_that_was_never_heard_stay_stale():
    """An idle stream without a record has not said anything, so nothing is known to be absent."""
    pipeline = Pipeline()
    pipeline.pass_time(31)
    assert pipeline.pay(0) == (0, "clicks=stale")
    pipeline.engine.finish("s")
    assert pipeline.pay(1) == (0, None), "it has ended: there are none"
