"""Rules about memory and about state: whether it fits, what it is made of, and what would make it smaller."""

from __future__ import annotations

from collections.abc import Iterator

from gillnet.core.time import DAY, HOUR, MINUTE, format_duration
from gillnet.lifecycle.doctor.findings import Finding, Severity, lasting, share, size
from gillnet.lifecycle.doctor.readings import Feature, Operator, Readings

_LATE_KINDS = ("ids", "revisable rows")
_SHORTER_US = (30 * DAY, 14 * DAY, 7 * DAY, 3 * DAY, DAY, 6 * HOUR, HOUR, 15 * MINUTE)
_LARGE_BYTES = 1e9


def memory_full(readings: Readings) -> Iterator[Finding]:
    """Find memory that is nearly at its limit."""
    rss, limit = readings.memory.rss, readings.memory.limit
    if rss is None or limit is None or rss < 0.75 * limit:
        return
    parts = [f"{size(readings.state_bytes)} are state"]
    if readings.memory.malloc_free:
        parts.append(f"{size(readings.memory.malloc_free)} are free heap that was not given back")
    yield Finding(
        rule="memory_full",
        severity="critical" if rss >= 0.9 * limit else "warning",
        title=f"The process takes {share(rss / limit)} of the memory that it may: {size(rss)} of {size(limit)}; {', '.join(parts)}.",
        figures={"rss_bytes": rss, "limit_bytes": limit, "state_bytes": readings.state_bytes},
        advice=("Make state smaller (below), " + _elsewhere(readings) + "or give the process more memory.",),
        settings=_backend(readings),
        effect=rss / limit,
        symptom=True,
    )


def memory_grows(readings: Readings) -> Iterator[Finding]:
    """Find memory that will be at its limit within a day, at the pace of now."""
    trend, limit = readings.memory.trend, readings.memory.limit
    if trend is None or limit is None or not trend.rises or trend.span_s < 600:
        return
    # Windows that are not full yet grow, and stop; that is no matter where all of it fits.
    fills_up = all(operator.kept_us is not None for operator in readings.operators if operator.bytes > 0)
    left_s = trend.until_s(limit)
    if left_s is None or left_s > 86_400 or (readings.operators and fills_up and readings.full_bytes < 0.75 * limit):
        return
    yield Finding(
        rule="memory_grows",
        severity="critical" if left_s < 3_600 else "warning",
        title=f"Memory grows by {size(trend.per_s * 3_600)} an hour and is at its limit of {size(limit)} in {lasting(left_s * 1e6)}.",
        figures={
            "growth_bytes_per_s": round(trend.per_s),
            "steady": round(trend.steady, 2),
            "seen_s": round(trend.span_s),
            "until_limit_s": round(left_s),
        },
        advice=(
            "See below what holds it; until then a restart gains nothing, since the state comes back from the checkpoint.",
        ),
        effect=1.0,
        symptom=True,
    )


def state_will_not_fit(readings: Readings) -> Iterator[Finding]:
    """Find state that will be too large once its windows are full, whatever it takes now."""
    limit, full = readings.memory.limit, readings.full_bytes
    if limit is None or full < 0.75 * limit or full < 1.1 * (readings.memory.rss or readings.state_bytes):
        return
    growing = sorted(readings.operators, key=lambda operator: operator.bytes - operator.full_bytes)[:3]
    parts = [f"{operator.name} ({operator.kind}) {size(operator.full_bytes)}" for operator in growing]
    yield Finding(
        rule="state_will_not_fit",
        severity="critical" if full > limit else "warning",
        title=(
            f"At the pace of now the process will take {size(full)} once windows are full, of {size(limit)} that it may: "
            f"{', '.join(parts)}."
        ),
        figures={
            "full_bytes": round(full),
            "limit_bytes": limit,
            "state_bytes": readings.state_bytes,
            "operators": {operator.name: round(operator.full_bytes) for operator in growing},
        },
        advice=("Keep less (below), " + _elsewhere(readings) + "or give the process more memory before it is needed.",),
        settings=_backend(readings),
        effect=min(1.0, 1 - limit / full) if full > limit else 0.2,
        symptom=True,
    )


def long_window(readings: Readings) -> Iterator[Finding]:
    """Find windows for the sake of which much is kept that nothing else needs."""
    if not readings.pressed and readings.full_bytes < _LARGE_BYTES:
        return
    for operator in readings.operators:
        longest = max(operator.features, key=lambda feature: feature.window_us, default=None)
        if longest is None or operator.kept_us is None or longest.window_us < DAY:
            continue
        finding = _long_window(readings, operator, longest)
        if finding is not None:
            yield finding


