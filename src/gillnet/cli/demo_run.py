"""Runs one stage of the demo: fills the windows, goes live, ends when the last live record is decided."""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gillnet.app import RunConfig, build_runtime, choose_model_scorer
from gillnet.cli.demo_feed import StageFeed
from gillnet.cli.demo_stages import Stage
from gillnet.cli.demo_stories import EventTimeStories, ListeningSink
from gillnet.cli.monitor import RowTap, RunMonitor
from gillnet.core.errors import GillnetError
from gillnet.core.ports import Sink
from gillnet.core.time import Clock, SystemClock
from gillnet.observability.metrics import Histogram, RunMetrics
from gillnet.runtimes.embedded import Alert, EmbeddedRuntime, Outputs, RuntimeOptions

if TYPE_CHECKING:
    from types import TracebackType

_WRITE_RECORDS = 1_000
_WRITER_WAIT_S = 0.02
_WRITER_END_S = 30.0
_TURN_S = 0.0005
_REVISION_INTERVAL_S = 0.1
"""A stage goes through half an hour of event time in a second: looked at as often as usual, rows would change twice at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a stage has shown.

    Attributes
    ----------
    latency_ms
        Of the live records of the root stream: from falling due to being decided.
    warm_records, warm_s
        All streams' records that filled the windows, and how long that took.
    live_records, live_s
        All streams' records after that.
    alerts
        Live ones, in order.
    complete
        Whether the stage ran to its end.
    topics
        Records in each Kafka topic at the end; empty without Kafka.
    stories
        What late data and sequences did; None for bots.
    """

    stage: Stage
    feed: StageFeed
    metrics: RunMetrics
    latency_ms: Histogram
    warm_records: int
    warm_s: float
    live_records: int
    live_s: float
    alerts: list[Alert]
    complete: bool
    topics: Mapping[str, int]
    stories: EventTimeStories | None = None


class StageRun:
    """One stage, from its first record to its outcome.

    Parameters
    ----------
    stage
        What to run.
    bootstrap_servers
        Of a broker to run it through; None: in this process alone.

    Notes
    -----
    A record of the root stream counts as decided when the turn of the loop that read it is over: its row is with the sink.
    Streams have one partition, so records are decided in the order in which they were given, also through a broker.
    """

    def __init__(self, stage: Stage, *, bootstrap_servers: str | None = None, clock: Clock | None = None) -> None:
        self.stage = stage
        self.latency_ms = Histogram()
        self.monitor = RunMonitor(stage.plan, latency=self.latency_ms, clock=clock)
        self.tap = RowTap()
        self.feed = StageFeed(stage, clock=clock)
        self.stories = EventTimeStories(stage.plan, self.feed) if stage.kind == "payments" else None
        self._servers = bootstrap_servers
        self._clock = clock or SystemClock()
        self._runtime: EmbeddedRuntime | None = None
        self._ended, self._asked = threading.Event(), threading.Event()
        self._alerts: list[Alert] = []
        self._began_s = self._live_s = self._clock.monotonic_s()
        self._warm_records = self._warm_root = self._timed = 0
        self._complete = False

    @property
    def state(self) -> str:
        """What the stage does at this moment, for the page."""
        if not self.feed.live:
            return f"filling the windows, {self.feed.warm_share:.0%}"
        left_s = self.stage.seconds - (self._clock.monotonic_s() - self._live_s)
        return f"live, {max(0.0, left_s):.0f} s to go"

    @property
    def warm_s(self) -> float:
        """How long it took to fill the windows."""
        return self._live_s - self._began_s

    @property
    def warm_records(self) -> int:
        """Records of all streams that filled the windows."""
        return self._warm_records

    def prepare(self) -> None:
        """Open what the stage needs; then `monitor` can be looked at."""
        self._runtime = self._through_kafka(self._servers) if self._servers else self._embedded()
        self.monitor.watch(self._runtime)

    def run(self, stop: threading.Event) -> Outcome:
        """Run to the end, or until ``stop``."""
        assert self._runtime is not None, "prepare() comes first"
        self._asked = stop
        self._began_s = self._live_s = self._clock.monotonic_s()
        writer = (
            _Writer(self.feed, self._servers, self.stage.kind, self._ended)
            if self._servers
            else contextlib.nullcontext()
        )
        with _short_turns(), writer:
            metrics = self._runtime.run(self._ended)
        return self._outcome(metrics)

    def _outcome(self, metrics: RunMetrics) -> Outcome:
        read = sum(counts.read for counts in metrics.streams.values())
        return Outcome(
            stage=self.stage,
            feed=self.feed,
            metrics=metrics,
            latency_ms=self.latency_ms,
            warm_records=self._warm_records,
            warm_s=self.warm_s,
            live_records=read - self._warm_records if self.feed.live else 0,
            live_s=self._clock.monotonic_s() - self._live_s,
            alerts=self._alerts,
            complete=self._complete,
            topics={} if self._servers is None else _topic_records(self.stage, self._servers),
            stories=self.stories,
        )

    def _embedded(self) -> EmbeddedRuntime:
        plan = self.stage.plan
        return EmbeddedRuntime(
            plan,
            sources=self.feed.sources,
            # Rows are written, to nowhere: a decision that nobody could read would be no decision.
            outputs=Outputs(lambda name: self._tapped(name, None)),
            scorer=choose_model_scorer(plan, None),
            options=_options(),
            on_alerts=self._on_alerts,
            on_turn=self._on_turn,
        )

    def _through_kafka(self, servers: str) -> EmbeddedRuntime:
        from gillnet.connectors.kafka import ensure_topics

        topics = {name: _topic(self.stage, name) for name in self.feed.sources}
        # One partition each: partitions that are read unevenly would be hours apart at this speed.
        ensure_topics(list(topics.values()), bootstrap_servers=servers, partitions=1)
        config = RunConfig(
            sources={name: f"kafka://{servers}/{topic}" for name, topic in topics.items()},
            default_sink=f"kafka://{servers}/{_topic(self.stage, '{name}')}",
            options=_options(),
        )
        return build_runtime(
            self.stage.pipeline, config, on_alerts=self._on_alerts, on_turn=self._on_turn, wrap_sink=self._tapped
        )

    def _tapped(self, name: str, sink: Sink | None) -> Sink | None:
        if name == "decisions":
            self.tap = RowTap(sink)
            return self.tap
        if self.stories is not None and name == "decisions.revisions":
            return ListeningSink(sink, self.stories.revisions_written)
        if self.stories is not None and name == "matches":
            return ListeningSink(sink, self.stories.matches_written)
        return sink

    # On the loop's thread

    def _on_alerts(self, alerts: list[Alert]) -> None:
        if self.feed.live:
            self._alerts.extend(alerts)
            self.monitor.on_alerts(alerts)
            if self.stories is not None:
                self.stories.on_alerts(alerts)

    def _on_turn(self) -> None:
        self.monitor.on_turn()
        if self._asked.is_set():
            self._ended.set()
            return
        if self.feed.live:
            self._time_decisions()
        # Asked before what was given is counted: a feed in another thread may go on in between.
        filled, finished = self.feed.filled, self.feed.finished
        if not self._caught_up():
            return
        if finished:
            self._complete = True
            self._ended.set()
        elif filled and not self.feed.live:
            self._warm_records, self._warm_root = sum(self.feed.given.values()), self.feed.given[self.stage.plan.root]
            self._live_s = self._clock.monotonic_s()
            self.feed.go_live()

    def _caught_up(self) -> bool:
        return all(self._read(name) >= given for name, given in self.feed.given.items())

    def _time_decisions(self) -> None:
        now_s, decided = self._clock.monotonic_s(), self._read(self.stage.plan.root) - self._warm_root
        for number in range(self._timed, decided):
            self.latency_ms.add((now_s - self.feed.due_s(number)) * 1_000)
        self._timed = decided

    def _read(self, stream: str) -> int:
        assert self._runtime is not None
        return self._runtime.metrics.stream(stream).read


