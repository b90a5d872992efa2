"""Report on scenario 2, on days and people that the model has not seen: ``python -m gillnet.lifecycle.report_payments``.

The scenario runs live, in the embedded runtime: over memory, or with ``--kafka`` through a real broker, where latency is
from the instant at which a payment is due to the arrival of its decision at a consumer.
"""

from __future__ import annotations

import argparse
import time
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import numpy as np
import pyarrow as pa
import structlog

from gillnet.core.time import DAY, SystemClock
from gillnet.lifecycle.evaluate import at_alert_rate, average_precision, recall_by_kind
from gillnet.lifecycle.labels import Labels, read_labels
from gillnet.lifecycle.records import save_runs
from gillnet.runtimes.embedded import EmbeddedRuntime, Outputs, RuntimeOptions
from gillnet.scenarios.payments import pipeline
from gillnet.serving import ModelRegistry, choose_scorer
from gillnet.simulator import LABEL_SCHEMA, Simulation, SimulationConfig, interleaved_sources
from gillnet.simulator.schemas import SCENARIOS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.table import Table

    from gillnet.core.messages import OutputRecord
    from gillnet.serving.scorers import Scorer

ALERT_RATE = 0.005
WARM_UP_S = 30.0
"""Seconds at the measured rate before the measured ones, through Kafka: a broker that has just been started is slow at first."""
STATE_DAYS = 6
"""Days before the measured ones, in which windows fill; a run that starts from nothing takes every device for new."""


class Decision(msgspec.Struct):
    """What a report reads of a decision record."""

    tx_id: str
    score: float
    decision: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PaymentsReport:
    """The figures of one run; shares are from 0 to 1.

    Attributes
    ----------
    through
        ``memory`` or ``kafka``.
    payments, fraud
        Decided payments of the measured days, and how many are fraud.
    average_precision, recall, precision, recall_by_scenario
        Of the score; the last three where at most ``alert_rate`` of the payments are alerts.
    decisions
        Payments by action, of the policy as shipped.
    flagged_precision, flagged_recall
        Of everything that the policy did not simply allow.
    latency_ms
        ``p50``, ``p95`` and ``p99``. ``memory``: arrival to decision at full load. ``kafka``: due to consumed.
    records_per_s, cpu_us_per_record
        Payments and clicks. ``memory``: of the whole run, simulation included. ``kafka``: of the pipeline's process.
    """

    through: str
    seed: int
    payments: int
    fraud: int
    average_precision: float
    alert_rate: float
    recall: float
    precision: float
    recall_by_scenario: dict[str, float]
    decisions: dict[str, int]
    flagged_precision: float
    flagged_recall: float
    latency_ms: dict[str, float]
    records_per_s: float
    cpu_us_per_record: float
    missing: int = 0

    def table(self) -> Table:
        """Return the report for a terminal."""
        from rich.table import Table

        table = Table("figure", "value", title=f"Payments through {self.through}, seed {self.seed}")
        for name, value in self._lines():
            table.add_row(name, value)
        return table

    def _lines(self) -> list[tuple[str, str]]:
        share = self.fraud / max(1, self.payments)
        return [
            ("payments", f"{self.payments:,} ({self.fraud:,} fraud, {share:.2%})"),
            ("average precision", f"{self.average_precision:.3f}"),
            (f"recall at {self.alert_rate:.1%} alerts", f"{self.recall:.3f}"),
            (f"precision at {self.alert_rate:.1%} alerts", f"{self.precision:.3f}"),
            *((f"  recall, {kind}", f"{value:.3f}") for kind, value in self.recall_by_scenario.items()),
            *((f"decided: {action}", f"{count:,}") for action, count in self.decisions.items()),
            ("flagged: precision, recall", f"{self.flagged_precision:.3f}, {self.flagged_recall:.3f}"),
            ("latency p50, p95, p99", ", ".join(f"{value:.2f} ms" for value in self.latency_ms.values())),
            ("records/s (payments and clicks)", f"{self.records_per_s:,.0f}"),
            ("CPU per record", f"{self.cpu_us_per_record:.1f} µs"),
        ]


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """What came out of a run: the decisions of the measured days, and what they took."""

    decisions: list[Decision]
    latency_ms: dict[str, float]
    records_per_s: float
    cpu_us_per_record: float
    missing: int = 0


def unseen(seed: int, days: float, *, start_us: int = 1_775_433_600_000_000) -> SimulationConfig:
    """Return another population than the model was trained on, three months later."""
    return SimulationConfig(
        seed=seed,
        start_us=start_us,
        duration=f"{round(days * 86_400)}s",
        cards=8_000,
        merchants=800,
        payments_per_day=20_000,
        sessions_per_day=4_000,
        bots_per_day=40,
    )


def report(
    *, seed: int = 99, days: int = 4, kafka: bool = False, rate: float = 500, seconds: float = 60
) -> PaymentsReport:
    """Run the scenario and judge its decisions by the simulator's labels, all of them as known in the end.

    Parameters
    ----------
    seed
        Of the simulation.
    days
        Measured days, after `STATE_DAYS`; over memory.
    kafka
        Go through a real broker, which is started on loopback.
    rate, seconds
        Measured payments: so many a second (and the clicks of the same simulated time), for so long; through Kafka.
    """
    if kafka:
        from gillnet.lifecycle.payments_kafka import run_through_kafka

        simulation = Simulation(unseen(seed, STATE_DAYS + 1.2 * rate * (WARM_UP_S + seconds) / 20_000))
        observed = run_through_kafka(simulation, state_days=STATE_DAYS, rate=rate, seconds=seconds, warm_up_s=WARM_UP_S)
    else:
        simulation = Simulation(unseen(seed, STATE_DAYS + days))
        observed = run_in_memory(simulation, state_days=STATE_DAYS)
    labels = read_labels((chunk.values for chunk in simulation.labels()), LABEL_SCHEMA)
    return judge(observed, labels, through="kafka" if kafka else "memory", seed=seed)


