"""The tables of ``gillnet lateness``."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from gillnet.cli.words import clock_time
from gillnet.core.time import format_duration
from gillnet.lifecycle.lateness.delays import GRID_US
from gillnet.lifecycle.lateness.report import LatenessReport, Recommendation, ScoresLateness, StreamLateness
from gillnet.lifecycle.lateness.scores import ScoresAt
from gillnet.lifecycle.lateness.words import advice_text, arrivals_text, percent, sample_text, score_move, span_ms


def tables(report: LatenessReport, advice: Recommendation | None) -> Group:
    """Return everything that is printed."""
    parts: list[RenderableType] = []
    for place, stream in enumerate(report.streams):
        parts += [*_head(stream), _delays_table(stream, None if place else report.scores), Text("")]
    if report.scores is not None:
        parts += [Text(sample_text(report.scores)), Text("")]
    if (longest := report.root.delays[-1].delay_us) < GRID_US[-1]:
        parts.append(
            Text(f"Longer delays than {format_duration(longest)} are left out: the data do not span them.", style="dim")
        )
    if advice is not None:
        parts.append(Text(advice_text(advice), style="bold"))
    else:
        parts.append(
            Text("Give a budget to get a recommendation: --max-stale 0.5% or --max-latency 50ms.", style="dim")
        )
    return Group(*parts)


def advice_fields(advice: Recommendation) -> dict[str, Any]:
    """Return a recommendation for machines, with the delay as a definition writes it."""
    delay = None if advice.delay_us is None else format_duration(advice.delay_us)
    return asdict(advice) | {"watermark_delay": delay}


def _head(stream: StreamLateness) -> list[RenderableType]:
    counted = f"{stream.events:,} events of {stream.read:,} records"
    aside = f"{stream.malformed:,} malformed, {stream.duplicate:,} duplicate"
    span = f"{clock_time(stream.first_event_us)} to {clock_time(stream.last_event_us)}"
    rows = [("behind the newest of its partition", stream.behind_newest_ms)]
    if stream.arrival_minus_event_ms is not None:
        rows.append(("arrival minus event time", stream.arrival_minus_event_ms))
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("observed delays")
    for name in stream.behind_newest_ms:
        table.add_column(name, justify="right")
    for label, quantiles in rows:
        table.add_row(label, *(span_ms(value) for value in quantiles.values()))
    title = Text.assemble(
        (stream.stream, "bold"), f"  {counted} ({aside}), {stream.partitions} partition(s), {span} UTC"
    )
    return [title, Text(arrivals_text(stream), style="dim"), table, Text("")]


def _delays_table(stream: StreamLateness, scores: ScoresLateness | None) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    names = ["watermark delay", "late"]
    names += ["too late"] if stream.allowed_lateness_us else []
    names += [] if scores is None else ["stale rows", "scores changed", "moved mean", "moved p99", "flipped"]
    for name in [*names, "wait p50", "wait p99"]:
        table.add_column(name, justify="right", no_wrap=True)
    if scores is not None:
        table.add_row(
            "on arrival", *["-"] * (2 if stream.allowed_lateness_us else 1), *_scored(scores.on_arrival), "0", "0"
        )
    for place, at in enumerate(stream.delays):
        now = " (now)" if stream.allowed_lateness_us and at.delay_us == stream.watermark_delay_us else ""
        cells = [f"{format_duration(at.delay_us)}{now}", percent(at.late_share)]
        cells += [percent(at.too_late_share)] if stream.allowed_lateness_us else []
        cells += [] if scores is None else _scored(scores.delays[place])
        table.add_row(*cells, span_ms(at.wait_ms_p50), span_ms(at.wait_ms_p99))
    return table


def _scored(at: ScoresAt) -> list[str]:
    moved = [score_move(at.moved_mean), score_move(at.moved_p99)]
    return [percent(at.stale_share), percent(at.changed_share), *moved, percent(at.flipped_share)]
