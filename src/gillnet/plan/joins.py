"""Joins of two streams, as plan nodes: their JSON, and how `gillnet explain` prints them.

Expressions of a join name the columns of both sides as ``stream.column``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from gillnet.core.time import format_duration
from gillnet.plan.expressions import Node, expression_from_json, expression_to_json
from gillnet.plan.format import format_expression

How = Literal["inner", "left", "right", "full"]
HOWS: tuple[How, ...] = ("inner", "left", "right", "full")
"""Whose events come out without a partner too."""


@dataclass(frozen=True, slots=True)
class JoinSide:
    """One side of a join: the events of a stream by a key column."""

    stream: str
    key: str


@dataclass(frozen=True, slots=True)
class SelectNode:
    """A column of a join's rows."""

    name: str
    type: str
    expression: Node


@dataclass(frozen=True, slots=True, kw_only=True)
class IntervalJoinNode:
    """Pairs of events of one key with ``right.time`` in ``[left.time + lower, left.time + upper]``, both included.

    An outer side's events come out without a partner too, once the other side can bring none in order any more.
    """

    name: str
    left: JoinSide
    right: JoinSide
    lower_us: int
    upper_us: int
    how: How = "inner"
    condition: Node | None = None
    select: tuple[SelectNode, ...] = ()
    max_events_per_key: int = 100_000
    max_pairs_per_event: int = 1_000

    @property
    def streams(self) -> tuple[str, str]:
        """The names of both streams."""
        return self.left.stream, self.right.stream


def join_to_json(join: IntervalJoinNode) -> dict[str, Any]:
    """Write a join as JSON values."""
    return {
        "name": join.name,
        "left": {"stream": join.left.stream, "key": join.left.key},
        "right": {"stream": join.right.stream, "key": join.right.key},
        "lower_us": join.lower_us,
        "upper_us": join.upper_us,
        "how": join.how,
        "condition": join.condition and expression_to_json(join.condition),
        "select": [
            {"name": column.name, "type": column.type, "expression": expression_to_json(column.expression)}
            for column in join.select
        ],
        "max_events_per_key": join.max_events_per_key,
        "max_pairs_per_event": join.max_pairs_per_event,
    }


def join_from_json(values: Mapping[str, Any]) -> IntervalJoinNode:
    """Read what `join_to_json` wrote."""
    condition = values["condition"]
    changed = {
        "left": JoinSide(**values["left"]),
        "right": JoinSide(**values["right"]),
        "condition": condition and expression_from_json(condition),
        "select": tuple(
            SelectNode(column["name"], column["type"], expression_from_json(column["expression"]))
            for column in values["select"]
        ),
    }
    return IntervalJoinNode(**(dict(values) | changed))


def explain_join(join: IntervalJoinNode) -> list[str]:
    """Return the lines that say what a join does."""
    left, right = join.left, join.right
    lines = [
        f"join {join.name}: {join.how}, {left.stream} by {left.key} with {right.stream} by {right.key}",
        f"  {right.stream} {_bounds(join)} of {left.stream}",
    ]
    if join.condition is not None:
        lines.append(f"  where {format_expression(join.condition)}")
    if join.how != "inner":
        sides = {"left": left.stream, "right": right.stream}
        kept = sides.get(join.how) or f"{left.stream} and {right.stream}"
        lines.append(
            f"  {kept} without a partner: one row when the other watermark has passed, withdrawn by a late match"
        )
    lines.append(
        f"  at most {join.max_events_per_key:_} events of a key, {join.max_pairs_per_event:_} pairs of an event"
    )
    width = max((len(column.name) for column in join.select), default=0)
    return lines + [
        f"  {column.name:<{width}}  {column.type:<10}  {format_expression(column.expression)}" for column in join.select
    ]


def _bounds(join: IntervalJoinNode) -> str:
    """Say where the right side lies, seen from the left."""
    lower, upper = join.lower_us, join.upper_us
    if lower == upper:
        return "at the very time" if not lower else f"exactly {_place(lower)}"
    if lower < 0 < upper:
        return f"from {_place(lower)} to {_place(upper)}"
    near, far = sorted((abs(lower), abs(upper)))
    way = "before" if upper <= 0 else "after"
    return f"{format_duration(near)} to {format_duration(far)} {way} the time"


def _place(offset_us: int) -> str:
    return f"{format_duration(abs(offset_us))} {'before' if offset_us < 0 else 'after'} the time"