def _long_window(readings: Readings, operator: Operator, longest: Feature) -> Finding | None:
    late_us = operator.late_us or 0
    as_long = [feature for feature in operator.features if feature.window_us == longest.window_us]
    next_us = max((feature.window_us for feature in operator.features if feature not in as_long), default=0)
    full, total = operator.full_bytes, max(readings.full_bytes, 1.0)
    alone = full - operator.full_bytes_with(next_us + late_us)
    if alone < 0.2 * total:
        return None
    shorter = [window_us for window_us in _SHORTER_US if next_us <= window_us < longest.window_us][:2]
    with_less = {window_us: operator.full_bytes_with(window_us + late_us) for window_us in shorter}
    names = ", ".join(feature.name for feature in as_long)
    told = "; ".join(f"with {format_duration(window)} {size(bytes_)}" for window, bytes_ in with_less.items())
    return Finding(
        rule="long_window",
        severity="warning" if readings.pressed else "notice",
        title=(
            f"{operator.name} keeps events for {format_duration(longest.window_us)} for {names} alone: it takes "
            f"{size(operator.bytes)} now and {size(full)} when it is full{'; ' + told if told else ''}."
        ),
        figures={
            "operator": operator.name,
            "features": [feature.name for feature in as_long],
            "window_us": longest.window_us,
            "next_window_us": next_us,
            "bytes": operator.bytes,
            "full_bytes": round(full),
            "alone_bytes": round(alone),
            "full_bytes_with": {format_duration(window): round(bytes_) for window, bytes_ in with_less.items()},
        },
        advice=(
            "Give the feature a shorter window, or a coarser key; features that need the long past belong in the history and in a "
            "lookup, not in live state.",
        ),
        settings=tuple(f'{feature.name}: over="{format_duration(shorter[0])}"' for feature in as_long if shorter),
        effect=min(alone / total, 1.0),
    )


