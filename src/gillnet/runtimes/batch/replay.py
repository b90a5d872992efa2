"""A history through the live engine once more: the rows as they were known when they left (I6).

Micro-batches come in the order, at the arrival times and from the partitions that the run saw, and each run of the history begins
with an empty state, as it did. So features are those that the live scorer saw, bit for bit.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog

from gillnet._kernel import Batch
from gillnet.operators.features import FeatureOperator, Outcome, arrow_schema
from gillnet.stores.history import PARTITION, arrival_us, micro_batches

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
        yield from _replay_run(plan, run)


def _replay_run(plan: PipelinePlan, run: Run) -> Iterator[pa.RecordBatch]:
    features = FeatureOperator(plan)
    known: set[tuple[str, int]] = set()
    refused, last_us = 0, None
    columns = {stream.name: arrow_schema(stream.schema).names for stream in plan.streams}
    # A row is read when it leaves, so what waits is let go as often as the run's loop would have.
    waits = plan.emission.kind == "max_wait"
    for stream, events in micro_batches(run):
        if stream not in columns:
            continue
        now_us = arrival_us(events)
        if last_us is not None and now_us - last_us > IDLE_TURN_US:
            features.pass_time(now_us - IDLE_TURN_US)
        due_us = (features.waiting_since_us() or now_us) + plan.emission.max_wait_us if waits else now_us
        if due_us < now_us and (rows := features.release(due_us)) is not None:
            yield rows.to_pyarrow()
        partitions = events.column(PARTITION).to_pylist()
        for partition in sorted({(stream, number) for number in partitions} - known):
            features.register_partition(*partition, now_us)
            known.add(partition)
        processed = features.process(stream, Batch.from_pyarrow(events.select(columns[stream])), now_us, partitions)
        refused += len(processed.outcomes) - sum(processed.outcomes.count(o) for o in (Outcome.ACCEPTED, Outcome.LATE))
        features.pass_time(now_us)
        _forget_later_outputs(features)
        last_us = now_us
        if processed.rows is not None and processed.rows.num_rows:
            yield processed.rows.to_pyarrow()
    if (rows := features.release(last_us or 0, everything=True)) is not None:
        yield rows.to_pyarrow()
    if refused:
        _log.warning("replay.refused", records=refused, run=run.number, reason="the gate took them when they came")


def _forget_later_outputs(features: FeatureOperator) -> None:
    """Take closed sessions and revisions as a run would, so that what they hold is given back; they are later knowledge."""
    while features.closed_sessions() is not None:
        pass
    if features.disturbances > _MOST_DISTURBANCES:
        while features.revisions(_MOST_DISTURBANCES) is not None:
            pass
