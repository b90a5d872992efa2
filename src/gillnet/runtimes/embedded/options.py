"""How a run behaves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from gillnet.operators.records import Detail

Guarantee = Literal["at-least-once", "exactly-once"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RuntimeOptions:
    """How a run behaves.

    Attributes
    ----------
    latency_budget_ms
        A micro-batch is kept so small that processing it takes at most about this long.
    turn_ms
        While batches are small, a turn of the loop takes at least so long, and up to three times so long as more records come:
        at some thousand records a second, a few of them then share the fixed cost of a turn and of the requests to a broker,
        instead of keeping a core busy with batches of one. A record that comes after a pause is never held.
    max_batch_records
        Records of one micro-batch at the most.
    delivery
        What a reader of the outputs may count on: each row at least once, or exactly once (with a sink that has transactions).
    transactional_id
        Under which the transactions of exactly-once are committed, one for each deployment of a pipeline; the journal's topic
        is ``<transactional_id>.journal``. None: ``gillnet.<pipeline>``.
    transaction_interval_ms
        How long a transaction of exactly-once lasts, about; while records wait at the sources, as long as its commits take a fifth
        of the time at the most.
    commit_interval_s
        How often outputs are flushed and offsets committed; with checkpoints, offsets are committed when one is complete.
    checkpoint_interval_s
        How often a checkpoint is taken, where checkpoints are kept.
    revision_interval_s
        How often rows that later arrivals have changed are computed again, and always before a commit. A row that changes
        several times in between is revised once.
    emit
        ``all`` rows, or the ``flagged`` ones, go to ``decisions``; by default all, and for sessions the flagged ones.
    detail
        ``audit``: rows carry their features, times and reasons; ``decision``: id, score and decision only.
    top_reasons
        Features named for a flagged row, by TreeSHAP; 0 for none.
    overlap
        Score and write a large batch on a second thread, beside the next batch's features. The rows are the same without.
    max_records
        Stop after exactly so many records of the root stream; for trials.
    """

    latency_budget_ms: float = 10.0
    turn_ms: float = 0.5
    max_batch_records: int = 4_096
    delivery: Guarantee = "at-least-once"
    transactional_id: str | None = None
    transaction_interval_ms: float = 20.0
    commit_interval_s: float = 2.0
    checkpoint_interval_s: float = 30.0
    revision_interval_s: float = 1.0
    emit: str | None = None
    detail: Detail = "audit"
    top_reasons: int = 3
    overlap: bool = True
    max_records: int | None = None
