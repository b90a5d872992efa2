"""As-of joins: columns of another stream's latest event before this one, of the same key."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from gillnet.api.aggregates import Aggregate
from gillnet.api.expressions import Expr, col
from gillnet.core.errors import DefinitionError
from gillnet.plan.nodes import StreamNode
from gillnet.plan.typing import infer


@dataclass(frozen=True, slots=True)
class AsOf:
    """Columns of an entity's latest event, before it is said whose: see `gillnet.Entity.as_of`."""

    features: Mapping[str, Aggregate]

    def at(self, column: str) -> dict[str, Aggregate]:
        """Read them as of the event's time, for the key in the event's ``column``: features, to unpack with ``**``."""
        return {name: feature.at(column) for name, feature in self.features.items()}

    def __repr__(self) -> str:
        return f"<as of {', '.join(f'{name}={feature!r}' for name, feature in self.features.items())}>"


def present_in_all(stream: StreamNode, what: str, columns: Mapping[str, str | Expr], where: Expr | None) -> Expr | None:
    """Return the condition that an event has every one of the columns, beside ``where``; None where all events do.

    Raises
    ------
    DefinitionError
        If there is no column, or one that the stream does not have.
    """
    if not columns:
        raise DefinitionError(f"{what}: name what to read, such as last_url='url'.")
    known = {name: (dtype.name, dtype.nullable) for name, dtype in stream.schema.items()}
    # `last` leaves nulls out by itself; two columns must come from one event.
    for name, value in columns.items() if len(columns) > 1 else ():
        if not isinstance(value, str | Expr):
            raise DefinitionError(f"{what}: {name}={value!r} is no column or expression; write one such as 'url'.")
        expression = col(value) if isinstance(value, str) else value
        if infer(expression.node, known, what=f"{what}: {name}").nullable:
            where = expression.is_not_null() if where is None else where & expression.is_not_null()
    return where
