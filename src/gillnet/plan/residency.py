"""Which parts of a plan's state may leave memory, where the state backend has a disk, and which stay (ADR 10)."""

from __future__ import annotations

from collections.abc import Iterator

from gillnet.core.time import format_duration
from gillnet.plan.nodes import AggregateNode, PipelinePlan


def explain_rocksdb(plan: PipelinePlan) -> str:
    """Return a paragraph about the state of a plan with the backend ``rocksdb``, ending in a newline."""
    own = {(plan.root, plan.sessions.key)} if plan.sessions is not None else set()
    keyed = {(f.stream, f.key) for f in plan.features if isinstance(f, AggregateNode) and f.key is not None}
    leaves = [f"events of {stream} by {key}" for stream, key in sorted(keyed - own)]
    stays = list(_stays(plan))
    return "\n".join(
        [
            "state with the backend rocksdb",
            f"  may leave memory  {'; '.join(leaves) if leaves else 'nothing: memory is taken as with the backend memory'}",
            *(f"  {'stays in memory' if number == 0 else '':<16}  {what}" for number, what in enumerate(stays)),
            "",
        ]
    )


def _stays(plan: PipelinePlan) -> Iterator[str]:
    for stream in plan.streams:
        yield f"ids of {stream.name}, for {format_duration(stream.allowed_lateness_us)} of event time"
    if plan.revisions:
        late = format_duration(plan.stream(plan.root).allowed_lateness_us)
        yield f"rows that can still be revised, for {late}; none with revisions=False"
    if plan.emission.kind != "on_arrival":
        yield "rows that wait"
    if plan.sessions is not None:
        yield f"events of {plan.root} by {plan.sessions.key}, the sessions' keys"
    if any(isinstance(feature, AggregateNode) and feature.key is None for feature in plan.features):
        yield "features over a whole stream, which is one key"
    if plan.has_patterns:
        yield f"patterns, up to {plan.max_partial_matches:,} partial matches for each key"
    for join in plan.joins:
        yield f"the join {join.name}"
