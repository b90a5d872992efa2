"""Says how far each stream is in event time, in one line, for the live page and the log."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from gillnet.cli.numbers import seconds
from gillnet.cli.words import clock_time
from gillnet.core.time import DAY, SECOND
from gillnet.operators.progress import StreamProgress

_NAMED_PARTITIONS = 8


def watermark_line(progress: StreamProgress) -> str:
    """Write a stream's line: ``payments  watermark 12:03:04 (6.1 s behind, held by partition 2)``."""
    note = watermark_note(progress)
    return f"{progress.stream}  watermark {watermark_time(progress)}{f' ({note})' if note else ''}"


def watermark_time(progress: StreamProgress) -> str:
    """Write the watermark: the time of day alone where it is within a day of the clock."""
    if progress.ended:
        return "at the end"
    if progress.watermark_us is None or progress.lag_us is None:
        return "-"
    if abs(progress.lag_us) >= DAY:
        return clock_time(progress.watermark_us)
    return datetime.fromtimestamp(progress.watermark_us / SECOND, UTC).strftime("%H:%M:%S")


def watermark_note(progress: StreamProgress) -> str:
    """Write what is to be said of a watermark: how far behind it is, what holds it, and who is not waited for."""
    if progress.ended:
        return ""
    several, idle = len(progress.partitions) > 1, progress.idle
    if not progress.partitions:
        return "nothing was read yet"
    notes = [] if progress.lag_us is None else [f"{seconds(progress.lag_us / SECOND)} behind"]
    if len(idle) == len(progress.partitions):
        return ", ".join([*notes, "all partitions idle" if several else "idle"])
    if several:
        notes.append(f"{'waits for' if progress.watermark_us is None else 'held by'} partition {progress.held_by}")
    if idle:
        notes.append(f"idle: {_named(idle)}")
    return ", ".join(notes)


def watermark_fields(progress: StreamProgress) -> dict[str, Any]:
    """Return the same for a log line, as fields."""
    fields: dict[str, Any] = {"stream": progress.stream, "at": watermark_time(progress)}
    if progress.lag_us is not None:
        fields["behind_s"] = round(progress.lag_us / SECOND, 1)
    if progress.held_by is not None and len(progress.partitions) > 1:
        fields["held_by"] = progress.held_by
    if progress.idle and not progress.ended:
        fields["idle"] = _named(progress.idle)
    return fields


def _named(partitions: tuple[int, ...]) -> str:
    shown = ", ".join(str(partition) for partition in partitions[:_NAMED_PARTITIONS])
    more = len(partitions) - _NAMED_PARTITIONS
    return f"{shown} and {more} more" if more > 0 else shown
