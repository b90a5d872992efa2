"""Aggregations bound to an entity and a window, checked at definition time."""

from __future__ import annotations

from collections.abc import Mapping
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
        if not isinstance(column, str):
            raise DefinitionError(
                f"{self!r}: at({column!r}): name a column of the rows' stream, such as .at('user_id')."
            )
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
    entity = f"of {stream.name} by {key or 'nothing'}"
    if not isinstance(aggregation, Aggregation):
        raise DefinitionError(
            f"aggregate {entity}: {_shown(aggregation)} is not an aggregation; call one, such as gillnet.count()."
        )
    function = aggregation.function
    place = f"{function} {entity}"
    columns = {name: (dtype.name, dtype.nullable) for name, dtype in stream.schema.items()}
    value, value_type = None, ""
    if function in INPUT_TYPES:
        value = _input(place, function, aggregation.value)
        value_type, _ = infer(value, columns, what=place)
        _check_input(place, function, value, value_type)
    where = None if aggregation.where is None else _condition(place, aggregation.where, columns)
    window = window_node(over, delay, latest=function == "seconds_since_last", what=place)
    result, nullable = _result(function, value_type)
    return Aggregate(stream, key, function, window, result, nullable, value, where)


def _input(place: str, function: str, value: str | Expr | None) -> Node:
    if isinstance(value, str):
        return col(value).node
    if not isinstance(value, Expr):
        what = "an aggregate, and no column of the event" if isinstance(value, Aggregate) else "no column or expression"
        raise DefinitionError(
            f"{place}: {_shown(value)} is {what}; write one over the stream's columns, such as {function}('amount') or "
            f"{function}(col('amount') * 2)."
        )
    return value.node


def _condition(place: str, where: Expr, columns: Mapping[str, tuple[str, bool]]) -> Node:
    if not isinstance(where, Expr):
        raise DefinitionError(
            f"{place}: where={where!r} is not an expression; write one such as where=col('status') == 'declined'."
        )
    where_type, _ = infer(where.node, columns, what=f"{place}: where")
    if where_type != "bool":
        raise DefinitionError(
            f"{place}: where={format_expression(where.node)} is {where_type}, not bool; compare it with something."
        )
    return where.node


def _shown(value: object) -> str:
    return f"the function {value.__name__}" if callable(value) and hasattr(value, "__name__") else repr(value)


def _expression(value: str | Expr | None) -> Node | None:
    """Return an input for printing; what it is worth is checked when it is bound."""
    if isinstance(value, str):
        return col(value).node
    return value.node if isinstance(value, Expr) else None


def _check_input(place: str, function: str, value: Node, value_type: str) -> None:
    allowed = INPUT_TYPES[function]
    if value_type.partition("(")[0] not in allowed:
        raise DefinitionError(
            f"{place}: {format_expression(value)} is {value_type}; {function} takes {', '.join(allowed)}. "
            "Choose another column or aggregate, or convert it with .cast(…)."
        )


def _result(function: str, value_type: str) -> tuple[str, bool]:
    if function in ("count", "n_unique"):
        return "int64", False
    if function == "sum":
        return ("int64" if value_type == "bool" else value_type), False
    if function in ("min", "max", "first", "last"):
        return value_type, True
    return "float64", True
