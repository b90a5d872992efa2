"""What looking into state costs: a sample of a live run's figures, and a walk over the keys of a restored copy.

``python -m bench.inspection [--events 500000] [--rounds 20]``: the state of the payments scenario (36 features, revisions on). A sample
is taken as `gillnet run --checkpoints` takes it every 10 s: the part on the loop's thread, and the part beside it. Writes
``bench/results/inspection.json``.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from bench.payments.machine import describe
from bench.snapshot import Arrivals, timed
from gillnet.app import load_pipeline
from gillnet.app.recording import RunRecorder
from gillnet.observability.history import NAME
from gillnet.observability.metrics import RunMetrics
from gillnet.operators.features import FeatureOperator
from gillnet.operators.inspection import StateInspector
from gillnet.plan.nodes import PipelinePlan
from gillnet.runtimes.embedded import RuntimeOptions
from gillnet.simulator import SimulationConfig


def samples(plan: PipelinePlan, operator: FeatureOperator, rounds: int) -> dict[str, float]:
    """Return what a sample costs on the loop's thread and beside it, and how long its line is."""
    metrics = RunMetrics()
    for stream in plan.streams:
        metrics.stream(stream.name)
        metrics.progress[stream.name] = operator.progress(stream.name, 0)
    metrics.latency_ms.add(3.0, 1_000)
    runtime: Any = SimpleNamespace(features=operator, lag=0, metrics=metrics)
    with tempfile.TemporaryDirectory() as place:
        recorder = RunRecorder(Path(place), plan, RuntimeOptions())
        recorder.watch(runtime)
        on_loop, beside = [], []
        for number in range(rounds):
            seconds, figures = timed(lambda: recorder._of_loop(runtime))
            on_loop.append(seconds)
            seconds, _ = timed(lambda number=number, figures=figures: recorder._write(number, figures))
            beside.append(seconds)
        recorder.close()
        size = (Path(place) / NAME).stat().st_size / rounds
    return {
        "loop_us": statistics.median(on_loop) * 1e6,
        "loop_us_max": max(on_loop) * 1e6,
        "beside_us": statistics.median(beside) * 1e6,
        "line_bytes": size,
    }


def walk(plan: PipelinePlan, operator: FeatureOperator, rounds: int) -> dict[str, float]:
    """Return what a walk over every key costs, and one key in clear."""
    stats, snapshot = operator.stats(), operator.snapshot()
    opened_s, inspector = timed(lambda: StateInspector(plan, snapshot))
    walks = [timed(lambda: inspector.operators(top=5))[0] for _ in range(rounds)]
    largest = inspector.operators(top=1)[0].largest[0].key
    return {
        "keys": stats["keys"],
        "kept_events": stats["events"],
        "snapshot_mb": len(snapshot) / 1e6,
        "open_s": opened_s,
        "walk_ms": statistics.median(walks) * 1e3,
        "key_ms": timed(lambda: inspector.key(largest))[0] * 1e3,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=500_000)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--out", type=Path, default=Path("bench/results/inspection.json"))
    arguments = parser.parse_args()
    machine, plan = describe(), load_pipeline("payments").plan
    began = time.perf_counter()
    operator = Arrivals(plan, SimulationConfig()).until(arguments.events)
    fed_s = time.perf_counter() - began
    results = samples(plan, operator, arguments.rounds) | walk(plan, operator, 3) | {"fed_s": fed_s}
    for name, value in results.items():
        print(f"{name:<14}{value:>14,.1f}")
    options = {"events": arguments.events, "rounds": arguments.rounds}
    arguments.out.write_text(json.dumps({"machine": machine, "options": options, "results": results}, indent=2) + "\n")


if __name__ == "__main__":
    main()
