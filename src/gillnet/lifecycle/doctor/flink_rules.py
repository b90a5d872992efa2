"""Rules about jobs on Flink: its checkpoints, what holds its tasks up, and its settings; silent where no Flink is."""

from __future__ import annotations

from collections.abc import Iterator

from gillnet.lifecycle.doctor.findings import Finding, lasting, share, size
from gillnet.lifecycle.doctor.flink_readings import FlinkJob, Vertex
from gillnet.lifecycle.doctor.readings import Readings

_BUSY = 0.85
_LARGE_STATE = 100e6


def flink_restarts(readings: Readings) -> Iterator[Finding]:
    """Find a job that does not run, or that is restarted over and over."""
    job = readings.flink
    if job is None or job.state in ("FINISHED", "CANCELED", "SUSPENDED"):
        return
    often = job.restarts >= 3 and job.up_s < 600 * job.restarts
    if job.state == "RUNNING" and not often:
        return
    why = f": {job.cause}" if job.cause else ""
    what = f"has restarted {job.restarts} times" if job.state == "RUNNING" else f"is {job.state}"
    few = job.state in ("CREATED", "INITIALIZING") or "NoResourceAvailable" in (job.cause or "")
    yield Finding(
        rule="flink_restarts",
        severity="warning" if job.state == "RUNNING" else "critical",
        title=f"The job {what}{why}.",
        figures={"state": job.state, "restarts": job.restarts, "up_s": round(job.up_s), "slots_free": job.slots_free},
        advice=(
            "Give the cluster more TaskManagers, or run the job at a lower parallelism: it waits for slots."
            if few
            else "Mend the cause: each restart reads again what came since the last checkpoint.",
        ),
        effect=1.0,
        symptom=True,
    )


def flink_no_checkpoints(readings: Readings) -> Iterator[Finding]:
    """Find a job that takes no checkpoints: a failure loses its state, and exactly-once sinks never commit."""
    job = readings.flink
    if job is None or job.checkpointed or job.state != "RUNNING":
        return
    yield Finding(
        rule="flink_no_checkpoints",
        severity="critical",
        title="The job takes no checkpoints: a failure loses all its state, and sinks with transactions never commit.",
        figures={"state": job.state},
        advice=("Let it take them.",),
        settings=("execution.checkpointing.interval: 30 s", "execution.checkpointing.dir: s3://…"),
        effect=1.0,
    )


def flink_checkpoints_fail(readings: Readings) -> Iterator[Finding]:
    """Find checkpoints that fail, in Flink's own words."""
    job, found = readings.flink, readings.checkpoints
    if job is None or not found.failed or found.failed < 0.02 * (found.completed + found.failed):
        return
    why = f": {job.checkpoint_failure}" if job.checkpoint_failure else ""
    most = found.failed >= 0.2 * (found.completed + found.failed)
    yield Finding(
        rule="flink_checkpoints_fail",
        severity="critical" if most else "warning",
        title=f"{found.failed} checkpoints failed, and {found.completed} were completed{why}.",
        figures={"failed": found.failed, "completed": found.completed, "timeout_s": job.timeout_s},
        advice=(
            "Where they expire, see what back-pressure does to barriers; where they are declined, a task was restarted or its "
            "storage cannot be reached.",
        ),
        effect=0.9,
    )


def flink_not_incremental(readings: Readings) -> Iterator[Finding]:
    """Find RocksDB whose checkpoints write all its state each time."""
    job, found = readings.flink, readings.checkpoints
    if job is None or readings.backend != "rocksdb" or found.incremental or job.state_bytes < _LARGE_STATE:
        return
    per_s = job.state_bytes / max(found.interval_s, 1e-3)
    yield Finding(
        rule="flink_not_incremental",
        severity="warning" if job.state_bytes >= 1e9 or per_s >= 20e6 else "notice",
        title=f"Each checkpoint writes all of {size(job.state_bytes)}, {size(per_s)} a second: RocksDB could write what changed.",
        figures={"state_bytes": job.state_bytes, "bytes_per_s": round(per_s), "interval_s": found.interval_s},
        advice=("Let checkpoints be incremental; a job that goes on from a full one may switch.",),
        settings=("execution.checkpointing.incremental: true",),
        effect=0.6,
    )


