"""Tables for people; the same numbers go to JSON."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from rich.console import Console, RenderableType
from rich.table import Table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bench.payments.latency import Latency
    from bench.payments.run import Result

# Rich takes 80 columns where there is no terminal, which cuts the tables.
_console = Console() if sys.stdout.isatty() else Console(width=140)


def show(what: RenderableType) -> None:
    """Print to the terminal."""
    _console.print(what, highlight=False)


def throughput_table(results: Sequence[Result], baseline: Result | None) -> Table:
    """Lay out throughput, CPU and memory: medians over the rounds."""
    table = Table(title="Throughput: full topic → features → XGBoost → topic (medians)")
    for title in (
        "contender",
        "events",
        "events/s",
        "ratio to hand-written",
        "CPU µs/event",
        "peak RSS MB",
        "rows ≠ oracle",
        "max |Δ|",
    ):
        table.add_column(title, justify="left" if title == "contender" else "right")
    for result in results:
        ratio = f"{result.events_per_s / baseline.events_per_s:.2f}" if baseline is not None else "-"
        table.add_row(
            result.contender,
            f"{result.events:,}",
            f"{result.events_per_s:,.0f}",
            ratio,
            f"{result.cpu_us_per_event:.2f}",
            f"{result.rss_peak_bytes / 1e6:,.0f}",
            f"{result.wrong_rows:,}",
            f"{result.max_difference:.1e}",
        )
    return table


def latency_table(results: Sequence[Latency]) -> Table:
    """Lay out latency percentiles by rate."""
    table = Table(title="Latency: payment due → score consumed, open loop (ms)")
    for title in ("events/s", "contender", "p50", "p95", "p99", "p99.9", "max", "CPU µs/event", "note"):
        table.add_column(title, justify="left" if title in ("contender", "note") else "right")
    for result in results:
        table.add_row(
            f"{result.rate_per_s:,}",
            result.contender,
            *(f"{ms:,.2f}" for ms in (result.p50_ms, result.p95_ms, result.p99_ms, result.p999_ms, result.max_ms)),
            "-" if result.cpu_us_per_event is None else f"{result.cpu_us_per_event:.1f}",
            f"falls behind: {result.missing:,} missing" if result.missing else "",
        )
    return table
