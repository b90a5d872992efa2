"""What revisions cost: the payments scenario in this process, with and without them, at several shares of late events.

``python -m bench.revisions [--payments 100000] [--rounds 5]``: simulated payments and their visitors' clicks in the order of
arrival (late records half an hour behind in the median, up to 24 h), 36 features and the shipped model, outputs counted and
dropped. Rounds are interleaved; the tables show medians. Writes ``bench/results/revisions.json``.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from bench.payments.machine import describe
from gillnet.app import load_pipeline
from gillnet.app.runs import choose_model_scorer
from gillnet.core.messages import OutputRecord, RawBatch
from gillnet.plan.nodes import PipelinePlan
from gillnet.runtimes.embedded import EmbeddedRuntime, Outputs, RuntimeOptions
from gillnet.simulator import Simulation, SimulationConfig, interleaved_sources

BATCH = 4_096
SHARES = (0.0, 0.01, 0.05)


class CountingSink:
    """Counts bytes and drops them."""

    def __init__(self) -> None:
        self.bytes = 0
        self.records = 0

    def write(self, values: Sequence[bytes], keys: Sequence[bytes | None] | None = None) -> None:  # noqa: ARG002
        self.records += len(values)
        self.bytes += sum(map(len, values))

    def write_records(self, records: Sequence[OutputRecord]) -> None:
        self.write([record.value for record in records])

    def flush(self) -> None:
        """Nothing is held."""

    def close(self) -> None:
        """Nothing is held."""


@dataclass
class Recording:
    """Batches of all streams, in the order in which they arrived."""

    batches: list[RawBatch]
    place: int = 0


class RecordedSource:
    """Gives a recording's batches of one stream, in step with the other streams."""

    def __init__(self, stream: str, recording: Recording) -> None:
        self.stream = stream
        self._recording = recording

    def poll(self, max_records: int, timeout_s: float) -> RawBatch | None:  # noqa: ARG002
        if self.finished or self._recording.batches[self._recording.place].stream != self.stream:
            return None
        self._recording.place += 1
        return self._recording.batches[self._recording.place - 1]

    @property
    def finished(self) -> bool:
        return self._recording.place >= len(self._recording.batches)

    @property
    def lag(self) -> int | None:
        return None

    def commit(self) -> None:
        """A recording is played once."""

    def close(self) -> None:
        """Nothing is open."""


def record(payments: int, late_share: float) -> list[RawBatch]:
    """Simulate both streams and keep them in the order of arrival."""
    config = SimulationConfig(late_share=late_share)
    sources = interleaved_sources(Simulation(config), "payments", "clicks", simulated_arrival=True)
    batches: list[RawBatch] = []
    taken = 0
    while taken < payments:
        for stream, source in sources.items():
            batch = source.poll(BATCH, 0.0)
            if batch is not None:
                batches.append(batch)
                taken += len(batch.values) if stream == "payments" else 0
    return batches


def run(plan: PipelinePlan, batches: list[RawBatch]) -> dict[str, float]:
    """Run once; events of both streams a second, and what came of it."""
    recording = Recording(batches)
    sinks: dict[str, CountingSink] = {}
    runtime = EmbeddedRuntime(
        plan,
        sources={stream.name: RecordedSource(stream.name, recording) for stream in plan.streams},
        outputs=Outputs(lambda name: sinks.setdefault(name, CountingSink())),
        scorer=choose_model_scorer(plan, None),
        options=RuntimeOptions(),
    )
    began, cpu = time.perf_counter(), time.process_time()
    metrics = runtime.run()
    spent, cpu = time.perf_counter() - began, time.process_time() - cpu
    events = sum(counts.read for counts in metrics.streams.values())
    stats = runtime.features.stats()
    return {
        "events_per_s": events / spent,
        "cpu_us_per_event": cpu / events * 1e6,
        "events": events,
        "payments": metrics.stream(plan.root).read,
        "late": sum(counts.late for counts in metrics.streams.values()),
        "revisions": metrics.revisions,
        "flipped": metrics.revisions_flipped,
        "unrevised": stats["unrevised"],
        "state_mb": stats["bytes"] / 1e6,
        "rows_mb": stats["revisable_bytes"] / 1e6,
        "rows": stats["revisable_rows"],
        "revision_mb": sinks["decisions.revisions"].bytes / 1e6 if "decisions.revisions" in sinks else 0.0,
    }


def measure(payments: int, rounds: int) -> dict[str, dict[str, float]]:
    """Return the median of each figure, by case."""
    plan = load_pipeline("payments").plan
    recordings = {share: record(payments, share) for share in SHARES}
    cases = {
        f"{share:.0%} late, revisions {'on' if on else 'off'}": (replace(plan, revisions=on), share)
        for share in SHARES
        for on in (False, True)
    }
    rows: dict[str, list[dict[str, float]]] = {name: [] for name in cases}
    for number in range(rounds):
        names = list(cases)
        for name in names[number % len(names) :] + names[: number % len(names)]:
            chosen, share = cases[name]
            rows[name].append(run(chosen, recordings[share]))
    return {
        name: {figure: statistics.median(row[figure] for row in found) for figure in found[0]}
        for name, found in rows.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--payments", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path("bench/results/revisions.json"))
    arguments = parser.parse_args()
    machine = describe()
    results = measure(arguments.payments, arguments.rounds)
    print(f"{'':<27}{'events/s':>10}{'CPU us':>8}{'late':>8}{'revised':>9}{'flipped':>8}{'state MB':>9}{'rows MB':>8}")
    for name, row in results.items():
        print(
            f"{name:<27}{row['events_per_s']:>10,.0f}{row['cpu_us_per_event']:>8.2f}{row['late']:>8,.0f}"
            f"{row['revisions']:>9,.0f}{row['flipped']:>8,.0f}{row['state_mb']:>9.1f}{row['rows_mb']:>8.1f}"
        )
    for share in SHARES:
        off, on = (results[f"{share:.0%} late, revisions {word}"] for word in ("off", "on"))
        throughput = 1 - on["events_per_s"] / off["events_per_s"]
        cpu = on["cpu_us_per_event"] / off["cpu_us_per_event"] - 1
        print(f"{share:.0%} late: revisions cost {throughput:.1%} of the throughput, {cpu:+.1%} CPU")
    arguments.out.write_text(
        json.dumps({"machine": machine, "options": vars(arguments) | {"out": None}, "results": results}, indent=2)
        + "\n"
    )


if __name__ == "__main__":
    main()
