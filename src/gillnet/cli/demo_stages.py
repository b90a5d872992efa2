"""The demo's two stages: which pipeline, which simulated days, how fast."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from gillnet.app import load_pipeline
from gillnet.core.messages import RawBatch
from gillnet.core.ports import Source
from gillnet.core.time import Clock, SystemClock
from gillnet.plan.nodes import PipelinePlan
from gillnet.simulator import Simulation, SimulationConfig, interleaved_sources

PIPELINES = {"bots": "gillnet.scenarios.bots:pipeline", "payments": "gillnet.scenarios.payments:pipeline"}
"""The bundled scenarios, by stage."""

Kind = Literal["bots", "payments"]
_DAY_S = 86_400
_CLICKS_PER_DAY = 240_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """One scenario of the demo.

    Attributes
    ----------
    simulation
        The population and its traffic.
    warm_records
        Records of the root stream that are replayed at full speed first, so that the windows are filled.
    rate
        Records of the root stream a second after that.
    speed
        Simulated seconds in a second at that rate.
    seconds
        How long the stage lasts, the warm-up included.
    """

    kind: Kind
    title: str
    plan: PipelinePlan
    simulation: Simulation
    warm_records: int
    rate: float
    speed: float
    seconds: float

    def sources(self, clock: Clock | None = None) -> tuple[dict[str, Source], PacedSource]:
        """Return the sources of all streams, in step, and the paced one of the root among them."""
        others = [stream.name for stream in self.plan.streams if stream.name != self.plan.root]
        opened = interleaved_sources(self.simulation, self.plan.root, *others)  # type: ignore[arg-type]
        paced = PacedSource(opened[self.plan.root], self.warm_records, self.rate, clock=clock)
        return {**opened, self.plan.root: paced}, paced


def bots_stage(*, seed: int, seconds: float, ref: str) -> Stage:
    """Return scenario 1: sessions of clicks, bots flagged while they run."""
    speed, warm_s = 600.0, _DAY_S // 2
    config = SimulationConfig(
        seed=seed,
        duration=f"{int(warm_s + speed * seconds)}s",
        bots_per_day=400,
        bot_difficulty=0.75,
        payments_per_day=20_000,
        duplicate_share=0.002,
        malformed_share=0.002,
    )
    return _stage("bots", "bot sessions, flagged while they run", ref, config, _CLICKS_PER_DAY, warm_s, speed, seconds)


def payments_stage(*, seed: int, seconds: float, ref: str) -> Stage:
    """Return scenario 2: payments scored in flight."""
    speed, warm_s = 1_200.0, _DAY_S
    config = SimulationConfig(
        seed=seed, duration=f"{int(warm_s + speed * seconds)}s", duplicate_share=0.002, malformed_share=0.002
    )
    return _stage(
        "payments", "payments, scored in flight", ref, config, config.payments_per_day, warm_s, speed, seconds
    )


def _stage(
    kind: Kind, title: str, ref: str, config: SimulationConfig, per_day: int, warm_s: int, speed: float, seconds: float
) -> Stage:
    return Stage(
        kind=kind,
        title=title,
        plan=load_pipeline(ref).plan,
        simulation=Simulation(config),
        warm_records=per_day * warm_s // _DAY_S,
        rate=per_day * speed / _DAY_S,
        speed=speed,
        seconds=seconds,
    )


class PacedSource:
    """A source whose first records come at once, and the others at a rate that people can follow.

    Parameters
    ----------
    source
        Where records come from.
    warm_records
        So many at once.
    rate
        Then so many a second.
    """

    def __init__(self, source: Source, warm_records: int, rate: float, *, clock: Clock | None = None) -> None:
        self.stream = source.stream
        self._source = source
        self._warm_records = warm_records
        self._rate = rate
        self._clock = clock or SystemClock()
        self._paced_since_s: float | None = None
        self.given = 0

    @property
    def warm_share(self) -> float:
        """How much of the warm-up is done, 0 to 1."""
        return min(1.0, self.given / self._warm_records) if self._warm_records else 1.0

    def poll(self, max_records: int, timeout_s: float) -> RawBatch | None:
        """Return records that are due."""
        due = self._due()
        if due <= 0:
            self._clock.sleep(min(timeout_s, 1 / self._rate))
            due = self._due()
        if due <= 0:
            return None
        batch = self._source.poll(min(max_records, due), 0.0)
        self.given += 0 if batch is None else len(batch.values)
        return batch

    def _due(self) -> int:
        if self.given < self._warm_records:
            return self._warm_records - self.given
        now_s = self._clock.monotonic_s()
        if self._paced_since_s is None:
            self._paced_since_s = now_s
        return int((now_s - self._paced_since_s) * self._rate) + self._warm_records - self.given

    def commit(self) -> None:
        """Commit the source behind."""
        self._source.commit()

    @property
    def finished(self) -> bool:
        """Whether the source behind is finished."""
        return self._source.finished

    @property
    def lag(self) -> int | None:
        """Records that are due and were not polled."""
        return None if self._paced_since_s is None else max(0, self._due())

    def close(self) -> None:
        """Close the source behind."""
        self._source.close()


def demo_stages(*, seed: int, seconds: float, pipelines: Mapping[str, str] | None = None) -> list[Stage]:
    """Return the stages of a demo that lasts about ``seconds``."""
    refs = {**PIPELINES, **(pipelines or {})}
    return [
        bots_stage(seed=seed, seconds=seconds * 0.45, ref=refs["bots"]),
        payments_stage(seed=seed, seconds=seconds * 0.55, ref=refs["payments"]),
    ]
