"""Rules about checkpoints: whether they are there, how long they take and why, and what they cost."""

from __future__ import annotations

from collections.abc import Iterator

from gillnet.lifecycle.doctor.findings import Finding, lasting, size
from gillnet.lifecycle.doctor.readings import Readings

_PAUSE_MS = 50.0


def checkpoints_fail(readings: Readings) -> Iterator[Finding]:
    """Find checkpoints that could not be written, or none for long while the run runs."""
    found = readings.checkpoints
    if found.failed:
        yield Finding(
            rule="checkpoints_fail",
            severity="critical",
            title=f"{found.failed} checkpoints could not be written in the time that was seen; {found.completed} were.",
            figures={"failed": found.failed, "completed": found.completed, "disk_free_bytes": readings.disk.free},
            advice=(
                "The log says why (`checkpoint failed`): a full disk, or a place that cannot be reached. After a crash all since the last "
                "whole one is read again.",
            ),
            effect=1.0,
        )
    stale_s = max(5 * found.interval_s, 300.0)
    if (
        readings.live
        and found.age_s is not None
        and found.age_s > stale_s
        and not found.failed
        and readings.load.records_per_s
    ):
        yield Finding(
            rule="checkpoints_stale",
            severity="warning",
            title=f"The newest checkpoint is {lasting(found.age_s * 1e6)} old, and one is due every {lasting(found.interval_s * 1e6)}.",
            figures={"age_s": round(found.age_s), "interval_s": found.interval_s},
            advice=("See whether one is under way for so long, or the place is the one that the run writes to.",),
            effect=0.8,
        )


def checkpoint_slow(readings: Readings) -> Iterator[Finding]:
    """Find checkpoints that take so long that the next is due."""
    found = readings.checkpoints
    if found.took_ms is None or found.took_ms < 0.5 * found.interval_s * 1_000:
        return
    wrote_ms, stored_ms = found.wrote_ms or found.took_ms, found.stored_ms or 0.0
    writing = wrote_ms >= stored_ms
    longest = "writing the state" if writing else "storing what was written (checksums, upload)"
    interval_s = max(round(4 * found.took_ms / 1_000), round(2 * found.interval_s))
    yield Finding(
        rule="checkpoint_slow",
        severity="critical" if found.took_ms >= found.interval_s * 1_000 else "warning",
        title=(
            f"A checkpoint of {size(found.bytes)} takes {found.took_ms / 1_000:.1f} s, and one is due every "
            f"{found.interval_s:.0f} s: most of it is {longest}."
        ),
        figures={
            "bytes": found.bytes,
            "paused_ms": found.paused_ms,
            "wrote_ms": found.wrote_ms,
            "stored_ms": found.stored_ms,
            "took_ms": found.took_ms,
            "interval_s": found.interval_s,
        },
        advice=(
            *_less_to_write(readings),
            "Take them less often: after a crash so much more is read again.",
            "Write to a faster disk."
            if writing
            else "Store them nearer: a disk of the machine, or a bucket of the same region.",
        ),
        settings=(*_incremental(readings), f'options.checkpoint_interval = "{interval_s}s"'),
        effect=min(found.took_ms / (found.interval_s * 1_000), 1.0),
    )


def checkpoint_pause(readings: Readings) -> Iterator[Finding]:
    """Find a run that stands still for too long while a checkpoint begins."""
    found = readings.checkpoints
    if found.paused_ms is None or found.paused_ms <= _PAUSE_MS:
        return
    yield Finding(
        rule="checkpoint_pause",
        severity="warning",
        title=f"The run stands still for {found.paused_ms:.0f} ms when a checkpoint begins, with {size(readings.state_bytes)} of state.",
        figures={"paused_ms": found.paused_ms, "state_bytes": readings.state_bytes, "rss_bytes": readings.memory.rss},
        advice=(
            *_less_to_write(readings),
            "The pause is the fork's, some 0.1 ms for each MB of memory: a smaller process pauses less; taken less often, it is seldom.",
        ),
        settings=(*_incremental(readings), f'options.checkpoint_interval = "{2 * found.interval_s:.0f}s"'),
        effect=min(found.paused_ms / 1_000, 1.0),
    )


