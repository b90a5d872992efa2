"""What ``gillnet doctor`` prints: the readings in a few lines, then the findings, the first to act on first."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from gillnet.cli.numbers import number
from gillnet.lifecycle.doctor import Finding, Readings, Severity
from gillnet.lifecycle.doctor.findings import lasting, share, size
from gillnet.lifecycle.doctor.flink_readings import FlinkJob
from gillnet.lifecycle.doctor.readings import Stream
from gillnet.lifecycle.doctor.trend import Trend

_STYLES: dict[Severity, str] = {"critical": "bold red", "warning": "bold yellow", "notice": "bold blue"}
_MOST_OPERATORS = 6


def page(readings: Readings, found: Sequence[Finding]) -> Group:
    """Return everything that is printed."""
    head = Text.assemble((readings.pipeline, "bold"), f"  {readings.source}", "  live" if readings.live else "")
    parts: list[RenderableType] = [head, _readings(readings)]
    if readings.operators:
        parts += [Text(""), _operators(readings)]
    parts += [Text(note, style="dim") for note in readings.notes]
    parts.append(Text(""))
    if not found:
        # What was not read cannot be vouched for.
        known = (
            "as far as could be seen"
            if readings.notes
            else "memory, state, event time, checkpoints and load are as they should be"
        )
        parts.append(Text(f"Nothing to do: {known}.", style="bold green"))
        return Group(*parts)
    for place, finding in enumerate(found, 1):
        parts += [*_finding(place, finding), Text("")]
    return Group(*parts[:-1])


def _readings(readings: Readings) -> Table:
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    table.add_column(style="dim", no_wrap=True)
    table.add_column()
    for name, text in _lines(readings):
        table.add_row(name, text)
    return table


def _lines(readings: Readings) -> Iterator[tuple[str, str]]:
    memory, checkpoints, load = readings.memory, readings.checkpoints, readings.load
    if memory.rss is not None:
        of = f" of {size(memory.limit)}" if memory.limit else ""
        parts = [f"{size(memory.rss)} resident{of}", f"state {size(memory.state)}"]
        if memory.malloc_used is not None and memory.malloc_free is not None:
            parts.append(f"heap {size(memory.malloc_used)} used, {size(memory.malloc_free)} free")
        if memory.arrow:
            parts.append(f"Arrow {size(memory.arrow)}")
        yield "memory", ", ".join(parts) + _moving(memory.trend)
    elif memory.limit:
        yield "memory", f"limit {size(memory.limit)}"
    if readings.operators:
        grows = readings.full_bytes > 1.1 * readings.state_bytes
        growing = f", {size(readings.full_bytes)} for the process once windows are full" if grows else ""
        yield "state", f"{size(readings.state_bytes)}{growing}{_moving(memory.state_trend)}"
    for stream in readings.streams:
        yield f"stream {stream.name}", _stream(stream) if readings.flink is None else _flink_stream(stream)
    if checkpoints.bytes:
        yield (
            "checkpoint",
            _checkpoint(readings) if readings.flink is None else _flink_checkpoint(readings, readings.flink),
        )
    if readings.flink is not None:
        yield from _flink_lines(readings.flink)
    if load.records_per_s is not None:
        loop = "" if load.loop_share is None else f", loop {share(load.loop_share)} of a CPU"
        busy = "" if readings.flink is not None else loop
        cores = "" if load.cpu_cores is None else f", process {load.cpu_cores:.1f} of {load.cpus or 0:g} CPUs"
        lag = (
            ""
            if load.lag_records is None
            else f", {number(int(load.lag_records))} records wait{_moving(load.lag_trend, unit='records')}"
        )
        late = "" if load.latency_p99_ms is None else f", p99 {load.latency_p99_ms:,.0f} ms"
        yield "load", f"{load.records_per_s:,.0f} records/s{busy}{cores}{late}{lag}"


def _flink_stream(stream: Stream) -> str:
    behind = "no event time" if stream.behind_us is None else f"watermark {lasting(stream.behind_us)} behind now"
    held = f", {stream.held_by} is {lasting(stream.held_back_us)} behind the others" if stream.held_back_us else ""
    idle = f", {stream.idle} of {stream.partitions} idle" if stream.idle else ""
    return f"{number(stream.records_read)} records, {behind}{held}{idle}"


def _flink_checkpoint(readings: Readings, job: FlinkJob) -> str:
    found = readings.checkpoints
    parts = [f"{size(found.bytes)} of {size(job.state_bytes)}"]
    if found.took_ms is not None and job.vertices:
        waited = max(vertex.start_delay_ms + vertex.aligned_ms for vertex in job.vertices)
        parts.append(
            f"{found.took_ms:,.0f} ms (the last: {waited:,.0f} ms for barriers, {found.wrote_ms or 0:,.0f} ms to write)"
        )
    parts.append(f"every {found.interval_s:g} s, {'incremental' if found.incremental else 'full'}")
    parts += ["unaligned"] if job.unaligned else []
    parts += [f"{found.failed} failed"] if found.failed else []
    return "; ".join(parts)


def _flink_lines(job: FlinkJob) -> Iterator[tuple[str, str]]:
    for vertex in job.vertices:
        parts = [f"parallelism {vertex.parallelism}", f"{number(sum(vertex.records))} records"]
        parts += [f"busy {share(vertex.busy)}"] if vertex.busy is not None else []
        parts += [f"back-pressured {share(vertex.back_pressured)}"] if vertex.back_pressured is not None else []
        yield "task", f"{vertex.name}: {', '.join(parts)}"
    for manager in job.task_managers:
        parts = [f"heap {size(manager.heap_used or 0)} of {size(manager.heap_max or 0)}"]
        parts += [f"managed {size(manager.managed_used or 0)} of {size(manager.managed_total or 0)}"]
        parts += [f"{share(manager.gc_share)} collecting garbage"] if manager.gc_share is not None else []
        yield manager.name, ", ".join(parts)


def _moving(trend: Trend | None, *, unit: str = "bytes") -> str:
    if trend is None or not (trend.rises or trend.falls):
        return ""
    an_hour = abs(trend.per_s) * 3_600
    amount = size(an_hour) if unit == "bytes" else f"{an_hour:,.0f}"
    return f", {'growing' if trend.rises else 'shrinking'} by {amount} an hour"


def _stream(stream: Stream) -> str:
    if stream.ended:
        return "ended"
    if not stream.watermark_known:
        return "no watermark"
    held = ""
    if stream.held_by is not None and stream.held_back_us > 0:
        held = f", partition {stream.held_by} is {lasting(stream.held_back_us)} behind the others"
    idle = f", {stream.idle} of {stream.partitions} partitions idle" if stream.idle else ""
    late = f"{share(stream.late_share)} late, {share(stream.too_late_share)} too late"
    return f"{number(stream.records_read)} records, {late}{held}{idle}"


def _checkpoint(readings: Readings) -> str:
    found = readings.checkpoints
    parts = [size(found.bytes)]
    if found.took_ms is not None:
        stored = "" if found.stored_ms is None else f", {found.stored_ms:,.0f} ms to store"
        parts.append(
            f"{found.took_ms:,.0f} ms: paused {found.paused_ms or 0:,.0f} ms, {(found.wrote_ms or 0):,.0f} ms to write{stored}"
        )
    parts.append(f"every {found.interval_s:g} s")
    if found.failed:
        parts.append(f"{found.failed} failed")
    return "; ".join(parts)


def _operators(readings: Readings) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    figures = ("keys", "events", "bytes", "share", "kept", "full", "top key")
    for column in ("operator", "state", *figures):
        table.add_column(column, justify="right" if column in figures else "left", no_wrap=True)
    ranked = sorted(readings.operators, key=lambda operator: -max(operator.bytes, operator.full_bytes))
    total = max(readings.state_bytes, 1.0)
    for operator in ranked[:_MOST_OPERATORS]:
        keyed = operator.largest_key is not None and operator.events
        table.add_row(
            operator.name,
            operator.kind,
            number(operator.keys) if operator.keys else "",
            number(operator.events),
            size(operator.bytes),
            share(operator.bytes / total),
            "-" if operator.kept_us is None else lasting(operator.kept_us),
            size(operator.full_bytes),
            share(operator.largest_events / operator.events) if keyed else "",
        )
    if more := ranked[_MOST_OPERATORS:]:
        table.add_row(
            f"{len(more)} more", "", "", number(sum(o.events for o in more)), size(sum(o.bytes for o in more))
        )
    return table


def _finding(place: int, finding: Finding) -> list[RenderableType]:
    title = Text.assemble(f"{place}. ", (finding.severity, _STYLES[finding.severity]), "  ", finding.title)
    lines: list[RenderableType] = [title]
    lines += [Padding(Text(f"- {advice}"), (0, 0, 0, 3)) for advice in finding.advice]
    if finding.settings:
        lines.append(Padding(Text.assemble(("set  ", "dim"), "   ".join(finding.settings)), (0, 0, 0, 3)))
    return lines
