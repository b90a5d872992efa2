"""What an interval join costs in the kernel: payments beside the clicks of ten minutes before.

``python -m bench.joins [--events 1000000]``: one payment for each nine clicks, 50,000 users by Zipf's law, 1,000 events a
second of event time, 1 % of them up to a minute late. Each way of joining in turn, with the pairs that it gave and the
events that it held. CPU counts gate, join and rows as Arrow columns; no bytes are decoded or encoded.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa

import gillnet as gn
from bench.payments.machine import describe
from gillnet import col
from gillnet._kernel import Batch
from gillnet.operators.features import FeatureOperator, arrow_schema

START_US = 1_767_225_600_000_000
BATCH = 4_096
USERS = 50_000
RATE = 1_000

Payment = gn.Schema(id=gn.Integer(), ts=gn.Timestamp("us"), user=gn.String(), amount=gn.Decimal(2))
Click = gn.Schema(id=gn.Integer(), ts=gn.Timestamp("us"), user=gn.String(), url=gn.String())
payments = gn.Stream("payments", schema=Payment, id="id", event_time="ts", allowed_lateness="1m")
clicks = gn.Stream("clicks", schema=Click, id="id", event_time="ts", allowed_lateness="1m")

JOINS: dict[str, dict[str, object]] = {
    "inner": {"how": "inner"},
    "left": {"how": "left"},
    "full": {"how": "full"},
    "inner with a condition": {"how": "inner", "where": col("payments.amount") > 100},
}


def pipeline(options: dict[str, object]) -> gn.Pipeline:
    """A join of both streams, and rows of payments that are as small as they can be."""
    join = gn.IntervalJoin(
        "j",
        payments.by("user"),
        clicks.by("user"),
        lower="-10m",
        upper="0s",
        select={"amount": "payments.amount", "url": "clicks.url"},
        max_pairs_per_event=20,
        **options,  # type: ignore[arg-type]
    )
    features = gn.Features(payments, cents=col("amount") * 100)
    return gn.Pipeline(features, joins=[join], revisions=False)


def batches(events: int) -> Iterator[tuple[str, Batch]]:
    """Batches of both streams in the order of arrival."""
    random = np.random.default_rng(7)
    weights = 1.0 / np.arange(1, USERS + 1)
    weights /= weights.sum()
    users = pa.array([f"u{number:06d}" for number in range(USERS)])
    urls = pa.array([f"/page/{number}" for number in range(100)])
    for first in range(0, events, BATCH):
        count = min(BATCH, events - first)
        ids = np.arange(first, first + count)
        times = START_US + ids * (1_000_000 // RATE)
        times -= np.where(random.random(count) < 0.01, random.integers(0, 60_000_000, count), 0)
        user = users.take(pa.array(random.choice(USERS, count, p=weights)))
        paid = ids % 10 == 0
        for stream, schema, chosen in (("clicks", Click, ~paid), ("payments", Payment, paid)):
            arrow, size = arrow_schema(schema), int(chosen.sum())
            value = urls.take(pa.array(random.integers(0, 100, size))) if stream == "clicks" else _amounts(random, size)
            columns = [pa.array(ids[chosen]), pa.array(times[chosen]), user.filter(pa.array(chosen)), value]
            arrays = [column.cast(field.type) for column, field in zip(columns, arrow, strict=True)]
            yield stream, Batch.from_pyarrow(pa.RecordBatch.from_arrays(arrays, schema=arrow))


def _amounts(random: np.random.Generator, size: int) -> pa.Array:
    return pa.array(np.round(random.gamma(1.2, 40.0, size), 2)).cast(pa.decimal128(38, 2), safe=False)


def measure(name: str, prepared: list[tuple[str, Batch]], events: int) -> dict[str, float | int | str]:
    """Join all events; CPU a event, pairs and what was held at the end."""
    operator = FeatureOperator(pipeline(JOINS[name]).plan)
    rows = 0
    began = time.process_time()
    for stream, batch in prepared:
        operator.process(stream, batch, START_US + 10**13)
        while (joined := operator.joined(4_096)) is not None:
            rows += joined[1].num_rows
    spent = time.process_time() - began
    stats, counts = operator.stats(), operator.join_counts()["j"]
    return {
        "join": name,
        "cpu_us_per_event": round(spent * 1e6 / events, 3),
        "rows_per_event": round(rows / events, 3),
        "events_held": stats["join_events"],
        "bytes_per_event_held": round(stats["join_bytes"] / max(stats["join_events"], 1)),
        **counts,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--out", type=Path, default=Path("bench/results/joins.json"))
    arguments = parser.parse_args()
    prepared = list(batches(arguments.events))
    results = [measure(name, prepared, arguments.events) for name in JOINS]
    for result in results:
        print(json.dumps(result))
    arguments.out.write_text(json.dumps({"machine": describe(), "results": results}, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
