"""The curves of a lateness report, as one HTML page that needs nothing else."""

from __future__ import annotations

from html import escape
from pathlib import Path

from gillnet.core.errors import ConfigurationError
from gillnet.core.time import format_duration
from gillnet.lifecycle.lateness.chart import Series, line_chart
from gillnet.lifecycle.lateness.report import LatenessReport, Recommendation, StreamLateness
from gillnet.lifecycle.lateness.words import (
    advice_text,
    arrivals_text,
    on_arrival_text,
    percent,
    sample_text,
    score_move,
    span_ms,
)

_WAIT_TICKS_MS = (1.0, 10.0, 100.0, 1e3, 1e4, 6e4, 6e5, 3.6e6, 2.16e7, 8.64e7)

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #1f2937; background: #fff; max-width: 820px; margin: 2rem auto; padding: 0 1rem }
h1 { font-size: 1.5rem } h2 { font-size: 1.15rem; margin-top: 2.2rem } h3 { font-size: 1rem; margin: 1.4rem 0 .2rem }
svg { width: 100%; height: auto } svg text { font: 12px system-ui, sans-serif; fill: #4b5563 }
svg text.name { font-weight: 600 } svg text.axis { fill: #1f2937 } svg .grid { stroke: #e5e7eb }
svg polyline { fill: none; stroke-width: 2 }
svg .chosen { stroke: #111827; stroke-dasharray: 4 4 } .advice { background: #ecfdf5; border-left: 4px solid #15803d; padding: .6rem 1rem }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: 13px; width: 100% } .note { color: #6b7280 }
th, td { text-align: right; padding: .2rem .5rem; border-bottom: 1px solid #e5e7eb } th { color: #6b7280; font-weight: 600 }
"""


def write_page(path: Path, report: LatenessReport, advice: Recommendation | None) -> None:
    """Write the page.

    Raises
    ------
    ConfigurationError
        If it cannot be written.
    """
    try:
        path.write_text(page(report, advice), encoding="utf-8")
    except OSError as error:
        raise ConfigurationError(f"--html {path}: the page cannot be written: {error.strerror}.") from error


def page(report: LatenessReport, advice: Recommendation | None) -> str:
    """Return the page."""
    chosen_us = None if advice is None else advice.delay_us
    parts = [f'<p class="advice">{escape(advice_text(advice))}</p>'] if advice is not None else []
    for place, stream in enumerate(report.streams):
        parts += _stream(stream, None if place else report, chosen_us)
    title = f"Watermark delay of {', '.join(stream.stream for stream in report.streams)}"
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{escape(title)}</title>\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n<style>{_STYLE}</style>\n</head>\n<body>\n'
        f"<h1>{escape(title)}</h1>\n{chr(10).join(parts)}\n</body>\n</html>\n"
    )


def _stream(stream: StreamLateness, scored: LatenessReport | None, chosen_us: int | None) -> list[str]:
    delays_us = [at.delay_us for at in stream.delays]
    shares = [Series("late events", [at.late_share for at in stream.delays])]
    scores = None if scored is None else scored.scores
    if scores is not None:
        shares.append(Series("stale rows", [at.stale_share for at in scores.delays]))
        if scores.model is not None:
            shares.append(Series("scores changed", [at.changed_share for at in scores.delays]))
        shares.append(Series("decisions flipped", [at.flipped_share for at in scores.delays]))
    waited = [
        Series("wait p50", [at.wait_ms_p50 for at in stream.delays]),
        Series("wait p99", [at.wait_ms_p99 for at in stream.delays]),
    ]
    parts = [
        f"<h2>{escape(stream.stream)}: {stream.events:,} events</h2>",
        f'<p class="note">{escape(arrivals_text(stream))}</p>',
    ]
    charts = [
        ("What comes too late, or is scored without it", "share", shares, percent),
        ("What waiting costs", "wait", waited, span_ms),
    ]
    if scores is not None and scores.model is not None:
        moved = [
            Series("mean", [at.moved_mean for at in scores.delays]),
            Series("p99", [at.moved_p99 for at in scores.delays]),
        ]
        charts.append(("How far stale scores moved", "absolute move of the score", moved, score_move))
    for title, y_label, series, show in charts:
        ticks = _WAIT_TICKS_MS if show is span_ms else ()
        drawn = line_chart(delays_us, series, title=title, y_label=y_label, show=show, ticks=ticks, chosen_us=chosen_us)
        parts += [f"<h3>{escape(title)}</h3>", drawn]
    if scores is not None:
        parts += [f"<p>{escape(on_arrival_text(scores))}</p>", f'<p class="note">{escape(sample_text(scores))}</p>']
    return [*parts, *_table(delays_us, [*shares, *waited])]


def _table(delays_us: list[int], series: list[Series]) -> list[str]:
    head = "".join(f"<th>{escape(line.name)}</th>" for line in series)
    rows = []
    for place, delay_us in enumerate(delays_us):
        cells = [
            span_ms(line.values[place]) if line.name.startswith("wait") else percent(line.values[place])
            for line in series
        ]
        rows.append(f"<tr><td>{format_duration(delay_us)}</td>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>")
    return ["<table>", f"<tr><th>watermark delay</th>{head}</tr>", *rows, "</table>"]
