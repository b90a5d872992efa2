"""What a checkpoint costs a run: how long it stands still, and what memory and time the process that writes takes.

``python -m bench.checkpoints [--events 200000 1000000]``: the state of the payments scenario after so many simulated payments and
clicks, as in `bench.snapshot`. Then batches go on arriving, and a checkpoint is taken meanwhile, by a forked child and in place.
Each size is measured in a
process of its own. ``longest batch`` is the longest of the batches while the child writes: pages that both share are copied as they change.
Writes ``bench/results/checkpoints.json``.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import tempfile
from pathlib import Path

from bench.apart import apart
from bench.payments.machine import describe
from bench.snapshot import BATCH, LATE_SHARE, Arrivals
from bench.targets import Target, tell
from gillnet.app import load_pipeline
from gillnet.simulator import SimulationConfig
from gillnet.state import Checkpoint, CheckpointStore
from gillnet.state.writing import CheckpointWriter, Taken

EMPTY = {"started_us": 0, "pipeline": "payments", "marks": {}}


def take(arrivals: Arrivals, place: Path, *, in_background: bool) -> tuple[Taken, list[float], list[float]]:
    """Take one checkpoint while batches arrive; return it, and how long the batches took before and meanwhile."""
    store = CheckpointStore(place)
    store.own()
    writer = CheckpointWriter(store, in_background=in_background)
    before = [arrivals.batch() * 1e3 for _ in range(20)]
    writer.begin(Checkpoint(number=writer.next_number(), taken_us=0, **EMPTY), arrivals.operator.write_snapshot)
    meanwhile: list[float] = []
    while (taken := writer.settle()) is None:
        meanwhile.append(arrivals.batch() * 1e3)
    writer.close()
    return taken, before, meanwhile


def measure(events: int, rounds: int) -> dict[str, float]:
    # A large population, so that the windows of two weeks keep most of what has come.
    config = SimulationConfig(late_share=LATE_SHARE, cards=200_000, payments_per_day=500_000, sessions_per_day=250_000)
    arrivals = Arrivals(load_pipeline("payments").plan, config)
    operator = arrivals.until(events)
    found: dict[str, list[float]] = {}
    for _ in range(rounds):
        for in_background in (True, False):
            with tempfile.TemporaryDirectory() as place:
                taken, before, meanwhile = take(arrivals, Path(place), in_background=in_background)
            way = "forked" if in_background else "in_place"
            found.setdefault(f"{way}_paused_ms", []).append(taken.paused_ms)
            found.setdefault(f"{way}_took_ms", []).append(taken.took_ms)
            if in_background:
                found.setdefault("batch_ms_before", []).append(statistics.median(before))
                found.setdefault("batch_ms_meanwhile", []).append(statistics.median(meanwhile))
                found.setdefault("longest_batch_ms", []).append(max(meanwhile))
    stats = operator.stats()
    return {
        "checkpoint_mb": taken.checkpoint.bytes / 1e6,
        "state_mb": (stats["bytes"] + stats["id_bytes"]) / 1e6,
        "child_peak_rss_mb": resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1e3,
        **{name: statistics.median(values) for name, values in found.items()},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, nargs="+", default=[200_000, 1_000_000, 2_000_000, 4_600_000])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("bench/results/checkpoints.json"))
    arguments = parser.parse_args()
    machine = describe()
    results = []
    for events in arguments.events:
        results.append({"events": events, **apart(measure, events, arguments.rounds)})
        row = results[-1]
        print(
            f"{events:>10,} events  {row['checkpoint_mb']:7.0f} MB  forked: stands still {row['forked_paused_ms']:6.1f} ms, "
            f"durable after {row['forked_took_ms'] / 1e3:5.2f} s  in place: {row['in_place_paused_ms'] / 1e3:5.2f} s  "
            f"batch of {BATCH:,}: {row['batch_ms_before']:.1f} ms, meanwhile {row['batch_ms_meanwhile']:.1f}, "
            f"longest {row['longest_batch_ms']:.1f}",
            flush=True,
        )
    arguments.out.write_text(
        json.dumps({"machine": machine, "rounds": arguments.rounds, "results": results}, indent=1) + "\n"
    )
    tell(
        [
            Target(
                name=f"a run stands still at {row['state_mb']:,.0f} MB, ms", value=row["forked_paused_ms"], at_most=50
            )
            for row in results
        ]
    )


if __name__ == "__main__":
    main()
