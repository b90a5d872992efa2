"""The payments benchmark: all contenders, one after the other and interleaved over rounds, on one real broker.

``python -m bench.payments.run`` takes a quarter of an hour; with ``--events 100000 --rounds 1 --seconds 5`` it gives a
first look in two minutes.
Every output is held against the oracle, row by row, outside the measured time.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import statistics
import time
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from bench.payments import topics
from bench.payments.broker import benchmark_broker, exit_on_sigterm
from bench.payments.check import Comparison, compare
from bench.payments.contenders.registry import GILLNET, HANDWRITTEN, contenders_named, names
from bench.payments.contract import Job
from bench.payments.inputs import ensure_model, expected_scores
from bench.payments.latency import Latency, add_arguments, measure_all, typical
from bench.payments.machine import describe
from bench.payments.process import Contender, Measurement, run
from bench.payments.report import latency_table, show, throughput_table
from bench.payments.workload import Workload
from bench.targets import Target, tell

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bench.payments.oracle import FloatArray
    from gillnet.connectors.local_kafka import LocalKafka

_TIMEOUT_S = 1_800.0
_TARGET_RATE = 5_000
"""Events/s at which the latency has a target."""


@dataclass(slots=True, kw_only=True)
class Result:
    """One contender's rounds, and the medians over them."""

    contender: str
    events: int
    rounds: list[Measurement] = field(default_factory=list)
    comparisons: list[Comparison] = field(default_factory=list)

    @property
    def events_per_s(self) -> float:
        """Median throughput."""
        return statistics.median(measured.events_per_s for measured in self.rounds)

    @property
    def cpu_us_per_event(self) -> float:
        """Median CPU microseconds of the client process a payment."""
        return statistics.median(measured.cpu_us_per_event for measured in self.rounds)

    @property
    def rss_peak_bytes(self) -> float:
        """Median peak of resident memory."""
        return statistics.median(measured.rss_peak_bytes for measured in self.rounds)

    @property
    def wrong_rows(self) -> int:
        """Rows that are missing, twice there, off by more than the tolerance or wrongly decided, over all rounds."""
        return sum(c.missing + c.duplicates + c.differing + c.wrong_decisions for c in self.comparisons)

    @property
    def max_difference(self) -> float:
        """Largest absolute difference from the oracle's score, over all rounds."""
        return max(comparison.max_difference for comparison in self.comparisons)

    def to_json(self) -> dict[str, object]:
        """Return medians and every round."""
        return {
            "contender": self.contender,
            "events": self.events,
            "events_per_s": self.events_per_s,
            "cpu_us_per_event": self.cpu_us_per_event,
            "rss_peak_bytes": self.rss_peak_bytes,
            "wrong_rows": self.wrong_rows,
            "max_difference": self.max_difference,
            "rounds": [asdict(measured) for measured in self.rounds],
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """What the runs share: broker, model, the workload, its topics by length, and the right scores."""

    broker: LocalKafka
    model: Path
    workload: Workload
    slow_events: int
    expected: FloatArray

    def events_of(self, contender: Contender) -> int:
        """Return how many payments this contender runs on."""
        return min(self.slow_events, self.workload.events) if contender.slow else self.workload.events

    def fill_topics(self, contenders: Sequence[Contender]) -> float:
        """Produce the input once per length; return the mean payload in bytes."""
        mean_bytes = 0.0
        for events in sorted({self.events_of(contender) for contender in contenders}):
            topic = _input_topic(events)
            topics.create_topic(self.broker.bootstrap_servers, topic)
            mean_bytes = (
                topics.fill(self.broker.bootstrap_servers, topic, replace(self.workload, events=events)) / events
            )
            # Reading it all once warms the broker's code, and the page cache, for whoever comes first.
            stored = sum(len(batch) for batch in topics.read(self.broker.bootstrap_servers, topic, events))
            if stored != events:
                raise RuntimeError(f"Topic {topic} holds {stored} records instead of {events}.")
        return mean_bytes


def _input_topic(events: int) -> str:
    return f"payments-{events}"


def run_round(stage: Stage, contender: Contender, result: Result) -> None:
    """Run a contender once on a new output topic, and hold its output against the oracle."""
    bootstrap, events = stage.broker.bootstrap_servers, result.events
    target = f"scores-{contender.name}-{time.monotonic_ns()}"
    topics.create_topic(bootstrap, target)
    job = Job(
        bootstrap=bootstrap,
        input=_input_topic(events),
        output=target,
        group=f"group-{target}",
        model=stage.model,
        mode="throughput",
        events=events,
    )
    measured = run(contender, job, _TIMEOUT_S)
    outputs = (message.value() for batch in topics.read(bootstrap, target, events) for message in batch)
    comparison = compare(outputs, stage.expected[:events])
    topics.delete_topic(bootstrap, target)
    result.rounds.append(measured)
    result.comparisons.append(comparison)
    show(
        f"{contender.name}: {measured.events_per_s:,.0f} events/s, {measured.cpu_us_per_event:.2f} µs/event, "
        f"{comparison.rows:,} rows, {comparison.differing} differ, max |Δ| {comparison.max_difference:.1e}"
    )


def run_throughput(stage: Stage, contenders: Sequence[Contender], rounds: int) -> list[Result]:
    """Run all contenders round by round; each round starts with another one, so that no place is always the same."""
    results = [Result(contender=contender.name, events=stage.events_of(contender)) for contender in contenders]
    entries = list(zip(contenders, results, strict=True))
    for number in range(rounds):
        shift = number % len(entries)
        for contender, result in entries[shift:] + entries[:shift]:
            run_round(stage, contender, result)
    return results


def parse_options() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    default = Workload()
    parser.add_argument("--contenders", nargs="+", default=names(), help=f"of: {', '.join(names())}, or NAME=COMMAND")
    parser.add_argument("--events", type=int, default=default.events)
    parser.add_argument("--slow-events", type=int, default=100_000, help="for contenders that are marked slow")
    parser.add_argument("--event-rate", type=float, default=default.event_rate_per_s, help="events/s of event time")
    parser.add_argument("--rounds", type=int, default=3, help="0 leaves throughput out")
    parser.add_argument("--no-latency", action="store_true")
    parser.add_argument("--out", type=Path, default=Path("bench/results/payments.json"))
    add_arguments(parser)
    return parser.parse_args()


def main() -> None:
    """Run everything, print the tables, write the JSON."""
    exit_on_sigterm()
    options = parse_options()
    contenders = contenders_named(options.contenders)
    workload = Workload(events=options.events, event_rate_per_s=options.event_rate)
    machine = describe()
    model = ensure_model()
    expected = expected_scores(workload, model)
    with benchmark_broker() as broker:
        stage = Stage(broker=broker, model=model, workload=workload, slow_events=options.slow_events, expected=expected)
        mean_bytes = stage.fill_topics(contenders) if options.rounds else None
        results = run_throughput(stage, contenders, options.rounds) if options.rounds else []
        latencies = [] if options.no_latency else measure_all(broker, contenders, model, workload, options)
    baseline = next((result for result in results if result.contender == HANDWRITTEN.name), None)
    if results:
        show(throughput_table(results, baseline))
    if latencies:
        show(latency_table([typical(rounds) for rounds in latencies]))
    record = {
        "machine": machine,
        "workload": {**asdict(workload), "mean_payload_bytes": mean_bytes, "partitions": topics.PARTITIONS},
        "model_sha256": hashlib.sha256(model.read_bytes()).hexdigest(),
        "throughput": [result.to_json() for result in results],
        "latency": [
            {**asdict(typical(rounds)), "rounds": [asdict(latency) for latency in rounds]} for rounds in latencies
        ],
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    if any(result.wrong_rows for result in results):
        raise SystemExit("Some scores differ from the oracle's: see the table.")
    tell(targets(results, baseline, [typical(rounds) for rounds in latencies]))


def targets(results: Sequence[Result], baseline: Result | None, latencies: Sequence[Latency]) -> list[Target]:
    """Return what Gillnet must reach, of what was measured."""
    found: list[Target] = []
    for result in results:
        if result.contender == GILLNET.name:
            if baseline is not None:
                ratio = result.events_per_s / baseline.events_per_s
                found.append(Target(name="throughput beside the hand-written loop's", value=ratio, at_least=2.5))
            found.append(Target(name="CPU, µs an event", value=result.cpu_us_per_event, at_most=9))
    found.extend(
        Target(name=f"p99 at {_TARGET_RATE:,}/s, ms", value=latency.p99_ms, at_most=10)
        for latency in latencies
        if latency.contender == GILLNET.name and latency.rate_per_s == _TARGET_RATE
    )
    return found


if __name__ == "__main__":
    main()
