"""Scored rows in, decisions out: the policy's rules, evaluated by the kernel."""

from __future__ import annotations

import json

import pyarrow as pa

from gillnet._kernel import Batch, Policy
from gillnet.core.errors import PlanError
from gillnet.plan.nodes import PipelinePlan
from gillnet.plan.serde import plan_to_json

SCORE = "score"
DECISION = "decision"
REASONS = "reasons"


class DecideOperator:
    """Appends ``decision`` and ``reasons`` to rows.

    Parameters
    ----------
    plan
        The pipeline's plan.
    schema
        The rows' Arrow schema, with ``score`` (Float64) if the plan has a model.

    Raises
    ------
    PlanError
        If a rule does not fit the rows.
    """

    def __init__(self, plan: PipelinePlan, schema: pa.Schema) -> None:
        try:
            self._policy = Policy(json.dumps(plan_to_json(plan)["policy"]), schema)
        except ValueError as error:
            raise PlanError(f"pipeline {plan.name!r}: the policy cannot be executed: {error}.") from error

    def decide(self, batch: Batch) -> tuple[Batch, list[int], dict[str, int]]:
        """Return the batch with its decisions, the positions of the rows that are not simply allowed, and rows by decision."""
        return self._policy.decide(batch)
