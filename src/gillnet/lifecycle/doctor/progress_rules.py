"""Rules about event time: what holds a watermark, and with it everything that should expire."""

from __future__ import annotations

from collections.abc import Iterator

from gillnet.core.time import HOUR, MINUTE, format_duration
from gillnet.lifecycle.doctor.findings import Finding, lasting, share, size
from gillnet.lifecycle.doctor.readings import Readings, Stream


def watermark_held(readings: Readings) -> Iterator[Finding]:
    """Find one partition that is far behind the others, and holds the watermark of its stream."""
    for stream in readings.streams:
        patience_us = max(10 * stream.watermark_delay_us, MINUTE)
        if stream.ended or stream.held_by is None or stream.held_back_us < patience_us:
            continue
        kept = _kept_alive(readings, stream)
        part = kept / max(readings.state_bytes, 1.0)
        silent = stream.held_silent_us > MINUTE
        how = f", silent for {lasting(stream.held_silent_us)}" if silent else ""
        stays = f"{size(kept)} of state or more ({share(part)}) stay for it, and " if kept else ""
        yield Finding(
            rule="watermark_held",
            severity="critical" if stream.held_back_us >= HOUR else "warning",
            title=(
                f"Partition {stream.held_by} of {stream.name} holds the watermark {lasting(stream.held_back_us)} behind the others{how}: "
                f"{stays}nothing expires while it stands."
            ),
            figures={
                "stream": stream.name,
                "partition": stream.held_by,
                "behind_others_us": stream.held_back_us,
                "silent_us": stream.held_silent_us,
                "idle_after_us": stream.idle_after_us,
                "kept_bytes": round(kept),
            },
            advice=_held_advice(stream, silent=silent),
            settings=(f'Stream("{stream.name}", idle_after="30s")',)
            if silent and stream.idle_after_us > MINUTE
            else (),
            effect=1.0,
        )


def _held_advice(stream: Stream, *, silent: bool) -> tuple[str, ...]:
    where = f"partition {stream.held_by}"
    if silent and stream.idle_after_us > MINUTE:
        long = format_duration(stream.idle_after_us)
        return (
            f"It says nothing and is waited for for {long}: let silent partitions be left out sooner.",
            f"See why nothing is produced to {where}: a producer that died, or a key that is routed nowhere.",
        )
    return (
        f"See what produces to {where}: it is slow, replays old records, or its clock is wrong.",
        "A source that lags for good belongs in a stream of its own, which others look up.",
    )


def _kept_alive(readings: Readings, stream: Stream) -> float:
    """Return what would expire at once if the partition were where the others are: at least."""
    kept = 0.0
    for operator in readings.operators:
        if operator.stream == stream.name:
            reached = [span for span in operator.overdue_bytes if span <= stream.held_back_us]
            kept += operator.overdue_bytes[max(reached)] - operator.expired_bytes if reached else 0.0
    return kept


def no_watermark(readings: Readings) -> Iterator[Finding]:
    """Find a stream without a watermark: nothing of it can expire."""
    for stream in readings.streams:
        if stream.watermark_known or stream.ended or not stream.records_read:
            continue
        yield Finding(
            rule="no_watermark",
            severity="critical",
            title=f"{stream.name} has no watermark, since a partition was assigned and never heard: nothing of it expires.",
            figures={"stream": stream.name, "partitions": stream.partitions, "idle_after_us": stream.idle_after_us},
            advice=(f"A silent partition is left out after idle_after, {format_duration(stream.idle_after_us)} now.",),
            settings=(f'Stream("{stream.name}", idle_after="30s")',),
            effect=1.0,
        )


def streams_apart(readings: Readings) -> Iterator[Finding]:
    """Find looked-up state that waits for another stream, which is far behind."""
    lateness = {stream.name: stream.allowed_lateness_us for stream in readings.streams}
    for operator in readings.operators:
        late_us, allowed_us = operator.late_us, lateness.get(operator.stream, 0)
        if operator.kind not in ("windows", "pattern", "join") or late_us is None or not operator.kept_us:
            continue
        waits_us = late_us - max(allowed_us, max(lateness.values(), default=0))
        part = operator.bytes * waits_us / max(operator.kept_us, 1)
        if waits_us < HOUR or part < 0.1 * readings.state_bytes:
            continue
        yield Finding(
            rule="streams_apart",
            severity="warning",
            title=(
                f"{operator.name} keeps {size(part)} for a stream that reads it {lasting(waits_us)} later than "
                f"{operator.stream} is: both must have passed an event before it goes."
            ),
            figures={"operator": operator.name, "waits_us": waits_us, "bytes": round(part)},
            advice=(
                "Let the stream that is behind catch up: read it with more capacity, or see what holds its watermark.",
            ),
            effect=part / max(readings.state_bytes, 1.0),
        )


def records_too_late(readings: Readings) -> Iterator[Finding]:
    """Find records that are refused because they are behind the allowed lateness."""
    for stream in readings.streams:
        if stream.too_late_share < 0.001 or stream.records_read < 1_000:
            continue
        yield Finding(
            rule="records_too_late",
            severity="warning" if stream.too_late_share >= 0.01 else "notice",
            title=(
                f"{share(stream.too_late_share)} of the records of {stream.name} are further behind the watermark than the "
                f"allowed lateness of {format_duration(stream.allowed_lateness_us)}, and go to its side output."
            ),
            figures={
                "stream": stream.name,
                "too_late_share": stream.too_late_share,
                "records_read": stream.records_read,
            },
            advice=("See `gillnet lateness` for how late they are; `gillnet repair` corrects rows from the history.",),
            effect=stream.too_late_share,
        )


RULES = (watermark_held, no_watermark, streams_apart, records_too_late)
