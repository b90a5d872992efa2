"""Which column each stream must be partitioned by, so that a partition alone has what its rows need."""

from __future__ import annotations

from collections.abc import Iterator

from gillnet.core.errors import PlanError
from gillnet.plan.nodes import AggregateNode, BaselineNode, PipelinePlan
from gillnet.plan.patterns import PatternNode


def partition_keys(plan: PipelinePlan) -> dict[str, str]:
    """Return the key column of each stream of a plan that can be computed partition by partition.

    Raises
    ------
    PlanError
        If a row needs the events of two keys, or of all: the message names the features.
    """
    found: dict[str, dict[str, str]] = {}
    for stream, column, who in _needs(plan):
        found.setdefault(stream, {}).setdefault(column, who)
    for stream, columns in found.items():
        if len(columns) > 1:
            (one, by), (other, whose), *_ = columns.items()
            raise PlanError(
                f"pipeline {plan.name!r} cannot be computed partition by partition: {by} needs the events of {stream!r} by {one}, "
                f"and {whose} by {other}. Run it without workers, or leave one of the two out."
            )
    return {stream: next(iter(columns)) for stream, columns in found.items()}


def _needs(plan: PipelinePlan) -> Iterator[tuple[str, str, str]]:
    """Yield (stream, the column that it must be partitioned by, who needs that)."""
    for feature in plan.features:
        if isinstance(feature, BaselineNode):
            raise _over_all(plan, f"the baseline {feature.name!r}", plan.root)
        if not isinstance(feature, AggregateNode | PatternNode):
            continue
        who = f"feature {feature.name!r}"
        if feature.key is None:
            raise _over_all(plan, who, feature.stream)
        yield feature.stream, feature.key, who
        if feature.at is not None:
            yield plan.root, feature.at, who
    if plan.sessions is not None:
        yield plan.root, plan.sessions.key, "the sessions"
    for join in plan.joins:
        for side in (join.left, join.right):
            yield side.stream, side.key, f"join {join.name!r}"


def _over_all(plan: PipelinePlan, who: str, stream: str) -> PlanError:
    return PlanError(
        f"pipeline {plan.name!r} cannot be computed partition by partition: {who} is over all keys of {stream!r}. Run it without workers, "
        "or leave it out."
    )
