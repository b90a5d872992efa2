"""Scores and decisions for rows that are computed in batch: the live run's scorer and policy."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gillnet._kernel import Batch
from gillnet.core.errors import ConfigurationError
from gillnet.operators.decide import SCORE, DecideOperator
from gillnet.operators.records import SCORE_AS_SCORED

if TYPE_CHECKING:
    import pyarrow as pa

    from gillnet.plan.nodes import PipelinePlan
    from gillnet.serving.scorers import Scorer


class RowScoring:
    """Adds ``score``, ``__score`` (as float32), ``decision`` and ``reasons`` to rows; nothing unless it is asked for.

    Parameters
    ----------
    plan
        The pipeline's plan.
    scorer
        The model's scorer; None for rows without a score.
    decide
        Whether rows get a decision by the plan's policy.

    Raises
    ------
    ConfigurationError
        If decisions are asked of a plan with a model, and there is no scorer.
    """

    def __init__(self, plan: PipelinePlan, scorer: Scorer | None, *, decide: bool) -> None:
        if decide and plan.model is not None and scorer is None:
            raise ConfigurationError(
                f"pipeline {plan.name!r}: decisions need the score of {plan.model.ref!r}; give its scorer."
            )
        self._plan = plan
        self._scorer = scorer
        self._decides = decide
        self._decide: DecideOperator | None = None

    def add(self, rows: pa.RecordBatch) -> pa.RecordBatch:
        """Return the rows with what was asked for."""
        batch = Batch.from_pyarrow(rows)
        if self._scorer is not None:
            batch = self._scorer.score(batch).cast_column(SCORE, "float64", SCORE_AS_SCORED)
        if self._decides:
            self._decide = self._decide or DecideOperator(self._plan, batch.to_pyarrow().schema)
            batch = self._decide.decide(batch)[0]
        return batch.to_pyarrow()
