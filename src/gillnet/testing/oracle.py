"""The slow, obviously right answer to every windowed aggregate, in plain Python.

The kernel is held against this, value for value and bit for bit. Nothing here is clever: every reading walks over all
events of the key. Numbers are exact (`fractions.Fraction`) and rounded once at the end.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from decimal import Decimal
from fractions import Fraction
from typing import Any

from gillnet.plan.nodes import (
    AggregateNode,
    LatestWindow,
    SessionWindow,
    SlidingWindow,
    StreamNode,
    TumblingWindow,
    Window,
)

Row = Mapping[str, Any]
Evaluate = Callable[[Any, Row], Any]


class Event:
    """One event of a key: time in µs, id, and its columns."""

    __slots__ = ("id", "row", "time")

    def __init__(self, time: int, id: Any, row: Row) -> None:  # noqa: A002 - the field's word
        self.time, self.id, self.row = time, id, row

    @property
    def order(self) -> tuple[int, Any]:
        """The order of I1: event time, then id."""
        return self.time, self.id


def read(node: AggregateNode, events: Iterable[Event], time: int, own: Event | None, evaluate: Evaluate) -> Any:
    """Read one aggregate as of ``time``.

    Parameters
    ----------
    node
        The aggregate.
    events
        All events of the key that have arrived, in any order; the reading event included.
    time
        The reading's event time in µs.
    own
        The reading event where it belongs to the key, None for a lookup (which sees every event at or before ``time``).
    evaluate
        Gives the value of an expression for a row; None is null.

    Returns
    -------
    object
        int, float, `decimal.Decimal`, str, bool or None.
    """
    ordered = sorted(events, key=lambda event: event.order)
    window = _window(node.window, ordered, time, own)
    chosen = [event for event in window if node.where is None or evaluate(node.where, event.row) is True]
    if node.input is None:
        return _of_events(node, chosen, time)
    values = [value for event in chosen if (value := evaluate(node.input, event.row)) is not None]
    return _of_values(node.function, values)


def _window(window: Window, ordered: Sequence[Event], time: int, own: Event | None) -> list[Event]:
    end = time - window.delay_us
    if window.delay_us == 0 and own is not None:
        reach = [event for event in ordered if event.order <= own.order]
    else:
        reach = [event for event in ordered if event.time <= end]
    match window:
        case SlidingWindow(size_us=size):
            return [event for event in reach if event.time > end - size]
        case TumblingWindow(size_us=size):
            return [event for event in reach if event.time >= end // size * size]
        case SessionWindow():
            return _session(window, reach, end)
        case LatestWindow(size_us=size):
            before = [event for event in reach if own is None or event.order != own.order]
            return [event for event in before if time - event.time <= size]


def _session(window: SessionWindow, reach: Sequence[Event], end: int) -> list[Event]:
    found = sessions(reach, window.gap_us, window.max_length_us)
    return found[-1] if found and end - found[-1][-1].time <= window.gap_us else []


def sessions(events: Iterable[Event], gap_us: int, max_length_us: int) -> list[list[Event]]:
    """Cut a key's events into sessions: after a gap of more than ``gap_us``, or where one would last ``max_length_us``."""
    found: list[list[Event]] = []
    for event in sorted(events, key=lambda event: event.order):
        gap = found and event.time - found[-1][-1].time > gap_us
        full = found and event.time - found[-1][0].time >= max_length_us
        if not found or gap or full:
            found.append([])
        found[-1].append(event)
    return found


class Gate:
    """What a stream makes of each record, and its watermark (I3, I8), by going over everything heard so far.

    Parameters
    ----------
    stream
        The stream; its durations count.
    """

    def __init__(self, stream: StreamNode) -> None:
        self.stream = stream
        self.watermark: int | None = None
        self._heard: dict[int, int] = {}
        self._times: dict[int, list[int]] = {}
        self._idle: set[int] = set()
        self._seen: set[Any] = set()

    def register(self, partition: int, now: int) -> None:
        """Wait for a partition that was assigned."""
        if partition not in self._heard:
            self._heard[partition], self._times[partition] = now, []

    def pass_time(self, now: int) -> None:
        """Leave out partitions that are silent for too long."""
        self._idle |= {part for part, heard in self._heard.items() if now - heard > self.stream.idle_after_us}
        self._advance()

    def take(self, partition: int, id: Any, time: int, now: int) -> str:  # noqa: A002 - the field's word
        """Return ``accepted``, ``duplicate``, ``too_late``, ``before_earliest`` or ``ahead_of_arrival``."""
        if time < self.stream.earliest_us:
            return "before_earliest"
        if time > now + self.stream.max_ahead_us:
            return "ahead_of_arrival"
        if self.watermark is not None and time < self.watermark - self.stream.allowed_lateness_us:
            return "too_late"
        if id in self._seen:
            return "duplicate"
        self._seen.add(id)
        self.register(partition, now)
        self._heard[partition] = now
        self._times[partition].append(min(time, now))  # A clock that is ahead must not push the watermark.
        self._idle.discard(partition)
        self._advance()
        return "accepted"

    def partitions(self) -> list[tuple[int, int | None, int, bool]]:
        """Return (partition, newest event time, heard, idle) of every partition that is known, by number."""
        return [
            (number, max(self._times[number], default=None), heard, number in self._idle)
            for number, heard in sorted(self._heard.items())
        ]

    def _advance(self) -> None:
        live = [times for partition, times in self._times.items() if partition not in self._idle]
        if live and all(live):
            complete = min(max(times) for times in live) - self.stream.watermark_delay_us
            self.watermark = complete if self.watermark is None else max(self.watermark, complete)


