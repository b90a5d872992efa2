"""End-to-end latency at fixed rates: from the instant a payment is due to the arrival of its score at a consumer.

Run alone with ``python -m bench.payments.latency``, or as a part of `bench.payments.run`. The contender called
``no contender`` is the floor: a consumer of the input topic itself, so one hop through the broker instead of two.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from bench.payments import topics
from bench.payments.broker import benchmark_broker, cpu_s, exit_on_sigterm
from bench.payments.contenders.registry import contenders_named, names
from bench.payments.contract import Job
from bench.payments.inputs import ensure_model
from bench.payments.load import Ends, Received, Schedule, Sent
from bench.payments.process import Contender, Running
from bench.payments.report import latency_table, show
from bench.payments.workload import Workload

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from gillnet.connectors.local_kafka import LocalKafka

RATES_PER_S = (1_000, 5_000)
# The default of librdkafka and, since 4.0, of Kafka's Java client. It counts in the latency.
SENDER_LINGER_MS = 5.0
# Time for a consumer group to form after a contender has said that it is about to ask for records.
_SETTLE_S = 2.0
# What is on its way when the last payment is sent has this long to arrive; more missing means that it cannot keep up.
_GRACE_S = 5.0
_START_TIMEOUT_S = 60.0
_BROKER_WARM_UPS = 4
FLOOR = Contender(name="no contender", command=())


@dataclass(frozen=True, slots=True, kw_only=True)
class Latency:
    """Latencies of one contender at one rate, in milliseconds, warm-up cut.

    If ``missing`` is not 0 the contender fell behind, and the percentiles, taken over what did arrive, are too good.
    """

    contender: str
    rate_per_s: int
    seconds: float
    p50_ms: float
    p95_ms: float
    p99_ms: float
    p999_ms: float
    max_ms: float
    missing: int
    cpu_us_per_event: float | None
    sender_lateness_p99_ms: float
    harness_cpu_share: float
    broker_cpu_share: float


@dataclass(frozen=True, slots=True, kw_only=True)
class LatencyPlan:
    """How long to measure at one rate; the first ``warmup_s`` seconds are sent as well and not counted."""

    rate_per_s: int
    seconds: float
    warmup_s: float
    workload: Workload
    linger_ms: float = SENDER_LINGER_MS

    @property
    def events(self) -> int:
        """All payments to send."""
        return int(self.rate_per_s * (self.seconds + self.warmup_s))


def measure_all(
    broker: LocalKafka,
    contenders: Sequence[Contender],
    model: Path,
    workload: Workload,
    options: argparse.Namespace,
) -> list[list[Latency]]:
    """Measure every contender, and the floor, at every rate: a list of rounds for each.

    Rounds are interleaved. Before them comes a warm-up at the highest rate that is not counted: the broker's JVM takes about
    half a minute to compile what it needs, and who came first would pay for it with seconds of latency.
    """
    entries = [(rate, contender) for rate in options.rates for contender in (FLOOR, *contenders)]
    rounds: list[list[Latency]] = [[] for _ in entries]
    seconds = {
        "seconds": options.seconds,
        "warmup_s": options.warmup,
        "workload": workload,
        "linger_ms": options.sender_linger_ms,
    }
    for _ in range(_BROKER_WARM_UPS):
        measure(broker, contenders[0], model, LatencyPlan(rate_per_s=max(options.rates), **seconds))
    for _ in range(options.latency_rounds):
        for (rate, contender), found in zip(entries, rounds, strict=True):
            found.append(measure(broker, contender, model, LatencyPlan(rate_per_s=rate, **seconds)))
            show(f"{contender.name} at {rate}/s: p50 {found[-1].p50_ms:.2f} ms, p99 {found[-1].p99_ms:.2f} ms")
    return rounds


def typical(rounds: Sequence[Latency]) -> Latency:
    """Return the round whose p99 is the median; of an even number the worse one of the middle."""
    return sorted(rounds, key=lambda latency: latency.p99_ms)[len(rounds) // 2]


def measure(broker: LocalKafka, contender: Contender, model: Path, plan: LatencyPlan) -> Latency:
    """Measure one contender at one rate, on topics of its own."""
    workload = replace(plan.workload, events=plan.events)
    name = f"{contender.name.replace(' ', '-')}-{plan.rate_per_s}-{time.monotonic_ns()}"
    source, target = f"latency-in-{name}", f"latency-out-{name}"
    topics.create_topic(broker.bootstrap_servers, source)
    topics.create_topic(broker.bootstrap_servers, target)
    job = Job(
        bootstrap=broker.bootstrap_servers,
        input=source,
        output=target,
        group=f"group-{name}",
        model=model,
        mode="latency",
        events=plan.events,
    )
    schedule = Schedule(
        bootstrap=broker.bootstrap_servers,
        input=source,
        output=target if contender.command else source,
        workload=workload,
        rate_per_s=plan.rate_per_s,
        linger_ms=plan.linger_ms,
    )
    latency = _drive(broker, contender, job, schedule, plan)
    topics.delete_topic(broker.bootstrap_servers, source)
    topics.delete_topic(broker.bootstrap_servers, target)
    return latency


def _drive(broker: LocalKafka, contender: Contender, job: Job, schedule: Schedule, plan: LatencyPlan) -> Latency:
    running = Running(contender, job) if contender.command else None
    try:
        with Ends(schedule) as ends:
            if running is not None:
                running.wait_ready(_START_TIMEOUT_S)
            time.sleep(_SETTLE_S)
            broker_cpu_s, began_s = cpu_s(broker), time.monotonic()
            sent = ends.send(timeout_s=plan.seconds + plan.warmup_s + 60)
            took_s = time.monotonic() - began_s
            broker_cpu_s = cpu_s(broker) - broker_cpu_s
            received = ends.receive(_GRACE_S)
        measured = running.wait_done(_GRACE_S) if running is not None else None
    finally:
        if running is not None:
            running.stop()
    return _summarise(
        contender,
        plan,
        sent,
        received,
        cpu_us_per_event=None if measured is None else measured.cpu_us_per_event,
        broker_cpu_share=broker_cpu_s / took_s,
    )


def _summarise(
    contender: Contender,
    plan: LatencyPlan,
    sent: Sent,
    received: Received,
    *,
    cpu_us_per_event: float | None,
    broker_cpu_share: float,
) -> Latency:
    due_s = sent.start_s + np.arange(plan.events) / plan.rate_per_s
    counted = slice(int(plan.warmup_s * plan.rate_per_s), None)
    latency_ms = (received.at_s - due_s)[counted] * 1_000
    arrived = latency_ms[~np.isnan(latency_ms)]
    if not len(arrived):
        raise RuntimeError(f"No score of {contender.name} arrived at {plan.rate_per_s} events/s.")
    p50, p95, p99, p999 = np.percentile(arrived, [50, 95, 99, 99.9]).tolist()
    return Latency(
        contender=contender.name,
        rate_per_s=plan.rate_per_s,
        seconds=plan.seconds,
        p50_ms=p50,
        p95_ms=p95,
        p99_ms=p99,
        p999_ms=p999,
        max_ms=float(arrived.max()),
        missing=len(latency_ms) - len(arrived),
        cpu_us_per_event=cpu_us_per_event,
        sender_lateness_p99_ms=float(np.percentile(sent.lateness_s[counted], 99) * 1_000),
        harness_cpu_share=(sent.cpu_s + received.cpu_s) / (plan.seconds + plan.warmup_s),
        broker_cpu_share=broker_cpu_share,
    )


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options that this program shares with `bench.payments.run`."""
    parser.add_argument("--seconds", type=float, default=20.0, help="measured seconds of each latency run")
    parser.add_argument("--warmup", type=float, default=5.0, help="seconds before them that are not counted")
    parser.add_argument("--latency-rounds", type=int, default=3, help="of each; the one with the median p99 is shown")
    parser.add_argument(
        "--sender-linger-ms", type=float, default=SENDER_LINGER_MS, help="how long the sender lets payments gather"
    )
    parser.add_argument("--rates", type=int, nargs="+", default=list(RATES_PER_S), help="events/s of the latency runs")


def main() -> None:
    """Measure the named contenders at the named rates and print the table."""
    exit_on_sigterm()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--contenders", nargs="+", default=names(), help=f"of: {', '.join(names())}, or NAME=COMMAND")
    parser.add_argument("--event-rate", type=float, default=Workload().event_rate_per_s, help="events/s of event time")
    add_arguments(parser)
    options = parser.parse_args()
    model = ensure_model()
    workload = Workload(event_rate_per_s=options.event_rate)
    with benchmark_broker() as broker:
        results = measure_all(broker, contenders_named(options.contenders), model, workload, options)
    show(latency_table([typical(rounds) for rounds in results]))


if __name__ == "__main__":
    main()
