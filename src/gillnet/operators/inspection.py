"""What a pipeline's state holds, for people: each kind of state by itself, one key in clear, and everything as tables.

It reads what the kernel tells and changes nothing. A walk over all keys belongs to a restored copy, never to a run that is live.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from gillnet._kernel import Engine
from gillnet.core.errors import StateError
from gillnet.core.ports import StateBackend
from gillnet.core.time import DAY, HOUR, MINUTE
from gillnet.operators.progress import StreamProgress, stream_progress
from gillnet.plan.nodes import AggregateNode, LatestWindow, PipelinePlan, SessionWindow, TumblingWindow
from gillnet.plan.serde import dumps

EXPIRING_US = (0, 5 * MINUTE, HOUR, DAY)
"""What expires within these is told: 0 is what has expired and waits to be swept."""

RETENTIONS_US = (
    *(minutes * MINUTE for minutes in (1, 5, 15)),
    *(hours * HOUR for hours in (1, 3, 6, 12)),
    *(days * DAY for days in (1, 2, 3, 7, 14, 30, 90)),
)
"""For these retentions it is told what they would keep, beside those that the plan has."""

KEYED = ("windows", "pattern", "join")
"""Kinds of state that belong to keys."""

_PAGE_EVENTS = 65_536
_MASK = "__mask"


@dataclass(frozen=True, slots=True)
class Cut:
    """A part of an operator's state."""

    keys: int
    events: int
    bytes: int


@dataclass(frozen=True, slots=True)
class KeySize:
    """One of the largest keys; times are event times, microseconds UTC."""

    key: str
    events: int
    bytes: int
    oldest_us: int | None
    newest_us: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatorState:
    """The state of one operator.

    Attributes
    ----------
    kind
        ``windows``, ``pattern``, ``join`` (one side), ``sessions``, ``baseline``, ``ids``, ``revisable rows``, ``waiting rows``.
    name
        Such as ``payments.card_id``.
    at
        The root's column that looks it up; None where events read it as they arrive.
    features
        The features that read it; none for the index by which rows to revise are found.
    keys, events, bytes
        Events are what it counts: ids, rows, timers and bins as well. Bytes are all of its heap, shared structure included.
    oldest_us, newest_us
        Event times of what is kept.
    retention_us
        How long an event is kept beyond the last reading that could be asked of it.
    reach_us
        Event time before which nothing is read or changed any more; None while no watermark is known.
    expiring
        By time from now on (event time), what has expired by then; empty while ``reach_us`` is None.
    kept
        By retention, what it would keep.
    gini
        How unequal its keys are in events: 0 where all have as many, near 1 where one has all.
    """

    kind: str
    name: str
    stream: str
    at: str | None
    features: tuple[str, ...]
    keys: int
    events: int
    bytes: int
    saturated_keys: int
    oldest_us: int | None
    newest_us: int | None
    retention_us: int
    reach_us: int | None
    expiring: dict[int, Cut]
    kept: dict[int, Cut]
    largest: tuple[KeySize, ...]
    gini: float

    @property
    def ended(self) -> bool:
        """Whether the stream's event time is at its end, so that nothing more is read."""
        return self.reach_us is not None and self.reach_us > 1 << 61


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyState:
    """One key, as one operator holds it.

    Attributes
    ----------
    events
        Event time, id, and the columns that features take; ``read_by`` names the features that read the event as of the time
        that was asked for.
    values
        The features as of that time.
    """

    kind: str
    name: str
    stream: str
    at: str | None
    bytes: int
    saturated: bool
    events: pa.Table
    values: dict[str, Any] = field(default_factory=dict)


