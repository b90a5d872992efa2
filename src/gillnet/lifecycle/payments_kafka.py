"""Scenario 2 through a real broker, with the latency that a customer would see.

The pipeline runs in a process of its own; this one sends payments and clicks on an open-loop schedule and receives the
decisions, so that neither slows the other's clock. First the days in which windows fill are sent as fast as they go,
then payments at their rate until the broker is warm, then those that are measured.

Notes
-----
Simulated time runs much faster than the clock (2,000 payments a second of a population that makes 20,000 a day: a day in
ten seconds), so a click that is 10 ms slower than its payment is more than a minute late. Topics have one partition, since partitions
that are read unevenly would be hours apart in event time.
"""

from __future__ import annotations

import multiprocessing
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import msgspec
import numpy as np

from gillnet.core.errors import GillnetError
from gillnet.core.time import DAY, SystemClock
from gillnet.lifecycle.report_payments import PERCENTILES, Decision, Observed, TxId, champion
from gillnet.runtimes.embedded import EmbeddedRuntime, Outputs, RuntimeOptions
from gillnet.scenarios.payments import pipeline
from gillnet.simulator import interleaved_sources

if TYPE_CHECKING:
    from multiprocessing.connection import Connection
    from multiprocessing.synchronize import Event

    from gillnet.core.messages import RawBatch
    from gillnet.core.ports import Sink, Source
    from gillnet.simulator import Simulation

TOPICS = ("payments", "clicks", "decisions")
_START_TIMEOUT_S = 60.0
_CATCH_UP_TIMEOUT_S = 300.0
_GRACE_S = 10.0


def run_through_kafka(
    simulation: Simulation, *, state_days: int, rate: float, seconds: float, warm_up_s: float
) -> Observed:
    """Start a broker and the pipeline's process, send, and return the decisions of the measured payments."""
    from gillnet.connectors.kafka import ensure_topics
    from gillnet.connectors.local_kafka import SUSTAINED_LOAD, LocalKafka

    with LocalKafka(heap_mb=1024, jvm_options=SUSTAINED_LOAD) as broker:
        ensure_topics(TOPICS, bootstrap_servers=broker.bootstrap_servers, partitions=1)
        with _PipelineProcess(broker.bootstrap_servers) as process, _Receiver(broker.bootstrap_servers) as receiver:
            sender = _Sender(simulation, broker.bootstrap_servers)
            filled = sender.send_until(simulation.config.start_us + state_days * DAY)
            receiver.wait_for(filled, timeout_s=_CATCH_UP_TIMEOUT_S)
            steps = sender.prepare(int(rate * (warm_up_s + seconds)))
            warm_up = int(rate * warm_up_s)
            filled += len(sender.send_at(rate, steps[:warm_up]).ids)
            process.measure()
            sent = sender.send_at(rate, steps[warm_up:])
            sender.close()
            receiver.wait_for(filled + len(sent.ids), timeout_s=_GRACE_S)
            used = process.stop()
    return _observe(sent, receiver, used)


@dataclass(slots=True)
class _Sent:
    """Measured payments: their ids, the instants at which they were due, and the clicks that went with them."""

    ids: list[str] = field(default_factory=list)
    due_s: list[float] = field(default_factory=list)


class _Step(NamedTuple):
    """A payment, and the clicks that go before it."""

    clicks: list[RawBatch]
    payment: RawBatch


class _Sender:
    """Writes payments and clicks in the simulated order of arrival, on a schedule."""

    def __init__(self, simulation: Simulation, bootstrap_servers: str) -> None:
        from gillnet.connectors.kafka import KafkaSink

        self._clock = SystemClock()
        self._sources = interleaved_sources(simulation, "payments", "clicks", simulated_arrival=True)
        self._sinks = {name: KafkaSink(topic=name, bootstrap_servers=bootstrap_servers) for name in self._sources}

    def send_until(self, arrival_us: int) -> int:
        """Send as fast as it goes until payments arrive from an instant on; return how many payments went."""
        payments = 0
        while not self._sources["payments"].finished:
            self._send_clicks()
            raw = self._sources["payments"].poll(1_000, 0.0)
            if raw is not None:
                _write(raw, self._sinks["payments"])
                payments += len(raw.values)
                if raw.arrival_time_us >= arrival_us:
                    break
        for sink in self._sinks.values():
            sink.flush()
        return payments

    def prepare(self, count: int) -> list[_Step]:
        """Simulate the next ``count`` payments ahead, so that the schedule waits for no simulation."""
        steps: list[_Step] = []
        while len(steps) < count and not self._sources["payments"].finished:
            clicks: list[RawBatch] = []
            while (raw := self._sources["clicks"].poll(1_000, 0.0)) is not None:
                clicks.append(raw)
            payment = self._sources["payments"].poll(1, 0.0)
            if payment is not None:
                steps.append(_Step(clicks, payment))
        return steps

    def send_at(self, rate: float, steps: list[_Step]) -> _Sent:
        """Send payments as an open loop, each with the clicks that arrived before it."""
        sent, decode = _Sent(), msgspec.json.Decoder(TxId).decode
        start_s = self._clock.monotonic_s()
        for place, step in enumerate(steps):
            due_s = start_s + place / rate
            while (early_s := due_s - self._clock.monotonic_s()) > 0:
                self._clock.sleep(early_s)
            for clicks in step.clicks:
                _write(clicks, self._sinks["clicks"])
            _write(step.payment, self._sinks["payments"])
            sent.due_s.append(due_s)
            sent.ids.append(decode(step.payment.values[0]).tx_id)
        return sent

    def close(self) -> None:
        """Wait until everything has been written."""
        for sink in self._sinks.values():
            sink.close()

    def _send_clicks(self) -> None:
        while (raw := self._sources["clicks"].poll(1_000, 0.0)) is not None:
            _write(raw, self._sinks["clicks"])


