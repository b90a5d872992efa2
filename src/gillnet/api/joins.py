"""Joins of two streams: pairs of events that share a key and lie within bounds of each other in event time."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import timedelta

from gillnet.api.expressions import Expr, col
from gillnet.api.limits import check_limit
from gillnet.api.stream import Duration, Entity
from gillnet.core.errors import DefinitionError
from gillnet.core.naming import nearest
from gillnet.core.time import duration_us
from gillnet.plan.expressions import Node
from gillnet.plan.format import format_expression
from gillnet.plan.joins import HOWS, How, IntervalJoinNode, JoinSide, SelectNode
from gillnet.plan.nodes import StreamNode
from gillnet.plan.typing import infer

# It is part of an output's name, and so of topics' and files' names.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")

Columns = dict[str, tuple[str, bool]]


class IntervalJoin:
    """Pairs of events of two streams: same key, and the right one's time within bounds of the left one's.

    Parameters
    ----------
    name
        The rows go to the output ``joins.<name>``.
    left, right
        Entities of two streams, such as ``payments.by("user_id")``. Their keys have one type. A null key matches nothing.
    lower, upper
        A pair has ``right.time`` in ``[left.time + lower, left.time + upper]``, both included. ``"-10m"`` is ten minutes
        before.
    how
        ``inner``: pairs. ``left``, ``right``, ``full``: also events of that side, or both, that have no partner.
    where
        A condition on a pair, over columns of both sides as ``col("payments.amount")``. A pair for which it is not true
        is no pair.
    select
        Name to column, or row expression over columns of both sides, that rows have beside key, ids and event times.
    max_events_per_key
        Events of one key and side at the most; beyond it the oldest go, and are counted.
    max_pairs_per_event
        Pairs that one arrival gives at the most; beyond it those with the oldest partners are left out, and counted.

    Raises
    ------
    DefinitionError
        For bounds that hold nothing, an unknown column, keys of different types, or a stream joined with itself.

    Notes
    -----
    A pair leaves when the second of its events arrives. An event without a partner leaves once the other stream's
    watermark has passed everything that could match it; a match that comes later, inside the allowed lateness, withdraws
    that row (``revision`` 1, ``withdrawn``). Whoever keeps the last revision of each (left id, right id), less those that are
    withdrawn, has the answer of a batch.

    Examples
    --------
    >>> import gillnet as gn
    >>> Payment = gn.Schema(tx_id=gn.String(), ts=gn.Timestamp(), user_id=gn.String(), amount=gn.Decimal(2))
    >>> Click = gn.Schema(click_id=gn.String(), ts=gn.Timestamp(), user_id=gn.String(), url=gn.String())
    >>> payments = gn.Stream("payments", schema=Payment, id="tx_id", event_time="ts")
    >>> clicks = gn.Stream("clicks", schema=Click, id="click_id", event_time="ts")
    >>> gn.IntervalJoin(
    ...     "paid_after_click", payments.by("user_id"), clicks.by("user_id"), lower="-10m", upper="0s",
    ...     select={"amount": "payments.amount", "url": "clicks.url"},
    ... )
    <inner join paid_after_click of payments by user_id with clicks by user_id>
    """

    def __init__(
        self,
        name: str,
        left: Entity,
        right: Entity,
        *,
        lower: Duration,
        upper: Duration,
        how: How = "inner",
        where: Expr | None = None,
        select: Mapping[str, str | Expr] | None = None,
        max_events_per_key: int = 100_000,
        max_pairs_per_event: int = 1_000,
    ) -> None:
        place = f"join {name!r}"
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise DefinitionError(
                f"{place}: a join's name is of a-z, A-Z, 0-9, '_' and '-', and begins with a letter or digit; choose another."
            )
        sides = _sides(place, left, right)
        if how not in HOWS:
            raise DefinitionError(f"{place}: how={how!r} is unknown{nearest(how, HOWS)}.")
        lower_us, upper_us = _bounds(place, lower, upper)
        columns = _columns(left, right)
        self.streams: tuple[StreamNode, StreamNode] = (left.stream.node, right.stream.node)
        self.node = IntervalJoinNode(
            name=name,
            left=sides[0],
            right=sides[1],
            lower_us=lower_us,
            upper_us=upper_us,
            how=how,
            condition=None if where is None else _condition(place, where, columns),
            select=_select(place, {} if select is None else select, columns),
            max_events_per_key=check_limit(place, "max_events_per_key", max_events_per_key, "1_000"),
            max_pairs_per_event=check_limit(place, "max_pairs_per_event", max_pairs_per_event, "1_000"),
        )

    def __repr__(self) -> str:
        node = self.node
        sides = f"{node.left.stream} by {node.left.key} with {node.right.stream} by {node.right.key}"
        return f"<{node.how} join {node.name} of {sides}>"


def _sides(place: str, left: Entity, right: Entity) -> tuple[JoinSide, JoinSide]:
    keys = []
    for role, entity in (("left", left), ("right", right)):
        if not isinstance(entity, Entity) or entity.key is None:
            raise DefinitionError(
                f"{place}: {role}={entity!r} has no key to join by; give an entity, such as payments.by('user_id')."
            )
        keys.append(entity.key)
    if left.stream.name == right.stream.name:
        raise DefinitionError(
            f"{place}: both sides are of stream {left.stream.name!r}; to relate a stream's events to one another use a window "
            "or a delay, such as card.last('amount', over='5m', delay='1us')."
        )
    kinds = [entity.stream.schema[key].name for entity, key in zip((left, right), keys, strict=True)]
    if kinds[0] != kinds[1]:
        raise DefinitionError(
            f"{place}: the key {keys[0]!r} of {left.stream.name!r} is {kinds[0]}, and the key {keys[1]!r} of "
            f"{right.stream.name!r} is {kinds[1]}; join by keys of one type."
        )
    return JoinSide(left.stream.name, keys[0]), JoinSide(right.stream.name, keys[1])


def _bounds(place: str, lower: Duration, upper: Duration) -> tuple[int, int]:
    lower_us, upper_us = _offset(lower, f"{place}: lower"), _offset(upper, f"{place}: upper")
    if lower_us > upper_us:
        raise DefinitionError(
            f"{place}: lower={str(lower)!r} lies after upper={str(upper)!r}, so that no pair fits; the right event's time is "
            "within [left + lower, left + upper], and '-10m' is ten minutes before."
        )
    return lower_us, upper_us


def _offset(value: Duration, what: str) -> int:
    """Return a duration with a sign in microseconds."""
    if isinstance(value, timedelta):
        return -duration_us(-value, what=what) if value < timedelta(0) else duration_us(value, what=what)
    negative = isinstance(value, str) and value.startswith("-")
    size = duration_us(value[1:] if negative else value, what=what)
    return -size if negative else size


def _columns(left: Entity, right: Entity) -> Columns:
    """Return the columns of both sides; on an outer join either side may be null, so all of them may."""
    return {
        f"{entity.stream.name}.{name}": (dtype.name, True)
        for entity in (left, right)
        for name, dtype in entity.stream.schema.items()
    }


def _condition(place: str, where: Expr, columns: Columns) -> Node:
    if not isinstance(where, Expr):
        raise DefinitionError(
            f"{place}: where={where!r} is not an expression; write one such as where=col({min(columns)!r}).is_not_null()."
        )
    value_type, _ = infer(where.node, columns, what=f"{place}: where")
    if value_type != "bool":
        raise DefinitionError(
            f"{place}: where={format_expression(where.node)} is {value_type}, not bool; compare it with something."
        )
    return where.node


def _select(place: str, select: Mapping[str, str | Expr], columns: Columns) -> tuple[SelectNode, ...]:
    if not isinstance(select, Mapping):
        raise DefinitionError(
            f"{place}: select={select!r} is not a mapping; write one such as select={{'first': {min(columns)!r}}}."
        )
    return tuple(_selected(place, name, value, columns) for name, value in select.items())


def _selected(place: str, name: str, value: str | Expr, columns: Columns) -> SelectNode:
    if not isinstance(name, str) or not name.isidentifier() or name.startswith("__"):
        raise DefinitionError(
            f"{place}: select has the name {name!r}; a name is of letters, digits and '_', and does not begin with '__'."
        )
    if not isinstance(value, str | Expr):
        raise DefinitionError(
            f"{place}: select {name!r}: {value!r} is no column or expression; write one such as {min(columns)!r}."
        )
    node = col(value).node if isinstance(value, str) else value.node
    value_type, _ = infer(node, columns, what=f"{place}: select {name!r}")
    return SelectNode(name, value_type, node)
