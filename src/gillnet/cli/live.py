"""Shows a run while it goes: a live page in a terminal, log lines anywhere else."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator, MutableMapping
from contextlib import contextmanager
from typing import Any

import structlog
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.layout import Layout
from rich.live import Live

from gillnet.cli import render
from gillnet.cli.monitor import BusiestSessions, RowTap, RunMonitor, View
from gillnet.cli.watermarks import watermark_fields
from gillnet.cli.words import ReasonWords, clock_time, instant
from gillnet.core.secrets import conceal
from gillnet.runtimes.embedded import Alert

FRAMES_PER_SECOND = 4
PLAIN_EVERY_S = 5.0
_KEPT_ALERTS = 100
_MESSAGES = 3

_log = structlog.get_logger("gillnet.run")


class RunPage:
    """The page that ``gillnet run`` shows; draws itself anew for every frame.

    Parameters
    ----------
    monitor
        Watches the run.
    tap
        Sees the rows of a pipeline with sessions; None for others.
    title
        Stands on top; by default the pipeline's name.
    state
        Says what the run does at this moment.
    more
        Draws one more panel above the alerts, for a width and the rows that are free, and says how high it is.
    simulated
        Event time is simulated, so that it is not said how far it is behind the clock.
    """

    def __init__(
        self,
        monitor: RunMonitor,
        *,
        tap: RowTap | None = None,
        title: str | None = None,
        state: Callable[[], str] = lambda: "running",
        more: Callable[[int, int], tuple[RenderableType, int]] | None = None,
        simulated: bool = False,
    ) -> None:
        self._monitor = monitor
        self._tap = tap
        self._plan = monitor.plan
        self._title = title or self._plan.name
        self._state = state
        self._more = more
        self._simulated = simulated
        self._words = ReasonWords(self._plan)
        self._event_time = self._plan.stream(self._plan.root).event_time
        self._alerts: deque[render.AlertLine] = deque(maxlen=_KEPT_ALERTS)
        self._sessions = BusiestSessions(self._plan) if tap is not None and self._plan.sessions else None
        self.messages: deque[str] = deque(maxlen=_MESSAGES)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield self.draw(options.max_width, options.height or console.height)

    def draw(self, width: int, height: int) -> RenderableType:
        """Return the page for a terminal of this size."""
        view = self._monitor.view()
        for alert in self._monitor.drain_alerts():
            self._alerts.appendleft(render.alert_line(alert, self._words, self._event_time))
        if self._sessions is not None and self._tap is not None:
            self._sessions.add(self._tap.drain())
        page = Layout()
        parts = [Layout(render.title_line(self._title, self._state(), view), size=1), self._figures(view, width)]
        used = sum(part.size or 0 for part in parts)
        if self.messages:
            parts.append(Layout(render.messages_text(list(self.messages)), size=len(self.messages)))
            used += len(self.messages)
        if self._more is not None:
            panel, size = self._more(width, height - used)
            parts.append(Layout(panel, size=size))
            used += size
        page.split_column(*parts, *self._lists(view, width, height - used))
        return page

    def _figures(self, view: View, width: int) -> Layout:
        now, accounts = render.throughput_panel(view, simulated=self._simulated), render.accounting_panel(view.streams)
        now_rows = 5 + max(1, len(view.progress)) + (view.revisions > 0)
        figures = Layout(size=max(7, now_rows, len(view.streams) + 3))
        if width >= render.SIDE_BY_SIDE:
            figures.split_row(Layout(now), Layout(accounts))
        else:
            figures.size = now_rows + len(view.streams) + 3
            figures.split_column(Layout(now, size=now_rows), Layout(accounts))
        return figures

    def _lists(self, view: View, width: int, rows: int) -> list[Layout]:
        sessions_rows = 0 if self._sessions is None else max(4, min(rows // 2, 11))
        shown, key = rows - sessions_rows - 3, "key" if self._plan.sessions is None else self._plan.sessions.key
        title = f"alerts ({view.alerts:,})"
        alerts = render.alerts_panel(list(self._alerts), rows=shown, width=width, title=title, key=key)
        if self._sessions is None:
            return [Layout(alerts)]
        busiest = self._sessions.top(sessions_rows - 3, open_since=self._open_since(view))
        panel = render.sessions_panel(
            busiest,
            count=self._sessions.count,
            width=width,
            title=f"busiest flagged sessions that are open ({view.sessions_closed:,} have closed so far)",
        )
        return [Layout(alerts), Layout(panel, size=sessions_rows)]

    def _open_since(self, view: View) -> str:
        """Return the time, as rows write it, since when an open session must have had a click."""
        assert self._plan.sessions is not None
        return instant((view.watermark_us or 0) - self._plan.sessions.gap_us)


class PlainReport:
    """Log lines of a run: figures every few seconds, and each alert."""

    def __init__(self, monitor: RunMonitor, *, lane: int | None = None) -> None:
        self._monitor = monitor
        self._words = ReasonWords(monitor.plan)
        self._log = _log if lane is None else _log.bind(lane=lane)

    def alerts(self) -> None:
        """Log the alerts since the last call."""
        for alert in self._monitor.drain_alerts():
            self._alert(alert)

    def _alert(self, alert: Alert) -> None:
        fields: dict[str, Any] = {"id": alert.id, "key": alert.key, "decision": alert.decision}
        if alert.score is not None:
            fields["score"] = round(alert.score, 4)
        self._log.info("alert", **fields, why="; ".join(self._words.of(alert)))

    def progress(self, event: str = "progress") -> None:
        """Log the figures of this moment."""
        view = self._monitor.view()
        for progress in view.progress:
            self._log.info("watermark", **watermark_fields(progress))
        p50, p95, p99 = (None if value is None else round(value, 2) for value in view.latency_ms)
        streams = {
            name: f"read={c.read} scored={c.scored} duplicate={c.duplicate} malformed={c.malformed} too_late={c.too_late}"
            for name, c in view.streams.items()
        }
        self._log.info(
            event,
            elapsed_s=round(view.elapsed_s, 1),
            records_per_s=round(view.rate),
            **({} if view.lag is None else {"lag": view.lag}),
            latency_ms_p50=p50,
            latency_ms_p95=p95,
            latency_ms_p99=p99,
            watermark=clock_time(view.watermark_us),
            **view.decisions,
            alerts=view.alerts,
            **({"revisions": view.revisions, "flipped": view.revisions_flipped} if view.revisions else {}),
            **streams,
        )


@contextmanager
def live_page(console: Console, page: Any, messages: deque[str]) -> Iterator[None]:
    """Show a page on the alternate screen, several times a second, from a thread of its own; log lines go into it."""
    log_to(messages.append)
    live = Live(
        page,
        console=console,
        screen=True,
        refresh_per_second=FRAMES_PER_SECOND,
        redirect_stdout=False,
        redirect_stderr=False,
    )
    with live:
        yield


@contextmanager
def repeating(action: Callable[[], None], every_s: float) -> Iterator[None]:
    """Call an action again and again from a thread of its own, and once more at the end."""
    ended = threading.Event()

    def repeat() -> None:
        while not ended.wait(every_s):
            action()

    thread = threading.Thread(target=repeat, name="gillnet-report", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        action()


@contextmanager
def plain_report(monitor: RunMonitor, *, every_s: float = PLAIN_EVERY_S, lane: int | None = None) -> Iterator[None]:
    """Log a run until the end, and then its last figures; ``lane``: the partition that it alone reads."""
    report = PlainReport(monitor, lane=lane)
    # Alerts come soon after they happen, figures every few seconds.
    with repeating(report.alerts, min(0.5, every_s)), _progress(report, every_s):
        yield
    report.progress("finished")


@contextmanager
def _progress(report: PlainReport, every_s: float) -> Iterator[None]:
    ended = threading.Event()

    def repeat() -> None:
        while not ended.wait(every_s):
            report.progress()

    thread = threading.Thread(target=repeat, name="gillnet-progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def log_to(take: Callable[[str], Any]) -> None:
    """Send log lines to a page, short."""

    def keep(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> str:
        name = event.pop("event", "")
        level = event.pop("level", "info")
        details = " ".join(f"{key}={value}" for key, value in event.items())
        take(conceal(f"{level}: {name} {details}"))
        raise structlog.DropEvent

    structlog.configure(processors=[structlog.processors.add_log_level, keep], cache_logger_on_first_use=False)
