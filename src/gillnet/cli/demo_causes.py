"""Finds the late event behind a revision among a demo's live records, and makes sure that it is the cause.

A revision names one of the events since its row last went out; others may have changed the row with it. So an event is taken
for the cause only if it is among those that each of the changed features reads for the row: by stream, key, condition, window.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import msgspec

from gillnet.core.time import MILLISECOND
from gillnet.plan.expressions import Call, Column, Literal, Node, columns_of
from gillnet.plan.nodes import AggregateNode, ExpressionNode, LatestWindow, PipelinePlan, SlidingWindow
from gillnet.plan.patterns import PatternNode

_NEIGHBOURS = 9


@dataclass(frozen=True, slots=True)
class Reads:
    """The events that a feature reads.

    Attributes
    ----------
    stream, key, at
        Of which stream, under which of their columns (None: all), for which column of the row.
    wheres
        They meet one of these conditions; empty: any event.
    size_us, delay_us
        They lie in (t - delay - size, t - delay] for a row at t; microseconds. A size of None is not looked at.
    """

    stream: str
    key: str | None
    at: str | None
    wheres: tuple[Node, ...] = ()
    size_us: int | None = None
    delay_us: int = 0

    def holds(self, stream: str, event: Mapping[str, Any], row: Mapping[str, Any]) -> bool:
        """Return whether an event, ``ts`` in milliseconds, is one of them for a row."""
        before_us = (row["ts"] - event["ts"]) * MILLISECOND - self.delay_us
        return (
            stream == self.stream
            and (self.key is None or event.get(self.key) == row.get(self.at or ""))
            and (not self.wheres or any(_meets(event, where) for where in self.wheres))
            and 0 <= before_us < (math.inf if self.size_us is None else self.size_us)
        )


class _Timed(msgspec.Struct):
    ts: int


_decode = msgspec.json.Decoder(dict[str, Any]).decode
_timed = msgspec.json.Decoder(_Timed).decode


def events_read(plan: PipelinePlan) -> dict[str, frozenset[Reads]]:
    """Return, for each feature, which events it reads: for an expression, all those that its features read."""
    nodes = {feature.name: feature for feature in plan.features}

    def read(name: str) -> frozenset[Reads]:
        node = nodes.get(name)
        if isinstance(node, AggregateNode):
            return frozenset({_aggregate(node)})
        if isinstance(node, PatternNode):
            conditions = [one.where for step in node.pattern.steps for one in step.alternatives]
            wheres = () if None in conditions else tuple(one for one in conditions if one is not None)
            return frozenset({Reads(node.stream, node.key, node.at or node.key, wheres)})
        if isinstance(node, ExpressionNode):
            return frozenset().union(*(read(column) for column in columns_of(node.expression)))
        return frozenset()  # A column of the row itself.

    return {name: read(name) for name in nodes}


def _aggregate(node: AggregateNode) -> Reads:
    window = node.window
    return Reads(
        node.stream,
        node.key,
        node.at or node.key,
        () if node.where is None else (node.where,),
        window.size_us if isinstance(window, SlidingWindow | LatestWindow) else None,
        window.delay_us,
    )


def _meets(event: Mapping[str, Any], where: Node) -> bool:
    """Return whether an event surely meets a condition: one that is more than a choice of a column's values is not known to be."""
    match where:
        case Call(function="eq", args=(Column(name), Literal(value))):
            return bool(event.get(name) == value)
        case Call(function="is_in", args=(Column(name), *values)):
            return any(isinstance(one, Literal) and event.get(name) == one.value for one in values)
    return False


class RecordIndex:
    """Finds a stream's records by their ids, among those that were given so far.

    Parameters
    ----------
    id_column
        The stream's id, which its records begin with.
    """

    def __init__(self, id_column: str) -> None:
        self._before = f'{{"{id_column}":"'.encode()
        self._places: dict[bytes, int] = {}
        self._read = 0

    def find(self, values: Sequence[bytes], event_id: str) -> tuple[int, dict[str, Any]] | None:
        """Return the place of the first record with an id, and the record; None if there is none.

        ``values`` are the same records as at the last call, or these and more.
        """
        skipped = len(self._before)
        for place in range(self._read, len(values)):
            if values[place].startswith(self._before):
                self._places.setdefault(values[place][skipped:].partition(b'"')[0], place)
        self._read = len(values)
        found = self._places.get(event_id.encode())
        return None if found is None else (found, _decode(values[found]))


def behind_us(values: Sequence[bytes], place: int, ts_ms: int) -> int | None:
    """Return how far a record's event time was behind its stream's when it came; None if it was the first.

    Parameters
    ----------
    values
        The stream's records in the order of arrival.
    place
        Of the record.
    ts_ms
        The record's event time, milliseconds.

    Notes
    -----
    Where the stream stood is the median of the records just before, so that neither a late nor a damaged one among them counts.
    """
    before = list(_times(values[max(0, place - _NEIGHBOURS) : place]))
    return int(median(before) - ts_ms) * MILLISECOND if before else None


def _times(values: Sequence[bytes]) -> Iterable[int]:
    for value in values:
        try:
            yield _timed(value).ts
        except (msgspec.DecodeError, UnicodeDecodeError):
            continue
