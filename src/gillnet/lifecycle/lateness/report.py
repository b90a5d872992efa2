"""Measures streams over a grid of watermark delays, and recommends one for a budget."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from gillnet.core.time import MILLISECOND
from gillnet.lifecycle.lateness.delays import (
    GRID_US,
    Micros,
    behind_frontier,
    behind_partition,
    frontier,
    release_places,
    shares_above,
    waits,
)
from gillnet.lifecycle.lateness.reading import StreamEvents
from gillnet.lifecycle.lateness.scores import ON_ARRIVAL, Sample, ScoresAt
from gillnet.plan.nodes import PipelinePlan
from gillnet.serving import Scorer

SAMPLE = 20_000
"""Root events of the sample that is scored."""

QUANTILES = (0.5, 0.9, 0.99, 0.999, 1.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class DelayAt:
    """What one watermark delay would have done to a stream.

    Attributes
    ----------
    late_share
        Share of events behind the watermark.
    too_late_share
        Share of events behind it by more than the allowed lateness; None where that is not known.
    wait_ms_p50, wait_ms_p99
        How long an event would have waited for the watermark; None if none was released before the data ended.
    """

    delay_us: int
    late_share: float
    too_late_share: float | None
    wait_ms_p50: float | None
    wait_ms_p99: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamLateness:
    """The delays of one stream.

    Attributes
    ----------
    recorded
        Whether arrivals were recorded; if not, waits and idleness are told by the stream's progress in event time.
    behind_newest_ms, arrival_minus_event_ms
        Quantiles by their share; the second is None where no arrival was recorded.
    """

    stream: str
    read: int
    events: int
    malformed: int
    duplicate: int
    partitions: int
    recorded: bool
    first_event_us: int
    last_event_us: int
    watermark_delay_us: int
    allowed_lateness_us: int
    behind_newest_ms: dict[str, float]
    arrival_minus_event_ms: dict[str, float] | None
    delays: list[DelayAt]


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoresLateness:
    """The scores of a sample, ``counted`` rows of the first ``size`` root events: on arrival, and at each delay."""

    pipeline: str
    model: str | None
    size: int
    warm_up: int
    counted: int
    events: int
    on_arrival: ScoresAt
    delays: list[ScoresAt]


@dataclass(frozen=True, slots=True, kw_only=True)
class LatenessReport:
    """What ``gillnet lateness`` has to say; the root stream first."""

    streams: list[StreamLateness]
    scores: ScoresLateness | None

    @property
    def root(self) -> StreamLateness:
        """The stream that is scored, or the only one."""
        return self.streams[0]

    def to_json(self) -> dict[str, Any]:
        """Return it for machines; shares from 0 to 1."""
        return asdict(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """What may be spent: at most so many stale scores, at most so long a wait."""

    max_stale_share: float | None = None
    max_latency_ms: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Recommendation:
    """What to do for a budget; ``emission`` is None if nothing in the table keeps it.

    Attributes
    ----------
    emission
        ``on_arrival``: let rows go at once, whatever the watermark; ``on_watermark``: let them wait for it.
    delay_us
        The watermark delay; None for ``on_arrival``.
    stale_of
        What was held against the share: ``scores`` of a pipeline, or ``events`` that are late.
    """

    emission: str | None
    delay_us: int | None
    stale_share: float | None
    wait_ms_p99: float | None
    stale_of: str
    why: str


def measure(
    streams: Sequence[StreamEvents],
    *,
    plan: PipelinePlan | None = None,
    scorer: Scorer | None = None,
    sample: int = SAMPLE,
    delays_us: Sequence[int] | None = None,
    on_delay: Callable[[int], None] = lambda _: None,
) -> LatenessReport:
    """Measure streams at every delay.

    Parameters
    ----------
    streams
        Their events; with a plan those of each of its streams.
    plan, scorer
        The pipeline whose scores are measured, and its model's scorer.
    sample
        Root events of the sample that is scored.
    delays_us
        The watermark delays, ascending, microseconds; by default those of `GRID_US` that the data are long enough for.
    on_delay
        Called before the scores of each delay, for a display.
    """
    delays_us = measurable(streams) if delays_us is None else delays_us
    if plan is None:
        return LatenessReport(streams=[stream_lateness(events, delays_us) for events in streams], scores=None)
    by_name = {events.node.name: events for events in streams}
    taken = Sample(plan, scorer, by_name, sample)
    complete = taken.at(None)
    scored = []
    for delay_us in delays_us:
        on_delay(delay_us)
        scored.append(taken.compare(delay_us, complete))
    # A row waits for every stream that it reads, so the root's waits are those of all streams together.
    root = stream_lateness(by_name.pop(plan.root), delays_us, waits_at=taken.waits)
    return LatenessReport(
        streams=[root, *(stream_lateness(events, delays_us) for events in by_name.values())],
        scores=ScoresLateness(
            pipeline=plan.name,
            model=None if scorer is None else scorer.model.label,
            size=taken.size,
            warm_up=taken.warm_up,
            counted=taken.counted,
            events=taken.events,
            on_arrival=taken.compare(ON_ARRIVAL, complete),
            delays=scored,
        ),
    )


def measurable(streams: Sequence[StreamEvents]) -> list[int]:
    """Return the delays of the grid that the data span: under a longer one nothing is late, whatever comes."""
    spans = [int(events.times.max() - events.times[0]) for events in streams if len(events)]
    return [delay_us for delay_us in GRID_US if delay_us <= min(spans, default=0)]


def stream_lateness(
    events: StreamEvents, delays_us: Sequence[int], *, waits_at: Callable[[int], Micros] | None = None
) -> StreamLateness:
    """Measure one stream at every delay; ``waits_at`` gives other waits than those for its own watermark."""
    node, times, arrivals = events.node, events.times, events.arrivals
    partitions = int(events.partitions.max(initial=-1)) + 1
    after = frontier(events.partitions, times, arrivals, node.idle_after_us)
    behind, limits = behind_frontier(times, after), np.array(delays_us, np.int64)
    lateness = node.allowed_lateness_us
    too_late = shares_above(behind, limits + lateness) if lateness else None
    places = np.arange(len(times))

    def own_waits(delay_us: int) -> Micros:
        return waits(places, release_places(times, places, after, delay_us), arrivals)

    return StreamLateness(
        stream=node.name,
        read=events.read,
        events=len(events),
        malformed=events.malformed,
        duplicate=events.duplicate,
        partitions=partitions,
        recorded=events.recorded,
        first_event_us=int(times.min()),
        last_event_us=int(times.max()),
        watermark_delay_us=node.watermark_delay_us,
        allowed_lateness_us=lateness,
        behind_newest_ms=_quantiles(behind_partition(events.partitions, times, arrivals)),
        arrival_minus_event_ms=_quantiles(arrivals - times) if events.recorded else None,
        delays=[
            DelayAt(
                delay_us=delay_us,
                late_share=late_share,
                too_late_share=None if too_late is None else float(too_late[place]),
                **_wait_ms((waits_at or own_waits)(delay_us)),
            )
            for place, (delay_us, late_share) in enumerate(
                zip(delays_us, shares_above(behind, limits).tolist(), strict=True)
            )
        ],
    )


def recommend(report: LatenessReport, budget: Budget) -> Recommendation:
    """Return what to do for a budget.

    For a share of stale scores the shortest wait that keeps it: every longer one costs latency for nothing. For a latency
    alone the longest wait that keeps it: every shorter one leaves more scores stale. Without a pipeline, late events stand for
    stale scores.
    """
    choices = _choices(report)
    most_ms, most_stale = budget.max_latency_ms, budget.max_stale_share
    kept = [
        choice
        for choice in choices
        if (most_ms is None or (choice.wait_ms_p99 is not None and choice.wait_ms_p99 <= most_ms))
        and (most_stale is None or (choice.stale_share is not None and choice.stale_share <= most_stale))
    ]
    if kept and most_stale is None:
        return replace(kept[-1], why="the longest wait within that latency")
    if kept:
        return replace(kept[0], why=f"the shortest wait with so few stale {kept[0].stale_of}")
    nothing = choices[0]
    stale = [choice.stale_share for choice in choices if choice.stale_share is not None]
    return replace(
        nothing,
        emission=None,
        delay_us=None,
        stale_share=None,
        wait_ms_p99=None,
        why=_why_none(stale, budget, nothing.stale_of),
    )


def _choices(report: LatenessReport) -> list[Recommendation]:
    """Return everything that could be recommended, the shortest wait first."""
    scores, choices = report.scores, []
    stale_of = "events" if scores is None else "scores"
    if scores is not None:
        choices.append(
            Recommendation(
                emission="on_arrival",
                delay_us=None,
                stale_share=scores.on_arrival.stale_share,
                wait_ms_p99=0.0,
                stale_of=stale_of,
                why="",
            )
        )
    for place, at in enumerate(report.root.delays):
        choices.append(
            Recommendation(
                emission="on_watermark",
                delay_us=at.delay_us,
                stale_share=at.late_share if scores is None else scores.delays[place].stale_share,
                wait_ms_p99=at.wait_ms_p99,
                stale_of=stale_of,
                why="",
            )
        )
    return choices


def _why_none(stale: list[float], budget: Budget, stale_of: str) -> str:
    if budget.max_stale_share is not None and min(stale) > budget.max_stale_share:
        return f"even the longest delay leaves {min(stale):.3%} of {stale_of} stale"
    if budget.max_stale_share is not None and budget.max_latency_ms is not None:
        return "no delay keeps both: give up one of them, and let revisions mend the scores that were stale"
    return "even the shortest delay waits longer"


def _quantiles(values: Micros) -> dict[str, float]:
    found = np.quantile(values, QUANTILES, method="higher") if len(values) else np.zeros(len(QUANTILES))
    names = ["max" if share == 1.0 else f"p{share * 100:g}" for share in QUANTILES]
    return {name: float(value) / MILLISECOND for name, value in zip(names, found, strict=True)}


def _wait_ms(waited: Micros) -> dict[str, float | None]:
    if not len(waited):
        return {"wait_ms_p50": None, "wait_ms_p99": None}
    p50, p99 = np.quantile(waited, (0.5, 0.99), method="higher")
    return {"wait_ms_p50": float(p50) / MILLISECOND, "wait_ms_p99": float(p99) / MILLISECOND}