def champion() -> Scorer:
    """Return the scorer of the scenario's model."""
    assert pipeline.plan.model is not None, "the scenario has a model"
    return choose_scorer(ModelRegistry().load(pipeline.plan.model.ref))


def run_in_memory(simulation: Simulation, *, state_days: int) -> Observed:
    """Run a simulation through the embedded runtime as fast as it goes."""
    sink = DecisionSink()
    sources = interleaved_sources(simulation, "payments", "clicks", simulated_arrival=False)
    runtime = EmbeddedRuntime(
        pipeline.plan,
        sources=sources,
        outputs=Outputs(lambda name: sink if name == "decisions" else None),
        scorer=champion(),
        options=RuntimeOptions(detail="decision"),
    )
    began_s, began_cpu_s = SystemClock().monotonic_s(), time.process_time()
    metrics = runtime.run()
    took_s, cpu_s = SystemClock().monotonic_s() - began_s, time.process_time() - began_cpu_s
    records = sum(counts.read for counts in metrics.streams.values())
    measured = ids_from(simulation, state_days)
    return Observed(
        decisions=[decision for decision in sink.decisions if decision.tx_id in measured],
        latency_ms={name: metrics.latency_ms.percentile(share) or 0.0 for name, share in PERCENTILES.items()},
        records_per_s=records / took_s,
        cpu_us_per_record=cpu_s / records * 1e6,
    )


PERCENTILES = {"p50": 0.5, "p95": 0.95, "p99": 0.99}


class DecisionSink:
    """A sink that keeps what a report needs of each decision."""

    def __init__(self) -> None:
        self.decisions: list[Decision] = []
        self._decode = msgspec.json.Decoder(Decision).decode

    def write(self, values: Sequence[bytes], keys: Sequence[bytes | None] | None = None) -> None:  # noqa: ARG002
        """Keep decisions."""
        self.decisions += map(self._decode, values)

    def write_records(self, records: Sequence[OutputRecord]) -> None:
        """Keep decisions."""
        self.write([record.value for record in records])

    def flush(self) -> None:
        """Do nothing: memory is as durable as it gets."""

    def close(self) -> None:
        """Do nothing."""


def judge(observed: Observed, labels: Labels, *, through: str, seed: int) -> PaymentsReport:
    """Hold decisions against labels."""
    decisions = observed.decisions
    places = labels.places(pa.array([decision.tx_id for decision in decisions], pa.string()))
    fraud, kinds = labels.positive[places], labels.kinds[places]
    score = np.array([decision.score for decision in decisions])
    flagged = np.array([decision.decision != "allow" for decision in decisions])
    at = at_alert_rate(fraud, score, ALERT_RATE)
    by_kind = recall_by_kind(kinds, score >= at.threshold, of=SCENARIOS[1:])
    return PaymentsReport(
        through=through,
        seed=seed,
        payments=len(decisions),
        fraud=int(fraud.sum()),
        average_precision=round(average_precision(fraud, score), 4),
        alert_rate=ALERT_RATE,
        recall=round(at.recall, 4),
        precision=round(at.precision, 4),
        recall_by_scenario={kind: round(value, 4) for kind, value in by_kind.items()},
        decisions=dict(sorted(Counter(decision.decision for decision in decisions).items())),
        flagged_precision=round(float(fraud[flagged].mean()) if flagged.any() else 0.0, 4),
        flagged_recall=round(float(flagged[fraud].mean()) if fraud.any() else 0.0, 4),
        latency_ms={name: round(value, 3) for name, value in observed.latency_ms.items()},
        records_per_s=round(observed.records_per_s, 1),
        cpu_us_per_record=round(observed.cpu_us_per_record, 2),
        missing=observed.missing,
    )


def ids_from(simulation: Simulation, day: int) -> set[str]:
    """Return the ids of payments from a day on: the ledger's own, before the road."""
    start_us = simulation.config.start_us + day * DAY
    decode = msgspec.json.Decoder(TxId).decode
    ids: set[str] = set()
    for chunk in simulation.payments():
        rows = np.flatnonzero(chunk.event_time_us >= start_us).tolist()
        ids.update(decode(chunk.values[row]).tx_id for row in rows)
    return ids


class TxId(msgspec.Struct):
    """The one field of a payment that a report needs."""

    tx_id: str


def main(arguments: Sequence[str] | None = None) -> None:
    """Run, print the table, and write the figures with the machine's description."""
    from rich.console import Console

    parser = argparse.ArgumentParser(prog="python -m gillnet.lifecycle.report_payments", description=__doc__)
    parser.add_argument("--seed", type=int, default=99)
    parser.add_argument("--days", type=int, default=4, help="measured days, over memory")
    parser.add_argument("--kafka", action="store_true", help="through a real broker as well")
    parser.add_argument("--rate", type=float, default=500, help="payments a second, through Kafka")
    parser.add_argument("--seconds", type=float, default=60, help="measured seconds, through Kafka")
    parser.add_argument("--out", type=Path, default=Path("bench/results/scenario_payments.json"))
    options = parser.parse_args(arguments)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger("info"))
    reports = []
    for kafka in (False, True) if options.kafka else (False,):
        found = report(seed=options.seed, days=options.days, kafka=kafka, rate=options.rate, seconds=options.seconds)
        Console().print(found.table())
        reports.append(asdict(found))
    save_runs(options.out, reports)


if __name__ == "__main__":
    main()