def flink_state_on_heap(readings: Readings) -> Iterator[Finding]:
    """Find state on the heap that takes much of it."""
    job = readings.flink
    if job is None or readings.backend != "hashmap" or job.state_bytes < _LARGE_STATE:
        return
    # In a checkpoint state is packed: as objects it takes several times that.
    part = job.state_bytes / job.heap_max if job.heap_max else 0.0
    if part < 0.15 and job.state_bytes < 5e9:
        return
    yield Finding(
        rule="flink_state_on_heap",
        severity="critical" if part >= 0.4 else "warning",
        title=f"{size(job.state_bytes)} of state (packed) lie on the heap of the TaskManagers, {size(job.heap_max)} in all.",
        figures={"state_bytes": job.state_bytes, "heap_max_bytes": job.heap_max, "share": round(part, 3)},
        advice=(
            "Keep it in RocksDB, which is bounded by the disk: stop with a savepoint in the canonical format, and go on from it.",
        ),
        settings=("state.backend.type: rocksdb", "execution.checkpointing.incremental: true"),
        effect=min(part, 1.0),
    )


def flink_unaligned(readings: Readings) -> Iterator[Finding]:
    """Find checkpoints that take long because barriers wait behind records."""
    job, took_ms = readings.flink, readings.checkpoints.took_ms
    if job is None or job.unaligned or took_ms is None or took_ms < 1_000:
        return
    slowest = max(job.vertices, key=_waited_ms, default=None)
    if slowest is None or _waited_ms(slowest) < 0.5 * took_ms or job.pressed is None:
        return
    exactly = job.exactly_once
    yield Finding(
        rule="flink_unaligned",
        severity="warning",
        title=(
            f"Barriers wait {_waited_ms(slowest) / 1_000:.1f} s at {slowest.name} of the {took_ms / 1_000:.1f} s that a checkpoint "
            f"takes: {job.pressed.name} is back-pressured {share(job.pressed.back_pressured or 0.0)} of the time."
        ),
        figures={
            "took_ms": took_ms,
            "aligned_ms": slowest.aligned_ms,
            "start_delay_ms": slowest.start_delay_ms,
            "back_pressured": job.pressed.back_pressured,
        },
        advice=(
            "Let barriers overtake records: checkpoints then hold what is in flight, and no longer wait for it."
            if exactly
            else "Take checkpoints exactly once: at-least-once ones can't be unaligned.",
            "Mend the back-pressure itself first, where you can (below).",
        ),
        settings=(
            "execution.checkpointing.unaligned.enabled: true",
            "execution.checkpointing.aligned-checkpoint-timeout: 10 s",
        ),
        effect=0.7,
    )


def _waited_ms(vertex: Vertex) -> float:
    return vertex.aligned_ms + vertex.start_delay_ms


def flink_interval_short(readings: Readings) -> Iterator[Finding]:
    """Find checkpoints that take so long that the next is due, or that hardly leave time between them."""
    job, found = readings.flink, readings.checkpoints
    if job is None or not job.checkpointed or found.took_ms is None or found.took_ms < 500 * found.interval_s:
        return
    over = found.took_ms >= 1_000 * found.interval_s
    interval_s = max(round(4 * found.took_ms / 1_000), round(2 * found.interval_s), 1)
    pause_s = max(round(found.took_ms / 1_000), 1)
    yield Finding(
        rule="flink_interval_short",
        severity="critical" if over else "warning",
        title=(
            f"A checkpoint takes {found.took_ms / 1_000:.1f} s and one is due every {found.interval_s:g} s: the job "
            f"{'does nothing but take them' if over else 'spends much of its time on them'}."
        ),
        figures={
            "took_ms": found.took_ms,
            "interval_s": found.interval_s,
            "min_pause_s": job.min_pause_s,
            "checkpoint_bytes": found.bytes,
        },
        advice=("Take them less often, with a pause between them; after a failure so much more is read again.",),
        settings=(
            f"execution.checkpointing.interval: {interval_s} s",
            *((f"execution.checkpointing.min-pause: {pause_s} s",) if job.min_pause_s < pause_s else ()),
        ),
        effect=min(found.took_ms / max(1_000 * found.interval_s, 1.0), 1.0),
    )


def flink_timeout_near(readings: Readings) -> Iterator[Finding]:
    """Find checkpoints that are about to expire."""
    job, took_ms = readings.flink, readings.checkpoints.took_ms
    if job is None or took_ms is None or took_ms < 500 * job.timeout_s:
        return
    yield Finding(
        rule="flink_timeout_near",
        severity="warning",
        title=f"A checkpoint takes {took_ms / 1_000:.0f} s, and after {job.timeout_s:.0f} s it expires: then there is none.",
        figures={"took_ms": took_ms, "timeout_s": job.timeout_s},
        advice=("Give it more time until it is mended that it takes so long (other findings).",),
        settings=(f"execution.checkpointing.timeout: {4 * took_ms / 1_000:.0f} s",),
        effect=0.6,
    )


