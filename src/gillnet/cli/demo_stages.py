"""The demo's two stages: which pipeline, which simulated days, how fast."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from gillnet.api.expressions import col
from gillnet.api.features import Features
from gillnet.api.patterns import seq, step
from gillnet.api.pipeline import Pipeline
from gillnet.api.stream import Stream
from gillnet.app import load_pipeline
from gillnet.core.time import DAY, HOUR, SECOND
from gillnet.plan.nodes import PipelinePlan
from gillnet.scenarios import payments as scenario
from gillnet.simulator import Simulation, SimulationConfig
from gillnet.simulator.schemas import CLICK_SCHEMA, PAYMENT_SCHEMA

Kind = Literal["bots", "payments"]

LEAST_SECONDS = 4.0
"""A shorter demo would have nothing to show."""

_OVERHEAD_S = 12.0
"""What the default demo spends besides its live parts, on two cores: simulating, filling the windows, judging."""

_BOTS_SHARE = 0.45
_BOTS_SPEED, _PAYMENTS_SPEED = 600, 1_440
_ROAD = SimulationConfig(late_share=0.002, duplicate_share=0.002, malformed_share=0.001, disorder_s=2.0)
"""What happens to records on their way, so that there is something to account for."""

_LATE_PAYMENTS = 0.05
"""Late events that change a decision are rare; with so many there is one in most runs, and a score that moves in every one."""


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
    pipeline = load_pipeline("gillnet.scenarios.bots")
    return _stage("bots", "bot sessions, flagged while they run", pipeline, config, warm_us, 1_600, seconds)


def payments_stage(*, seed: int, seconds: float) -> Stage:
    """Return scenario 2: payments scored in flight, of a population like the one that the model was trained on.

    Beside the scenario's features it looks for a sequence in the clicks; see `with_takeovers`.
    """
    warm_us = 4 * DAY
    config = replace(
        _ROAD,
        seed=seed,
        late_share=_LATE_PAYMENTS,
        duration=_duration(warm_us, _PAYMENTS_SPEED * seconds),
        cards=8_000,
        merchants=800,
        payments_per_day=20_000,
        sessions_per_day=4_000,
        bots_per_day=40,
    )
    return _stage("payments", "card payments, scored in flight", with_takeovers(), config, warm_us, 500, seconds)


def with_takeovers() -> Pipeline:
    """Return scenario 2 with one feature more: whether failed logins ended in a password reset before the payment.

    Model and policy are the scenario's and do not read it, so that every score and decision is the scenario's own.
    """
    payments = Stream("payments", schema=PAYMENT_SCHEMA, id="tx_id", event_time="ts")
    clicks = Stream("clicks", schema=CLICK_SCHEMA, id="click_id", event_time="ts")
    features = {
        **scenario.payment_features(payments),
        **scenario.comparisons(),
        **scenario.account_features(clicks),
    }
    failed = step("failed_login", where=col("event") == "login_failed")
    reset = step("password_reset", where=col("event") == "password_reset")
    taken_over = clicks.by("user_id").pattern(seq(failed.one_or_more(), reset), within="15m", over="2h")
    model = scenario.pipeline.plan.model
    return Pipeline(
        Features(payments, **features, account_reset=taken_over.at("user_id")),
        name=scenario.pipeline.plan.name,
        model=scenario.MODEL,
        model_features=None if model is None else [name for name, _ in model.features],
        policy=scenario.policy(clicks=True),
    )


def _stage(
    kind: Kind, title: str, pipeline: Pipeline, config: SimulationConfig, warm_us: int, rate: float, seconds: float
) -> Stage:
    return Stage(
        kind=kind,
        name=title.partition(",")[0],
        title=title,
        pipeline=pipeline,
        simulation=Simulation(config),
        warm_us=warm_us,
        rate=rate,
        records=max(1, int(rate * seconds)),
    )


def _duration(warm_us: int, live_s: float) -> str:
    # Traffic follows the hour, so that the live records may lie in a longer span than on average.
    return f"{(warm_us + int(3 * live_s * SECOND) + HOUR) // SECOND}s"