def checkpoint_writes(readings: Readings) -> Iterator[Finding]:
    """Find whole checkpoints that write a lot, over and over."""
    found = readings.checkpoints
    per_s = found.bytes / max(found.interval_s, 1e-3)
    if found.incremental or per_s < 50e6:
        return
    yield Finding(
        rule="checkpoint_writes",
        severity="notice",
        title=f"Checkpoints write {size(per_s)} a second: the whole state of {size(found.bytes)} every {found.interval_s:.0f} s.",
        figures={"bytes_per_s": round(per_s), "bytes": found.bytes, "interval_s": found.interval_s},
        advice=(*_less_to_write(readings), "Take them less often."),
        settings=(*_incremental(readings), f'options.checkpoint_interval = "{2 * found.interval_s:.0f}s"'),
        effect=0.3,
    )


def serialisation(readings: Readings) -> Iterator[Finding]:
    """Find state that costs much to write: time for a MB, or bytes for an event."""
    found = readings.checkpoints
    events = sum(operator.events for operator in readings.operators if operator.kind in ("windows", "pattern", "join"))
    # What is written is compressed; what it costs is the state that is gone through.
    megabytes = max(readings.state_bytes, found.bytes) / 1e6
    if found.wrote_ms is None or found.wrote_ms < 5_000:
        return
    per_mb_ms, per_event = found.wrote_ms / max(megabytes, 1.0), found.bytes / max(events, 1)
    if per_mb_ms < 25:
        return
    rows = sum(operator.bytes for operator in readings.operators if operator.kind == "revisable rows")
    yield Finding(
        rule="serialisation",
        severity="notice",
        title=f"Writing state costs {per_mb_ms:.0f} ms for a MB of it and {per_event:.0f} bytes for an event; a quiet machine takes 4 ms.",
        figures={"ms_per_mb": round(per_mb_ms, 1), "bytes_per_event": round(per_event), "revisable_row_bytes": rows},
        advice=(
            "See whether the disk or the CPU is short: a core that is free while a checkpoint is written, and a disk that is not shared.",
            "Columns that features do not need any more, and revisions that nobody takes, are written too.",
        ),
        settings=("Pipeline(…, revisions=False)",) if rows > 0.5 * readings.state_bytes else (),
        effect=0.2,
    )


def disk_full(readings: Readings) -> Iterator[Finding]:
    """Find a disk without room for the next checkpoint, or soon without."""
    free, found = readings.disk.free, readings.checkpoints
    if free is None:
        return
    wanted = max(2 * found.bytes, 64e6)
    trend = readings.disk.trend
    left_s = trend.until_s(wanted) if trend is not None and trend.falls and trend.span_s >= 600 else None
    soon = left_s is not None and left_s < 86_400
    if free >= wanted and not soon:
        return
    when = f" and it is gone in {lasting(left_s * 1e6)} at the pace of now" if left_s and free >= wanted else ""
    yield Finding(
        rule="disk_full",
        severity="critical" if free < wanted else "warning",
        title=f"The disk of the checkpoints has {size(free)} left{when}; the next checkpoint needs about {size(found.bytes)}.",
        figures={
            "disk_free_bytes": free,
            "checkpoint_bytes": found.bytes,
            "until_full_s": None if left_s is None else round(left_s),
        },
        advice=(
            "Make room, or keep checkpoints elsewhere: a run goes on without new ones, and a crash then costs all since the last.",
        ),
        effect=0.9,
    )


def _less_to_write(readings: Readings) -> tuple[str, ...]:
    if "rocksdb" in readings.options and readings.backend == "memory":
        return ("Keep state in RocksDB: its checkpoints hold only what changed.",)
    return ("Less state is less to write: see windows and lateness.",)


def _incremental(readings: Readings) -> tuple[str, ...]:
    return (
        ('options.state_backend = "rocksdb"',) if "rocksdb" in readings.options and readings.backend == "memory" else ()
    )


RULES = (
    checkpoints_fail,
    checkpoint_slow,
    checkpoint_pause,
    checkpoint_writes,
    serialisation,
    disk_full,
)