def _options() -> RuntimeOptions:
    return RuntimeOptions(revision_interval_s=_REVISION_INTERVAL_S)


@contextlib.contextmanager
def _short_turns() -> Iterator[None]:
    """Let threads take turns more often: neither the page nor the writer may hold up the loop for Python's usual 5 ms."""
    before_s = sys.getswitchinterval()
    sys.setswitchinterval(_TURN_S)
    try:
        yield
    finally:
        sys.setswitchinterval(before_s)


class _Writer:
    """Writes a feed's records to their topics, from a thread of its own; what fails there is raised at the end."""

    def __init__(self, feed: StageFeed, servers: str, kind: str, ended: threading.Event) -> None:
        from gillnet.connectors.kafka import KafkaSink

        self._feed = feed
        self._ended = ended
        self._sinks = {name: KafkaSink(topic=f"{kind}.{name}", bootstrap_servers=servers) for name in feed.sources}
        self._failure: GillnetError | None = None
        self._thread = threading.Thread(target=self._write, name="gillnet-demo-writer", daemon=True)

    def __enter__(self) -> _Writer:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join(_WRITER_END_S)
        if self._failure is not None and error is None:
            raise self._failure

    def _write(self) -> None:
        try:
            root = next(reversed(self._sinks))
            while not self._ended.is_set() and not self._feed.finished:
                for name, sink in self._sinks.items():
                    raw = self._feed.poll(name, _WRITE_RECORDS, _WRITER_WAIT_S if name == root else 0.0)
                    if raw is not None:
                        sink.write(raw.values, [raw.envelope(place)[0] for place in range(len(raw.values))])
            for sink in self._sinks.values():
                sink.close()
        except GillnetError as failure:
            self._failure = failure
            self._ended.set()


def _topic(stage: Stage, name: str) -> str:
    return f"{stage.kind}.{name}"


def _topic_records(stage: Stage, servers: str) -> dict[str, int]:
    from gillnet.app import output_names
    from gillnet.connectors.kafka import count_records

    names = [stream.name for stream in stage.plan.streams] + output_names(stage.plan)
    return count_records([_topic(stage, name) for name in names], bootstrap_servers=servers)
