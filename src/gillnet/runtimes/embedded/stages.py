"""What happens to a batch of rows after its features: score, decide, explain what is flagged, encode."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa

from gillnet._kernel import Batch
from gillnet.operators.decide import DECISION, REASONS, SCORE, DecideOperator
from gillnet.operators.encode import record_keys
from gillnet.operators.features import SESSION_START, FeatureOperator
from gillnet.operators.records import CONTRIBUTIONS, SCORE_AS_SCORED, Detail, decision_encoder, key_column
from gillnet.plan.nodes import PipelinePlan
from gillnet.serving.reasons import explain
from gillnet.serving.scorers import Scorer

_CONTRIBUTION_TYPE = pa.list_(
    pa.struct(
        [("code", pa.string()), ("feature", pa.string()), ("value", pa.float64()), ("contribution", pa.float64())]
    )
)
REMEMBERED_ALERTS = 100_000
"""Sessions whose alert is remembered, so that it is given once; the oldest are forgotten first."""


@dataclass(frozen=True, slots=True)
class Alert:
    """A flagged row, for people: what the live display and the demo show."""

    id: str
    key: str | None
    decision: str
    score: float | None
    reasons: tuple[str, ...]
    row: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Scored:
    """A batch of rows with decisions, the positions of those that are not simply allowed, and rows by decision."""

    batch: Batch
    flagged: list[int]
    counts: dict[str, int]


class ScoringStage:
    """Scores, decides and encodes the rows of one pipeline.

    Parameters
    ----------
    plan
        The pipeline's plan.
    features
        The operator whose rows come in; gives their schema.
    scorer
        The model's scorer; None for a pipeline without a model.
    top_reasons
        Features named for a flagged row, by TreeSHAP.
    detail
        ``audit``: rows carry their features, times and reasons; ``decision``: id, score and decision only.
    """

    def __init__(
        self,
        plan: PipelinePlan,
        features: FeatureOperator,
        scorer: Scorer | None,
        *,
        top_reasons: int = 3,
        detail: Detail = "audit",
    ) -> None:
        self.plan = plan
        self.scorer = scorer
        self._top = top_reasons
        schema = features.row_schema()
        if scorer is not None:
            schema = schema.append(pa.field(SCORE, pa.float64(), nullable=False))
            schema = schema.append(pa.field(SCORE_AS_SCORED, pa.float32(), nullable=False))
        self._decide = DecideOperator(plan, schema)
        self.root = plan.stream(plan.root)
        self.key = key_column(plan)
        model = None if scorer is None else scorer.model.label
        self._plain = decision_encoder(plan, model, detail=detail, explained=False)
        self._explained = decision_encoder(plan, model, detail=detail, explained=True)
        self._alerted: OrderedDict[tuple[Any, ...], None] = OrderedDict()

    def score(self, rows: Batch) -> Scored:
        """Score and decide."""
        if self.scorer is not None:
            rows = widened(self.scorer.score(rows))
        return Scored(*self._decide.decide(rows))

    def explain(self, scored: Scored) -> Scored:
        """Add the features that raised the score of each flagged row (TreeSHAP, about 50 µs a row)."""
        if self.scorer is None or not scored.flagged:
            return scored
        reasons = explain(self.scorer, scored.batch, scored.flagged, top=self._top)
        column: list[Any] = [None] * scored.batch.num_rows
        for position, found in zip(scored.flagged, reasons, strict=True):
            column[position] = [
                {"code": r.code, "feature": r.feature, "value": r.value, "contribution": round(r.contribution, 4)}
                for r in found
            ]
        return replace(scored, batch=scored.batch.with_column(CONTRIBUTIONS, pa.array(column, _CONTRIBUTION_TYPE)))

    def encode(self, batch: Batch) -> tuple[list[bytes], list[bytes | None]]:
        """Return rows as JSON, and their keys."""
        encoder = self._explained if CONTRIBUTIONS in batch.column_names else self._plain
        keys: list[bytes | None] = record_keys(batch, self.key) if self.key else [None] * batch.num_rows
        return encoder.encode(batch), keys

    def new_alerts(self, scored: Scored) -> list[int]:
        """Return the flagged positions that are worth an alert: every one, or the first of each session."""
        if self.plan.sessions is None or not scored.flagged:
            return scored.flagged
        taken = scored.batch.take(scored.flagged)
        keys = taken.column(self.plan.sessions.key).to_pylist()
        starts = taken.column(SESSION_START).cast(pa.int64()).to_pylist()
        decisions = taken.column(DECISION).to_pylist()
        return [
            position
            for position, key, start, decision in zip(scored.flagged, keys, starts, decisions, strict=True)
            if self._first_of_session((key, start, decision))
        ]

    def _first_of_session(self, session: tuple[Any, ...]) -> bool:
        if session in self._alerted:
            return False
        self._alerted[session] = None
        if len(self._alerted) > REMEMBERED_ALERTS:
            self._alerted.popitem(last=False)
        return True

    def remembered_alerts(self) -> list[list[Any]]:
        """Return the sessions that have had their alert, oldest first, as JSON has them: for a run that goes on."""
        return [list(session) for session in self._alerted]

    def remember_alerts(self, sessions: Sequence[Sequence[Any]]) -> None:
        """Take what `remembered_alerts` returned."""
        self._alerted = OrderedDict.fromkeys(tuple(session) for session in sessions)

    def alerts(self, batch: Batch, positions: Sequence[int]) -> list[Alert]:
        """Return flagged rows for people."""
        rows = batch.take(list(positions)).to_pyarrow().to_pylist()
        return [
            Alert(
                id=str(row[self.root.id]),
                key=None if self.key is None else str(row[self.key]),
                decision=row[DECISION],
                score=row.get(SCORE),
                reasons=(*row[REASONS], *(part["code"] for part in row.get(CONTRIBUTIONS) or ())),
                row=row,
            )
            for row in rows
        ]


def widened(batch: Batch) -> Batch:
    """Make the score Float64, the type that rules compare with (exact), and keep it as scored, for writing."""
    return batch.cast_column(SCORE, "float64", SCORE_AS_SCORED)
