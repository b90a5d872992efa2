"""What Flink's REST API answers, as typed records: the fields that are used here, by Flink's own names.

Fields that Flink adds are passed over; one that it takes away is named in the error of whoever reads it. Times are in
milliseconds and sizes in bytes, as Flink has them; -1 or NaN is what Flink says where it does not know.
"""

from __future__ import annotations

from msgspec import Struct, field


class Overview(Struct, frozen=True, rename="kebab"):
    """What the cluster has."""

    taskmanagers: int
    slots_total: int
    slots_available: int
    jobs_running: int
    flink_version: str


class JobSummary(Struct, frozen=True, rename="kebab"):
    """A job among the others. ``state`` is RUNNING, RESTARTING, FAILED, CANCELED, FINISHED or on the way to one."""

    jid: str
    name: str
    state: str
    start_time: int
    end_time: int = -1


class VertexMetrics(Struct, frozen=True, rename="kebab"):
    """Sums over a vertex's subtasks, of this attempt. Times are accumulated."""

    read_records: int = 0
    write_records: int = 0
    read_bytes: int = 0
    write_bytes: int = 0
    accumulated_backpressured_time: float = 0.0
    accumulated_idle_time: float = 0.0
    accumulated_busy_time: float | str = 0.0  # "NaN" for sources of the old kind


class Vertex(Struct, frozen=True):
    """A chain of operators, which one task of each subtask runs."""

    id: str
    name: str
    parallelism: int
    status: str
    max_parallelism: int = field(default=-1, name="maxParallelism")
    metrics: VertexMetrics = VertexMetrics()


class _Input(Struct, frozen=True):
    id: str


class _Node(Struct, frozen=True):
    id: str
    inputs: list[_Input] = []


class _Plan(Struct, frozen=True):
    nodes: list[_Node] = []


class Job(Struct, frozen=True):
    """A job with its vertices, sources first."""

    jid: str
    name: str
    state: str
    start_time: int = field(name="start-time")
    now: int
    vertices: list[Vertex]
    duration: int = 0
    plan: _Plan = _Plan()

    @property
    def sources(self) -> frozenset[str]:
        """The vertices that nothing flows into."""
        return frozenset(node.id for node in self.plan.nodes if not node.inputs)


class ExceptionEntry(Struct, frozen=True, rename="camel"):
    """Something that failed a job or restarted it."""

    exception_name: str
    stacktrace: str
    timestamp: int
    task_name: str | None = None
    task_manager_id: str | None = None


class CheckpointCounts(Struct, frozen=True):
    """How many there were since the job was submitted."""

    restored: int = 0
    total: int = 0
    in_progress: int = 0
    completed: int = 0
    failed: int = 0


class Checkpoint(Struct, frozen=True):
    """One checkpoint or savepoint. ``checkpointed_size`` is what it wrote, ``state_size`` all that it stands for."""

    id: int
    status: str
    is_savepoint: bool
    trigger_timestamp: int
    latest_ack_timestamp: int = -1
    checkpointed_size: int = 0
    state_size: int = 0
    end_to_end_duration: int = 0
    processed_data: int = 0
    persisted_data: int = 0
    external_path: str | None = None
    failure_message: str | None = None


class Restored(Struct, frozen=True):
    """What a job went on from."""

    id: int
    restore_timestamp: int
    is_savepoint: bool
    external_path: str | None = None


class Latest(Struct, frozen=True):
    """The newest of each kind."""

    completed: Checkpoint | None = None
    savepoint: Checkpoint | None = None
    failed: Checkpoint | None = None
    restored: Restored | None = None


class CheckpointStatistics(Struct, frozen=True):
    """Checkpoints of a job; ``history`` has the last ten or so, the newest first."""

    counts: CheckpointCounts
    latest: Latest = Latest()
    history: list[Checkpoint] = []


class CheckpointConfig(Struct, frozen=True):
    """How a job takes checkpoints. ``interval`` is 2⁶³-1 where it takes none of itself."""

    mode: str
    interval: int
    timeout: int
    min_pause: int = 0
    max_concurrent: int = 1
    state_backend: str = ""
    checkpoint_storage: str = ""
    unaligned_checkpoints: bool = False
    aligned_checkpoint_timeout: int = 0
    tolerable_failed_checkpoints: int = 0
    state_changelog_enabled: bool = False


class Spread(Struct, frozen=True):
    """A figure over subtasks."""

    min: float = 0.0
    max: float = 0.0
    avg: float = 0.0


class CheckpointDuration(Struct, frozen=True):
    """How long a subtask stood still (``sync``) and wrote beside its work (``async``)."""

    sync: Spread = Spread()
    async_: Spread = field(default=Spread(), name="async")


class Alignment(Struct, frozen=True):
    """How long barriers waited for each other; ``persisted`` is data in flight that an unaligned checkpoint keeps."""

    duration: Spread = Spread()
    processed: Spread = Spread()
    persisted: Spread = Spread()


class VertexCheckpointSummary(Struct, frozen=True):
    """A vertex's part of a checkpoint, over its subtasks."""

    state_size: Spread = Spread()
    checkpointed_size: Spread = Spread()
    end_to_end_duration: Spread = Spread()
    checkpoint_duration: CheckpointDuration = CheckpointDuration()
    alignment: Alignment = Alignment()
    start_delay: Spread = Spread()


class VertexCheckpoint(Struct, frozen=True):
    """A vertex's part of a checkpoint: sums, and the spread over its subtasks."""

    id: int
    status: str
    state_size: int = 0
    checkpointed_size: int = 0
    end_to_end_duration: int = 0
    summary: VertexCheckpointSummary = VertexCheckpointSummary()


class SubtaskPressure(Struct, frozen=True, rename="camel"):
    """What share of its time a subtask waits for those behind it, for input, or works."""

    subtask: int
    ratio: float | str = 0.0
    idle_ratio: float | str = 0.0
    busy_ratio: float | str = 0.0


class BackPressure(Struct, frozen=True, rename="camel"):
    """The back-pressure of a vertex; ``status`` is ``deprecated`` until Flink has measured it."""

    status: str
    backpressure_level: str | None = None
    subtasks: list[SubtaskPressure] = []


class SubtaskMetrics(Struct, frozen=True, rename="kebab"):
    """Records of a subtask, of this attempt."""

    read_records: int = 0
    write_records: int = 0


class Subtask(Struct, frozen=True):
    """One of the tasks that work side by side on a vertex."""

    subtask: int
    status: str
    metrics: SubtaskMetrics = SubtaskMetrics()


class Hardware(Struct, frozen=True, rename="camel"):
    """The machine of a TaskManager."""

    cpu_cores: int = 0
    physical_memory: int = 0
    free_memory: int = 0
    managed_memory: int = 0


class TaskManager(Struct, frozen=True, rename="camel"):
    """A TaskManager that has registered."""

    id: str
    slots_number: int
    free_slots: int
    hardware: Hardware = Hardware()


class TaskManagerMemory(Struct, frozen=True, rename="camel"):
    """Memory of a TaskManager's JVM, and how much of it is set aside for what."""

    total_process_memory: int | None = None
    total_flink_memory: int | None = None
    managed_memory: int | None = None
    task_heap: int | None = None
    task_off_heap: int | None = None


class TaskManagerDetail(Struct, frozen=True, rename="camel"):
    """A TaskManager, looked at closely."""

    id: str
    hardware: Hardware = Hardware()
    memory_configuration: TaskManagerMemory = TaskManagerMemory()
