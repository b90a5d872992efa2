"""What is known of a run, whatever runs it: figures only, without a judgement. What is unknown is None.

The embedded runtime's come from the history of its figures and from a checkpoint (`gather`), those of a job on Flink from its
REST API (`gather_flink`), with what only Flink has beside them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from gillnet.lifecycle.doctor.flink_readings import FlinkJob
from gillnet.lifecycle.doctor.trend import Trend


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """Memory of the process, bytes. ``state`` is what operators account for; ``limit`` what it may take."""

    rss: float | None = None
    anonymous: float | None = None
    peak: float | None = None
    swap: float = 0.0
    state: float = 0.0
    malloc_used: float | None = None
    malloc_free: float | None = None
    arrow: float | None = None
    limit: float | None = None
    trend: Trend | None = None
    state_trend: Trend | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Feature:
    """What one feature costs: see `gillnet.lifecycle.state_view.FeatureCost`."""

    name: str
    window: str
    window_us: int
    bytes: float
    alone_bytes: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Operator:
    """The state of one operator.

    Attributes
    ----------
    kept_us
        How long it keeps an event, in event time: the window and the lateness; None where nothing expires.
    late_us
        The part of ``kept_us`` that is for what may still be read behind the watermark.
    covered_us
        The event time that it spans now: until that is ``kept_us``, it grows.
    expired_bytes
        What has expired and waits to be swept.
    overdue_bytes
        By event time, what goes once the watermark has moved on by so much.
    """

    kind: str
    name: str
    stream: str
    keys: int = 0
    events: int = 0
    bytes: float = 0.0
    kept_us: int | None = None
    late_us: int | None = None
    covered_us: int = 0
    expired_bytes: float = 0.0
    overdue_bytes: Mapping[int, float] = field(default_factory=dict)
    largest_key: str | None = None
    largest_events: int = 0
    largest_bytes: float = 0.0
    gini: float = 0.0
    saturated_keys: int = 0
    features: tuple[Feature, ...] = ()

    @property
    def full_bytes(self) -> float:
        """What it will take once it spans all that it keeps, at the pace of now."""
        if self.kept_us is None or self.covered_us < LEAST_COVERED_US or self.events < LEAST_EVENTS:
            return self.bytes
        return self.bytes * max(1.0, self.kept_us / self.covered_us)

    def full_bytes_with(self, kept_us: int) -> float:
        """Return the same, if it kept events for another time."""
        if self.kept_us is None:
            return self.bytes
        return self.full_bytes * min(1.0, kept_us / max(self.kept_us, 1))


LEAST_COVERED_US = 60_000_000
LEAST_EVENTS = 1_000
"""With less than these, nothing is said of what will be."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stream:
    """How far a stream is.

    Attributes
    ----------
    held_by, held_back_us
        The partition that holds the watermark, and how far its newest event is behind the newest of all.
    held_silent_us
        How long that partition has been silent.
    watermark_known
        Whether there is a watermark at all.
    late_share, too_late_share
        Of the records read.
    """

    name: str
    watermark_known: bool = True
    ended: bool = False
    behind_us: float | None = None
    held_by: int | None = None
    held_back_us: int = 0
    held_silent_us: int = 0
    partitions: int = 0
    idle: int = 0
    records_read: int = 0
    late_share: float = 0.0
    too_late_share: float = 0.0
    watermark_delay_us: int = 0
    allowed_lateness_us: int = 0
    idle_after_us: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoints:
    """Checkpoints of the run; durations in ms. ``wrote_ms`` is from the cut until written on this machine."""

    number: int | None = None
    bytes: float = 0.0
    age_s: float | None = None
    interval_s: float = 30.0
    paused_ms: float | None = None
    wrote_ms: float | None = None
    took_ms: float | None = None
    completed: int = 0
    failed: int = 0
    incremental: bool = False

    @property
    def stored_ms(self) -> float | None:
        """From written on this machine until durable in its place: checked, or uploaded."""
        return None if self.took_ms is None or self.wrote_ms is None else max(self.took_ms - self.wrote_ms, 0.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """How busy the run is, over the last samples.

    Attributes
    ----------
    loop_share
        CPU time of the loop's thread, of one CPU: near 1 it is all that the loop can do.
    cpu_cores
        CPU time of the process, in CPUs.
    queued
        Records that wait, by output.
    fetched_per_record
        Keys that came back from the state backend's disk, for each record read.
    keys_resident, keys_budget, keys_on_disk
        Bytes of keys in memory, of what they may take there, and of the state backend's files.
    """

    records_per_s: float | None = None
    batch_records: float | None = None
    loop_share: float | None = None
    cpu_cores: float | None = None
    cpus: float | None = None
    lag_records: float | None = None
    lag_trend: Trend | None = None
    queued: Mapping[str, float] = field(default_factory=dict)
    queue_limit: float = 100_000.0
    latency_p99_ms: float | None = None
    latency_budget_ms: float = 10.0
    max_batch_records: int = 4_096
    disturbances: int = 0
    fetched_per_record: float | None = None
    keys_resident: float = 0.0
    keys_budget: float = 0.0
    keys_on_disk: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Disk:
    """Where the checkpoints are."""

    free: float | None = None
    trend: Trend | None = None
    kept_checkpoints: int = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Readings:
    """Everything that is known of a run.

    Attributes
    ----------
    source
        What was read, in words.
    notes
        What could not be read, and why.
    flink
        What only Flink has; None elsewhere.
    live
        Whether the run is running.
    options
        What the installed build can be told beside what every one can: ``rocksdb``, ``workers``. Rules advise nothing else.
    """

    pipeline: str
    source: str
    live: bool = False
    history_s: float = 0.0
    memory: Memory = Memory()
    operators: tuple[Operator, ...] = ()
    streams: tuple[Stream, ...] = ()
    checkpoints: Checkpoints = Checkpoints()
    load: Load = Load()
    disk: Disk = Disk()
    backend: str = "memory"
    max_events_per_key: int = 4_000_000
    max_pending_rows: int = 1_000_000
    options: frozenset[str] = frozenset()
    notes: tuple[str, ...] = ()
    flink: FlinkJob | None = None

    @property
    def state_bytes(self) -> float:
        """What the operators account for."""
        return sum(operator.bytes for operator in self.operators) or self.memory.state

    @property
    def full_bytes(self) -> float:
        """What the process will take once every operator spans all that it keeps."""
        full = sum(operator.full_bytes for operator in self.operators)
        beside = max((self.memory.rss or 0.0) - max(self.state_bytes, self.memory.state), 0.0)
        return full + beside

    @property
    def pressed(self) -> bool:
        """Whether memory is, or will be, so scarce that state should be smaller."""
        limit = self.memory.limit
        if limit is None:
            return self.full_bytes > 1e9
        return max(self.full_bytes, self.memory.rss or 0.0) > 0.5 * limit
