"""The demo's feed: streams in step, a replay first, then an open loop."""

from __future__ import annotations

import dataclasses

import msgspec
import pytest
from command_line import StepClock

from gillnet.cli.demo_feed import StageFeed
from gillnet.cli.demo_stages import Stage, bots_stage, payments_stage
from gillnet.core.time import HOUR
from gillnet.simulator import Simulation


class _Timed(msgspec.Struct):
    ts: int


decode = msgspec.json.Decoder(_Timed).decode


def small(stage: Stage, *, warm_h: int = 1, records: int = 60) -> Stage:
    config = dataclasses.replace(
        stage.simulation.config, duration=f"{warm_h + 6}h", malformed_share=0.0, disorder_s=0.0, late_share=0.0
    )
    return dataclasses.replace(stage, simulation=Simulation(config), warm_us=warm_h * HOUR, rate=100.0, records=records)


@pytest.fixture(params=[payments_stage, bots_stage], ids=["payments", "bots"])
def stage(request: pytest.FixtureRequest) -> Stage:
    return small(request.param(seed=3, seconds=2.0))


def poll_all(feed: StageFeed) -> list[tuple[str, bytes]]:
    got: list[tuple[str, bytes]] = []
    for name, source in feed.sources.items():
        if batch := source.poll(1_000, 0.0):
            got += [(name, value) for value in batch.values]
    return got


def fill(feed: StageFeed) -> list[tuple[str, bytes]]:
    got: list[tuple[str, bytes]] = []
    while not feed.filled:
        got += poll_all(feed)
    return got


def test_nothing_live_is_given_before_somebody_says_so(stage: Stage) -> None:
    clock = StepClock()
    feed = StageFeed(stage, clock=clock)
    warm = fill(feed)
    clock.sleep(10.0)
    assert poll_all(feed) == []
    assert not feed.live
    assert feed.warm_share == 1.0
    assert sum(feed.given.values()) == len(warm) > 0
    feed.go_live()
    assert feed.live
    assert poll_all(feed) != []


def test_live_records_fall_due_at_the_rate_whether_or_not_they_are_taken(stage: Stage) -> None:
    clock = StepClock()
    feed = StageFeed(stage, clock=clock)
    fill(feed)
    feed.go_live()
    root, begun_s = stage.plan.root, clock.monotonic_s()
    assert [name for name, _ in poll_all(feed)].count(root) == 1
    clock.sleep(0.251)
    assert feed.sources[root].lag == 25
    assert [name for name, _ in poll_all(feed)].count(root) == 25
    assert feed.due_s(25) == pytest.approx(begun_s + 0.25)
    clock.sleep(60.0)
    while not feed.finished:
        poll_all(feed)
    assert len(feed.values(root)) == stage.records
    assert feed.sources[root].lag == 0


def test_no_payment_overtakes_the_clicks_before_it() -> None:
    stage = small(payments_stage(seed=3, seconds=2.0))
    clock = StepClock()
    feed = StageFeed(stage, clock=clock)
    fill(feed)
    feed.go_live()
    order: list[tuple[str, int]] = []
    while not feed.finished:
        clock.sleep(0.007)
        order += [(name, decode(value).ts) for name, value in poll_all(feed)]
    assert [name for name, _ in order].count("payments") == stage.records
    latest_payment = 0
    for name, ts in order:
        # Clicks and payments arrive in the order of event time here, so no click may be older than a payment before it.
        assert name == "payments" or ts >= latest_payment
        latest_payment = max(latest_payment, ts if name == "payments" else 0)


def test_the_same_seed_gives_the_same_demo() -> None:
    runs = []
    for _ in range(2):
        clock = StepClock()
        feed = StageFeed(small(payments_stage(seed=5, seconds=1.0)), clock=clock)
        warm = fill(feed)
        feed.go_live()
        clock.sleep(60.0)
        while not feed.finished:
            poll_all(feed)
        runs.append((sorted(warm), {name: list(feed.values(name)) for name in feed.sources}))
    assert runs[0] == runs[1]
