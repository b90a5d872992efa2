"""Memory under TTL: 10 M payments through the keyed state, sampled every million.

``python -m bench.memory_flat [--events 10000000]``: six features over 50,000 cards by Zipf's law, 1,000 events a
second of event time; windows and allowed lateness of 20 minutes each, so that 2.4 M events are kept once it is full.
From then on nothing may grow. Half of them are within the lateness, where their rows can be revised
and their ids are kept. Prints bytes per event kept, all of that included, and the process's RSS; writes ``bench/results/memory_flat.json``.
"""

from __future__ import annotations

import argparse
import json
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
CARDS = 50_000

Payment = gn.Schema(
    tx_id=gn.Integer(), ts=gn.Timestamp("us"), card_id=gn.String(), amount=gn.Decimal(2), status=gn.String()
)


def pipeline(rate: int) -> gn.Pipeline:
    """Six features over a card; lateness chosen so that the state holds about 2.4 M events at any rate."""
    payments = gn.Stream(
        "payments", schema=Payment, id="tx_id", event_time="ts", allowed_lateness=f"{2_400_000 // rate // 2}s"
    )
    card = payments.by("card_id")
    window = f"{2_400_000 // rate // 2}s"
    features = gn.Features(
        payments,
        spend_5m=card.sum("amount", over="5m"),
        payments_1h=card.count(over=window),
        declined_1h=card.count(over=window, where=col("status") == "declined"),
        max_1h=card.max("amount", over=window),
        mean_1d=card.mean("amount", over=window),
        since_last_s=card.seconds_since_last(over="1h"),
    )
    return gn.Pipeline(features)


def rss_bytes() -> int:
    """Return the resident memory of this process."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmRSS:")[1].split(maxsplit=1)[0]) * 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=10_000_000)
    parser.add_argument("--rate", type=int, default=1_000, help="events per second of event time")
    parser.add_argument("--out", type=Path, default=Path("bench/results/memory_flat.json"))
    arguments = parser.parse_args()
    random = np.random.default_rng(7)
    weights = 1.0 / np.arange(1, CARDS + 1)
    weights /= weights.sum()
    cards = pa.array([f"c{number:06d}" for number in range(CARDS)])
    features = FeatureOperator(pipeline(arguments.rate).plan)
    schema = arrow_schema(Payment)
    samples = []
    cpu_s = 0.0
    for first in range(0, arguments.events, BATCH):
        number = np.arange(first, min(first + BATCH, arguments.events))
        chosen = random.choice(CARDS, len(number), p=weights)
        cents = random.integers(100, 50_000, len(number))
        status = np.where(random.random(len(number)) < 0.05, "declined", "approved")
        amount = pa.array(cents / 100.0).cast(pa.decimal128(38, 2))
        times = pa.array(START_US + number * 1_000_000 // arguments.rate, pa.timestamp("us", tz="UTC"))
        columns = [pa.array(number), times, cards.take(pa.array(chosen)), amount, pa.array(status)]
        batch = Batch.from_pyarrow(pa.RecordBatch.from_arrays(columns, schema=schema))
        began = time.process_time()
        features.process("payments", batch, int(START_US + number[-1] * 1_000_000 // arguments.rate))
        cpu_s += time.process_time() - began
        if (first + BATCH) // 1_000_000 > first // 1_000_000 or first + BATCH >= arguments.events:
            stats = features.stats()
            held = stats["bytes"] + stats["id_bytes"]
            samples.append(
                {"events": int(number[-1]) + 1, "kept": stats["events"], "state_bytes": held, "rss_bytes": rss_bytes()}
            )
            per_event = held / max(stats["events"], 1)
            print(
                f"{samples[-1]['events']:>10,} events  kept {stats['events']:>9,}  state {held / 1e6:7.1f} MB"
                f"  {per_event:5.1f} bytes/event  RSS {samples[-1]['rss_bytes'] / 1e6:7.1f} MB"
            )
    print(f"{cpu_s / arguments.events * 1e6:.2f} µs of CPU per event in the keyed state")
    result = {"machine": describe(), "samples": samples, "cpu_us_per_event": cpu_s / arguments.events * 1e6}
    arguments.out.write_text(json.dumps(result, indent=1) + "\n")
    tell(targets(samples))


def targets(samples: list[dict[str, int]]) -> list[Target]:
    """Return what must hold once the windows are full: the last half of the run."""
    full = samples[len(samples) // 2 :]
    per_event = max(sample["state_bytes"] / sample["kept"] for sample in full)
    grown = full[-1]["rss_bytes"] / full[0]["rss_bytes"] - 1
    return [
        Target(name="bytes per event kept, at the most", value=per_event, at_most=200),
        Target(name="growth of RSS over the last half", value=grown, at_most=0.05),
    ]


if __name__ == "__main__":
    main()
