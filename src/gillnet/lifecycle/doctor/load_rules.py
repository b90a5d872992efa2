"""Rules about load: whether the run keeps up, and what it waits for."""

from __future__ import annotations

from collections.abc import Iterator

from gillnet.lifecycle.doctor.findings import Finding, share, size
from gillnet.lifecycle.doctor.readings import Readings

_BUSY = 0.85
# Keys from disk for each record, from which on it is told: one costs some 20 µs of CPU.
_OFTEN_FETCHED = 0.3


def falling_behind(readings: Readings) -> Iterator[Finding]:
    """Find a lag that grows: more comes in than is worked off, and by what it is held up."""
    load = readings.load
    trend = load.lag_trend
    if trend is None or not trend.rises or not load.lag_records or load.lag_records < 10 * (load.records_per_s or 0.0):
        return
    full = {name: count for name, count in load.queued.items() if count >= 0.8 * load.queue_limit}
    if full:
        why, advice, settings = _slow_sink(full)
    elif load.loop_share is not None and load.loop_share >= _BUSY:
        why, advice, settings = _busy(readings, load.loop_share)
    else:
        why = f"its loop uses {share(load.loop_share or 0.0)} of a CPU, so it waits for something: the machine, a disk, the source"
        advice = ("See whether other processes take the CPUs, and how fast the source gives records.",)
        settings = ()
    yield Finding(
        rule="falling_behind",
        severity="critical" if trend.per_s > 0.2 * (load.records_per_s or 0.0) else "warning",
        title=(
            f"{load.lag_records:,.0f} records wait at the sources and {trend.per_s:,.0f} more each second, while "
            f"{load.records_per_s or 0:,.0f} are worked off: {why}."
        ),
        figures={
            "lag_records": load.lag_records,
            "lag_growth_per_s": round(trend.per_s, 1),
            "records_per_s": load.records_per_s,
            "loop_share": load.loop_share,
            "cpu_cores": load.cpu_cores,
            "cpus": load.cpus,
            "batch_records": load.batch_records,
            "queued": dict(load.queued),
        },
        advice=advice,
        settings=settings,
        effect=1.0,
    )


def _slow_sink(full: dict[str, float]) -> tuple[str, tuple[str, ...], tuple[str, ...]]:
    names = ", ".join(sorted(full))
    why = f"the queue of the sink {names} is full, so the broker behind it is what is slow"
    return (
        why,
        ("See the broker's disks and its in-sync replicas; more partitions spread the load.",),
        ("kafka.linger.ms = 20",),
    )


def _busy(readings: Readings, loop_share: float) -> tuple[str, tuple[str, ...], tuple[str, ...]]:
    load = readings.load
    why = f"its loop uses {share(loop_share)} of a CPU, which is all that one can do"
    advice = ["Write less: rows without their features, and no reasons, take the most off."]
    settings = ['options.detail = "decision"', "options.top_reasons = 0"]
    if load.batch_records is not None and load.batch_records < 0.5 * load.max_batch_records:
        advice.append("Let batches be larger: each costs the same once.")
        settings.append('options.latency_budget = "50ms"')
    if "workers" in readings.options and (load.cpus or 1.0) > (load.cpu_cores or 0.0) + 0.5:
        advice.insert(0, "Use the other cores: partitions are worked on side by side.")
        settings.insert(0, f"--workers {int(load.cpus or 1)}")
    return why, tuple(advice), tuple(settings)


def slow_rows(readings: Readings) -> Iterator[Finding]:
    """Find latency far beyond the budget, though nothing piles up."""
    load = readings.load
    limit_ms = max(20 * load.latency_budget_ms, 250.0)
    if load.latency_p99_ms is None or load.latency_p99_ms < limit_ms:
        return
    pause_ms = readings.checkpoints.paused_ms or 0.0
    busy = load.loop_share is not None and load.loop_share >= _BUSY
    cause = (
        "checkpoints pause it"
        if pause_ms > 0.5 * load.latency_p99_ms
        else "the loop is busy all the time"
        if busy
        else "the loop waits for CPU, disk or a sink"
    )
    yield Finding(
        rule="slow_rows",
        severity="warning",
        title=(
            f"One row in a hundred takes {load.latency_p99_ms:,.0f} ms or more from arrival to sink, of a budget of "
            f"{load.latency_budget_ms:.0f} ms: {cause}."
        ),
        figures={
            "latency_ms_p99": load.latency_p99_ms,
            "latency_budget_ms": load.latency_budget_ms,
            "loop_share": load.loop_share,
            "checkpoint_paused_ms": readings.checkpoints.paused_ms,
        },
        advice=("See what else runs on the machine, and the findings about checkpoints and lag.",),
        effect=0.4,
    )


