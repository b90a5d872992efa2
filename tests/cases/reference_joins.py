"""What a case's joins come to: nested loops over every accepted event, written as the sink gets it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tests.cases.outcome import join_line

from gillnet.plan.joins import IntervalJoinNode
from gillnet.plan.nodes import StreamNode
from gillnet.testing.oracle import Event
from gillnet.testing.oracle_expressions import evaluate_row
from gillnet.testing.oracle_joins import interval_join

Streams = Mapping[str, tuple[StreamNode, Sequence[Event]]]


def joined(joins: Sequence[IntervalJoinNode], streams: Streams, written: Any) -> list[str]:
    """Return the final rows of joins, in the golden file's order; ``written`` writes a value of a type as JSON."""
    return sorted(line for node in joins for line in _rows(node, streams, written))


def _rows(node: IntervalJoinNode, streams: Streams, written: Any) -> list[str]:
    sides = [streams[name] for name in node.streams]
    columns = {f"{s.name}.{name}": (dtype.name, True) for s, _ in sides for name, dtype in s.schema.items()}

    def values(pair: tuple[Event | None, Event | None]) -> dict[str, Any]:
        named = [
            (s, event.row if event else dict.fromkeys(s.schema)) for (s, _), event in zip(sides, pair, strict=True)
        ]
        return {f"{stream.name}.{name}": row[name] for stream, row in named for name in stream.schema}

    def meets(left: Event, right: Event) -> bool:
        return node.condition is None or evaluate_row(node.condition, values((left, right)), columns) is True

    def fields(pair: tuple[Event | None, Event | None]) -> dict[str, str]:
        row = values(pair)
        found: dict[str, str | None] = {}
        for place, key, (stream, _), event in zip(
            ("left", "right"), (node.left.key, node.right.key), sides, pair, strict=True
        ):
            if event is not None:
                found["key"] = written(event.row[key], stream.schema[key].name)
                found[f"{place}_id"] = written(event.id, stream.schema[stream.id].name)
                found[f"{place}_time"] = written(event.time, "timestamp")
        if node.select:
            parts = {c.name: written(evaluate_row(c.expression, row, columns), c.type) for c in node.select}
            found["columns"] = "{" + ",".join(f'"{name}":{text}' for name, text in parts.items() if text) + "}"
        order = ("key", "left_id", "left_time", "right_id", "right_time", "columns")
        return {name: text for name in order if (text := found.get(name)) is not None}

    table = interval_join(node, sides[0][1], sides[1][1], meets)
    return [join_line(node.name, "{" + ",".join(f'"{n}":{t}' for n, t in fields(pair).items()) + "}") for pair in table]
