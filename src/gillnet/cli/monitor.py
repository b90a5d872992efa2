"""Watches a run from outside: a few samples on the loop's thread, everything else on the display's.

The loop must not wait for a display. It appends to bounded queues and samples what only its thread may read (the kernel's
watermark, a consumer's lag) four times a second; counting, decoding and drawing happen elsewhere.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from gillnet.core.messages import OutputRecord
from gillnet.core.ports import MeasuredSink, Sink
from gillnet.core.time import Clock, SystemClock
from gillnet.observability.metrics import Histogram, StreamCounts
from gillnet.operators.progress import StreamProgress
from gillnet.plan.nodes import AggregateNode, PipelinePlan
from gillnet.runtimes.embedded import Alert, EmbeddedRuntime

SAMPLE_EVERY_S = 0.25
REMEMBERED_ALERTS = 2_000
TAPPED_BATCHES = 64
_RATE_SPAN_S = 3.0


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """One look at a run.

    Attributes
    ----------
    rate
        Records read per second, all streams, over the last seconds.
    latency_ms
        p50, p95 and p99 from arrival to sink, since the start.
    alerts
        Those that were given to `RunMonitor.on_alerts`.
    revisions, revisions_flipped
        Rows that later arrivals changed, and those whose decision is another one now.
    watermark_us
        The root stream's, microseconds UTC; None before its first event.
    progress
        How far each stream is, in the order of the plan; a stream is missing before its first sample.
    lag
        Records that wait at the sources; None where they cannot tell.
    """

    elapsed_s: float
    rate: float
    streams: dict[str, StreamCounts]
    decisions: dict[str, int]
    latency_ms: tuple[float | None, float | None, float | None]
    alerts: int
    sessions_closed: int
    revisions: int
    revisions_flipped: int
    watermark_us: int | None
    lag: int | None
    progress: list[StreamProgress] = field(default_factory=list)


class RunMonitor:
    """Collects what a display shows of one run.

    Parameters
    ----------
    plan
        The pipeline.
    latency
        What to show instead of the run's own latencies.
    """

    def __init__(self, plan: PipelinePlan, *, latency: Histogram | None = None, clock: Clock | None = None) -> None:
        self.plan = plan
        self._latency = latency
        self._clock = clock or SystemClock()
        self._runtime: EmbeddedRuntime | None = None
        self._alerts: deque[Alert] = deque(maxlen=REMEMBERED_ALERTS)
        self._started_s = self._sampled_s = self._clock.monotonic_s()
        self._watermark_us: int | None = None
        self._lag: int | None = None
        self._alerts_taken = 0
        self._reads: deque[tuple[float, int]] = deque([(self._started_s, 0)])

    def watch(self, runtime: EmbeddedRuntime) -> None:
        """Start watching; time counts from here."""
        self._runtime = runtime
        self._started_s = self._clock.monotonic_s()
        # A run that goes on from a checkpoint has counted before.
        read = sum(counts.read for counts in runtime.metrics.streams.values())
        self._reads = deque([(self._started_s, read)])

    # On the loop's thread

    def on_alerts(self, alerts: list[Alert]) -> None:
        """Take alerts."""
        self._alerts_taken += len(alerts)
        self._alerts.extend(alerts)

    def on_turn(self) -> None:
        """Sample what only the loop's thread may read."""
        now_s = self._clock.monotonic_s()
        if self._runtime is None or now_s - self._sampled_s < SAMPLE_EVERY_S:
            return
        self._sampled_s = now_s
        self._watermark_us = self._runtime.features.watermark_us(self.plan.root)
        self._lag = self._runtime.lag

    # On the display's thread

    def drain_alerts(self) -> list[Alert]:
        """Return the alerts since the last call, oldest first; of very many the newest `REMEMBERED_ALERTS`."""
        drained: list[Alert] = []
        while self._alerts and len(drained) < REMEMBERED_ALERTS:
            drained.append(self._alerts.popleft())
        return drained

    def view(self) -> View:
        """Return the figures of this moment."""
        assert self._runtime is not None, "watch() comes first"
        metrics, now_s = self._runtime.metrics, self._clock.monotonic_s()
        streams = {stream.name: metrics.streams.get(stream.name) or StreamCounts() for stream in self.plan.streams}
        latency = metrics.latency_ms if self._latency is None else self._latency
        return View(
            elapsed_s=now_s - self._started_s,
            rate=self._rate(now_s, sum(counts.read for counts in streams.values())),
            streams=streams,
            decisions=dict(metrics.decisions),
            latency_ms=(latency.percentile(0.5), latency.percentile(0.95), latency.percentile(0.99)),
            alerts=self._alerts_taken,
            sessions_closed=metrics.sessions_closed,
            revisions=metrics.revisions,
            revisions_flipped=metrics.revisions_flipped,
            watermark_us=self._watermark_us,
            lag=self._lag,
            progress=[metrics.progress[name] for name in streams if name in metrics.progress],
        )

    def _rate(self, now_s: float, read: int) -> float:
        self._reads.append((now_s, read))
        while len(self._reads) > 2 and self._reads[0][0] < now_s - _RATE_SPAN_S:
            self._reads.popleft()
        (before_s, before), span_s = self._reads[0], now_s - self._reads[0][0]
        del before_s
        return (read - before) / span_s if span_s > 0 else 0.0


