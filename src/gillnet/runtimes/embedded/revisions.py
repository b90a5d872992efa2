"""Rows that later arrivals have changed: scored and decided as they went out and as they are now, for an audit (I2)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from gillnet._kernel import Batch
from gillnet.operators.decide import DECISION, REASONS, DecideOperator
from gillnet.operators.encode import record_keys
from gillnet.operators.features import OLD
from gillnet.operators.records import FLIPPED, SCORE_AS_SCORED, key_column, revision_encoder
from gillnet.runtimes.embedded.stages import widened

if TYPE_CHECKING:
    from gillnet.plan.nodes import PipelinePlan
    from gillnet.serving.scorers import Scorer

REVISIONS = "decisions.revisions"
"""The output's name."""

REVISED_AT_ONCE = 4_096
"""Rows that one call revises at the most, so that no batch grows without bound."""


@dataclass(frozen=True, slots=True)
class Revised:
    """A batch of revisions: the rows with both sides, and how many decisions are others now."""

    batch: Batch
    flipped: int


class RevisionStage:
    """Scores, decides and encodes revisions.

    Parameters
    ----------
    plan
        The pipeline's plan.
    scorer
        The model's scorer; None for a pipeline without a model.
    emit_all
        Keep every revised row; otherwise those that were or are flagged.

    Notes
    -----
    A record has all features as they are now, the names of those that changed, and these as they were (absent: null). The
    score and decision of then are computed again from the features of then: with the same model version they are the
    same numbers, and need not be kept for each row.
    """

    def __init__(self, plan: PipelinePlan, scorer: Scorer | None, *, emit_all: bool) -> None:
        self._plan = plan
        self._scorer = scorer
        self._emit_all = emit_all
        self._names = [feature.name for feature in plan.features]
        self._decide: DecideOperator | None = None
        self._key = key_column(plan)
        self._encoder = revision_encoder(plan, None if scorer is None else scorer.model.label)

    def revise(self, rows: Batch) -> Revised:
        """Score and decide revised rows, as they were and as they are."""
        now, then = self._decided(rows), self._decided(self._as_it_went_out(rows))
        flipped = pc.not_equal(now.column(DECISION), then.column(DECISION))
        batch = now.with_column(FLIPPED, flipped)
        for name in (DECISION, REASONS, *((SCORE_AS_SCORED,) if self._scorer else ())):
            batch = batch.with_column(f"{OLD}{name}", then.column(name))
        if not self._emit_all:
            flagged = pc.or_(pc.not_equal(now.column(DECISION), "allow"), pc.not_equal(then.column(DECISION), "allow"))
            batch = batch.take(pc.indices_nonzero(flagged).to_pylist())
        return Revised(batch, pc.sum(flipped).as_py() or 0)

    def encode(self, batch: Batch) -> tuple[list[bytes], list[bytes | None]]:
        """Return revisions as JSON, and their keys."""
        keys: list[bytes | None] = record_keys(batch, self._key) if self._key else [None] * batch.num_rows
        return self._encoder.encode(batch), keys

    def _decided(self, rows: Batch) -> Batch:
        if self._scorer is not None:
            rows = widened(self._scorer.score(rows))
        if self._decide is None:
            self._decide = DecideOperator(self._plan, rows.to_pyarrow().schema)
        return self._decide.decide(rows)[0]

    def _as_it_went_out(self, rows: Batch) -> Batch:
        """Return the rows with the features of then under the features' names."""
        table = rows.to_pyarrow()
        columns = [
            table.column(f"{OLD}{name}") if name in self._names else table.column(name) for name in table.schema.names
        ]
        return Batch.from_pyarrow(pa.RecordBatch.from_arrays(columns, schema=table.schema))