def lateness_dominates(readings: Readings) -> Iterator[Finding]:
    """Find an allowed lateness that keeps much, where hardly anything comes so late."""
    if not readings.pressed and readings.full_bytes < _LARGE_BYTES:
        return
    for stream in readings.streams:
        own = [operator for operator in readings.operators if operator.stream == stream.name and operator.kept_us]
        kept = sum(_for_lateness(operator, stream.allowed_lateness_us) for operator in own)
        total = max(readings.full_bytes, 1.0)
        if stream.allowed_lateness_us < HOUR or kept < 0.3 * total or stream.late_share > 0.05:
            continue
        parts = {operator.kind: size(operator.full_bytes) for operator in own if operator.kind in _LATE_KINDS}
        told = ", ".join(f"{kind} {amount}" for kind, amount in parts.items())
        target_us = max(stream.allowed_lateness_us // 8, 10 * MINUTE)
        revising = sum(o.full_bytes for o in own if o.kind == "revisable rows") > 0.3 * total
        yield Finding(
            rule="lateness_dominates",
            severity="warning" if readings.pressed else "notice",
            title=(
                f"The allowed lateness of {stream.name}, {format_duration(stream.allowed_lateness_us)}, keeps {size(kept)} ({told}), and "
                f"{share(stream.late_share)} of its records are late at all."
            ),
            figures={
                "stream": stream.name,
                "allowed_lateness_us": stream.allowed_lateness_us,
                "late_bytes": round(kept),
                "late_share": stream.late_share,
                "too_late_share": stream.too_late_share,
            },
            advice=(
                "Allow less: `gillnet lateness` tells how late records are. What comes later goes to the side output too_late, and "
                "`gillnet repair` corrects it from the history.",
                *(("Rows that nobody corrects need not be kept: leave revisions out.",) if revising else ()),
            ),
            settings=(
                f'Stream("{stream.name}", allowed_lateness="{format_duration(target_us)}")',
                *(("Pipeline(…, revisions=False)",) if revising else ()),
            ),
            effect=min(kept / total, 1.0) * 0.8,
        )


def _for_lateness(operator: Operator, lateness_us: int) -> float:
    """Return what of an operator is there for the allowed lateness, when it is full."""
    if operator.kind in _LATE_KINDS:
        return operator.full_bytes
    kept_us = max(operator.kept_us or 0, 1)
    return operator.full_bytes * min(lateness_us / kept_us, 1.0)


def skewed_key(readings: Readings) -> Iterator[Finding]:
    """Find a key that has a large part of all events, or comes near its limit."""
    for operator in readings.operators:
        events, top = operator.events, operator.largest_events
        if operator.keys < 20 or events < 1_000 or operator.largest_key is None:
            continue
        part, of_limit = top / events, top / readings.max_events_per_key
        if part < 0.2 and of_limit < 0.25:
            continue
        severity: Severity = "warning" if part >= 0.5 or of_limit >= 0.25 else "notice"
        yield Finding(
            rule="skewed_key",
            severity=severity,
            title=(
                f"One key of {operator.name} ({operator.kind}), {operator.largest_key!r}, has {share(part)} of its events: "
                f"{top:,} of {events:,} over {operator.keys:,} keys, {size(operator.largest_bytes)}."
            ),
            figures={
                "operator": operator.name,
                "key": operator.largest_key,
                "events": top,
                "share": round(part, 4),
                "gini": round(operator.gini, 3),
                "share_of_limit": round(of_limit, 6),
            },
            advice=(
                "See whether it is a key at all: a placeholder, a test account or a shared address says nothing, and is best made null "
                "before it comes in. `gillnet state get` shows it.",
                "A key is worked on by one thread: more workers do not help it.",
            ),
            settings=(f"max_events_per_key={_round_limit(top)}",) if of_limit >= 0.25 else (),
            effect=part * operator.bytes / max(readings.state_bytes, 1.0),
        )


def _round_limit(events: int) -> int:
    limit = 1_000
    while limit < events:
        limit *= 2
    return limit


def saturated(readings: Readings) -> Iterator[Finding]:
    """Find keys that are over their limit: features of them are wrong, and say so."""
    over = [operator for operator in readings.operators if operator.saturated_keys]
    if not over:
        return
    told = ", ".join(f"{operator.name} {operator.saturated_keys:,}" for operator in over)
    yield Finding(
        rule="saturated",
        severity="warning",
        title=f"Keys have dropped events because they were over their limit, and their features say `saturated`: {told}.",
        figures={operator.name: operator.saturated_keys for operator in over},
        advice=("Raise the limit if these keys matter, or keep them out if they do not: see the largest keys.",),
        settings=("Pipeline(…, max_events_per_key=…)", "Pipeline(…, max_partial_matches=…)"),
        effect=0.5,
    )


def unswept(readings: Readings) -> Iterator[Finding]:
    """Find much that has expired and was not swept, because little comes in to sweep it with."""
    expired = sum(operator.expired_bytes for operator in readings.operators)
    if expired < 1e8 or expired < 0.25 * readings.state_bytes or all(s.ended for s in readings.streams):
        return
    yield Finding(
        rule="unswept",
        severity="notice",
        title=f"{size(expired)} of state have expired and wait to be swept, {share(expired / readings.state_bytes)} of it.",
        figures={"expired_bytes": expired, "state_bytes": readings.state_bytes},
        advice=(
            "State is swept a little with every batch: it comes back as records come in. Nothing to change unless it stays.",
        ),
        effect=expired / readings.state_bytes,
    )


def free_heap(readings: Readings) -> Iterator[Finding]:
    """Find heap that the C library keeps although nobody uses it."""
    free, rss = readings.memory.malloc_free, readings.memory.rss
    if not free or not rss or free < 256e6 or free < 0.3 * rss:
        return
    yield Finding(
        rule="free_heap",
        severity="notice",
        title=f"{size(free)} of {size(rss)} are heap that is free and was not given back to the system.",
        figures={"malloc_free_bytes": free, "malloc_used_bytes": readings.memory.malloc_used, "rss_bytes": rss},
        advice=(
            "Let the C library use fewer arenas and give back sooner; state that comes and goes leaves holes otherwise.",
        ),
        settings=("MALLOC_ARENA_MAX=2", "MALLOC_TRIM_THRESHOLD_=134217728"),
        effect=free / rss,
    )


def swapping(readings: Readings) -> Iterator[Finding]:
    """Find memory that is swapped out: a key's state may be on a disk when its event comes."""
    swap, rss = readings.memory.swap, readings.memory.rss or 0.0
    if swap < 64e6 or swap < 0.05 * rss:
        return
    yield Finding(
        rule="swapping",
        severity="warning",
        title=f"{size(swap)} of the process are swapped out, so that events wait for a disk.",
        figures={"swap_bytes": swap, "rss_bytes": rss},
        advice=("Give the process memory of its own, or switch swap off for it; make state smaller (below).",),
        effect=swap / (swap + rss),
        symptom=True,
    )


def waiting_rows(readings: Readings) -> Iterator[Finding]:
    """Find rows that wait for a watermark or for another stream, near the limit at which they leave with what is known."""
    waiting = sum(operator.events for operator in readings.operators if operator.kind == "waiting rows")
    if waiting < 0.5 * readings.max_pending_rows:
        return
    yield Finding(
        rule="waiting_rows",
        severity="warning",
        title=f"{waiting:,} rows wait to be computed, of {readings.max_pending_rows:,}: beyond that they leave with what is known.",
        figures={"waiting_rows": waiting, "limit": readings.max_pending_rows},
        advice=("See what holds the watermark back; or let rows leave sooner.",),
        settings=('Pipeline(…, max_wait="30ms")',),
        effect=waiting / readings.max_pending_rows,
    )


def _elsewhere(readings: Readings) -> str:
    can = readings.backend == "memory" and "rocksdb" in readings.options
    return "keep cold keys on disk, " if can else ""


def _backend(readings: Readings) -> tuple[str, ...]:
    return ('options.state_backend = "rocksdb"',) if _elsewhere(readings) else ()


RULES = (
    memory_full,
    memory_grows,
    state_will_not_fit,
    swapping,
    long_window,
    lateness_dominates,
    skewed_key,
    saturated,
    waiting_rows,
    unswept,
    free_heap,
)
