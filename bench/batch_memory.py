"""Memory of the batch twin as its input grows: peak RSS of runs over 2, 8 and 32 million events, or as many as are given.

``python -m bench.batch_memory --events 5_000_000 50_000_000``. Events come from a Parquet file, one in a hundred of them hours late,
with two text keys; rows are computed, counted and thrown away. Runs of sorted events beyond 256 MB go to disk, so that memory is
that of the windows' reach and not of the input.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

import gillnet as gn
from bench.payments.machine import describe
from gillnet.core.time import HOUR
from gillnet.runtimes.batch import BatchOptions, BatchRuntime, parquet_events

CHUNK_EVENTS = 1_000_000
START_US = 1_767_571_200 * 1_000_000
LATE_SHARE = 0.01


def write_events(path: Path, *, events: int, keys: int, per_s: float, seed: int) -> None:
    """Write payments in the order of arrival, some of them up to a day late."""
    rng = np.random.default_rng(seed)
    writer: pq.ParquetWriter | None = None
    for low in range(0, events, CHUNK_EVENTS):
        numbers = np.arange(low, min(low + CHUNK_EVENTS, events))
        late = rng.random(len(numbers)) < LATE_SHARE
        behind = np.where(late, rng.integers(0, 24 * HOUR, len(numbers)), rng.integers(0, 2_000_000, len(numbers)))
        times = START_US + (numbers / per_s * 1_000_000).astype(np.int64) - behind
        cents = pa.array(rng.integers(1, 100_000, len(numbers))).cast(pa.decimal128(19, 0))
        table = pa.table(
            {
                "tx_id": pc.binary_join_element_wise("t", pa.array(numbers).cast(pa.string()), ""),
                "ts": pa.array(times).cast(pa.timestamp("us", "UTC")),
                "card_id": pc.binary_join_element_wise(
                    "c", pa.array(rng.integers(0, keys, len(numbers))).cast(pa.string()), ""
                ),
                "merchant_id": pc.binary_join_element_wise(
                    "m", pa.array(rng.zipf(1.3, len(numbers)) % 5_000).cast(pa.string()), ""
                ),
                "amount": pc.multiply(cents, pa.scalar(Decimal("0.01"))).cast(pa.decimal128(18, 2)),
            }
        )
        writer = writer or pq.ParquetWriter(path, table.schema)
        writer.write_table(table)
    assert writer is not None
    writer.close()


def measure(path: Path) -> dict[str, Any]:
    """Run once, here; returns what it took."""
    schema = gn.Schema(
        tx_id=gn.String(), ts=gn.Timestamp("us"), card_id=gn.String(), merchant_id=gn.String(), amount=gn.Decimal(2)
    )
    stream = gn.Stream("payments", schema=schema, id="tx_id", event_time="ts")
    card, merchant = stream.by("card_id"), stream.by("merchant_id")
    features = gn.Features(
        stream,
        spend_1h=card.sum("amount", over="1h"),
        payments_1d=card.count(over="1d"),
        mean_1d=card.mean("amount", over="1d"),
        merchants_1d=card.n_unique("merchant_id", over="1d"),
        merchant_1h=merchant.count(over="1h"),
        merchant_mean=merchant.mean("amount", over="6h"),
    )
    options = BatchOptions(memory_bytes=1 << 28, directory=path.parent)
    began, rows = time.perf_counter(), 0
    for part in BatchRuntime(gn.Pipeline(features).plan, options=options).run({"payments": parquet_events([path])}):
        rows += part.rows.num_rows
    wall_s = time.perf_counter() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1_024
    return {"rows": rows, "events_per_s": rows / wall_s, "peak_rss_bytes": peak}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, nargs="+", default=[5_000_000, 50_000_000])
    parser.add_argument("--keys", type=int, default=200_000)
    parser.add_argument("--per-s", type=float, default=20.0, help="events a second of event time")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--out", type=Path, default=Path("bench/results/batch_memory.json"))
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        print(json.dumps(measure(arguments.measure)))
        return
    results = []
    for events in arguments.events:
        with tempfile.TemporaryDirectory() as place:
            path = Path(place) / "events.parquet"
            write_events(path, events=events, keys=arguments.keys, per_s=arguments.per_s, seed=arguments.seed)
            command = [sys.executable, "-m", "bench.batch_memory", "--measure", path]
            took = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        results.append(took)
        print(
            f"{took['rows']:>12,} events  {took['peak_rss_bytes'] / 1e9:5.2f} GB peak RSS"
            f"  {took['events_per_s']:>10,.0f} events/s",
            flush=True,
        )
    settings = {name: getattr(arguments, name) for name in ("keys", "per_s", "seed")}
    arguments.out.write_text(json.dumps({"machine": describe(), **settings, "results": results}, indent=1) + "\n")


if __name__ == "__main__":
    main()
