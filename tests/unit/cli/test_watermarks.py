"""Watermarks in one line: on the page and in the log."""

from __future__ import annotations

import io

import pytest
import structlog
from rich.console import Console

import gillnet as gn
from gillnet.cli.live import PlainReport
from gillnet.cli.logs import log_lines
from gillnet.cli.monitor import RunMonitor, View
from gillnet.cli.render import throughput_panel
from gillnet.cli.watermarks import watermark_line
from gillnet.core.time import DAY, SECOND
from gillnet.operators.progress import StreamProgress, stream_progress

NOON_US = 1_767_614_400_000_000  # 2026-01-05 12:00:00 UTC
Partition = tuple[int, int | None, int, bool]


def part(number: int, *, newest_us: int | None = NOON_US, idle: bool = False) -> Partition:
    return number, newest_us, NOON_US, idle


def progress(
    *partitions: Partition, behind_us: int | None = 6_100_000, held_by: int | None = 2, stream: str = "payments"
) -> StreamProgress:
    return stream_progress(stream, NOON_US, None if behind_us is None else NOON_US - behind_us, held_by, partitions)


@pytest.mark.parametrize(
    ("shown", "line"),
    [
        (progress(part(0), part(2)), "payments  watermark 11:59:53 (6.1 s behind, held by partition 2)"),
        (progress(part(0), held_by=0), "payments  watermark 11:59:53 (6.1 s behind)"),
        (
            progress(part(0, idle=True), part(2), part(3, idle=True)),
            "payments  watermark 11:59:53 (6.1 s behind, held by partition 2, idle: 0, 3)",
        ),
        (
            progress(part(0, idle=True), part(1, idle=True), held_by=None),
            "payments  watermark 11:59:53 (6.1 s behind, all partitions idle)",
        ),
        (progress(part(0, idle=True), held_by=None), "payments  watermark 11:59:53 (6.1 s behind, idle)"),
        (
            progress(part(0), part(2, newest_us=None), behind_us=None),
            "payments  watermark - (waits for partition 2)",
        ),
        (progress(behind_us=None, held_by=None), "payments  watermark - (nothing was read yet)"),
        (progress(part(0), behind_us=DAY), "payments  watermark 2026-01-04 12:00:00 (24 h behind)"),
        (
            progress(part(2), *(part(number, idle=True) for number in range(3, 14))),
            "payments  watermark 11:59:53 (6.1 s behind, held by partition 2, idle: 3, 4, 5, 6, 7, 8, 9, 10 and 3 more)",
        ),
        (stream_progress("clicks", NOON_US, (1 << 63) - 1, 0, [part(0)]), "clicks  watermark at the end"),
    ],
)
def test_a_line_says_how_far_behind_what_holds_it_and_who_is_idle(shown: StreamProgress, line: str) -> None:
    assert watermark_line(shown) == line


def view(*shown: StreamProgress) -> View:
    return View(
        elapsed_s=1.0,
        rate=10.0,
        streams={},
        decisions={},
        latency_ms=(None, None, None),
        alerts=0,
        sessions_closed=0,
        revisions=3,
        revisions_flipped=1,
        watermark_us=None,
        lag=None,
        progress=list(shown),
    )


@pytest.mark.parametrize("width", [76, 120])
def test_the_page_has_a_line_for_each_stream(width: int) -> None:
    console = Console(width=width, record=True, file=io.StringIO())
    console.print(throughput_panel(view(progress(part(0), part(2)), progress(part(0), held_by=0, stream="clicks"))))
    lines = [line for line in console.export_text().splitlines() if "11:59:53" in line]
    assert "watermark  11:59:53  payments  6.1 s behind, held by partition 2" in lines[0]
    assert "11:59:53  clicks  6.1 s behind" in lines[1]


def test_simulated_time_is_not_behind_the_clock() -> None:
    console = Console(width=76, record=True, file=io.StringIO())
    console.print(throughput_panel(view(progress(part(0), part(2), behind_us=300 * DAY)), simulated=True))
    assert "watermark  2025-03-11 12:00:00  simulated time" in console.export_text()


def test_the_log_has_a_line_for_each_stream(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    schema = gn.Schema(id=gn.String(), ts=gn.Timestamp("ms"), card=gn.String())
    stream = gn.Stream("payments", schema=schema, id="id", event_time="ts")
    monitor = RunMonitor(gn.Pipeline(gn.Features(stream, n=stream.by("card").count(over="1m"))).plan)
    behind = progress(part(0), part(2), part(3, idle=True), behind_us=6 * SECOND)
    monkeypatch.setattr(monitor, "view", lambda: view(behind, progress(part(0), held_by=0, stream="clicks")))
    log_lines()
    try:
        PlainReport(monitor).progress()
    finally:
        structlog.reset_defaults()
    lines = [line for line in capsys.readouterr().err.splitlines() if "event=watermark" in line]
    assert len(lines) == 2
    assert lines[0].endswith("event=watermark stream=payments at=11:59:54 behind_s=6.0 held_by=2 idle=3")
    assert lines[1].endswith("event=watermark stream=clicks at=11:59:53 behind_s=6.1")
