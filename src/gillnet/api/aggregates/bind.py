"""Aggregations bound to an entity and a window, checked at definition time."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import timedelta

from gillnet.api.aggregates.windows import WindowSpec, window_node
from gillnet.api.expressions import Expr, col
from gillnet.core.errors import DefinitionError
from gillnet.plan.explain import describe_aggregate as describe
from gillnet.plan.expressions import Node
from gillnet.plan.format import format_expression
from gillnet.plan.nodes import FunctionName, StreamNode, Window
from gillnet.plan.typing import infer

_NUMBERS = ("int64", "float64", "decimal", "bool")
_ORDERED = ("int64", "float64", "decimal", "bool", "timestamp")
_ALL = ("int64", "float64", "decimal", "bool", "timestamp", "string")

INPUT_TYPES: dict[str, tuple[str, ...]] = {
    "sum": _NUMBERS,
    "mean": _NUMBERS,
    "variance": _NUMBERS,
    "std": _NUMBERS,
    "min": _ORDERED,
    "max": _ORDERED,
    "first": _ALL,
    "last": _ALL,
    "n_unique": _ALL,
    "entropy": _ALL,
}
"""Which types an aggregation's input may have; functions that are not here take no input."""


@dataclass(frozen=True, slots=True)
class Aggregation:
    """A function over events, before it stands over a window: function, input and condition."""

    function: FunctionName
    value: str | Expr | None = None
    where: Expr | None = None

    def __repr__(self) -> str:
        return f"<{describe(self.function, _expression(self.value), None)}>"


@dataclass(frozen=True, slots=True, repr=False)
class Aggregate:
    """A windowed aggregate of an entity, typed: a feature, once it has a name."""

    stream: StreamNode
    key: str | None
    function: FunctionName
    window: Window
    type: str
    nullable: bool
    input: Node | None
    where: Node | None
    lookup: str | None = None

    def at(self, column: str) -> Aggregate:
        """Read this aggregate of another stream as of the event's time, for the key in the event's ``column``.

        >>> import gillnet as gn
        >>> Click = gn.Schema(click_id=gn.String(), ts=gn.Timestamp("ms"), user_id=gn.String())
        >>> clicks = gn.Stream("clicks", schema=Click, id="click_id", event_time="ts")
        >>> clicks.by("user_id").count(over="10m").at("user_id")
        <count over 10m of clicks by user_id, at user_id>
        """
        return replace(self, lookup=column)

    def __repr__(self) -> str:
        at = f", at {self.lookup}" if self.lookup else ""
        where = f" where {format_expression(self.where)}" if self.where is not None else ""
        what = describe(self.function, self.input, self.window)
        return f"<{what}{where} of {self.stream.name} by {self.key or 'nothing'}{at}>"


def bind(
    stream: StreamNode,
    key: str | None,
    aggregation: Aggregation,
    over: str | timedelta | WindowSpec,
    delay: str | timedelta,
) -> Aggregate:
    """Put an aggregation over a window of the entity ``key`` of ``stream``, and check that it fits.

    Raises
    ------
    DefinitionError
        If a column is unknown, a type does not fit, or the window is empty.
    """
    function = aggregation.function
    place = f"{function} of {stream.name} by {key or 'nothing'}"
    columns = {name: (dtype.name, dtype.nullable) for name, dtype in stream.schema.items()}
    value, value_type = _expression(aggregation.value), ""
    if value is not None:
        value_type, _ = infer(value, columns, what=place)
        _check_input(place, function, value, value_type)
    where = None if aggregation.where is None else aggregation.where.node
    if where is not None:
        where_type, _ = infer(where, columns, what=f"{place}: where")
        if where_type != "bool":
            raise DefinitionError(
                f"{place}: where={format_expression(where)} is {where_type}, not bool; compare it with something."
            )
    window = window_node(over, delay, latest=function == "seconds_since_last", what=place)
    result, nullable = _result(function, value_type)
    return Aggregate(stream, key, function, window, result, nullable, value, where)


def _expression(value: str | Expr | None) -> Node | None:
    if value is None:
        return None
    return (col(value) if isinstance(value, str) else value).node


def _check_input(place: str, function: str, value: Node, value_type: str) -> None:
    allowed = INPUT_TYPES[function]
    if value_type.partition("(")[0] not in allowed:
        raise DefinitionError(
            f"{place}: {format_expression(value)} is {value_type}; {function} takes {', '.join(allowed)}."
        )


def _result(function: str, value_type: str) -> tuple[str, bool]:
    if function in ("count", "n_unique"):
        return "int64", False
    if function == "sum":
        return ("int64" if value_type == "bool" else value_type), False
    if function in ("min", "max", "first", "last"):
        return value_type, True
    return "float64", True
