"""Time row expressions in the kernel at 1, 8 and 4,096 rows, and the same in Polars.

Run: ``python bench/expressions.py``. The kernel's time is that of the evaluation alone, without the way from and to
Python; ``call`` is with it. Polars is timed as its users call it: ``frame.select(expression)``.
"""

from __future__ import annotations

import json
import platform
import time
from decimal import Decimal
from typing import TYPE_CHECKING

import numpy as np
import polars as pl
import pyarrow as pa

from gillnet import _kernel
from gillnet.api.expressions import col, when
from gillnet.plan.expressions import Column, Literal, expression_to_json, walk

if TYPE_CHECKING:
    from collections.abc import Callable

CASES = {
    "i + 1": col("i") + 1,
    "x * y": col("x") * col("y"),
    "x > 0.97": col("x") > 0.97,
    "x / (i + 1)": col("x") / (col("i") + 1),
    "amount > 0.97": col("amount") > 0.97,
    "status == declined": col("status") == "declined",
    "status.is_in": col("status").is_in(["declined", "timeout", "reset"]),
    "rule: 2 conditions": (col("x") > 0.5) & (col("status") == "declined"),
    "case": when(col("x") > 0.5).then(col("x")).otherwise(0.0),
    "log1p": col("x").log1p(),
    "hour": col("ts").dt.hour(),
}
POLARS = {
    "i + 1": pl.col("i") + 1,
    "x * y": pl.col("x") * pl.col("y"),
    "x > 0.97": pl.col("x") > 0.97,
    "x / (i + 1)": pl.col("x") / (pl.col("i") + 1),
    "amount > 0.97": pl.col("amount") > Decimal("0.97"),
    "status == declined": pl.col("status") == "declined",
    "status.is_in": pl.col("status").is_in(["declined", "timeout", "reset"]),
    "rule: 2 conditions": (pl.col("x") > 0.5) & (pl.col("status") == "declined"),
    "case": pl.when(pl.col("x") > 0.5).then(pl.col("x")).otherwise(0.0),
    "log1p": pl.col("x").log1p(),
    "hour": pl.col("ts").dt.hour(),
}


def make_batch(rows: int) -> pa.RecordBatch:
    random = np.random.default_rng(7)
    cents = random.integers(0, 10**6, rows)
    status = random.choice(["approved", "declined", "timeout"], rows).tolist()
    return pa.record_batch(
        {
            "i": pa.array(random.integers(0, 100, rows)),
            "x": pa.array(random.random(rows)),
            "y": pa.array(random.random(rows)),
            "amount": pa.array([Decimal(int(c)).scaleb(-2) for c in cents], pa.decimal128(38, 2)),
            "status": pa.array(status),
            "ts": pa.array(random.integers(0, 2**50, rows), pa.timestamp("us", "UTC")),
        }
    )


def nanoseconds(run: Callable[[int], object], repeats: int) -> float:
    """Return the best of five, per repeat."""
    run(max(repeats // 10, 1))
    best = float("inf")
    for _ in range(5):
        start = time.perf_counter_ns()
        run(repeats)
        best = min(best, time.perf_counter_ns() - start)
    return best / repeats


def many(function: Callable[[], object]) -> Callable[[int], object]:
    def run(repeats: int) -> None:
        for _ in range(repeats):
            function()

    return run


def main() -> None:
    print(
        f"{platform.machine()}, Python {platform.python_version()}, Polars {pl.__version__}; nanoseconds per evaluation"
    )
    print(
        f"{'expression':<20}{'nodes':>6}{'rows':>6}"
        f"{'kernel':>10}{'per node':>10}{'per row':>9}{'call':>9}{'Polars':>11}"
    )
    for name, expr in CASES.items():
        nodes = sum(not isinstance(node, Column | Literal) for node in walk(expr.node))
        for rows in (1, 8, 4096):
            arrow = make_batch(rows)
            batch, frame = _kernel.Batch.from_pyarrow(arrow), pl.DataFrame(pa.Table.from_batches([arrow]))
            compiled = _kernel.Expression(json.dumps(expression_to_json(expr.node)).encode(), arrow.schema)
            repeats = 200_000 if rows < 100 else 5_000
            kernel = nanoseconds(lambda n, e=compiled, b=batch: e.repeat(b, n), repeats)
            call = nanoseconds(many(lambda e=compiled, b=batch: e.evaluate(b)), repeats // 20)
            polars = nanoseconds(many(lambda f=frame, n=name: f.select(POLARS[n])), 500)
            per_node, per_row = kernel / nodes, kernel / rows
            print(
                f"{name:<20}{nodes:>6}{rows:>6}{kernel:>10.0f}{per_node:>10.0f}{per_row:>9.1f}{call:>9.0f}{polars:>11.0f}"
            )


if __name__ == "__main__":
    main()