def flink_back_pressure(readings: Readings) -> Iterator[Finding]:
    """Find the vertex that the others wait for."""
    job = readings.flink
    if job is None or (pressed := job.pressed) is None:
        return
    slow = _bottleneck(job, pressed)
    busy = "" if slow.busy is None else f", which is busy {share(slow.busy)} of the time"
    works = slow.busy is not None and slow.busy >= _BUSY
    room = slow.max_parallelism is None or slow.max_parallelism > slow.parallelism
    advice = (
        ("Run it at a higher parallelism" + (", with more TaskManagers." if not job.slots_free else "."),)
        if works and room
        else ("It waits for something itself: the disk below RocksDB, or the system that it writes to.",)
    )
    yield Finding(
        rule="flink_back_pressure",
        severity="warning",
        title=f"{pressed.name} waits {share(pressed.back_pressured or 0.0)} of the time for {slow.name}{busy}.",
        figures={
            "vertex": pressed.name,
            "back_pressured": pressed.back_pressured,
            "slowest": slow.name,
            "busy": slow.busy,
            "parallelism": slow.parallelism,
            "max_parallelism": slow.max_parallelism,
            "slots_free": job.slots_free,
        },
        advice=advice,
        settings=(f"parallelism.default: {_more(job, slow)}",) if works and room else (),
        effect=1.0,
    )


def _bottleneck(job: FlinkJob, pressed: Vertex) -> Vertex:
    """Return the vertex behind a back-pressured one that is not held up by another: the busiest, of several."""
    reached, names = [pressed], {pressed.name}
    for vertex in reached:
        behind = [other for other in job.vertices if vertex.name in other.inputs and other.name not in names]
        reached += behind
        names |= {other.name for other in behind}
    free = [vertex for vertex in reached[1:] if (vertex.back_pressured or 0.0) < 0.5]
    return max(free, key=lambda vertex: vertex.busy or 0.0, default=pressed)


def _more(job: FlinkJob, vertex: Vertex) -> int:
    wanted = max(vertex.parallelism + job.slots_free, 2 * vertex.parallelism)
    return min(wanted, vertex.max_parallelism or wanted)


def flink_busy(readings: Readings) -> Iterator[Finding]:
    """Find a vertex that works all the time at a parallelism that free slots could raise."""
    job = readings.flink
    if job is None or job.pressed is not None or not job.slots_free:
        return
    full = [vertex for vertex in job.vertices if (vertex.busy or 0.0) >= 0.95 and vertex.inputs]
    slow = max(full, key=lambda vertex: vertex.busy or 0.0, default=None)
    if slow is None or (slow.max_parallelism is not None and slow.max_parallelism <= slow.parallelism):
        return
    yield Finding(
        rule="flink_busy",
        severity="notice",
        title=(
            f"{slow.name} is busy {share(slow.busy or 0.0)} of the time at parallelism {slow.parallelism}, and {job.slots_free} "
            "slots are free: there is no room for more records."
        ),
        figures={"vertex": slow.name, "busy": slow.busy, "parallelism": slow.parallelism, "slots_free": job.slots_free},
        advice=("Stop with a savepoint, and go on from it at a higher parallelism.",),
        settings=(f"parallelism.default: {_more(job, slow)}",),
        effect=0.4,
    )


def flink_skew(readings: Readings) -> Iterator[Finding]:
    """Find a subtask that gets far more records than its neighbours."""
    job = readings.flink
    for vertex in () if job is None else job.vertices:
        total, most = sum(vertex.records), max(vertex.records, default=0)
        if len(vertex.records) < 2 or total < 10_000:
            continue
        over = most * len(vertex.records) / total
        # With two subtasks one can have twice the mean at most, which is all there is.
        part = (over - 1) / (len(vertex.records) - 1)
        if part < 0.4 and over < 2:
            continue
        source = not vertex.inputs
        yield Finding(
            rule="flink_skew",
            severity="warning" if (vertex.busy or 0.0) >= _BUSY or (vertex.back_pressured or 0.0) >= 0.5 else "notice",
            title=(
                f"Subtask {vertex.records.index(most)} of {vertex.name} has {share(most / total)} of its records, "
                f"{over:.1f} times the mean of {len(vertex.records)} subtasks."
            ),
            figures={"vertex": vertex.name, "records": list(vertex.records), "times_mean": round(over, 2)},
            advice=(
                "Give the topic more partitions, or the source as many subtasks as there are."
                if source
                else "See which key has so many records: a placeholder or a test account is best made null before it comes in.",
                *(() if source else ("A key is worked on by one subtask: a higher parallelism does not help it.",)),
            ),
            effect=min(part, 1.0) * 0.7,
        )


