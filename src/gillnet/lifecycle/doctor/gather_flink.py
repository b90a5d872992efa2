"""Takes the readings of a job on Flink from its REST API; it changes nothing there."""

from __future__ import annotations

import re
import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

from gillnet.core.errors import ConfigurationError, EngineError
from gillnet.core.time import Clock, SystemClock
from gillnet.lifecycle.doctor import flink_readings as f
from gillnet.lifecycle.doctor import readings as r
from gillnet.runtimes.flink import replies
from gillnet.runtimes.flink.rest import NO_WATERMARK, FlinkRest, number

SETTLE_S = 1.5
"""Flink fetches figures of its tasks when somebody asks, so what is asked for is there a moment later."""

_NEVER = 2**63 - 1
_BACKENDS = {"EmbeddedRocksDBStateBackend": "rocksdb", "HashMapStateBackend": "hashmap", "ForStStateBackend": "forst"}
_SPLIT = re.compile(r"^\d+\..+\.split\.(?P<split>.+)\.watermark\.(?P<figure>currentWatermark|idleTimeMsPerSecond)$")
_OUTPUT = re.compile(r"^(?P<subtask>\d+)\..+\.currentOutputWatermark$")
_SOURCE_FIGURES = (
    r"\.(currentOutputWatermark|watermark\.currentWatermark|watermark\.idleTimeMsPerSecond|pendingRecords)$"
)
_MEMORY = {
    "heap_used": "Status.JVM.Memory.Heap.Used",
    "heap_max": "Status.JVM.Memory.Heap.Max",
    "managed_used": "Status.Flink.Memory.Managed.Used",
    "managed_total": "Status.Flink.Memory.Managed.Total",
    "native_used": "Status.JVM.Memory.Direct.MemoryUsed",
    "gc_ms_per_s": "Status.JVM.GarbageCollector.All.TimeMsPerSecond",
}


@dataclass(frozen=True, slots=True)
class JobAddress:
    """Where a job is: the cluster's REST API, and its id or name."""

    url: str
    job: str


def job_address(text: str) -> JobAddress:
    """Read ``http://host:8081/jobs/<id-or-name>``, or the address of the job's page in Flink's own interface.

    >>> job_address("http://localhost:8081/jobs/payments")
    JobAddress(url='http://localhost:8081', job='payments')
    >>> job_address("https://flink/eu/#/job/running/a1b2/overview")
    JobAddress(url='https://flink/eu', job='a1b2')
    """
    parts = urlsplit(text)
    page = re.fullmatch(r"/job/(?:[a-z]+/)?([^/]+)(?:/.*)?", parts.fragment)
    base, _, job = parts.path.partition("/jobs/")
    found = page[1] if page else unquote(job.strip("/"))
    if parts.scheme not in ("http", "https") or not parts.hostname or not found:
        raise ConfigurationError(f"{text}: write where a job on Flink is as http://host:8081/jobs/<its id or name>.")
    return JobAddress(f"{parts.scheme}://{parts.netloc}{base.rstrip('/')}", found)


def gather_flink(address: JobAddress, *, clock: Clock | None = None) -> r.Readings:
    """Read what Flink tells of a job.

    Raises
    ------
    EngineError
        If the cluster does not answer, or has no such job.
    """
    clock = clock or SystemClock()
    rest = FlinkRest(address.url, clock=clock)
    job = rest.job(rest.find_job(address.job).jid)
    _figures(rest, job)
    clock.sleep(SETTLE_S)
    figures = _figures(rest, job)
    config, statistic = rest.checkpoint_config(job.jid), rest.checkpoints(job.jid)
    parts, notes = _parts(rest, job, statistic)
    vertices = tuple(_vertices(rest, job, parts))
    now_us = clock.now_us()
    managers = tuple(_task_managers(rest))
    overview = rest.overview()
    return r.Readings(
        pipeline=job.name,
        source=f"Flink {overview.flink_version} at {rest.url}, job {job.jid}, {job.state}",
        live=job.state == "RUNNING",
        memory=r.Memory(state=sum(vertex.state_bytes for vertex in vertices)),
        operators=tuple(_operators(vertices)),
        streams=tuple(_streams(job, figures, now_us)),
        checkpoints=_checkpoints(config, statistic, vertices, rest.config(), now_us),
        load=_load(rest, job, vertices, figures),
        backend=_BACKENDS.get(config.state_backend, config.state_backend) if config else "unknown",
        notes=notes,
        flink=_job(rest, job, config, statistic, vertices, managers, overview),
    )