def _of_events(node: AggregateNode, events: Sequence[Event], time: int) -> Any:
    if node.function == "count":
        return len(events)
    if node.function == "seconds_since_last":
        return float(Fraction(time - events[-1].time, 1_000_000)) if events else None
    gaps = [after.time - before.time for before, after in itertools.pairwise(events)]
    if not gaps:
        return None
    if node.function == "mean_gap_seconds":
        return float(Fraction(sum(gaps), len(gaps) * 1_000_000))
    if node.function == "std_gap_seconds":
        variance = _variance([Fraction(gap, 1_000_000) for gap in gaps])
        return None if variance is None else math.sqrt(float(variance))
    return _modal_share(gaps)


def _modal_share(gaps: Sequence[int]) -> float:
    bins = Counter(-8 if gap == 0 else math.floor(math.log2(gap) * 8) for gap in gaps)
    modal = min(bins, key=lambda number: (-bins[number], number))
    return (bins[modal - 1] + bins[modal] + bins[modal + 1]) / len(gaps)


def _of_values(function: str, values: list[Any]) -> Any:
    match function:
        case "n_unique":
            return len({_plain(value) for value in values})
        case "sum":
            return _sum(values)
        case "entropy":
            return _entropy(values) if values else None
        case "variance" | "std":
            return _spread(values, root=function == "std")
        case "mean":
            return _mean(values) if values else None
        case "first":
            return values[0] if values else None
        case "last":
            return values[-1] if values else None
        case "min":
            known = [value for value in values if value == value]  # noqa: PLR0124 - NaN
            return _plain(min(known)) if known else None
        case "max":
            known = [value for value in values if value == value]  # noqa: PLR0124 - NaN
            return _plain(max(known)) if known else None
    raise AssertionError(function)


def _plain(value: Any) -> Any:
    """Minus zero is zero, and there is one NaN."""
    if not isinstance(value, float):
        return value
    return math.nan if math.isnan(value) else value + 0.0


def _finite(values: Iterable[Any]) -> bool:
    return all(not isinstance(value, float) or math.isfinite(value) for value in values)


def _sum(values: list[Any]) -> Any:
    if any(isinstance(value, float) for value in values):
        return _rounded(sum(map(Fraction, values)), 1) if _finite(values) else math.fsum(_signs(values))
    if any(isinstance(value, Decimal) for value in values):
        return sum(values, Decimal(0))
    return sum(int(value) for value in values)


def _signs(values: Iterable[float]) -> list[float]:
    """Infinities and NaN alone: fsum refuses both infinities together, where the answer is NaN."""
    special = {value for value in values if math.isinf(value)}
    nan = any(math.isnan(value) for value in values)
    return [math.nan] if nan or len(special) == 2 else list(special)


def _mean(values: list[Any]) -> float:
    if not _finite(values):
        return math.fsum(_signs(values))
    return _rounded(sum((Fraction(value) for value in values), Fraction(0)), len(values))


def _rounded(total: Fraction | int, count: int) -> float:
    try:
        return float(Fraction(total) / count)
    except OverflowError:
        return math.inf if total > 0 else -math.inf


def _variance(values: Sequence[Fraction]) -> Fraction | None:
    n = len(values)
    if n < 2:
        return None
    total = sum(values, Fraction(0))
    return (n * sum((value * value for value in values), Fraction(0)) - total * total) / (n * (n - 1))


def _spread(values: list[Any], *, root: bool) -> float | None:
    if len(values) < 2:
        return None
    if not _finite(values):
        return math.nan
    variance = _variance([Fraction(value) for value in values])
    rounded = _rounded(variance or 0, 1)
    return math.sqrt(rounded) if root else rounded


def _entropy(values: Iterable[Any]) -> float:
    counts = Counter(_plain(value) for value in values)
    total = sum(counts.values())
    weighted = 0.0
    for count, times in sorted(Counter(counts.values()).items()):
        weighted += times * (count * math.log2(total / count))
    return weighted / total
