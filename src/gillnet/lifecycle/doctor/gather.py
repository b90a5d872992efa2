"""Takes the readings of an embedded run: from the history of its figures, and from its newest checkpoint."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from gillnet.core.errors import StateError
from gillnet.core.time import Clock, SystemClock
from gillnet.lifecycle.doctor import readings as r
from gillnet.lifecycle.doctor.trend import Trend, trend
from gillnet.lifecycle.state_view import FeatureCost, StateView, feature_costs, open_state
from gillnet.observability.history import Sample, read_history
from gillnet.operators.inspection import OperatorState
from gillnet.operators.progress import StreamProgress
from gillnet.plan.nodes import PipelinePlan
from gillnet.state import CheckpointStore

_LABELLED = re.compile(r"(?P<name>\w+)(?:\{(?P<labels>[^}]*)\})?")
LIVE_S = 60.0
RECENT_SAMPLES = 12


def gather(
    place: str,
    *,
    plan: PipelinePlan | None = None,
    checkpoint: int | None = None,
    with_state: bool = True,
    limit_bytes: float | None = None,
    options: Iterable[str] = (),
    configured: Mapping[str, Any] | None = None,
    clock: Clock | None = None,
) -> r.Readings:
    """Read everything that a place of checkpoints tells of its run.

    Parameters
    ----------
    plan
        The pipeline's definition; by default what the checkpoint keeps.
    checkpoint
        Which one to look into; by default the newest.
    with_state
        Restore its state, which takes as much memory as in the run; without, operators are told by their sizes alone.
    limit_bytes
        The memory that the run may take, where that is to be another than what it saw itself.
    options
        See `Readings.options`.
    configured
        The runtime's options by name, where no history tells what the run was told.

    Raises
    ------
    StateError
        If there is neither a checkpoint nor a history.
    """
    store = CheckpointStore(place)
    now_us = (clock or SystemClock()).now_us()
    history = _history(store)
    samples = [sample for sample in history if sample.started_us == history[-1].started_us]
    view, note = (
        _view(place, store, plan, checkpoint) if with_state else (None, "The state was not looked into (--quick).")
    )
    if view is None and not samples:
        raise StateError(note or f"Checkpoints {place}: there is neither a checkpoint nor a history of figures.")
    figures = samples[-1].figures if samples else {}
    settings = next((sample.settings for sample in samples if sample.settings), None) or {}
    operators = tuple(_operators(view)) if view else tuple(_by_size(figures))
    said = settings.get("options", configured or {})
    pipeline = view.plan.name if view else str(settings.get("pipeline", "pipeline"))
    notes = [text for text in (note, None if samples else _WITHOUT_HISTORY) if text]
    return r.Readings(
        pipeline=pipeline,
        source=_source(view, samples, now_us),
        live=bool(samples) and now_us - samples[-1].at_us < LIVE_S * 1e6,
        history_s=(samples[-1].at_us - samples[0].at_us) / 1e6 if samples else 0.0,
        memory=_memory(samples, operators, limit_bytes),
        operators=operators,
        streams=tuple(_streams(view, figures, settings)),
        checkpoints=_checkpoints(view, samples, said, now_us),
        load=_load(samples, said),
        disk=r.Disk(free=figures.get("disk_free_bytes"), trend=_trend(samples, "disk_free_bytes")),
        backend=str(settings.get("state_backend", "memory")),
        max_events_per_key=view.plan.max_events_per_key if view else 4_000_000,
        options=frozenset(options),
        notes=tuple(notes),
    )


_WITHOUT_HISTORY = (
    "No run has left a history of its figures here (metrics.ndjson), so memory, load and growth are unknown."
)


def _history(store: CheckpointStore) -> list[Sample]:
    try:
        return [] if store.directory is None else read_history(store.directory)
    except OSError as error:
        raise StateError(
            f"Checkpoints {store.place}: the history of figures cannot be read: {error.strerror}."
        ) from error


def _view(
    place: str, store: CheckpointStore, plan: PipelinePlan | None, number: int | None
) -> tuple[StateView | None, str | None]:
    if number is None and not store.numbers():
        return None, f"Checkpoints {place}: there is none yet."
    try:
        return open_state(place, number=number, plan=plan), None
    except StateError as error:
        if number is not None:
            raise
        return None, str(error)


def _source(view: StateView | None, samples: Sequence[Sample], now_us: int) -> str:
    parts = []
    if view is not None:
        age_s = (now_us - view.checkpoint.taken_us) / 1e6
        parts.append(f"checkpoint {view.checkpoint.number}, {_ago(age_s)}")
    if samples:
        span_s = (samples[-1].at_us - samples[0].at_us) / 1e6
        parts.append(
            f"{len(samples)} samples over {span_s:,.0f} s, the last {_ago((now_us - samples[-1].at_us) / 1e6)}"
        )
    return "; ".join(parts)


def _ago(age_s: float) -> str:
    if age_s < 120:
        return f"{max(age_s, 0):.0f} s ago"
    return f"{age_s / 60:.0f} min ago" if age_s < 7_200 else f"{age_s / 3_600:,.0f} h ago"


def labelled(figures: Mapping[str, float | int], wanted: str) -> list[tuple[dict[str, str], float]]:
    """Return the figures of a name with their labels.

    >>> labelled({"records_read{stream=a}": 3, "batches": 1}, "records_read")
    [({'stream': 'a'}, 3)]
    """
    found = []
    for name, value in figures.items():
        match = _LABELLED.fullmatch(name)
        if match and match["name"] == wanted:
            labels = dict(pair.split("=", 1) for pair in (match["labels"] or "").split(",") if "=" in pair)
            found.append((labels, value))
    return found


def _sum(figures: Mapping[str, float | int], name: str) -> float:
    return float(sum(value for _, value in labelled(figures, name)))


def _trend(samples: Sequence[Sample], figure: str | Callable[[Sample], float | None]) -> Trend | None:
    read = (lambda sample: sample.figures.get(figure)) if isinstance(figure, str) else figure
    points = [(sample.at_us / 1e6, value) for sample in samples if (value := read(sample)) is not None]
    return trend([time for time, _ in points], [value for _, value in points])


def _memory(samples: Sequence[Sample], operators: Sequence[r.Operator], limit: float | None) -> r.Memory:
    figures: Mapping[str, float] = samples[-1].figures if samples else {}
    state = _sum(figures, "state_bytes") or sum(operator.bytes for operator in operators)
    return r.Memory(
        rss=figures.get("process_rss_bytes"),
        anonymous=figures.get("process_anonymous_bytes"),
        peak=figures.get("process_peak_bytes"),
        swap=figures.get("process_swap_bytes", 0.0),
        state=state,
        malloc_used=figures.get("malloc_used_bytes"),
        malloc_free=figures.get("malloc_free_bytes"),
        arrow=figures.get("arrow_bytes"),
        limit=limit if limit is not None else figures.get("memory_limit_bytes"),
        trend=_trend(samples, "process_rss_bytes"),
        state_trend=_trend(samples, lambda sample: _sum(sample.figures, "state_bytes")),
    )


def _by_size(figures: Mapping[str, float]) -> Iterable[r.Operator]:
    """Return operators as the live run tells them: sizes alone."""
    for labels, size in labelled(figures, "state_bytes"):
        where = f"{{kind={labels['kind']},operator={labels['operator']}}}"
        keys, events = figures.get(f"state_keys{where}", 0), figures.get(f"state_events{where}", 0)
        stream = labels["operator"].partition(".")[0]
        yield r.Operator(
            kind=labels["kind"], name=labels["operator"], stream=stream, keys=int(keys), events=int(events), bytes=size
        )


def _operators(view: StateView) -> Iterable[r.Operator]:
    states = view.operators(top=1)
    costs = feature_costs(view.plan, states)
    for state in states:
        late_us = view.late_us(state)
        largest = state.largest[0] if state.largest else None
        yield r.Operator(
            kind=state.kind,
            name=state.name,
            stream=state.stream,
            keys=state.keys,
            events=state.events,
            bytes=float(state.bytes),
            kept_us=None if late_us is None else state.retention_us + late_us,
            late_us=late_us,
            covered_us=_covered(state),
            expired_bytes=float(state.expiring[0].bytes) if 0 in state.expiring and not state.ended else 0.0,
            overdue_bytes={} if state.ended else {span: float(cut.bytes) for span, cut in state.expiring.items()},
            largest_key=None if largest is None else largest.key,
            largest_events=0 if largest is None else largest.events,
            largest_bytes=0.0 if largest is None else float(largest.bytes),
            gini=state.gini,
            saturated_keys=state.saturated_keys,
            features=tuple(_features(state, costs)),
        )


def _covered(state: OperatorState) -> int:
    if state.oldest_us is None or state.newest_us is None:
        return 0
    return state.newest_us - state.oldest_us


def _features(state: OperatorState, costs: Sequence[FeatureCost]) -> Iterable[r.Feature]:
    for cost in costs:
        if cost.feature in state.features:
            yield r.Feature(
                name=cost.feature,
                window=cost.window,
                window_us=cost.window_us,
                bytes=float(cost.bytes),
                alone_bytes=float(cost.alone_bytes),
            )


def _streams(view: StateView | None, figures: Mapping[str, float], settings: Mapping[str, Any]) -> Iterable[r.Stream]:
    if view is None:
        for name, said in settings.get("streams", {}).items():
            yield r.Stream(name=name, **_of_partitions(figures, name), **_of_records(figures, name), **said)
        return
    for progress in view.progress():
        node = view.plan.stream(progress.stream)
        fresh = _of_partitions(figures, node.name) or _of_progress(progress)
        yield r.Stream(
            name=node.name,
            ended=progress.ended,
            **fresh,
            **_of_records(figures, node.name),
            watermark_delay_us=node.watermark_delay_us,
            allowed_lateness_us=node.allowed_lateness_us,
            idle_after_us=node.idle_after_us,
        )


def _of_partitions(figures: Mapping[str, float], stream: str) -> dict[str, Any]:
    """Return how far a stream is by the newest sample; empty if it tells nothing of the stream."""
    newest = {
        int(at["partition"]): value for at, value in labelled(figures, "newest_event_time_us") if at["stream"] == stream
    }
    heard = {int(at["partition"]): value for at, value in labelled(figures, "heard_us") if at["stream"] == stream}
    if not heard:
        return {}
    held_by = figures.get(f"watermark_held_by{{stream={stream}}}")
    lag_ms = figures.get(f"watermark_lag_ms{{stream={stream}}}")
    idle = figures.get(f"partitions_idle{{stream={stream}}}", 0)
    return {
        "watermark_known": lag_ms is not None,
        "behind_us": None if lag_ms is None else lag_ms * 1_000,
        "partitions": len(heard),
        "idle": int(idle),
    } | _held(held_by, newest, heard)


def _of_progress(progress: StreamProgress) -> dict[str, Any]:
    newest = {part.partition: float(part.newest_us) for part in progress.partitions if part.newest_us is not None}
    heard = {part.partition: float(part.heard_us) for part in progress.partitions}
    return {
        "watermark_known": progress.watermark_us is not None or progress.ended,
        "behind_us": progress.lag_us,
        "partitions": len(progress.partitions),
        "idle": len(progress.idle),
    } | _held(progress.held_by, newest, heard)


def _held(held_by: float | None, newest: Mapping[int, float], heard: Mapping[int, float]) -> dict[str, Any]:
    if held_by is None or not newest:
        return {"held_by": None}
    partition = int(held_by)
    own = newest.get(partition)
    return {
        "held_by": partition,
        "held_back_us": 0 if own is None else int(max(newest.values()) - own),
        "held_silent_us": int(max(heard.values()) - heard[partition]),
    }


def _of_records(figures: Mapping[str, float], stream: str) -> dict[str, Any]:
    read = {kind: figures.get(f"records_{kind}{{stream={stream}}}", 0) for kind in ("read", "late", "too_late")}
    total = max(read["read"], 1)
    return {
        "records_read": int(read["read"]),
        "late_share": read["late"] / total,
        "too_late_share": read["too_late"] / total,
    }


def _checkpoints(
    view: StateView | None, samples: Sequence[Sample], said: Mapping[str, Any], now_us: int
) -> r.Checkpoints:
    figures = samples[-1].figures if samples else {}
    taken_us = view.checkpoint.taken_us if view else figures.get("checkpoint_taken_us")
    # Of several, the slowest tells most; a run has few of them in its history.
    seen = {
        sample.figures["checkpoint_taken_us"]: sample.figures
        for sample in samples
        if "checkpoint_taken_us" in sample.figures
    }
    recent = list(seen.values())[-RECENT_SAMPLES:]

    def typical(name: str) -> float | None:
        values = sorted(of[name] for of in recent if name in of)
        return float(values[len(values) // 2]) if values else None

    return r.Checkpoints(
        number=view.checkpoint.number if view else None,
        bytes=float(view.checkpoint.bytes if view else figures.get("checkpoint_bytes", 0)),
        age_s=None if taken_us is None else (now_us - taken_us) / 1e6,
        interval_s=float(said.get("checkpoint_interval_s", 30.0)),
        paused_ms=typical("checkpoint_paused_ms"),
        wrote_ms=typical("checkpoint_wrote_ms"),
        took_ms=typical("checkpoint_took_ms"),
        completed=int(figures.get("checkpoints", 0)),
        failed=int(figures.get("checkpoints_failed", 0)),
        incremental="backend_keys_kept" in figures,
    )


def _load(samples: Sequence[Sample], said: Mapping[str, Any]) -> r.Load:
    if not samples:
        return r.Load()
    recent = samples[-RECENT_SAMPLES:]
    first, last = recent[0], recent[-1]
    span_s = (last.at_us - first.at_us) / 1e6

    def rate(name: str) -> float | None:
        if span_s <= 0 or not labelled(last.figures, name):
            return None
        return (_sum(last.figures, name) - _sum(first.figures, name)) / span_s

    records, batches, fetched = rate("records_read"), rate("batches"), rate("backend_keys_fetched")
    latencies = sorted(value for sample in recent if (value := sample.figures.get("recent_latency_ms_p99")) is not None)
    return r.Load(
        records_per_s=records,
        batch_records=records / batches if records is not None and batches else None,
        loop_share=rate("loop_cpu_s"),
        cpu_cores=rate("process_cpu_s"),
        cpus=last.figures.get("cpus"),
        lag_records=last.figures.get("lag_records"),
        lag_trend=_trend(samples[-5 * RECENT_SAMPLES :], "lag_records"),
        queued={labels["output"]: value for labels, value in labelled(last.figures, "sink_queued_records")},
        latency_p99_ms=latencies[len(latencies) // 2] if latencies else None,
        latency_budget_ms=float(said.get("latency_budget_ms", 10.0)),
        max_batch_records=int(said.get("max_batch_records", 4_096)),
        disturbances=int(last.figures.get("disturbances", 0)),
        fetched_per_record=fetched / records if fetched is not None and records else None,
        keys_resident=last.figures.get("backend_resident_bytes", 0.0),
        keys_budget=last.figures.get("backend_budget_bytes", 0.0),
        keys_on_disk=last.figures.get("backend_disk_bytes", 0.0),
    )