def _figures(rest: FlinkRest, job: replies.Job) -> dict[str, dict[str, float]]:
    """Return the figures of each source's subtasks, and have Flink fetch all others."""
    for vertex in job.vertices:
        rest.back_pressure(job.jid, vertex.id)
        rest.subtasks(job.jid, vertex.id)
        rest.vertex_metrics(job.jid, vertex.id, ["numRecordsInPerSecond", "numRecordsOutPerSecond"])
    for manager in rest.task_managers():
        rest.task_manager_metrics(manager.id, _MEMORY.values())
    return {source: rest.subtask_metrics(job.jid, source, _SOURCE_FIGURES) for source in sorted(job.sources)}


def _parts(
    rest: FlinkRest, job: replies.Job, statistic: replies.CheckpointStatistics
) -> tuple[Mapping[str, replies.VertexCheckpoint], tuple[str, ...]]:
    """Return each vertex's part of the newest checkpoint."""
    newest = statistic.latest.completed or statistic.latest.savepoint
    if newest is None:
        return {}, ("No checkpoint was completed yet, so the size of state is unknown.",)
    try:
        return {vertex.id: rest.vertex_checkpoint(job.jid, newest.id, vertex.id) for vertex in job.vertices}, ()
    except EngineError:
        # Flink keeps the parts of the last ten only, and on a busy job that is a moment.
        return {}, (f"Flink no longer tells the parts of checkpoint {newest.id}, so state by operator is unknown.",)


def _vertices(rest: FlinkRest, job: replies.Job, parts: Mapping[str, replies.VertexCheckpoint]) -> Iterable[f.Vertex]:
    names = {vertex.id: vertex.name for vertex in job.vertices}
    inputs = {node.id: tuple(names[flow.id] for flow in node.inputs if flow.id in names) for node in job.plan.nodes}
    for vertex in job.vertices:
        pressure = rest.back_pressure(job.jid, vertex.id).subtasks
        busy = [share for subtask in pressure if (share := number(subtask.busy_ratio)) is not None]
        waits = [share for subtask in pressure if (share := number(subtask.ratio)) is not None]
        tasks = rest.subtasks(job.jid, vertex.id)
        source = vertex.id in job.sources
        part = parts.get(vertex.id)
        summary = part.summary if part else replies.VertexCheckpointSummary()
        yield f.Vertex(
            name=vertex.name,
            parallelism=vertex.parallelism,
            max_parallelism=vertex.max_parallelism if vertex.max_parallelism > 0 else None,
            # A source that only hands on is never idle by Flink's count, so what it says of being busy tells nothing.
            busy=None if source or not busy else min(max(busy), 1.0),
            back_pressured=min(max(waits), 1.0) if waits else None,
            records=tuple(task.metrics.write_records if source else task.metrics.read_records for task in tasks),
            state_bytes=float(part.state_size) if part else 0.0,
            sync_ms=summary.checkpoint_duration.sync.max,
            async_ms=summary.checkpoint_duration.async_.max,
            aligned_ms=summary.alignment.duration.max,
            start_delay_ms=max(summary.start_delay.max, 0.0),
            inputs=inputs.get(vertex.id, ()),
        )


def _operators(vertices: Iterable[f.Vertex]) -> Iterable[r.Operator]:
    for vertex in vertices:
        if vertex.state_bytes:
            yield r.Operator(
                kind="task state", name=vertex.name, stream="", events=sum(vertex.records), bytes=vertex.state_bytes
            )


def _streams(job: replies.Job, figures: Mapping[str, Mapping[str, float]], now_us: int) -> Iterable[r.Stream]:
    for vertex in job.vertices:
        if vertex.id not in job.sources:
            continue
        splits, idle = _progress(figures.get(vertex.id, {}))
        known = {split: mark for split, mark in splits.items() if mark > NO_WATERMARK}
        active = {split: mark for split, mark in known.items() if split not in idle} or known
        slowest = min(active, key=lambda split: active[split], default=None)
        yield r.Stream(
            name=vertex.name,
            # A job in processing time has none anywhere, and misses none.
            watermark_known=not known or len(known) == len(splits) or bool(set(splits) - set(known) <= idle),
            ended=vertex.status == "FINISHED",
            behind_us=None if slowest is None else max(now_us - 1_000 * active[slowest], 0.0),
            held_by=None if slowest is None else _trailing(slowest),
            held_back_us=0 if slowest is None else int(1_000 * (max(active.values()) - active[slowest])),
            partitions=len(splits) or vertex.parallelism,
            idle=len(idle),
            records_read=vertex.metrics.write_records,
        )


def _progress(figures: Mapping[str, float]) -> tuple[dict[str, float], set[str]]:
    """Return the watermark, ms, of each split of a source, or of each subtask where Flink tells none of splits; and idle splits."""
    splits: dict[str, float] = {}
    idle: set[str] = set()
    subtasks: dict[str, float] = {}
    for name, value in figures.items():
        if match := _SPLIT.match(name):
            if match["figure"] == "currentWatermark":
                splits[match["split"]] = value
            elif value >= 900:
                idle.add(match["split"])
        elif match := _OUTPUT.match(name):
            # Of a chain the last operator counts, which has the lowest.
            subtasks[match["subtask"]] = min(value, subtasks.get(match["subtask"], value))
    # Where a source does not pause splits that are ahead, Flink knows no watermark of any of them.
    known = any(mark > NO_WATERMARK for mark in splits.values())
    return (splits, idle) if known else (subtasks, set())


