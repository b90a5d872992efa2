"""What Flink tells of a job beside what every runtime does: tasks, back-pressure, and memory by TaskManager."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Vertex:
    """A chain of operators, over its subtasks.

    Attributes
    ----------
    max_parallelism
        The number of key groups; None where Flink does not say.
    busy, back_pressured
        The largest share of time that a subtask works, and that one waits for those behind it.
    records
        What each subtask has read, in this attempt; of a source what each has written.
    state_bytes
        In the newest checkpoint.
    aligned_ms, start_delay_ms
        How long a subtask waited at most for the barriers of the newest checkpoint: for all after the first, and for the first.
    inputs
        The vertices that flow into it, by name.
    """

    name: str
    parallelism: int = 1
    max_parallelism: int | None = None
    busy: float | None = None
    back_pressured: float | None = None
    records: tuple[int, ...] = ()
    state_bytes: float = 0.0
    sync_ms: float = 0.0
    async_ms: float = 0.0
    aligned_ms: float = 0.0
    start_delay_ms: float = 0.0
    inputs: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskManager:
    """Memory of one TaskManager, bytes; ``gc_share`` is the share of time that its JVM collects garbage."""

    name: str
    heap_used: float | None = None
    heap_max: float | None = None
    managed_used: float | None = None
    managed_total: float | None = None
    native_used: float | None = None
    gc_share: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class FlinkJob:
    """A job as Flink's REST API tells of it.

    Attributes
    ----------
    state_bytes
        All that the newest checkpoint stands for, whatever it wrote itself.
    checkpointed
        Whether it takes checkpoints of itself.
    cause
        What failed it last, in one line.
    """

    state: str
    up_s: float = 0.0
    restarts: int = 0
    cause: str | None = None
    vertices: tuple[Vertex, ...] = ()
    task_managers: tuple[TaskManager, ...] = ()
    slots: int = 0
    slots_free: int = 0
    state_bytes: float = 0.0
    checkpointed: bool = True
    exactly_once: bool = True
    unaligned: bool = False
    aligned_timeout_s: float = 0.0
    timeout_s: float = 600.0
    min_pause_s: float = 0.0
    checkpoint_failure: str | None = None

    @property
    def heap_max(self) -> float:
        """The heap of all TaskManagers."""
        return sum(manager.heap_max or 0.0 for manager in self.task_managers)

    @property
    def pressed(self) -> Vertex | None:
        """The vertex that waits most for those behind it, if one waits much."""
        most = max(self.vertices, key=lambda vertex: vertex.back_pressured or 0.0, default=None)
        return most if most is not None and (most.back_pressured or 0.0) >= 0.5 else None
