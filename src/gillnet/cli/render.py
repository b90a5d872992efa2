"""Draws a run: tables and lines from a `View`, sized to the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from gillnet.cli.monitor import OpenSession, View
from gillnet.cli.numbers import money, number, share
from gillnet.cli.watermarks import watermark_note, watermark_time
from gillnet.cli.words import ReasonWords, clock_time, elapsed, milliseconds
from gillnet.observability.metrics import StreamCounts
from gillnet.operators.progress import StreamProgress
from gillnet.runtimes.embedded import Alert

DECISION_STYLES = {"block": "bold red", "step_up": "magenta", "review": "yellow", "allow": "green"}
WIDE = 120
"""Columns from which alerts have their event time."""
SIDE_BY_SIDE = 140
"""Columns from which two panels stand side by side: with fewer, decisions would not fit into one line."""


_WIDEST_KEY = 20


@dataclass(frozen=True, slots=True)
class AlertLine:
    """An alert as a line of a table."""

    time: str
    key: str
    amount: str
    score: str
    decision: str
    why: str


def alert_line(alert: Alert, words: ReasonWords, event_time: str) -> AlertLine:
    """Prepare an alert for a table; ``event_time`` names the row's event time column."""
    when = alert.row.get(event_time)
    return AlertLine(
        time=when.strftime("%d %H:%M:%S") if when is not None else "-",
        key=alert.key or alert.id,
        amount=money(alert.row["amount"]) if alert.row.get("amount") is not None else "",
        score="" if alert.score is None else f"{alert.score:.2f}",
        decision=alert.decision,
        why=", ".join(words.of(alert)),
    )


def decision_text(decision: str) -> Text:
    """Return a decision in its colour."""
    return Text(decision.replace("_", " "), style=DECISION_STYLES.get(decision, ""))


def title_line(name: str, state: str, view: View, *, hint: str = "Ctrl-C stops") -> Table:
    """Return the line on top."""
    line = Table.grid(expand=True)
    line.add_column(no_wrap=True, overflow="ellipsis")
    line.add_column(justify="right", no_wrap=True)
    line.add_row(
        Text.assemble((" gillnet ", "bold white on blue"), "  ", (name, "bold"), "  ", (state, "dim")),
        Text.assemble((elapsed(view.elapsed_s), "bold"), "  ", (hint, "dim")),
    )
    return line


def throughput_panel(view: View, *, simulated: bool = False) -> Panel:
    """Return rate, lag, latency, and how far each stream is; where its time is simulated, it is not behind the clock."""
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(no_wrap=True, overflow="ellipsis")
    p50, p95, p99 = (milliseconds(value) for value in view.latency_ms)
    rate = f"{view.rate:,.0f} records/s"
    grid.add_row("rate", Text.assemble((rate, "bold cyan"), *([] if view.lag is None else [f"   lag {view.lag:,}"])))
    grid.add_row("latency", Text.assemble("p50 ", (p50, "bold"), "  p95 ", (p95, "bold"), "  p99 ", (p99, "bold")))
    for place, progress in enumerate(view.progress):
        grid.add_row(
            "" if place else "watermark", _watermark_text(progress, named=len(view.progress) > 1, simulated=simulated)
        )
    if not view.progress:
        grid.add_row("watermark", clock_time(view.watermark_us))
    grid.add_row("decisions", decisions_text(view.decisions))
    if view.revisions:
        grid.add_row("revised", revisions_text(view))
    return Panel(grid, title="now", title_align="left", border_style="blue")


def _watermark_text(progress: StreamProgress, *, named: bool, simulated: bool) -> Text:
    parts = [watermark_time(progress), *([f"  {progress.stream}"] if named else [])]
    note = "simulated time" if simulated else watermark_note(progress)
    return Text.assemble(*parts, (f"  {note}", "dim"), no_wrap=True, overflow="ellipsis")


def decisions_text(decisions: Mapping[str, int]) -> Text:
    """Return the count of each decision, in its colour."""
    parts = [
        Text.assemble(decision_text(decision), " ", f"{decisions.get(decision, 0):,}")
        for decision in ("allow", "review", "step_up", "block")
        if decisions.get(decision) or decision == "allow"
    ]
    return Text("  ").join(parts)


def revisions_text(view: View) -> Text:
    """Return how many rows later arrivals have changed."""
    style = "bold yellow" if view.revisions_flipped else ""
    flipped = Text(f"{view.revisions_flipped:,} with another decision", style)
    return Text.assemble((f"{view.revisions:,}", "bold"), " rows by late data, ", flipped)


def accounting_panel(streams: Mapping[str, StreamCounts]) -> Panel:
    """Return what became of every record read (I3)."""
    return Panel(accounting_table(streams), title="every record accounted for", title_align="left", border_style="blue")