def _trailing(split: str) -> int:
    """Return a partition's number in the name of its split: ``payments-3``."""
    digits = re.search(r"(\d+)$", split)
    return int(digits[1]) if digits else 0


def _checkpoints(
    config: replies.CheckpointConfig | None,
    statistic: replies.CheckpointStatistics,
    vertices: Iterable[f.Vertex],
    cluster: Mapping[str, str],
    now_us: int,
) -> r.Checkpoints:
    done = [found for found in statistic.history if found.status == "COMPLETED" and not found.is_savepoint]
    newest = statistic.latest.completed
    sizes = [found for found in done if found.state_size]
    parts = list(vertices)
    return r.Checkpoints(
        number=newest.id if newest else None,
        bytes=float(newest.checkpointed_size) if newest else 0.0,
        age_s=None if newest is None else max(now_us / 1e6 - newest.latest_ack_timestamp / 1e3, 0.0),
        interval_s=config.interval / 1e3 if config and config.interval < _NEVER else 0.0,
        paused_ms=max((vertex.sync_ms for vertex in parts), default=None),
        wrote_ms=max((vertex.sync_ms + vertex.async_ms for vertex in parts), default=None),
        took_ms=float(statistics.median(found.end_to_end_duration for found in done)) if done else None,
        completed=statistic.counts.completed,
        # Those that could not begin, since not all tasks ran yet, are counted too, and not kept: they are no failures.
        failed=statistic.counts.failed if statistic.latest.failed else 0,
        # What a job says of its own is not to be had, but a checkpoint that wrote less than it stands for was incremental.
        incremental=any(found.checkpointed_size < found.state_size for found in sizes)
        or (len(sizes) < 2 and cluster.get("execution.checkpointing.incremental") == "true"),
    )


def _load(
    rest: FlinkRest, job: replies.Job, vertices: Iterable[f.Vertex], figures: Mapping[str, Mapping[str, float]]
) -> r.Load:
    rates = [
        found["numRecordsOutPerSecond"]["sum"]
        for source in sorted(job.sources)
        if "sum"
        in (found := rest.vertex_metrics(job.jid, source, ["numRecordsOutPerSecond"])).get("numRecordsOutPerSecond", {})
    ]
    pending = [
        value for source in figures.values() for name, value in source.items() if name.endswith(".pendingRecords")
    ]
    return r.Load(
        records_per_s=sum(rates) if rates else None,
        loop_share=max((vertex.busy for vertex in vertices if vertex.busy is not None), default=None),
        lag_records=sum(pending) if pending else None,
    )


def _task_managers(rest: FlinkRest) -> Iterable[f.TaskManager]:
    for manager in rest.task_managers():
        found = rest.task_manager_metrics(manager.id, _MEMORY.values())
        told = {name: found.get(metric) for name, metric in _MEMORY.items()}
        collecting = told.pop("gc_ms_per_s")
        yield f.TaskManager(name=manager.id, gc_share=None if collecting is None else collecting / 1_000, **told)


def _job(
    rest: FlinkRest,
    job: replies.Job,
    config: replies.CheckpointConfig | None,
    statistic: replies.CheckpointStatistics,
    vertices: tuple[f.Vertex, ...],
    managers: tuple[f.TaskManager, ...],
    overview: replies.Overview,
) -> f.FlinkJob:
    newest = statistic.latest.completed or statistic.latest.savepoint
    failed = statistic.latest.failed
    return f.FlinkJob(
        state=job.state,
        up_s=job.duration / 1e3,
        restarts=int(rest.job_metrics(job.jid, ["numRestarts"]).get("numRestarts", 0)),
        cause=rest.root_cause(job.jid),
        vertices=vertices,
        task_managers=managers,
        slots=overview.slots_total,
        slots_free=overview.slots_available,
        state_bytes=float(newest.state_size) if newest else 0.0,
        checkpointed=config is not None and config.interval < _NEVER,
        exactly_once=config is not None and config.mode == "exactly_once",
        unaligned=config is not None and config.unaligned_checkpoints,
        aligned_timeout_s=config.aligned_checkpoint_timeout / 1e3 if config else 0.0,
        timeout_s=config.timeout / 1e3 if config else 600.0,
        min_pause_s=config.min_pause / 1e3 if config else 0.0,
        checkpoint_failure=failed.failure_message if failed else None,
    )
