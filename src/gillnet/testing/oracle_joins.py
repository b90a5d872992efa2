"""The slow, obviously right answer to a join: every event of one side held against every event of the other.

The kernel's rows, folded to the last revision of each (left id, right id), are held against this.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from gillnet.plan.joins import IntervalJoinNode
from gillnet.testing.oracle import Event, Row

Pair = tuple[Event | None, Event | None]
Meets = Callable[[Event, Event], bool]


def always(_left: Event, _right: Event) -> bool:
    """Meet every pair: a join without a condition."""
    return True


def interval_join(
    node: IntervalJoinNode, left: Iterable[Event], right: Iterable[Event], meets: Meets = always
) -> list[Pair]:
    """Join all accepted events of two streams.

    Parameters
    ----------
    node
        The join; keys, bounds and ``how`` count.
    left, right
        The events of each stream, in any order.
    meets
        Whether a pair meets the join's condition.

    Returns
    -------
    list of tuple
        Pairs, and events of an outer side beside None, in no order that means anything.
    """
    lefts, rights = list(left), list(right)

    def partners(one: Event, other: Event) -> bool:
        key = one.row[node.left.key]
        near = node.lower_us <= other.time - one.time <= node.upper_us
        return key is not None and key == other.row[node.right.key] and near and meets(one, other)

    rows: list[Pair] = [(one, other) for one in lefts for other in rights if partners(one, other)]
    if node.how in ("left", "full"):
        rows += [(one, None) for one in lefts if not any(partners(one, other) for other in rights)]
    if node.how in ("right", "full"):
        rows += [(None, other) for other in rights if not any(partners(one, other) for one in lefts)]
    return rows


def last_revisions(
    rows: Iterable[Row], left_id: str = "left_id", right_id: str = "right_id"
) -> list[Mapping[str, Any]]:
    """Fold emitted rows as a consumer does: the last of each (left id, right id) counts, less those that are withdrawn.

    Raises
    ------
    ValueError
        If a row goes out twice, or a withdrawal names a row that is not out.
    """
    last: dict[tuple[Any, Any], Mapping[str, Any]] = {}
    for row in rows:
        place = row.get(left_id), row.get(right_id)
        before = last.get(place)
        revision = 0 if before is None else before["revision"] + 1
        if row["revision"] != revision or bool(row.get("withdrawn")) != (revision > 0):
            raise ValueError(f"row {row} follows {before}")
        last[place] = row
    return [row for row in last.values() if not row.get("withdrawn")]
