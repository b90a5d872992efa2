"""What a snapshot costs: the state of the payments scenario as bytes, and an engine from them, in seconds and bytes.

``python -m bench.snapshot [--events 1000000] [--rounds 3]``: simulated payments and their visitors' clicks, 1 % of them late,
in the order of arrival, 36 features, with and without revisions. Nothing is scored or written. The table shows medians;
writes ``bench/results/snapshot.json``.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from bench.payments.machine import describe
from gillnet.app import load_pipeline
from gillnet.core.messages import RawBatch
from gillnet.operators.decode import stream_decoder
from gillnet.operators.features import FeatureOperator
from gillnet.plan.nodes import PipelinePlan
from gillnet.simulator import Simulation, SimulationConfig, interleaved_sources

BATCH = 4_096
LATE_SHARE = 0.01
T = TypeVar("T")


class Arrivals:
    """Simulated payments and clicks that arrive at an operator, batch by batch; rows that late ones change are revised as they come."""

    def __init__(self, plan: PipelinePlan, config: SimulationConfig) -> None:
        self.operator = FeatureOperator(plan)
        self.read = 0
        self._decoders = {stream.name: stream_decoder(plan, stream.name) for stream in plan.streams}
        self._batches = self._simulated(config)

    def _simulated(self, config: SimulationConfig) -> Iterator[RawBatch]:
        sources = interleaved_sources(Simulation(config), "payments", "clicks", simulated_arrival=True)
        while not all(source.finished for source in sources.values()):
            yield from (raw for source in sources.values() if (raw := source.poll(BATCH, 0.0)) is not None)

    def batch(self) -> float:
        """Let the next batch arrive; return the seconds that the operator took."""
        raw = next(self._batches)
        decoded = self._decoders[raw.stream].decode(raw).batch
        began = time.perf_counter()
        self.operator.process(raw.stream, decoded, raw.arrival_time_us)
        while self.operator.revisions(BATCH) is not None:
            pass
        self.read += len(raw.values)
        return time.perf_counter() - began

    def until(self, events: int) -> FeatureOperator:
        """Let so many events arrive, or somewhat more."""
        while self.read < events:
            self.batch()
        return self.operator


def timed(work: Callable[[], T]) -> tuple[float, T]:
    began = time.perf_counter()
    result = work()
    return time.perf_counter() - began, result


def measure(plan: PipelinePlan, events: int, rounds: int) -> dict[str, float]:
    """Return the figures of one plan's state."""
    operator = Arrivals(plan, SimulationConfig(late_share=LATE_SHARE)).until(events)
    stats = operator.stats()
    written, read = [], []
    for _ in range(rounds):
        seconds, snapshot = timed(operator.snapshot)
        written.append(seconds)
        seconds, restored = timed(lambda snapshot=snapshot: FeatureOperator.restored(plan, snapshot))
        read.append(seconds)
        assert restored.stats()["events"] == stats["events"]
    return {
        "snapshot_mb": len(snapshot) / 1e6,
        "snapshot_s": statistics.median(written),
        "restore_s": statistics.median(read),
        "state_mb": (stats["bytes"] + stats["id_bytes"]) / 1e6,
        "keys": stats["keys"],
        "kept_events": stats["events"],
        "ids": stats["ids"],
        "revisable_rows": stats["revisable_rows"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("bench/results/snapshot.json"))
    arguments = parser.parse_args()
    machine = describe()
    plan = load_pipeline("payments").plan
    results = {
        f"revisions {'on' if on else 'off'}": measure(replace(plan, revisions=on), arguments.events, arguments.rounds)
        for on in (False, True)
    }
    print(f"{'':<15}{'MB':>8}{'write s':>9}{'read s':>8}{'state MB':>10}{'keys':>10}{'kept':>11}{'ids':>11}{'rows':>9}")
    for name, row in results.items():
        print(
            f"{name:<15}{row['snapshot_mb']:>8.1f}{row['snapshot_s']:>9.2f}{row['restore_s']:>8.2f}"
            f"{row['state_mb']:>10.1f}{row['keys']:>10,.0f}{row['kept_events']:>11,.0f}{row['ids']:>11,.0f}"
            f"{row['revisable_rows']:>9,.0f}"
        )
    options = {"events": arguments.events, "rounds": arguments.rounds, "late_share": LATE_SHARE}
    arguments.out.write_text(json.dumps({"machine": machine, "options": options, "results": results}, indent=2) + "\n")


if __name__ == "__main__":
    main()
