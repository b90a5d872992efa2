"""What a record of each output holds, and what it is keyed by: one description for every runtime."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from gillnet.operators.decide import DECISION, REASONS, SCORE
from gillnet.operators.encode import ColumnField, ConstantField, EncodeOperator, GroupField, OutputField
from gillnet.operators.features import (
    ARRIVAL_TIME,
    CAUSE_ID,
    CAUSE_STREAM,
    CHANGED,
    FEATURE_STATES,
    LATE,
    OLD,
    REVISION,
    SESSION_START,
    WAS,
    WATERMARK,
)
from gillnet.plan.nodes import AggregateNode
from gillnet.plan.patterns import PatternNode

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gillnet.plan.joins import IntervalJoinNode
    from gillnet.plan.nodes import PipelinePlan

Detail = Literal["audit", "decision"]

CONTRIBUTIONS = "__contributions"
SCORE_AS_SCORED = "__score"
FLIPPED = "__flipped"
JOIN_KEY = "__key"
SESSION_HEAD = ("session_start", "session_end", "revision", "replaced_by")
"""Columns of a closed session that stand before its features."""

_MATCH = ("pattern", "key", "first", "last", "revision", "withdrawn", "start", "end", "events")
_JOIN_HEAD = ("key", "left_id", "left_time", "right_id", "right_time")
_JOIN_FLAGS = ("revision", "withdrawn", "saturated")


def key_column(plan: PipelinePlan) -> str | None:
    """Return the column that rows are keyed by at the sink: the session's, or the root stream's first entity's."""
    if plan.sessions:
        return plan.sessions.key
    keyed = (f for f in plan.features if isinstance(f, AggregateNode | PatternNode))
    own = (f for f in keyed if f.stream == plan.root and f.key)
    return next((feature.key for feature in own), None)


def decision_encoder(plan: PipelinePlan, model: str | None, *, detail: Detail, explained: bool) -> EncodeOperator:
    """Return what writes decisions: of rows that were scored by the model of that label, None for a plan without one."""
    root = plan.stream(plan.root)
    score: list[OutputField] = [] if model is None else [ColumnField(SCORE, SCORE_AS_SCORED)]
    if detail == "decision":
        return EncodeOperator([ColumnField(root.id), *score, ColumnField(DECISION)], omit_nulls=True)
    fields = _head(plan)
    if plan.sessions:
        fields.append(ColumnField("session_start", SESSION_START))
    if model is not None:
        fields += [*score, ConstantField("model", model)]
    fields += [ColumnField(DECISION), ColumnField(REASONS)]
    if explained:
        fields.append(ColumnField("contributions", CONTRIBUTIONS))
    fields.append(GroupField("features", tuple(ColumnField(feature.name) for feature in plan.features)))
    fields += [ColumnField("feature_states", FEATURE_STATES), ColumnField("late", LATE)]
    fields += [ColumnField("arrival_time", ARRIVAL_TIME), ColumnField("watermark", WATERMARK)]
    return EncodeOperator(fields, omit_nulls=True)


def revision_encoder(plan: PipelinePlan, model: str | None) -> EncodeOperator:
    """Return what writes revisions: both sides of a row, what changed, and the event that caused it."""
    cause = GroupField("cause", (ColumnField("stream", CAUSE_STREAM), ColumnField("id", CAUSE_ID)))
    fields = [*_head(plan), ColumnField("revision", REVISION), cause, ColumnField("flipped", FLIPPED)]
    fields.append(ColumnField("changed", CHANGED))
    sides = (GroupField("old", _side(plan, model, OLD, WAS)), GroupField("new", _side(plan, model, "", "")))
    return EncodeOperator([*fields, *sides], omit_nulls=True)


def session_encoder(plan: PipelinePlan, columns: Sequence[str]) -> EncodeOperator:
    """Return what writes closed sessions, whose columns the kernel names."""
    key = plan.sessions.key if plan.sessions else ""
    rest = tuple(ColumnField(name) for name in columns if name not in {key, *SESSION_HEAD})
    fields: list[OutputField] = [ColumnField(key), *(ColumnField(name) for name in SESSION_HEAD)]
    return EncodeOperator([*fields, GroupField("features", rest)], omit_nulls=True)


def match_encoder() -> EncodeOperator:
    """Return what writes matches."""
    return EncodeOperator([ColumnField(name) for name in _MATCH], omit_nulls=True)


def join_encoder(join: IntervalJoinNode) -> EncodeOperator:
    """Return what writes a join's rows."""
    columns = GroupField("columns", tuple(ColumnField(column.name) for column in join.select))
    head: list[OutputField] = [ColumnField(name, f"__{name}") for name in _JOIN_HEAD]
    flags = [ColumnField(name, f"__{name}") for name in _JOIN_FLAGS]
    return EncodeOperator([*head, *((columns,) if join.select else ()), *flags], omit_nulls=True)


def _head(plan: PipelinePlan) -> list[OutputField]:
    root, key = plan.stream(plan.root), key_column(plan)
    fields: list[OutputField] = [ColumnField(root.id), ColumnField("event_time", root.event_time)]
    return [*fields, ColumnField(key)] if key and key != root.id else fields


def _side(plan: PipelinePlan, model: str | None, prefix: str, before_feature: str) -> tuple[OutputField, ...]:
    score: list[OutputField] = []
    if model is not None:
        score = [ColumnField(SCORE, f"{prefix}{SCORE_AS_SCORED}"), ConstantField("model", model)]
    decision = [ColumnField(DECISION, f"{prefix}{DECISION}"), ColumnField(REASONS, f"{prefix}{REASONS}")]
    names = [feature.name for feature in plan.features]
    features = GroupField("features", tuple(ColumnField(name, f"{before_feature}{name}") for name in names))
    return (*score, *decision, features)
