"""State larger than memory: the backend `rocksdb` beside `memory`, its memory, its checkpoints, and how soon a run goes on.

``python -m bench.state_backend --per-key 1 --values 46 --events 500000``: 5 M keys of 400 bytes, 2 GB, within a budget of 512 MB. With
``--keys 13500000 --checkpoints 0 --rounds 0 --out bench/results/state_backend_ten_times.json`` in place of the last: ten times the budget.
``--quick``: 500,000 keys within 64 MB.
Nothing is scored or written; events are of one stream, each of a key drawn evenly, so that hardly any is in memory: the worst case.

1. in the cache: as many keys as fit, with both backends, in turns; CPU time of this process's threads, which other programs do not
   change as they do wall time
2. larger than memory: keys are filled, then drawn at random; events/s, CPU, and the largest RSS of the process, all of it
3. checkpoints: a whole one, then many, each after 1 % of the keys have changed; those in which files were merged write more
4. recovery: from the checkpoint until the first batch is through, in a process of its own

Writes ``bench/results/state_backend.json``.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

import gillnet as gn
from bench.apart import apart
from bench.memory_flat import rss_bytes
from bench.payments.machine import describe
from bench.targets import Target, tell
from gillnet._kernel import Batch
from gillnet.operators.features import FeatureOperator, arrow_schema
from gillnet.plan.nodes import PipelinePlan
from gillnet.state import Checkpoint, CheckpointStore, RocksDBBackend
from gillnet.state.writing import CheckpointWriter, Taken

START_US = 1_767_225_600_000_000
ARRIVAL_US = START_US + 10**13
BATCH = 4_096
EVENTS_PER_S = 10_000  # of event time
MB = 1_000_000
NO_RUN: dict[str, Any] = {"taken_us": 0, "started_us": 0, "pipeline": "bench", "marks": {}}


def pipeline(values: int) -> PipelinePlan:
    """A count and a sum over each of so many columns, back an hour: the state is the events. Ids are kept for ten seconds."""
    columns: dict[str, Any] = {f"v{number}": gn.Integer() for number in range(values)}
    schema = gn.Schema(id=gn.Integer(), ts=gn.Timestamp("us"), card=gn.Integer(), **columns)
    stream = gn.Stream(
        "payments", schema=schema, id="id", event_time="ts", watermark_delay="1s", allowed_lateness="10s"
    )
    card = stream.by("card")
    sums = {f"sum_{name}": card.sum(name, over="1h") for name in columns}
    return gn.Pipeline(gn.Features(stream, n=card.count(over="1h"), **sums)).plan


class Events:
    """Events in order of time, of keys that the caller chooses."""

    def __init__(self, plan: PipelinePlan, values: int) -> None:
        self.schema = arrow_schema(plan.stream("payments").schema)
        self.values, self.number = values, 0

    def batches(self, keys: np.ndarray) -> Iterator[Batch]:
        for low in range(0, len(keys), BATCH):
            chosen = keys[low : low + BATCH]
            ids = np.arange(self.number, self.number + len(chosen))
            self.number += len(chosen)
            times = pa.array(START_US + ids * (1_000_000 // EVENTS_PER_S)).cast(pa.timestamp("us", tz="UTC"))
            columns = [pa.array(chosen + number) for number in range(self.values)]
            arrays = [pa.array(ids), times, pa.array(chosen), *columns]
            yield Batch.from_pyarrow(pa.RecordBatch.from_arrays(arrays, schema=self.schema))


def arrive(operator: FeatureOperator, batches: Iterator[Batch]) -> dict[str, float]:
    """Let batches arrive; return what that took, without making them."""
    events, wall_s, cpu_s, rss = 0, 0.0, 0.0, 0
    for batch in batches:
        wall, cpu = time.perf_counter(), time.process_time()
        operator.process("payments", batch, ARRIVAL_US)
        operator.revisions(BATCH)
        wall_s, cpu_s = wall_s + time.perf_counter() - wall, cpu_s + time.process_time() - cpu
        events, rss = events + batch.num_rows, max(rss, rss_bytes())
    return {"events_per_s": events / wall_s, "cpu_us": cpu_s / events * 1e6, "rss_mb": rss / MB}


def in_cache(rounds: int, keys: int, events: int) -> dict[str, float]:
    """Compare the backends where nothing needs to leave memory; the backend has all keys on its disk as well."""
    plan = pipeline(4)
    rng = np.random.default_rng(1)
    backend = RocksDBBackend(memory=4 << 30)
    operators = {"memory": FeatureOperator(plan), "rocksdb": FeatureOperator(plan, backend=backend)}
    streams = {name: Events(plan, 4) for name in operators}
    for name, operator in operators.items():
        arrive(operator, streams[name].batches(np.arange(keys)))
        operator.write_behind()
    taken: dict[str, list[float]] = {name: [] for name in operators}
    for _ in range(rounds):
        drawn = rng.integers(0, keys, events)
        for name, operator in operators.items():
            taken[name].append(arrive(operator, streams[name].batches(drawn))["cpu_us"])
    backend.close()
    found = {f"{name}_cpu_us": statistics.median(values) for name, values in taken.items()}
    return {**found, "throughput_ratio": found["memory_cpu_us"] / found["rocksdb_cpu_us"]}


def larger(arguments: argparse.Namespace, place: str) -> dict[str, Any]:
    """Fill, draw at random, take checkpoints."""
    began_mb = rss_bytes() / MB
    plan, rng = pipeline(arguments.values), np.random.default_rng(2)
    events = Events(plan, arguments.values)
    backend = RocksDBBackend(Path(place) / "state", memory=arguments.memory_mb << 20)
    operator = FeatureOperator(plan, backend=backend)
    fills = [arrive(operator, events.batches(rng.permutation(arguments.keys))) for _ in range(arguments.per_key)]
    found: dict[str, Any] = {"process_before_mb": began_mb, "fill": fills[-1]}
    found["random"] = arrive(operator, events.batches(rng.integers(0, arguments.keys, arguments.events)))
    found["state_mb"] = arguments.keys * arguments.per_key * (4 + arguments.values) * 8 / MB
    found["disk_mb"] = backend.disk_bytes() / MB
    store = CheckpointStore(Path(place) / "checkpoints")
    store.own()
    writer = CheckpointWriter(store, backend=backend)
    found["first"] = of(take(writer, operator))
    # What was in memory at the first cut is handed over with the batches that follow, here of repetitions; then the second has it.
    (again,) = events.batches(np.zeros(1, np.int64))
    repeated = again.take([0] * BATCH)
    for _ in range(2):
        arrive(operator, iter([repeated] * (arguments.keys // BATCH)))
        found["second"] = of(take(writer, operator))
    rounds = []
    for _ in range(arguments.checkpoints):
        arrive(operator, events.batches(rng.choice(arguments.keys, arguments.keys // 100, replace=False)))
        rounds.append(take(writer, operator))
    found["after_1_percent"] = [of(taken) for taken in rounds]
    if written := [taken.written_bytes / taken.checkpoint.bytes for taken in rounds]:
        middle, mean = statistics.median(written), statistics.mean(written)
        found["written_of_whole"] = {"median": middle, "mean": mean, "max": max(written)}
    found["rss_mb"] = max(found[part]["rss_mb"] for part in ("fill", "random"))
    found["rss_of_budget"] = found["rss_mb"] * MB / (arguments.memory_mb << 20)
    writer.close()
    backend.close()
    return found


def take(writer: CheckpointWriter, operator: FeatureOperator) -> Taken:
    writer.begin(Checkpoint(number=writer.next_number(), **NO_RUN), operator.write_snapshot)
    operator.write_behind()
    taken = writer.settle(wait=True)
    assert taken is not None
    return taken


def of(taken: Taken) -> dict[str, float]:
    return {
        "mb": taken.checkpoint.bytes / MB,
        "written_mb": taken.written_bytes / MB,
        "paused_ms": taken.paused_ms,
        "took_ms": taken.took_ms,
    }


def recovery(arguments: argparse.Namespace, place: str) -> dict[str, float]:
    """Go on from the checkpoint, in a process that has none of it in memory."""
    plan = pipeline(arguments.values)
    batches = Events(plan, arguments.values)
    batches.number = 10**9
    (batch,) = batches.batches(np.random.default_rng(3).integers(0, arguments.keys, BATCH))
    began, cpu = time.perf_counter(), time.process_time()
    backend = RocksDBBackend(Path(place) / "again", memory=arguments.memory_mb << 20)
    latest = CheckpointStore(Path(place) / "checkpoints").latest(backend)
    assert latest is not None
    operator = FeatureOperator.restored(plan, latest[1], backend=backend)
    restored = time.perf_counter() - began
    operator.process("payments", batch, ARRIVAL_US)
    found = {
        "restored_s": restored,
        "first_batch_s": time.perf_counter() - began,
        "cpu_s": time.process_time() - cpu,
        "keys_of_first_batch": operator._engine.spill_stats()[1],
    }
    backend.close()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a tenth of it, within 64 MB")
    parser.add_argument("--keys", type=int, default=5_000_000)
    parser.add_argument("--per-key", type=int, default=3, help="events of each key that are filled")
    parser.add_argument("--values", type=int, default=12, help="columns that are summed, 8 bytes each of an event")
    parser.add_argument("--memory-mb", type=int, default=512)
    parser.add_argument("--events", type=int, default=1_000_000, help="events of random keys")
    parser.add_argument(
        "--checkpoints", type=int, default=40, help="each after 1 %% of the keys have changed; 0 leaves them out"
    )
    parser.add_argument("--rounds", type=int, default=5, help="of the comparison in the cache; 0 leaves it out")
    parser.add_argument("--out", type=Path, default=Path("bench/results/state_backend.json"))
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.keys, arguments.memory_mb = arguments.keys // 10, 64
        arguments.events, arguments.rounds = arguments.events // 5, 3
    machine = describe()
    results: dict[str, Any] = {}
    if arguments.rounds:
        results["in_cache"] = apart(in_cache, arguments.rounds, 100_000, 100_000)
        print(json.dumps(results["in_cache"], indent=1), flush=True)
    with tempfile.TemporaryDirectory() as place:
        results["larger_than_memory"] = apart(larger, arguments, place)
        print(json.dumps(results["larger_than_memory"], indent=1), flush=True)
        results["recovery"] = apart(recovery, arguments, place)
        print(json.dumps(results["recovery"], indent=1), flush=True)
    chosen = {name: value for name, value in vars(arguments).items() if name not in ("out", "quick")}
    arguments.out.write_text(json.dumps({"machine": machine, **chosen, "results": results}, indent=1) + "\n")
    tell(targets(results))


def targets(results: dict[str, Any]) -> list[Target]:
    """Return what the backend must reach, of what was measured."""
    large, targets = results["larger_than_memory"], []
    if in_the_cache := results.get("in_cache"):
        ratio = in_the_cache["throughput_ratio"]
        targets.append(Target(name="in the cache, beside memory", value=ratio, at_least=0.7))
    targets += [
        Target(name="larger than memory, events/s", value=large["random"]["events_per_s"], at_least=30_000),
        Target(name="RSS of the budget", value=large["rss_of_budget"], at_most=1.2),
        Target(name="recovery, s", value=results["recovery"]["first_batch_s"], at_most=20),
    ]
    if written := large.get("written_of_whole"):
        name = "a checkpoint after 1 % of the keys changed, of a whole one, median"
        targets.append(Target(name=name, value=written["median"], at_most=0.05))
    return targets


if __name__ == "__main__":
    main()