class RowTap:
    """A sink that passes rows on and keeps the latest batches for a display, undecoded.

    Parameters
    ----------
    sink
        Where rows go; None if nobody else wants them.
    """

    def __init__(self, sink: Sink | None = None) -> None:
        self._sink = sink
        self._batches: deque[Sequence[bytes]] = deque(maxlen=TAPPED_BATCHES)

    def write(self, values: Sequence[bytes], keys: Sequence[bytes | None] | None = None) -> None:
        """Pass rows on and remember them."""
        self._batches.append(values)
        if self._sink is not None:
            self._sink.write(values, keys)

    def write_records(self, records: Sequence[OutputRecord]) -> None:
        """Pass records on."""
        if self._sink is not None:
            self._sink.write_records(records)

    def flush(self) -> None:
        """Flush the sink behind."""
        if self._sink is not None:
            self._sink.flush()

    def close(self) -> None:
        """Close the sink behind."""
        if self._sink is not None:
            self._sink.close()

    def figures(self) -> Mapping[str, int]:
        """Return those of the sink behind."""
        return self._sink.figures() if isinstance(self._sink, MeasuredSink) else {}

    def drain(self, most: int = 2_000) -> list[dict[str, Any]]:
        """Return the newest rows since the last call, decoded; older ones than ``most`` are passed over."""
        values: list[bytes] = []
        while self._batches:
            values.extend(self._batches.popleft())
        return [msgspec.json.decode(value) for value in values[-most:]]


@dataclass(frozen=True, slots=True)
class OpenSession:
    """A session as its last row showed it."""

    key: str
    start: str
    seen: str
    decision: str
    features: dict[str, Any]


class BusiestSessions:
    """Keeps the busiest sessions among the rows that a tap saw.

    Parameters
    ----------
    plan
        A pipeline with sessions.
    """

    _MOST = 5_000

    def __init__(self, plan: PipelinePlan) -> None:
        assert plan.sessions is not None
        self._key = plan.sessions.key
        counts = (
            f.name for f in plan.features if isinstance(f, AggregateNode) and f.function == "count" and f.where is None
        )
        self.count = next(counts, None)
        self._sessions: dict[tuple[str, str], OpenSession] = {}

    def add(self, rows: Sequence[dict[str, Any]]) -> None:
        """Take decoded rows."""
        for row in rows:
            key, start = str(row.get(self._key, "")), str(row.get("session_start", ""))
            self._sessions.pop((key, start), None)
            self._sessions[key, start] = OpenSession(
                key, start, str(row.get("event_time", "")), str(row.get("decision", "")), row.get("features") or {}
            )
        while len(self._sessions) > self._MOST:
            del self._sessions[next(iter(self._sessions))]

    def top(self, most: int, *, open_since: str = "") -> list[OpenSession]:
        """Return the sessions with the most events, of those with an event at or after ``open_since`` (RFC 3339)."""
        for place in [place for place, session in self._sessions.items() if session.seen < open_since]:
            del self._sessions[place]
        ranked = sorted(self._sessions.values(), key=lambda session: session.features.get(self.count or "", 0) or 0)
        return ranked[: -most - 1 : -1]