def _write(raw: RawBatch, sink: Sink) -> None:
    sink.write(raw.values, [raw.envelope(place)[0] for place in range(len(raw.values))])


class _Receiver:
    """Reads decisions in a thread and notes when each came."""

    def __init__(self, bootstrap_servers: str) -> None:
        from gillnet.connectors.kafka import KafkaSource

        self._clock = SystemClock()
        self._source: Source = KafkaSource(
            stream="decisions",
            topic="decisions",
            bootstrap_servers=bootstrap_servers,
            group="report",
            start="earliest",
        )
        self.decisions: dict[str, Decision] = {}
        self.received_s: dict[str, float] = {}
        self._stop = threading.Event()
        self._failure: GillnetError | None = None
        self._thread = threading.Thread(target=self._receive, name="receive-decisions")

    def __enter__(self) -> _Receiver:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self._source.close()

    def wait_for(self, count: int, *, timeout_s: float) -> None:
        """Return when ``count`` decisions have come, or none more has for ``timeout_s``."""
        seen, since_s = 0, self._clock.monotonic_s()
        while len(self.decisions) < count and self._clock.monotonic_s() - since_s < timeout_s:
            if self._failure is not None:
                raise self._failure
            if len(self.decisions) > seen:
                seen, since_s = len(self.decisions), self._clock.monotonic_s()
            self._clock.sleep(0.05)

    def _receive(self) -> None:
        decode = msgspec.json.Decoder(Decision).decode
        try:
            while not self._stop.is_set():
                raw = self._source.poll(10_000, 0.1)
                if raw is None:
                    continue
                now_s = self._clock.monotonic_s()
                for decision in map(decode, raw.values):
                    # At-least-once: the first copy is the one that a customer would have waited for.
                    self.received_s.setdefault(decision.tx_id, now_s)
                    self.decisions[decision.tx_id] = decision
        except GillnetError as error:
            self._failure = error


@dataclass(frozen=True, slots=True)
class _Used:
    """What the pipeline's process read and used since `_PipelineProcess.measure`."""

    records: int
    cpu_s: float
    took_s: float


class _PipelineProcess:
    """The scenario in a process of its own."""

    def __init__(self, bootstrap_servers: str) -> None:
        # A forked child would share librdkafka's threads, which do not live on in it.
        context = multiprocessing.get_context("spawn")
        self._stop, self._measure = context.Event(), context.Event()
        self._results, theirs = context.Pipe(duplex=False)
        self._process = context.Process(target=_serve, args=(bootstrap_servers, self._measure, self._stop, theirs))

    def __enter__(self) -> _PipelineProcess:
        self._process.start()
        if not self._results.poll(_START_TIMEOUT_S):
            self._process.kill()
            raise GillnetError(f"The pipeline's process did not start within {_START_TIMEOUT_S:g} s.")
        self._results.recv()
        return self

    def measure(self) -> None:
        """Count from here."""
        self._measure.set()

    def stop(self) -> _Used:
        """Let it finish, flush and commit; return what it used."""
        self._stop.set()
        if not self._results.poll(_START_TIMEOUT_S):
            raise GillnetError("The pipeline's process ended without a result; its log says why.")
        used: _Used = self._results.recv()
        self._process.join()
        return used

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._process.join(_GRACE_S)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()


def _serve(bootstrap_servers: str, measure: Event, stop: Event, results: Connection) -> None:
    """Run the scenario until told to stop (in the pipeline's process)."""
    import time

    from gillnet.connectors.kafka import KafkaSink, KafkaSource

    sources = {
        name: KafkaSource(stream=name, topic=name, bootstrap_servers=bootstrap_servers, group="scenario")
        for name in ("payments", "clicks")
    }
    sink = KafkaSink(topic="decisions", bootstrap_servers=bootstrap_servers)
    runtime = EmbeddedRuntime(
        pipeline.plan,
        sources=sources,
        outputs=Outputs(lambda name: sink if name == "decisions" else None),
        scorer=champion(),
        options=RuntimeOptions(detail="decision"),
    )
    finish = threading.Event()

    def read() -> tuple[int, float, float]:
        records = sum(counts.read for counts in runtime.metrics.streams.values())
        return records, time.process_time(), SystemClock().monotonic_s()

    began = [read()]

    def follow() -> None:
        measure.wait()
        began[0] = read()
        stop.wait()
        finish.set()

    threading.Thread(target=follow, name="follow", daemon=True).start()
    results.send("ready")
    runtime.run(finish)
    records, cpu_s, at_s = (now - then for now, then in zip(read(), began[0], strict=True))
    results.send(_Used(int(records), cpu_s, at_s))


def _observe(sent: _Sent, receiver: _Receiver, used: _Used) -> Observed:
    due_s = dict(zip(sent.ids, sent.due_s, strict=True))
    arrived = [tx_id for tx_id in due_s if tx_id in receiver.decisions]
    latency_ms = np.array([receiver.received_s[tx_id] - due_s[tx_id] for tx_id in arrived]) * 1_000
    return Observed(
        decisions=[receiver.decisions[tx_id] for tx_id in arrived],
        latency_ms={name: float(np.quantile(latency_ms, share)) for name, share in PERCENTILES.items()},
        records_per_s=used.records / used.took_s,
        cpu_us_per_record=used.cpu_s / max(1, used.records) * 1e6,
        missing=len(due_s) - len(arrived),
    )
