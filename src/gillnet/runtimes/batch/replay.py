"""A history through the live engine once more: the rows as they were known when they left (I6).

Micro-batches come in the order, at the arrival times and from the partitions that the run saw, and each run of the history begins
with an empty state, as it did. So features are those that the live scorer saw, bit for bit.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog

from gillnet._kernel import Batch
from gillnet.operators.features import FeatureOperator, Outcome, arrow_schema
from gillnet.stores.history import PARTITION, arrival_us, batch_number, micro_batches

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pyarrow as pa

    from gillnet.plan.nodes import PipelinePlan
    from gillnet.stores.history import History, Run

_log = structlog.get_logger("gillnet.replay")

_MOST_DISTURBANCES = 10_000

IDLE_TURN_US = 50_000
"""A run that hears nothing for so long looks whether partitions are idle."""


def replay(plan: PipelinePlan, history: History) -> Iterator[pa.RecordBatch]:
    """Yield the rows of a history as they left, in the order in which they left.

    Notes
    -----
    A history holds what was accepted. Which partitions were silent is told from the arrival times, to within a turn of the loop
    (50 ms); a partition that was assigned and never gave a record is not known of. Features of the root's own stream do not
    depend on either; baselines, ``stale`` and the watermark columns do. Rows that waited (``max_wait``) are read when the next
    record arrives, or when they were due. Should the gate refuse an event this time, that is logged.
    """
    for run in history.runs():
        yield from _RunReplay(plan, run).rows()


class _RunReplay:
    """One run of a history, through an engine of its own."""

    def __init__(self, plan: PipelinePlan, run: Run) -> None:
        self._run = run
        self._features = FeatureOperator(plan)
        self._columns = {stream.name: arrow_schema(stream.schema).names for stream in plan.streams}
        self._max_wait_us = plan.emission.max_wait_us if plan.emission.kind == "max_wait" else None
        self._ending = sorted((number, stream) for stream, number in run.ended.items() if stream in self._columns)
        self._known: set[tuple[str, int]] = set()
        self._now_us: int | None = None
        self._refused = 0

    def rows(self) -> Iterator[pa.RecordBatch]:
        for stream, events in micro_batches(self._run):
            if stream in self._columns:
                now_us = arrival_us(events)
                yield from self._pass_silence(now_us)
                yield from self._end_streams(batch_number(events))
                yield from self._take(stream, events, now_us)
        yield from self._end_streams(None)
        yield from self._released(self._now_us or 0, everything=True)
        if self._refused:
            reason = "the gate took them when they came"
            _log.warning("replay.refused", records=self._refused, run=self._run.number, reason=reason)

    def _pass_silence(self, until_us: int) -> Iterator[pa.RecordBatch]:
        """Do what the run's loop did while nothing came."""
        if self._now_us is not None and until_us - self._now_us > IDLE_TURN_US:
            self._features.pass_time(until_us - IDLE_TURN_US)
            yield from self._released(until_us - IDLE_TURN_US)

    def _end_streams(self, before: int | None) -> Iterator[pa.RecordBatch]:
        while self._ending and (before is None or self._ending[0][0] <= before):
            self._features.finish(self._ending.pop(0)[1])
            yield from self._released(self._now_us or 0)

    def _take(self, stream: str, events: pa.RecordBatch, now_us: int) -> Iterator[pa.RecordBatch]:
        partitions = events.column(PARTITION).to_pylist()
        for name, partition in sorted({(stream, number) for number in partitions} - self._known):
            self._features.register_partition(name, partition, now_us)
            self._known.add((name, partition))
        batch = Batch.from_pyarrow(events.select(self._columns[stream]))
        processed = self._features.process(stream, batch, now_us, partitions)
        taken = processed.outcomes.count(Outcome.ACCEPTED) + processed.outcomes.count(Outcome.LATE)
        self._refused += len(processed.outcomes) - taken
        self._features.pass_time(now_us)
        self._now_us = now_us
        if processed.rows is not None and processed.rows.num_rows:
            yield processed.rows.to_pyarrow()
        yield from self._released(now_us)
        _forget_later_outputs(self._features)

    def _released(self, now_us: int, *, everything: bool = False) -> Iterator[pa.RecordBatch]:
        """Let rows go that have waited, at the time at which they were due."""
        since_us = self._features.waiting_since_us()
        if since_us is not None and self._max_wait_us is not None:
            now_us = min(now_us, max(since_us + self._max_wait_us, self._now_us or 0))
        if since_us is not None and (rows := self._features.release(now_us, everything=everything)) is not None:
            yield rows.to_pyarrow()


def _forget_later_outputs(features: FeatureOperator) -> None:
    """Take closed sessions and revisions as a run would, so that what they hold is given back; they are later knowledge."""
    while features.closed_sessions() is not None:
        pass
    if features.disturbances > _MOST_DISTURBANCES:
        while features.revisions(_MOST_DISTURBANCES) is not None:
            pass