def flink_key_groups(readings: Readings) -> Iterator[Finding]:
    """Find a parallelism so near the number of key groups that these divide unevenly, and cannot be raised for long."""
    job = readings.flink
    for vertex in () if job is None else job.vertices:
        groups = vertex.max_parallelism
        if groups is None or vertex.parallelism < 2 or groups >= 4 * vertex.parallelism or not vertex.state_bytes:
            continue
        most = -(-groups // vertex.parallelism)
        yield Finding(
            rule="flink_key_groups",
            severity="notice",
            title=(
                f"{vertex.name} runs {vertex.parallelism} subtasks over {groups} key groups: one of them has "
                f"{most * vertex.parallelism / groups - 1:.0%} more than its share, and {groups} subtasks are the most there can ever be."
            ),
            figures={"vertex": vertex.name, "parallelism": vertex.parallelism, "max_parallelism": groups},
            advice=(
                "The number is in the state, and cannot be changed by a savepoint: choose it before state is worth keeping, some ten "
                "times the parallelism.",
            ),
            settings=(f"pipeline.max-parallelism: {_power_of_two(10 * vertex.parallelism)}",),
            effect=0.2,
        )


def _power_of_two(least: int) -> int:
    return 1 << (least - 1).bit_length()


def flink_garbage(readings: Readings) -> Iterator[Finding]:
    """Find TaskManagers that collect garbage for much of their time."""
    job = readings.flink
    worst = max(() if job is None else job.task_managers, key=lambda manager: manager.gc_share or 0.0, default=None)
    if worst is None or (worst.gc_share or 0.0) < 0.1:
        return
    used, limit = worst.heap_used or 0.0, worst.heap_max or 0.0
    on_heap = readings.backend == "hashmap"
    yield Finding(
        rule="flink_garbage",
        severity="critical" if (worst.gc_share or 0.0) >= 0.4 else "warning",
        title=f"{worst.name} collects garbage {share(worst.gc_share or 0.0)} of the time, with {size(used)} of {size(limit)} heap used.",
        figures={
            "task_manager": worst.name,
            "gc_share": worst.gc_share,
            "heap_used_bytes": used,
            "heap_max_bytes": limit,
        },
        advice=(
            "Keep state in RocksDB, off the heap; or give tasks more heap."
            if on_heap
            else "Give tasks more heap; state is in RocksDB, so managed memory that it leaves unused can go there.",
        ),
        settings=(
            *(("state.backend.type: rocksdb",) if on_heap else ()),
            f"taskmanager.memory.task.heap.size: {2 * max(limit, 256e6) / 2**20:.0f}m",
        ),
        effect=worst.gc_share or 0.0,
    )


def flink_old_checkpoint(readings: Readings) -> Iterator[Finding]:
    """Find a job that runs and has completed no checkpoint for long."""
    job, found = readings.flink, readings.checkpoints
    if job is None or job.state != "RUNNING" or not job.checkpointed:
        return
    age_s = job.up_s if found.age_s is None else found.age_s
    if age_s < max(5 * found.interval_s, 300.0) or found.failed:
        return
    yield Finding(
        rule="flink_old_checkpoint",
        severity="warning",
        title=f"No checkpoint was completed for {lasting(age_s * 1e6)}, and one is due every {lasting(found.interval_s * 1e6)}.",
        figures={"age_s": round(age_s), "interval_s": found.interval_s, "timeout_s": job.timeout_s},
        advice=("See whether one is under way for so long: barriers may wait behind records (back-pressure).",),
        effect=0.8,
    )


RULES = (
    flink_restarts,
    flink_no_checkpoints,
    flink_checkpoints_fail,
    flink_old_checkpoint,
    flink_interval_short,
    flink_timeout_near,
    flink_unaligned,
    flink_back_pressure,
    flink_skew,
    flink_busy,
    flink_not_incremental,
    flink_state_on_heap,
    flink_garbage,
    flink_key_groups,
)
