"""Aggregations that are not yet over a window: ``gillnet.count()``, ``gillnet.sum("amount")`` and the others.

`Entity.aggregate` puts one over a window; `Entity.sessions` puts all of its own over the session.
"""

# These shadow builtins on purpose: they are read as gillnet.sum, and the names are the field's.
# ruff: noqa: A001

from __future__ import annotations

from gillnet.api.aggregates.bind import Aggregation
from gillnet.api.expressions import Expr


def count(*, where: Expr | None = None) -> Aggregation:
    """Return the number of events."""
    return Aggregation("count", None, where)


def sum(value: str | Expr, *, where: Expr | None = None) -> Aggregation:
    """Return the exact sum of a number."""
    return Aggregation("sum", value, where)


def mean(value: str | Expr, *, where: Expr | None = None) -> Aggregation:
    """Return the mean of a number or the share of true."""
    return Aggregation("mean", value, where)


def min(value: str | Expr, *, where: Expr | None = None) -> Aggregation:
    """Return the least value."""
    return Aggregation("min", value, where)


def max(value: str | Expr, *, where: Expr | None = None) -> Aggregation:
    """Return the greatest value."""
    return Aggregation("max", value, where)


def variance(value: str | Expr, *, where: Expr | None = None) -> Aggregation:
    """Return the sample variance."""
    return Aggregation("variance", value, where)


def std(value: str | Expr, *, where: Expr | None = None) -> Aggregation:
    """Return the sample standard deviation."""
    return Aggregation("std", value, where)


def n_unique(value: str | Expr, *, where: Expr | None = None) -> Aggregation:
    """Return the exact number of different values."""
    return Aggregation("n_unique", value, where)


def first(value: str | Expr, *, where: Expr | None = None) -> Aggregation:
    """Return the oldest event's value."""
    return Aggregation("first", value, where)


def last(value: str | Expr, *, where: Expr | None = None) -> Aggregation:
    """Return the newest event's value."""
    return Aggregation("last", value, where)


def entropy(value: str | Expr, *, where: Expr | None = None) -> Aggregation:
    """Return the Shannon entropy of the values in bits."""
    return Aggregation("entropy", value, where)


def seconds_since_last(*, where: Expr | None = None) -> Aggregation:
    """Return the seconds since the key's previous event."""
    return Aggregation("seconds_since_last", None, where)


def mean_gap_seconds(*, where: Expr | None = None) -> Aggregation:
    """Return the mean gap between neighbouring events in seconds."""
    return Aggregation("mean_gap_seconds", None, where)


def std_gap_seconds(*, where: Expr | None = None) -> Aggregation:
    """Return the sample standard deviation of the gaps in seconds."""
    return Aggregation("std_gap_seconds", None, where)


def modal_gap_share(*, where: Expr | None = None) -> Aggregation:
    """Return the share of gaps near the commonest one."""
    return Aggregation("modal_gap_share", None, where)
