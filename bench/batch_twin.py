"""Ten sliding features of one key over a whole table: the batch twin beside Polars and DuckDB, one after the other in one run.

``python -m bench.batch_twin --events 5_000_000 --keys 100_000``. Each contender is a process of its own that reads the same Parquet
file, computes (what is timed) and gives its columns in the order of (time, id); the answers must be equal, value for value.
Polars is timed in both of its ways, ``rolling`` by group and rolling expressions over the group, and the faster counts.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from bench.payments.machine import describe
from gillnet.core.time import DAY, HOUR, MINUTE

WINDOWS = {"5m": 5 * MINUTE, "1h": HOUR, "1d": DAY}
FEATURES = [
    *(("count", "5m"), ("sum", "5m"), ("count", "1h"), ("sum", "1h"), ("mean", "1h"), ("min", "1h"), ("max", "1h")),
    *(("count", "1d"), ("sum", "1d"), ("mean", "1d")),
]
NAMES = [f"{function}_{window}" for function, window in FEATURES]
START_US = 1_767_571_200 * 1_000_000
Answer = dict[str, "np.ndarray[Any, Any]"]


def write_events(path: Path, *, events: int, keys: int, days: float, seed: int) -> None:
    """Write payments in order of time, distinct in (card, time), so that all three mean the same by a window."""
    rng = np.random.default_rng(seed)
    times = np.sort(rng.choice(int(days * DAY / 100), events, replace=False) * 100) + START_US
    cents = rng.integers(1, 100_000, events)
    amount = pc.multiply(pa.array(cents).cast(pa.decimal128(19, 0)), pa.scalar(Decimal("0.01")))
    table = pa.table(
        {
            "tx_id": np.arange(events),
            "ts": pa.array(times).cast(pa.timestamp("us", "UTC")),
            "card_id": rng.integers(0, keys, events),
            "amount": amount.cast(pa.decimal128(18, 2)),
        }
    )
    pq.write_table(table, path)


def gillnet_answer(table: pa.Table, threads: int) -> Callable[[], pa.Table]:
    import gillnet as gn
    from gillnet.runtimes.batch import BatchOptions, BatchRuntime

    schema = gn.Schema(tx_id=gn.Integer(), ts=gn.Timestamp("us"), card_id=gn.Integer(), amount=gn.Decimal(2))
    stream = gn.Stream("payments", schema=schema, id="tx_id", event_time="ts")
    card = stream.by("card_id")
    inputs: dict[str, tuple[str, ...]] = {"count": ()}
    features = {
        f"{function}_{window}": getattr(card, function)(*inputs.get(function, ("amount",)), over=window)
        for function, window in FEATURES
    }
    plan = gn.Pipeline(gn.Features(stream, **features)).plan
    options = BatchOptions(threads=threads, memory_bytes=4 << 30)

    def compute() -> pa.Table:
        parts = [
            part.rows.select(NAMES)
            for part in BatchRuntime(plan, options=options).run({"payments": table.to_batches()})
        ]
        return pa.Table.from_batches(parts)

    return compute


def polars_rolling(table: pa.Table, _threads: int) -> Callable[[], pa.Table]:
    import polars as pl

    frame = pl.from_arrow(table)
    assert isinstance(frame, pl.DataFrame)

    def compute() -> pa.Table:
        found = frame.select("card_id", "ts", "tx_id")
        for window in WINDOWS:
            own = [
                (pl.len().cast(pl.Int64) if function == "count" else getattr(pl.col("amount"), function)()).alias(
                    f"{function}_{of}"
                )
                for function, of in FEATURES
                if of == window
            ]
            rolled = frame.rolling("ts", period=window, group_by="card_id").agg(*own)
            found = found.join(rolled, on=["card_id", "ts"], how="left")
        return found.sort("ts", "tx_id").select(NAMES).to_arrow()

    return compute


def polars_over(table: pa.Table, _threads: int) -> Callable[[], pa.Table]:
    import polars as pl

    frame = pl.from_arrow(table)
    assert isinstance(frame, pl.DataFrame)

    def feature(function: str, window: str) -> pl.Expr:
        # Scaled to integers, which are exact, and faster here than decimals.
        cents = (pl.col("amount") * 100).cast(pl.Int64)
        if function == "count":
            ones = cents.is_not_null().cast(pl.Int64)
            return ones.rolling_sum_by("ts", window).over("card_id").alias(f"count_{window}")
        rolled = getattr(cents, f"rolling_{function}_by")("ts", window).over("card_id")
        return (rolled / 100 if function == "mean" else rolled).alias(f"{function}_{window}")

    def compute() -> pa.Table:
        return frame.select(feature(*each) for each in FEATURES).to_arrow()

    return compute


def duckdb_answer(table: pa.Table, threads: int) -> Callable[[], pa.Table]:
    import duckdb

    connection = duckdb.connect(config={"threads": threads})
    connection.execute("SET TimeZone = 'UTC'")
    connection.register("given", table)
    connection.execute("CREATE TABLE events AS SELECT * FROM given")
    chosen = ", ".join(
        f"{'count(*)' if function == 'count' else f'{function}(amount)'} OVER w{window} AS {function}_{window}"
        for function, window in FEATURES
    )
    # A sliding window holds (t - size, t]; times are whole microseconds.
    windows = ", ".join(
        f"w{name} AS (PARTITION BY card_id ORDER BY ts RANGE BETWEEN INTERVAL {size - 1} MICROSECONDS PRECEDING AND CURRENT ROW)"
        for name, size in WINDOWS.items()
    )
    query = (
        f"SELECT {', '.join(NAMES)} FROM (SELECT ts, tx_id, {chosen} FROM events WINDOW {windows}) ORDER BY ts, tx_id"
    )

    def compute() -> pa.Table:
        return connection.execute(query).to_arrow_table()

    return compute


CONTENDERS: dict[str, Callable[[pa.Table, int], Callable[[], pa.Table]]] = {
    "gillnet": gillnet_answer,
    "polars-rolling": polars_rolling,
    "polars-over": polars_over,
    "duckdb": duckdb_answer,
}


def columns(table: pa.Table) -> Answer:
    """Columns to compare: counts and amounts in cents as integers, means as floats."""
    found: Answer = {}
    for name in NAMES:
        column = table.column(name).combine_chunks()
        if pa.types.is_decimal(column.type):
            column = pc.multiply(column.cast(pa.float64()), 100.0).cast(pa.float64())
            column = pc.round(column).cast(pa.int64())
        found[name] = column.to_numpy(zero_copy_only=False)
    return found


def contend(name: str, path: Path, threads: int, answer: Path) -> None:
    """Run one contender here; print what it took, and write its answer."""
    compute = CONTENDERS[name](pq.read_table(path), threads)
    began, cpu = time.perf_counter(), time.process_time()
    found = compute()
    wall_s, cpu_s = time.perf_counter() - began, time.process_time() - cpu
    np.savez(answer, **columns(found))
    print(
        json.dumps(
            {"wall_s": wall_s, "cpu_s": cpu_s, "peak_rss_kb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss}
        )
    )


def differences(expected: Path, answer: Path) -> dict[str, float]:
    """Return the largest difference of each column that is not equal; floats may differ in their last bits."""
    ours, theirs = np.load(expected), np.load(answer)
    found: dict[str, float] = {}
    for name in NAMES:
        gap = np.abs(ours[name] - theirs[name]).max()
        limit = 1e-9 * np.abs(ours[name]).max() if ours[name].dtype.kind == "f" else 0
        if gap > limit:
            found[name] = float(gap)
    return found


def run_contender(name: str, path: Path, arguments: argparse.Namespace, answer: Path) -> dict[str, Any]:
    threads = str(arguments.threads)
    environment = os.environ | {"POLARS_MAX_THREADS": threads}
    command = [sys.executable, "-m", "bench.batch_twin", "--contend", name, "--input", path, "--answer", answer]
    done = subprocess.run([*command, "--threads", threads], env=environment, check=True, capture_output=True, text=True)
    took: dict[str, Any] = json.loads(done.stdout)
    return took | {
        "events_per_s": arguments.events / took["wall_s"],
        "cpu_us_per_event": took["cpu_s"] / arguments.events * 1e6,
    }


def compare(arguments: argparse.Namespace, place: Path) -> dict[str, dict[str, Any]]:
    path = place / "events.parquet"
    write_events(path, events=arguments.events, keys=arguments.keys, days=arguments.days, seed=arguments.seed)
    results: dict[str, dict[str, Any]] = {}
    for name in arguments.contenders or CONTENDERS:
        rounds = [run_contender(name, path, arguments, place / f"{name}.npz") for _ in range(arguments.rounds)]
        results[name] = sorted(rounds, key=lambda took: took["wall_s"])[len(rounds) // 2]
        wrong = differences(place / "gillnet.npz", place / f"{name}.npz")
        if wrong:
            sys.exit(f"{name} differs from gillnet: {wrong}")
        took = results[name]
        print(
            f"{name:>15}  {took['events_per_s']:>12,.0f} events/s  {took['cpu_us_per_event']:6.2f} µs CPU/event"
            f"  {took['peak_rss_kb'] / 1e6:6.2f} GB peak RSS",
            flush=True,
        )
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=5_000_000)
    parser.add_argument("--keys", type=int, default=100_000)
    parser.add_argument("--days", type=float, default=7.0, help="event time that the events span")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--rounds", type=int, default=3, help="the median counts")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--contenders", nargs="*", choices=list(CONTENDERS), help="gillnet first; all by default")
    parser.add_argument("--out", type=Path, default=Path("bench/results/batch_twin.json"))
    for name, kind in (("--contend", str), ("--input", Path), ("--answer", Path)):
        parser.add_argument(name, type=kind, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.contend:
        contend(arguments.contend, arguments.input, arguments.threads, arguments.answer)
        return
    with tempfile.TemporaryDirectory() as place:
        results = compare(arguments, Path(place))
    settings = {name: getattr(arguments, name) for name in ("events", "keys", "days", "threads", "rounds", "seed")}
    arguments.out.write_text(json.dumps({"machine": describe(), **settings, "results": results}, indent=1) + "\n")


if __name__ == "__main__":
    main()
