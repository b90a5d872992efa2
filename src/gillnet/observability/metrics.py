"""The catalogue of a run's figures: every counter and histogram has its name, unit and help here, and nowhere else."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from gillnet.core.errors import StateError
from gillnet.operators.progress import StreamProgress

CATALOGUE: dict[str, str] = {
    "records_read": "Records read from the source, per stream.",
    "records_scored": "Records that were accepted: scored, or kept for lookups; per stream.",
    "records_duplicate": "Records whose id was seen before, per stream.",
    "records_malformed": "Records that do not fit the schema or have an absurd event time, per stream.",
    "records_too_late": "Records behind the watermark by more than the allowed lateness, per stream.",
    "records_late": "Scored records that were behind the watermark, per stream.",
    "decisions": "Decisions, per action.",
    "alerts": "Alerts written.",
    "sessions_closed": "Sessions that the watermark closed, revisions included.",
    "revisions": "Rows that later arrivals changed after they went out.",
    "revisions_flipped": "Revisions whose decision is another one.",
    "matches": "Matches of patterns that were found, or whose events changed.",
    "matches_withdrawn": "Matches that a late event undid.",
    "join_pairs": "Pairs that a join gave, per join.",
    "join_unmatched": "Events of an outer side that a join gave without a partner, per join.",
    "join_withdrawn": "Rows without a partner that a later match withdrew, per join.",
    "join_dropped_pairs": "Pairs left out because one event had more than max_pairs_per_event, per join.",
    "join_dropped_events": "Events forgotten because their key had more than max_events_per_key, per join.",
    "join_incomplete": "Events that came after what they could match may have been forgotten, their stream idle; per join.",
    "batches": "Micro-batches processed.",
    "checkpoints": "Checkpoints completed.",
    "checkpoints_failed": "Checkpoints that could not be written.",
    "checkpoint_bytes": "Size of the last checkpoint.",
    "checkpoint_paused_ms": "How long the run stood still for the last checkpoint, in milliseconds.",
    "checkpoint_wrote_ms": "From the last checkpoint's cut until its state was written on this machine, in milliseconds.",
    "checkpoint_took_ms": "From the last checkpoint's cut until it was durable, in milliseconds.",
    "checkpoint_taken_us": "The last checkpoint's cut in microseconds since 1970 UTC.",
    "transactions": "Transactions committed by this run, where outputs are exactly-once.",
    "transaction_commit_ms": "From a commit's begin until everything in it is visible, in milliseconds.",
    "backend_resident_bytes": "About how many bytes the keys hold that are in memory and could leave to the state backend.",
    "backend_budget_bytes": "Bytes of memory that the engine's own state may take beside a state backend.",
    "backend_disk_bytes": "Bytes of the state backend's files.",
    "backend_keys_fetched": "Keys that came back from the state backend.",
    "backend_keys_kept": "Keys that were handed over to the state backend, those that stayed in memory as well included.",
    "features_warming": "Features that were incomplete after an upgrade when the run began.",
    "warming_complete_us": "Event time from which on such a feature is complete, in microseconds since 1970 UTC, per feature.",
    "watermark_us": "The watermark in microseconds since 1970 UTC, per stream; absent before the first and after the end.",
    "watermark_lag_ms": "How far the watermark is behind the arrival clock, in milliseconds, per stream.",
    "watermark_held_by": "The partition that holds the watermark back, per stream.",
    "partitions_idle": "Partitions that the watermark does not wait for, per stream.",
    "newest_event_time_us": "The newest event time in microseconds since 1970 UTC, per stream and partition.",
    "heard_us": "When a partition was heard last, in microseconds since 1970 UTC, per stream and partition.",
    "idle": "1 for a partition that the watermark does not wait for, 0 for others, per stream and partition.",
    "source_lag_records": "Records that wait at the source, per stream; absent where it cannot tell.",
    "source_expired_records": "Records that the topic's retention removed before they were read, per stream.",
    "sink_queued_records": "Records that wait for the broker's acknowledgement, per output.",
    "sink_cut_records": "Records of a side output that were cut to fit the topic, per output.",
    "latency_ms": "Arrival of a record to its row handed to the sink, in milliseconds.",
    "recent_latency_ms": "The same since the sample before, in the history.",
    "state_keys": "Keys held, per kind of state and operator.",
    "state_events": "Events held (or ids, rows, timers), per kind of state and operator.",
    "state_bytes": "Memory of the state by what is counted anyway, a lower bound; per kind of state and operator.",
    "disturbances": "Events that came before others of their key, whose rows were not computed again yet.",
    "lag_records": "Records that wait at all sources together, as far as they can tell.",
    "process_rss_bytes": "Memory of the process that is resident.",
    "process_anonymous_bytes": "Resident memory that no file is behind: heap, native and Python's.",
    "process_peak_bytes": "The most memory that was resident.",
    "process_swap_bytes": "Memory of the process that is swapped out.",
    "process_threads": "Threads of the process.",
    "process_open_files": "Files and sockets that the process has open.",
    "process_cpu_s": "CPU time of the process, in seconds.",
    "loop_cpu_s": "CPU time of the loop's thread, in seconds.",
    "malloc_used_bytes": "Heap of the C library that is in use: state, and Python's objects.",
    "malloc_free_bytes": "Heap of the C library that is free and not given back.",
    "arrow_bytes": "Memory of PyArrow's pool.",
    "memory_limit_bytes": "The least of the machine's memory and of the control group's limit.",
    "cpus": "CPUs that the process may use.",
    "disk_free_bytes": "Free space where the checkpoints are.",
}

SHARES = ((0.5, "p50"), (0.95, "p95"), (0.99, "p99"))
"""Percentiles that are told of a histogram."""


_COUNTED = ("alerts", "sessions_closed", "revisions", "revisions_flipped", "matches", "matches_withdrawn", "batches")
_COUNTED_OF_STREAMS = ("read", "scored", "duplicate", "malformed", "too_late", "late")


class Histogram:
    """Counts in logarithmic bins of 2 %, from 1 µs up: percentiles within 1 %, some 8 bytes for each bin in use.

    Values are milliseconds.
    """

    __slots__ = ("_bins", "count", "maximum")

    _STEP = math.log(1.02)

    def __init__(self) -> None:
        self._bins: Counter[int] = Counter()
        self.count = 0
        self.maximum = 0.0

    def add(self, value_ms: float, times: int = 1) -> None:
        """Count a value ``times`` times."""
        self._bins[math.floor(math.log(max(value_ms, 0.001)) / self._STEP)] += times
        self.count += times
        self.maximum = max(self.maximum, value_ms)

    def bins(self) -> dict[int, int]:
        """Return the counts so far, to be given to `since` later."""
        return dict(self._bins)

    def since(self, before: Mapping[int, int]) -> Histogram:
        """Return what was counted since `bins` gave ``before``; its maximum is of the whole."""
        recent = Histogram()
        # A copy first: another thread may be counting.
        for number, count in dict(self._bins).items():
            if (more := count - before.get(number, 0)) > 0:
                recent._bins[number] = more
                recent.count += more
        recent.maximum = self.maximum
        return recent

    def percentile(self, share: float) -> float | None:
        """Return the value that ``share`` (0 to 1) of the counts lie at or below; None if nothing was counted."""
        if not self.count:
            return None
        rank, below = max(1, math.ceil(share * self.count)), 0
        for number in sorted(self._bins):
            below += self._bins[number]
            if below >= rank:
                return min(math.exp((number + 0.5) * self._STEP), self.maximum)
        return self.maximum


@dataclass(slots=True)
class StreamCounts:
    """What became of a stream's records; ``read`` is the sum of the next four (I3)."""

    read: int = 0
    scored: int = 0
    duplicate: int = 0
    malformed: int = 0
    too_late: int = 0
    late: int = 0
    reasons: Counter[str] = field(default_factory=Counter)

    @property
    def balanced(self) -> bool:
        """Whether every record read ended as exactly one of the four."""
        return self.read == self.scored + self.duplicate + self.malformed + self.too_late


