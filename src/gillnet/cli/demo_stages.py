"""The demo's two stages: which pipeline, which simulated days, how fast."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from gillnet.api.pipeline import Pipeline
from gillnet.app import load_pipeline
from gillnet.core.time import DAY, HOUR, SECOND
from gillnet.plan.nodes import PipelinePlan
from gillnet.simulator import Simulation, SimulationConfig

Kind = Literal["bots", "payments"]

LEAST_SECONDS = 4.0
"""A shorter demo would have nothing to show."""

_OVERHEAD_S = 12.0
"""What the default demo spends besides its live parts, on two cores: simulating, filling the windows, judging."""

_BOTS_SHARE = 0.45
_BOTS_SPEED, _PAYMENTS_SPEED = 600, 1_440
_ROAD = SimulationConfig(late_share=0.002, duplicate_share=0.002, malformed_share=0.001, disorder_s=2.0)
"""What happens to records on their way, so that there is something to account for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """One scenario of the demo.

    Attributes
    ----------
    name, title
        What it shows, short and in full.
    simulation
        The population and its traffic.
    warm_us
        Event time that is replayed at full speed first, so that the windows are filled; microseconds.
    rate
        Records of the root stream a second after that.
    records
        So many of them: the live part.
    """

    kind: Kind
    name: str
    title: str
    pipeline: Pipeline
    simulation: Simulation
    warm_us: int
    rate: float
    records: int

    @property
    def plan(self) -> PipelinePlan:
        """The pipeline's plan."""
        return self.pipeline.plan

    @property
    def seconds(self) -> float:
        """How long the live part lasts."""
        return self.records / self.rate

    @property
    def lookups(self) -> list[str]:
        """The other streams of the pipeline."""
        return [stream.name for stream in self.plan.streams if stream.name != self.plan.root]


def demo_stages(*, seed: int, seconds: float) -> list[Stage]:
    """Return the stages of a demo that lasts about ``seconds`` in all."""
    # A short demo is for trying it out: half of it is live, whatever the overhead.
    live_s = max(seconds - _OVERHEAD_S, seconds / 2)
    return [
        bots_stage(seed=seed, seconds=live_s * _BOTS_SHARE),
        payments_stage(seed=seed, seconds=live_s * (1 - _BOTS_SHARE)),
    ]


def bots_stage(*, seed: int, seconds: float) -> Stage:
    """Return scenario 1: sessions of clicks, bots flagged while they run.

    A fifth of the bots replay people (level 2), the hardest there are.
    """
    warm_us = 16 * HOUR  # The European evening follows: about 3 clicks a second.
    config = replace(
        _ROAD,
        seed=seed,
        duration=_duration(warm_us, _BOTS_SPEED * seconds),
        bots_per_day=400,
        bot_difficulty=1.2,
        payments_per_day=20_000,
    )
    return _stage("bots", "bot sessions, flagged while they run", config, warm_us, rate=1_600, seconds=seconds)


def payments_stage(*, seed: int, seconds: float) -> Stage:
    """Return scenario 2: payments scored in flight, of a population like the one that the model was trained on."""
    warm_us = 4 * DAY
    config = replace(
        _ROAD,
        seed=seed,
        duration=_duration(warm_us, _PAYMENTS_SPEED * seconds),
        cards=8_000,
        merchants=800,
        payments_per_day=20_000,
        sessions_per_day=4_000,
        bots_per_day=40,
    )
    return _stage("payments", "card payments, scored in flight", config, warm_us, rate=500, seconds=seconds)


def _stage(kind: Kind, title: str, config: SimulationConfig, warm_us: int, *, rate: float, seconds: float) -> Stage:
    return Stage(
        kind=kind,
        name=title.partition(",")[0],
        title=title,
        pipeline=load_pipeline(f"gillnet.scenarios.{kind}"),
        simulation=Simulation(config),
        warm_us=warm_us,
        rate=rate,
        records=max(1, int(rate * seconds)),
    )


def _duration(warm_us: int, live_s: float) -> str:
    # Traffic follows the hour, so that the live records may lie in a longer span than on average.
    return f"{(warm_us + int(3 * live_s * SECOND) + HOUR) // SECOND}s"