def accounting_table(streams: Mapping[str, StreamCounts]) -> Table:
    """Return one line a stream: read = scored + duplicate + malformed + too late."""
    table = Table(box=None, padding=(0, 1, 0, 0), header_style="dim", show_edge=False)
    table.add_column("")
    table.add_column("", no_wrap=True, min_width=max((len(name) for name in streams), default=0))
    for name in ("read", "= scored", "+ dup.", "+ malf.", "+ too late"):
        table.add_column(name, justify="right", no_wrap=True)
    for name, counts in streams.items():
        mark = Text("✓", "green") if counts.balanced else Text("…", "dim")
        figures = (counts.read, counts.scored, counts.duplicate, counts.malformed, counts.too_late)
        table.add_row(mark, Text(name, "bold"), *(f"{figure:,}" for figure in figures))
    return table


def alerts_panel(lines: Sequence[AlertLine], *, rows: int, width: int, title: str, key: str) -> Panel:
    """Return the latest alerts, newest first, in ``rows`` lines of a table."""
    table = Table(box=None, expand=True, padding=(0, 1), header_style="dim", show_edge=False)
    with_amount, with_score = any(line.amount for line in lines), any(line.score for line in lines)
    if width >= WIDE:
        table.add_column("event time", no_wrap=True, style="dim", width=11)
    keys = max((len(line.key) for line in lines), default=0)
    table.add_column(key, no_wrap=True, overflow="ellipsis", width=min(max(keys, len(key)), _WIDEST_KEY))
    if with_amount:
        table.add_column("amount", justify="right", no_wrap=True, width=9)
    if with_score:
        table.add_column("score", justify="right", no_wrap=True, width=5)
    table.add_column("decision", no_wrap=True, width=8)
    table.add_column("why", no_wrap=True, overflow="ellipsis", ratio=1)
    for line in list(lines)[: max(0, rows)]:
        cells: list[RenderableType] = [line.time] if width >= WIDE else []
        cells.append(line.key)
        cells += [Text(line.amount, "bold")] if with_amount else []
        cells += [line.score] if with_score else []
        table.add_row(*cells, decision_text(line.decision), Text(line.why))
    body: RenderableType = table if lines else Text("none so far", "dim")
    return Panel(body, title=title, title_align="left", border_style="red" if lines else "dim")


def sessions_panel(sessions: Sequence[OpenSession], *, count: str | None, width: int, title: str) -> Panel:
    """Return sessions with their figures; as many features as fit."""
    table = Table(box=None, expand=True, padding=(0, 1), header_style="dim", show_edge=False)
    table.add_column("session of", no_wrap=True, overflow="ellipsis", ratio=1)
    names = [count] if count else []
    room = width - sum(len(name) + 2 for name in names) - _SESSION_FRAME
    for name in (name for name in _shown(sessions) if name != count):
        room -= len(name) + 2
        if room < 0 or len(names) > _MOST_FEATURES:
            break
        names.append(name)
    for name in names:
        table.add_column(name.replace("_", " "), justify="right", no_wrap=True)
    table.add_column("decision", no_wrap=True, width=8)
    for session in sessions:
        cells = [_cell(name, session.features.get(name)) for name in names]
        table.add_row(session.key, *cells, decision_text(session.decision))
    body: RenderableType = table if sessions else Text("none flagged so far", "dim")
    return Panel(body, title=title, title_align="left", border_style="magenta" if sessions else "dim")


_SESSION_FRAME = 32
"""Columns that the panel, the key and the decision take."""

_MOST_FEATURES = 6
_PREFERRED = ("per_minute", "mean_gap", "modal", "path_ratio", "error_ratio", "ratio", "rate", "score", "entropy")


def _shown(sessions: Sequence[OpenSession]) -> list[str]:
    """Choose the features that tell most about a session, by the words in their names."""
    names = list(dict.fromkeys(name for session in sessions for name in session.features))
    rank = {name: next((n for n, word in enumerate(_PREFERRED) if word in name), len(_PREFERRED)) for name in names}
    return sorted(names, key=lambda name: rank[name])


def _cell(name: str, value: object) -> str:
    return share(value) if value is not None and ("share" in name or "ratio" in name) else number(value)


def messages_text(messages: Sequence[str]) -> Text:
    """Return the latest log messages."""
    return Text("\n".join(messages), style="yellow", no_wrap=True, overflow="ellipsis")


def summary(name: str, view: View, *, stopped: bool) -> Group:
    """Return what stays on the terminal when a run has ended."""
    state = "stopped" if stopped else "finished"
    line = Text.assemble((" gillnet ", "bold white on blue"), f"  {name} {state} after {elapsed(view.elapsed_s)}")
    return Group(line, throughput_panel(view), accounting_panel(view.streams))