@dataclass(slots=True)
class RunMetrics:
    """The figures of one run."""

    streams: dict[str, StreamCounts] = field(default_factory=dict)
    decisions: Counter[str] = field(default_factory=Counter)
    latency_ms: Histogram = field(default_factory=Histogram)
    alerts: int = 0
    sessions_closed: int = 0
    revisions: int = 0
    revisions_flipped: int = 0
    matches: int = 0
    matches_withdrawn: int = 0
    batches: int = 0
    progress: dict[str, StreamProgress] = field(default_factory=dict)
    """By stream, as it was sampled last."""
    joins: dict[str, dict[str, int]] = field(default_factory=dict)
    sources: dict[str, dict[str, int]] = field(default_factory=dict)
    """By stream, as they were sampled last; so are those of sinks, by output."""
    sinks: dict[str, dict[str, int]] = field(default_factory=dict)
    backend: dict[str, int] = field(default_factory=dict)
    """Of the state backend, as sampled last."""
    transaction_commit_ms: Histogram = field(default_factory=Histogram)
    checkpoints: int = 0
    checkpoints_failed: int = 0
    checkpoint: dict[str, float | int] = field(default_factory=dict)
    """Of the last one."""
    warming: Mapping[str, int | None] = field(default_factory=dict)
    """Features that an upgrade left incomplete when the run began, and the event time from which on each is complete, if known."""

    def stream(self, name: str) -> StreamCounts:
        """Return the counts of a stream."""
        counts = self.streams.get(name)
        return counts if counts is not None else self.streams.setdefault(name, StreamCounts())

    def counts(self) -> dict[str, Any]:
        """Return what a run counts from its beginning, as JSON has it: for one that goes on from a checkpoint."""
        streams = {
            name: {**{kind: getattr(counts, kind) for kind in _COUNTED_OF_STREAMS}, "reasons": dict(counts.reasons)}
            for name, counts in self.streams.items()
        }
        return {
            **{name: getattr(self, name) for name in _COUNTED},
            "decisions": dict(self.decisions),
            "streams": streams,
        }

    def restore(self, counts: Mapping[str, Any]) -> None:
        """Go on counting from what `counts` returned.

        Raises
        ------
        StateError
            If they are of another form.
        """
        try:
            self._restore(counts)
        except (LookupError, TypeError, AttributeError) as error:
            raise StateError("the counts of the checkpoint are of another form; restore an earlier one.") from error

    def _restore(self, counts: Mapping[str, Any]) -> None:
        for name in _COUNTED:
            setattr(self, name, _count(counts[name]))
        self.decisions = _counter(counts["decisions"])
        for name, counted in counts["streams"].items():
            stream = self.stream(name)
            for kind in _COUNTED_OF_STREAMS:
                setattr(stream, kind, _count(counted[kind]))
            stream.reasons = _counter(counted["reasons"])

    def snapshot(self) -> dict[str, float | int]:
        """Return every figure under its name in `CATALOGUE`, with labels in braces."""
        figures: dict[str, float | int] = {}
        for name, counts in self.streams.items():
            for kind in _COUNTED_OF_STREAMS:
                figures[f"records_{kind}{{stream={name}}}"] = getattr(counts, kind)
        for progress in self.progress.values():
            figures |= _progress_figures(progress)
        figures |= {f"decisions{{action={action}}}": count for action, count in self.decisions.items()}
        for name in (*_COUNTED, "checkpoints", "checkpoints_failed"):
            figures[name] = getattr(self, name)
        figures |= {f"checkpoint_{what}": value for what, value in self.checkpoint.items() if what != "number"}
        for join, did in self.joins.items():
            figures |= {f"join_{what}{{join={join}}}": count for what, count in did.items()}
        for stream, told in self.sources.items():
            figures |= {f"source_{what}{{stream={stream}}}": count for what, count in told.items()}
        for output, told in self.sinks.items():
            figures |= {f"sink_{what}{{output={output}}}": count for what, count in told.items()}
        figures |= {f"backend_{what}": value for what, value in self.backend.items()}
        if self.transaction_commit_ms.count:
            figures["transactions"] = self.transaction_commit_ms.count
            figures |= _percentiles("transaction_commit_ms", self.transaction_commit_ms)
        figures["features_warming"] = len(self.warming)
        complete = {name: since_us for name, since_us in self.warming.items() if since_us is not None}
        figures |= {f"warming_complete_us{{feature={name}}}": since_us for name, since_us in complete.items()}
        return figures | _percentiles("latency_ms", self.latency_ms)


def _percentiles(name: str, histogram: Histogram) -> dict[str, float]:
    return {f"{name}_{label}": round(histogram.percentile(share) or 0.0, 3) for share, label in SHARES}


def _count(value: Any) -> int:
    if type(value) is not int:
        raise TypeError(f"{value!r} is no count")
    return value


def _counter(values: Mapping[str, Any]) -> Counter[str]:
    return Counter({name: _count(value) for name, value in values.items()})


def _progress_figures(progress: StreamProgress) -> dict[str, float | int]:
    label = f"stream={progress.stream}"
    figures: dict[str, float | int | None] = {
        f"watermark_us{{{label}}}": progress.watermark_us,
        f"watermark_lag_ms{{{label}}}": None if progress.lag_us is None else progress.lag_us / 1_000,
        f"watermark_held_by{{{label}}}": progress.held_by,
        f"partitions_idle{{{label}}}": len(progress.idle),
    }
    for part in progress.partitions:
        where = f"{{{label},partition={part.partition}}}"
        figures[f"newest_event_time_us{where}"] = part.newest_us
        figures[f"heard_us{where}"] = part.heard_us
        figures[f"idle{where}"] = int(part.idle)
    return {name: value for name, value in figures.items() if value is not None}
