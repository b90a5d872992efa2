"""One merchant with a million events in a window of 24 hours: what an event costs it.

``python -m bench.hot_key [--events 1000000]``: seven features of one key, every event inside the window, so that the window grows to
all of them; CPU of the keyed state for the events around each size, in order and with events up to two seconds out of order, the
median of rounds. Were an event O(window), the last ones would cost a hundred times the first; O(log window) may cost three times.
Writes ``bench/results/hot_key.json``.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path

import numpy as np
import pyarrow as pa

import gillnet as gn
from bench.payments.machine import describe
from bench.targets import Target, tell
from gillnet import col
from gillnet._kernel import Batch
from gillnet.operators.features import FeatureOperator, arrow_schema

START_US = 1_767_225_600_000_000
BATCH = 4_096
SPAN_US = 20 * 3_600_000_000
SIZES = (10_000, 100_000, 1_000_000)
DISORDER_US = 2_000_000

Payment = gn.Schema(
    tx_id=gn.Integer(), ts=gn.Timestamp("us"), merchant_id=gn.String(), amount=gn.Decimal(2), card_id=gn.String()
)


def pipeline() -> gn.Pipeline:
    """Seven features of a merchant."""
    payments = gn.Stream(
        "payments", schema=Payment, id="tx_id", event_time="ts", watermark_delay="5s", allowed_lateness="10s"
    )
    merchant = payments.by("merchant_id")
    features = gn.Features(
        payments,
        payments_24h=merchant.count(over="24h"),
        spend_24h=merchant.sum("amount", over="24h"),
        mean_24h=merchant.mean("amount", over="24h"),
        std_24h=merchant.std("amount", over="24h"),
        max_24h=merchant.max("amount", over="24h"),
        cards_24h=merchant.n_unique("card_id", over="24h"),
        large_24h=merchant.count(over="24h", where=col("amount") > 400),
    )
    return gn.Pipeline(features)


def measure(events: int, disorder_us: int, seed: int) -> dict[int, float]:
    """Return the CPU µs of an event while the window reaches each size."""
    random = np.random.default_rng(seed)
    features, schema = FeatureOperator(pipeline().plan), arrow_schema(Payment)
    spent: dict[int, tuple[float, int]] = {}
    for first in range(0, events, BATCH):
        number = np.arange(first, min(first + BATCH, events))
        times = START_US + number * SPAN_US // events
        late = random.integers(0, disorder_us + 1, len(number))
        cents = random.integers(100, 50_000, len(number))
        columns = [
            pa.array(number),
            pa.array(times - late, pa.timestamp("us", tz="UTC")),
            pa.array(["m"] * len(number)),
            pa.array(cents / 100.0).cast(pa.decimal128(38, 2)),
            pa.array([f"c{card}" for card in random.integers(0, 50_000, len(number))]),
        ]
        batch = Batch.from_pyarrow(pa.RecordBatch.from_arrays(columns, schema=schema))
        began = time.process_time()
        features.process("payments", batch, int(times[-1]))
        took = time.process_time() - began
        features.revisions(1 << 20)
        for size in SIZES:
            # The events before a size is reached, a twentieth of it, and ten batches at the least.
            if size - max(size // 20, 10 * BATCH) <= first < size:
                cpu, count = spent.get(size, (0.0, 0))
                spent[size] = cpu + took, count + len(number)
    return {size: cpu / count * 1e6 for size, (cpu, count) in spent.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=SIZES[-1])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("bench/results/hot_key.json"))
    arguments = parser.parse_args()
    machine, found = describe(), {}
    for name, disorder_us in (("in order", 0), ("up to 2 s out of order", DISORDER_US)):
        rounds = [measure(arguments.events, disorder_us, seed) for seed in range(arguments.rounds)]
        found[name] = {size: statistics.median(one[size] for one in rounds) for size in rounds[0]}
        print(f"{name}: " + ", ".join(f"{size:,} events {us:.2f} µs" for size, us in found[name].items()), flush=True)
    arguments.out.write_text(json.dumps({"machine": machine, "cpu_us_per_event": found}, indent=1) + "\n")
    tell(
        [
            Target(name=f"{name}, the largest window beside the smallest", value=us[max(us)] / us[min(us)], at_most=3)
            for name, us in found.items()
        ]
    )


if __name__ == "__main__":
    main()
