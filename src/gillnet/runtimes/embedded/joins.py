"""Rows of joins: encoded, and written to an output for each join."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gillnet.operators.encode import record_keys
from gillnet.operators.records import JOIN_KEY, join_encoder

if TYPE_CHECKING:
    from gillnet._kernel import Batch
    from gillnet.plan.nodes import PipelinePlan
    from gillnet.runtimes.embedded.outputs import Outputs

JOINED_AT_ONCE = 4_096
"""Rows that one call gives, or somewhat more, so that no batch grows without bound."""


class JoinStage:
    """Writes the rows of a plan's joins.

    Parameters
    ----------
    plan
        The pipeline's plan.
    outputs
        Where they go: to ``joins.<name>``, keyed by the join's key.
    """

    def __init__(self, plan: PipelinePlan, outputs: Outputs) -> None:
        self._outputs = outputs
        self._names = [f"joins.{join.name}" for join in plan.joins]
        self._encoders = [join_encoder(join) for join in plan.joins]

    def write(self, join: int, rows: Batch) -> None:
        """Write rows of join number ``join`` of the plan."""
        name = self._names[join]
        if self._outputs.wanted(name):
            self._outputs.write(name, self._encoders[join].encode(rows), record_keys(rows, JOIN_KEY))