def revisions_behind(readings: Readings) -> Iterator[Finding]:
    """Find rows that disorder changes faster than they are computed again."""
    if readings.load.disturbances < 25_000:
        return
    yield Finding(
        rule="revisions_behind",
        severity="notice",
        title=f"{readings.load.disturbances:,} events came before others of their key and wait for their rows to be computed again.",
        figures={"disturbances": readings.load.disturbances},
        advice=(
            "Much of the input is out of order: look for revisions less often, so that a row that changes often is computed once.",
        ),
        settings=('options.revision_interval = "5s"',),
        effect=0.3,
    )


def cold_keys(readings: Readings) -> Iterator[Finding]:
    """Find keys that are read from disk so often that memory for them would pay."""
    load = readings.load
    fetched = load.fetched_per_record
    if fetched is None or fetched < _OFTEN_FETCHED or load.keys_resident < 0.5 * load.keys_budget:
        return
    behind = load.lag_trend is not None and load.lag_trend.rises
    yield Finding(
        rule="cold_keys",
        severity="warning" if behind else "notice",
        title=(
            f"Each record reads {fetched:.2f} keys from disk: those in memory take {size(load.keys_resident)}, the files "
            f"{size(load.keys_on_disk)}."
        ),
        figures={
            "fetched_per_record": round(fetched, 3),
            "resident_bytes": load.keys_resident,
            "budget_bytes": load.keys_budget,
            "disk_bytes": load.keys_on_disk,
        },
        advice=(
            "Give keys more memory, twice as much to begin with, so that those in use stay in it; where all keys are used alike, it "
            "takes memory for all of them, and shorter windows help more.",
        ),
        settings=('options.state_memory = "…"',),
        effect=min(fetched, 1.0) * (0.8 if behind else 0.3),
    )


def keys_crowded_out(readings: Readings) -> Iterator[Finding]:
    """Find keys that are read from disk since what cannot leave memory has taken theirs."""
    load = readings.load
    fetched = load.fetched_per_record
    if fetched is None or fetched < _OFTEN_FETCHED or load.keys_resident >= 0.5 * load.keys_budget:
        return
    stays = {
        operator.name + " " + operator.kind: operator.bytes
        for operator in readings.operators
        if operator.kind != "windows"
    }
    largest = sorted(stays.items(), key=lambda item: -item[1])[:3]
    told = ", ".join(f"{name} {size(taken)}" for name, taken in largest) or "ids, rows, patterns, joins and sessions"
    yield Finding(
        rule="keys_crowded_out",
        severity="warning",
        title=(
            f"Each record reads {fetched:.2f} keys from disk, since keys have {size(load.keys_resident)} of the {size(load.keys_budget)} "
            f"for state in memory: what cannot leave it takes the rest ({told})."
        ),
        figures={
            "fetched_per_record": round(fetched, 3),
            "resident_bytes": load.keys_resident,
            "budget_bytes": load.keys_budget,
            "stays_bytes": sum(stays.values()),
        },
        advice=(
            "Give state more memory: two fifths of state_memory are for what stays and for keys together, and keys are to have most of it.",
            "Or let less stay: a shorter allowed_lateness keeps fewer ids and rows, and revisions=False keeps no rows.",
        ),
        settings=('options.state_memory = "…"',),
        effect=min(fetched, 1.0) * 0.6,
    )


RULES = (falling_behind, slow_rows, revisions_behind, cold_keys, keys_crowded_out)