class StateInspector:
    """Looks into a snapshot of a pipeline's state.

    Parameters
    ----------
    plan
        The plan that wrote it.
    snapshot
        What `FeatureOperator.snapshot` returned.
    keys
        A backend with the keys that the snapshot left out: all of them come into memory.

    Raises
    ------
    StateError
        If the bytes are of another version or plan, torn or changed.

    Notes
    -----
    The state is restored, so it takes as much memory as in the run that wrote it, and with ``keys`` as much as all of it.
    """

    def __init__(self, plan: PipelinePlan, snapshot: bytes, *, keys: StateBackend | None = None) -> None:
        self.plan = plan
        try:
            self._engine = Engine.restore(dumps(plan), snapshot)
            if keys is not None:
                self._engine.load_keys(keys)
        except ValueError as error:
            raise StateError(f"The state of pipeline {plan.name!r} cannot be read: {error}.") from error

    def operators(self, *, top: int = 5) -> list[OperatorState]:
        """Return every operator's state, with its ``top`` largest keys. Walks over all keys once."""
        retentions = sorted({*RETENTIONS_US, *(reading_us(feature) for feature in self.plan.features)})
        return [_operator(told, retentions) for told in self._engine.inspect(top, EXPIRING_US, retentions)]

    def progress(self, now_us: int) -> list[StreamProgress]:
        """Return how far each stream was, as seen at processing time ``now_us``."""
        return [stream_progress(s.name, now_us, *self._engine.progress(s.name)) for s in self.plan.streams]

    def key(self, key: str, *, at_us: int | None = None) -> list[KeyState]:
        """Return what every operator holds of a key.

        Parameters
        ----------
        at_us
            Event time as of which features are read; None for the newest event time of the operator's stream.
        """
        found = []
        newest = {progress.stream: progress.newest_us for progress in self.progress(0)}
        latest = max((time for time in newest.values() if time is not None), default=0)
        as_of = latest if at_us is None else at_us
        for told in self._engine.look_at_key(key, as_of):
            values = {} if told["values"] is None else told["values"].to_pyarrow().to_pylist()[0]
            events = pa.Table.from_batches([told["events"].to_pyarrow()])
            events = _with_readers(events, told, self.plan, as_of) if told["kind"] == "windows" else events
            common = {name: told[name] for name in ("kind", "name", "stream", "at", "bytes", "saturated")}
            found.append(KeyState(events=events, values=values, **common))
        return found

    def as_of_us(self) -> int | None:
        """Return the newest event time of all streams, as of which `key` reads features."""
        return max((time for p in self.progress(0) if (time := p.newest_us) is not None), default=None)

    def tables(self, operator: int) -> Iterator[tuple[pa.RecordBatch, pa.RecordBatch]]:
        """Yield all keys and all events of an operator, by its place in `operators`, some at a time: (keys, events)."""
        begin: int | None = 0
        while begin is not None:
            keys, events, begin = self._engine.page(operator, begin, _PAGE_EVENTS)
            yield keys.to_pyarrow(), events.to_pyarrow()


def _operator(told: dict[str, Any], retentions: Sequence[int]) -> OperatorState:
    expiring = {time: Cut(*cut) for time, cut in zip(EXPIRING_US, told.pop("expiring"), strict=False)}
    kept = {time: Cut(*cut) for time, cut in zip(retentions, told.pop("kept"), strict=False)}
    largest = tuple(KeySize(*key) for key in told.pop("largest"))
    features = tuple(told.pop("features"))
    return OperatorState(**told, features=features, expiring=expiring, kept=kept, largest=largest)


def reading_us(feature: Any) -> int:
    """Return how long a feature needs an event after its time; 0 for one that keeps none."""
    if isinstance(feature, AggregateNode):
        match feature.window:
            case SessionWindow(gap_us, max_length_us, delay_us):
                return gap_us + max_length_us + delay_us
            case LatestWindow(_, delay_us):
                return delay_us
            case window:
                return window.size_us + window.delay_us
    pattern = getattr(feature, "pattern", None)
    if pattern is None:
        return 0
    absent_us: int = pattern.absent.for_us if pattern.absent else 0
    return int(pattern.within_us + absent_us)


def _with_readers(events: pa.Table, told: dict[str, Any], plan: PipelinePlan, as_of_us: int) -> pa.Table:
    """Put the names of the features that read an event as of a time in place of its mask."""
    features = {feature.name: feature for feature in plan.features}
    masks, times = events[_MASK].to_pylist(), events["event_time"].cast(pa.int64()).to_pylist()
    readers: list[list[str]] = [[] for _ in masks]
    for name, bit in zip(told["features"], told["bits"], strict=True):
        feature = features[name]
        assert isinstance(feature, AggregateNode), "windows are of aggregates"
        # A session is a run of all events of the key; a look back is for the latest that the feature takes.
        taken = [time for mask, time in zip(masks, times, strict=True) if mask >> bit & 1]
        of_feature = taken if isinstance(feature.window, LatestWindow) else times
        first_us, last_us = _bounds(feature, of_feature, as_of_us)
        for place, (mask, time_us) in enumerate(zip(masks, times, strict=True)):
            if mask >> bit & 1 and first_us <= time_us <= last_us:
                readers[place].append(name)
    place = events.column_names.index(_MASK)
    return events.set_column(place, "read_by", pa.array([", ".join(names) for names in readers]))


def _bounds(feature: AggregateNode, times: Sequence[int], as_of_us: int) -> tuple[int, int]:
    """Return the first and last event time that a feature reads as of a time, among sorted ``times``."""
    window = feature.window
    last_us = as_of_us - window.delay_us
    if isinstance(window, SessionWindow):
        start, last = None, 0
        for time_us in (time for time in times if time <= last_us):
            if start is None or time_us - last > window.gap_us or time_us - start >= window.max_length_us:
                start = time_us
            last = time_us
        is_open = start is not None and last_us - last <= window.gap_us
        return (start, last_us) if is_open and start is not None else (1, 0)
    if isinstance(window, LatestWindow):
        before = [time for time in times if time <= last_us]
        return (before[-1], before[-1]) if before and last_us - before[-1] <= window.size_us else (1, 0)
    if isinstance(window, TumblingWindow):
        return last_us // window.size_us * window.size_us, last_us
    return last_us - window.size_us + 1, last_us
