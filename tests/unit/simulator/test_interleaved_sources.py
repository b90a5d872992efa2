"""Streams that are read together keep to the simulated order of arrival, however they are polled."""

from __future__ import annotations

import random

import pytest

from gillnet.core.errors import DefinitionError
from gillnet.core.time import MINUTE
from gillnet.simulator import ArrivalClock, Simulation, SimulationConfig, interleaved_sources

CONFIG = SimulationConfig(
    seed=5, duration="6h", cards=300, merchants=64, payments_per_day=4_000, sessions_per_day=800, disorder_s=4
)


def arrivals(simulation: Simulation, name: str) -> list[int]:
    return [at for chunk in simulation.stream(name) for at in chunk.arrival_time_us.tolist()]


@pytest.mark.parametrize("seed", range(5))
def test_a_payment_comes_after_every_click_that_arrived_before_it(seed):
    simulation, rng = Simulation(CONFIG), random.Random(seed)
    sources = interleaved_sources(simulation, "payments", "clicks", ahead="5m", simulated_arrival=True)
    times = {name: arrivals(simulation, name) for name in sources}
    given = dict.fromkeys(sources, 0)
    polls = 0
    while not all(source.finished for source in sources.values()):
        name = rng.choice(list(sources))
        raw = sources[name].poll(rng.choice([1, 7, 500]), 0.0)
        polls += 1
        assert polls < 1_000_000, "the sources wait for each other"
        if raw is None:
            continue
        given[name] += len(raw.values)
        newest = times[name][given[name] - 1]
        assert raw.arrival_time_us == newest
        if name == "payments" and given["clicks"] < len(times["clicks"]):
            assert newest <= times["clicks"][given["clicks"]]
        if name == "clicks" and given["payments"] < len(times["payments"]):
            assert newest <= times["payments"][given["payments"]] + 5 * MINUTE
    assert given == {name: len(of) for name, of in times.items()}


def test_the_records_are_the_simulations_own():
    simulation = Simulation(CONFIG)
    sources = interleaved_sources(simulation, "payments")
    got: list[bytes] = []
    while (raw := sources["payments"].poll(999, 0.0)) is not None:
        got += raw.values
        assert raw.envelope(0)[0] is not None
    assert got == [value for chunk in simulation.payments() for value in chunk.values]


def test_a_rate_is_an_open_loop_of_the_leading_stream():
    class Clock:
        at_s = 0.0

        def now_us(self) -> int:
            return int(self.at_s * 1e6)

        def monotonic_s(self) -> float:
            return self.at_s

        def sleep(self, seconds: float) -> None:
            self.at_s += seconds

    clock = Clock()
    sources = interleaved_sources(Simulation(CONFIG), "payments", "clicks", rate=100, clock=clock)
    payments = 0
    while clock.at_s < 2.0:
        while sources["clicks"].poll(1_000, 0.0) is not None:
            pass
        raw = sources["payments"].poll(1_000, 0.01)
        payments += len(raw.values) if raw else 0
    assert payments == pytest.approx(200, abs=2)


def test_a_stream_that_is_named_twice_is_an_error():
    with pytest.raises(DefinitionError, match="twice"):
        interleaved_sources(Simulation(CONFIG), "payments", "payments")


def test_a_delayed_stream_comes_so_much_later_than_the_other():
    simulation = Simulation(CONFIG)
    delay_us = 3 * MINUTE
    sources = interleaved_sources(
        simulation, "payments", "clicks", ahead="0s", simulated_arrival=True, delays={"clicks": "3m"}
    )
    clock = ArrivalClock(sources)
    times = {name: arrivals(simulation, name) for name in sources}
    due = {"payments": times["payments"], "clicks": [at + delay_us for at in times["clicks"]]}
    given, newest = dict.fromkeys(sources, 0), 0
    while not all(source.finished for source in sources.values()):
        for name, source in sources.items():
            if (raw := source.poll(500, 0.0)) is None:
                continue
            given[name] += len(raw.values)
            assert raw.arrival_time_us == due[name][given[name] - 1]
            newest = max(newest, raw.arrival_time_us)
            assert clock.now_us() == newest
            assert clock.monotonic_s() == newest / 1_000_000
    assert given == {name: len(of) for name, of in times.items()}


def test_a_delay_of_a_stream_that_is_not_read_is_an_error():
    with pytest.raises(DefinitionError, match="'clicks', which is not read"):
        interleaved_sources(Simulation(CONFIG), "payments", delays={"clicks": "1m"})
