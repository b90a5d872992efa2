"""A pipeline compiled to a *program*: what a host without Python (Flink's and Spark's JVMs) needs to run it.

The program is one JSON text: the plan, how the records of each stream are read, how those of each output are written, and the
model's trees. `crates/gillnet-flow` runs it; nothing of a definition's Python goes along, so a job needs no interpreter.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gillnet.core.errors import PlanError
from gillnet.core.schema import schema_to_json
from gillnet.operators.decode import DEFAULT_MAX_DEPTH, DEFAULT_MAX_RECORD_BYTES, key_columns
from gillnet.operators.records import (
    SESSION_HEAD,
    decision_encoder,
    join_encoder,
    key_column,
    match_encoder,
    revision_encoder,
)
from gillnet.plan.partitioning import partition_keys
from gillnet.plan.serde import plan_to_json

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gillnet.operators.records import Detail
    from gillnet.plan.nodes import PipelinePlan

PROGRAM_VERSION = 1
"""What `crates/gillnet-flow/src/program.rs` reads."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PortableModel:
    """A model as the kernel evaluates it.

    Attributes
    ----------
    label
        How records name it.
    signature
        (name, value type) of every feature, in the model's order.
    reference
        A typical value per feature.
    rounds
        Boosting rounds to score with; None for all.
    trees
        XGBoost's JSON.
    """

    label: str
    signature: tuple[tuple[str, str], ...]
    reference: Mapping[str, float]
    rounds: int | None
    trees: str


def shard_columns(plan: PipelinePlan) -> dict[str, str]:
    """Return the column by which each stream's records are shared out among shards; empty where the plan cannot be."""
    try:
        keys = partition_keys(plan)
    except PlanError:
        return {}
    return keys if set(keys) == {stream.name for stream in plan.streams} else {}


def compile_program(
    plan: PipelinePlan,
    model: PortableModel | None,
    *,
    emit: str | None = None,
    detail: Detail = "audit",
    top_reasons: int = 3,
) -> str:
    """Compile a pipeline.

    Parameters
    ----------
    plan
        The pipeline's plan.
    model
        The model that its rows are scored by; None for a plan without one.
    emit, detail, top_reasons
        As for `gillnet.runtimes.embedded.RuntimeOptions`.

    Returns
    -------
    str
        JSON.

    Raises
    ------
    PlanError
        If the plan has a model and there is none.
    """
    if (plan.model is None) != (model is None):
        raise PlanError(
            f"pipeline {plan.name!r}: its plan and its model do not belong together. Give the model that the plan names."
        )
    label = None if model is None else model.label
    shards = shard_columns(plan)
    emit_all = (emit or ("flagged" if plan.sessions else "all")) == "all"
    program: dict[str, Any] = {
        "version": PROGRAM_VERSION,
        "name": plan.name,
        "plan": plan_to_json(plan),
        "policy": plan_to_json(plan)["policy"],
        "streams": [_stream(plan, stream.name, shards.get(stream.name)) for stream in plan.streams],
        "key": key_column(plan),
        "emit_all": emit_all,
        "top_reasons": top_reasons,
        "decisions": {
            "plain": decision_encoder(plan, label, detail=detail, explained=False).spec,
            "explained": decision_encoder(plan, label, detail=detail, explained=True).spec,
        },
        "revisions": revision_encoder(plan, label).spec,
        "matches": match_encoder().spec,
        "sessions": None if plan.sessions is None else {"key": plan.sessions.key, "head": SESSION_HEAD},
        "joins": [{"name": join.name, "fields": join_encoder(join).spec} for join in plan.joins],
        "model": None if model is None else _model(model),
    }
    return json.dumps(program, allow_nan=False)


def _stream(plan: PipelinePlan, name: str, shard_by: str | None) -> dict[str, Any]:
    stream = plan.stream(name)
    return {
        "name": name,
        "schema": schema_to_json(stream.schema),
        "id": stream.id,
        "event_time": stream.event_time,
        "keys": key_columns(plan, name),
        "shard_by": shard_by,
        "earliest_us": stream.earliest_us,
        "max_ahead_us": stream.max_ahead_us,
        "max_record_bytes": DEFAULT_MAX_RECORD_BYTES,
        "max_depth": DEFAULT_MAX_DEPTH,
    }


def _model(model: PortableModel) -> dict[str, Any]:
    return {
        "signature": model.signature,
        "reference": dict(model.reference),
        "rounds": model.rounds,
        "trees": json.loads(model.trees),
    }
