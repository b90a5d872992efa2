"""Time patterns in the kernel: CPU per event, beside windows over the same events.

Run: ``python -m bench.patterns``. Clicks of 10,000 users in event-time order go through the kernel's engine on one thread, in
batches of 4,096 that stay on the Rust side; ``gate`` is what an event costs without any feature (ids, watermark), and is in every
figure. The windows are what one would write without patterns: a count for each step.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from pathlib import Path
from statistics import median

import pyarrow as pa

import gillnet as gn
from bench.payments.machine import describe
from gillnet import col
from gillnet._kernel import Batch
from gillnet.operators.features import FeatureOperator, arrow_schema

BATCH = 4_096
CLICK = gn.Schema(
    click_id=gn.String(), ts=gn.Timestamp("us"), user_id=gn.String(), event=gn.String(), amount=gn.Integer()
)
EVENTS = ["view", "view", "view", "view", "login", "login_failed", "login_failed", "password_reset", "pay", "pay"]
clicks = gn.Stream("clicks", schema=CLICK, id="click_id", event_time="ts", allowed_lateness="1h")
user = clicks.by("user_id")
failed = gn.step("failed", where=col("event") == "login_failed")
reset = gn.step("reset", where=col("event") == "password_reset")
pay = gn.step("pay", where=col("event") == "pay")
small = gn.step("small", where=(col("event") == "pay") & (col("amount") < 100))
large = gn.step("large", where=(col("event") == "pay") & (col("amount") > 10 * small.last("amount")))


def counts() -> dict[str, object]:
    """Return the windows: how often each step's event happened."""
    steps = {"failed": "login_failed", "resets": "password_reset", "payments": "pay"}
    return {name: user.count(over="15m", where=col("event") == event) for name, event in steps.items()}


CASES: dict[str, dict[str, object]] = {
    "gate": {"nothing": gn.lit(1)},
    "three windows": counts(),
    "three steps": {"took_over": user.pattern(gn.seq(failed, reset, pay), within="15m")},
    "three steps, counted, to_next": {
        "took_over": user.pattern(gn.seq(failed, reset, pay), within="15m", skip="to_next").count()
    },
    "five events": {"took_over": user.pattern(gn.seq(failed.times(3), reset, pay), within="15m")},
    "an earlier event's value": {"jumped": user.pattern(gn.seq(small, large), within="1m")},
}


def events(count: int, users: int, late: float) -> list[Batch]:
    """Return clicks, 200 a second; a share of ``late`` comes up to ten minutes of event time after its own."""
    chance = random.Random(7)
    rows = [
        {
            "click_id": f"c{number:08}",
            "ts": 1_700_000_000_000_000 + number * 5_000,
            "user_id": f"u{chance.randrange(users)}",
            "event": chance.choice(EVENTS),
            "amount": chance.randrange(10, 2_000),
        }
        for number in range(count)
    ]
    place = [number + (chance.randrange(120_000) if chance.random() < late else 0) for number in range(count)]
    rows = [rows[number] for number in sorted(range(count), key=place.__getitem__)]
    schema = arrow_schema(clicks.schema)
    parts = [rows[begin : begin + BATCH] for begin in range(0, count, BATCH)]
    return [Batch.from_pyarrow(pa.RecordBatch.from_pylist(part, schema=schema)) for part in parts]


def cpu_us(features: dict[str, object], batches: list[Batch], count: int) -> tuple[float, int]:
    """Return CPU per event, and the matches that were found."""
    plan = gn.Pipeline(gn.Features(clicks, **features), revisions=False).plan  # type: ignore[arg-type]
    operator = FeatureOperator(plan)
    found = 0
    begin = time.process_time_ns()
    for batch in batches:
        operator.process("clicks", batch, 1_800_000_000_000_000)
        while (matches := operator.matches()) is not None:
            found += matches.num_rows
    return (time.process_time_ns() - begin) / 1_000 / count, found


def main() -> None:
    """Print a table: CPU per event, events per second and core, and the ratio to the windows."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=400_000)
    parser.add_argument("--users", type=int, default=10_000)
    parser.add_argument("--late", type=float, default=0.0, help="share of events out of order")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("bench/results/patterns.json"))
    options = parser.parse_args()
    batches = events(options.events, options.users, options.late)
    taken: dict[str, list[tuple[float, int]]] = {name: [] for name in CASES}
    for _ in range(options.rounds):
        for name, features in CASES.items():
            taken[name].append(cpu_us(features, batches, options.events))
    windows = median(cpu for cpu, _ in taken["three windows"])
    results = {}
    for name, rounds in taken.items():
        cpu = median(cpu for cpu, _ in rounds)
        print(
            f"{name:32} {cpu:6.2f} µs  {1e6 / cpu:12,.0f} events/s  {cpu / windows:5.2f} of the windows  {rounds[0][1]:8,} matches"
        )
        results[name] = {"cpu_us_per_event": round(cpu, 3), "events_per_s": round(1e6 / cpu), "matches": rounds[0][1]}
    settings = {name: getattr(options, name) for name in ("events", "users", "late", "rounds")}
    options.out.write_text(
        json.dumps({"machine": describe(), **settings, "results": results}, indent=1) + "\n", "utf-8"
    )


if __name__ == "__main__":
    main()
