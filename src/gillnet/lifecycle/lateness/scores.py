"""What a pipeline's scores would have missed at each watermark delay.

No mode of the engine is needed: events go through the ordinary one, in the order in which a watermark with that delay would
release them, so a row sees exactly what had arrived by then. The complete answer comes from the events in order of event time.

1. sample     the first root events, and everything of any stream that their windows could hold
2. order      per delay: (place of release, other streams first, event time, id); other streams go in as they arrive
3. blocks     of the longest runs that may go in as two batches, the other streams first
4. rows       through features, model and policy, back in the sample's order; compared with the complete ones
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from gillnet._kernel import Batch
from gillnet.lifecycle.lateness.delays import Micros, merged_frontier, release_places, waits
from gillnet.lifecycle.lateness.reading import StreamEvents
from gillnet.operators.decide import DECISION, SCORE
from gillnet.operators.features import FeatureOperator
from gillnet.plan.expressions import columns_of
from gillnet.plan.nodes import BaselineNode, EmissionNode, ExpressionNode, PipelinePlan
from gillnet.runtimes.embedded.stages import ScoringStage
from gillnet.serving import Scorer

WARM_UP_SHARE = 0.2
"""Of the sample, the part that only fills the windows."""

ON_ARRIVAL = -1
"""Stands for a delay where rows do not wait at all, as they are emitted by default."""

_MOST_RECORDS = 8_192
_FIRST_BLOCK = 64
_NO_LIMIT_US = 10**16


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoresAt:
    """The scores of a sample under one watermark delay, against the complete ones.

    Attributes
    ----------
    delay_us
        The delay, or `ON_ARRIVAL`.
    stale_share
        Share of rows with a feature that is not the complete one.
    changed_share
        Share of rows with a score that is not the complete one; None without a model.
    moved_mean, moved_p99
        How far the scores of the stale rows are from the complete ones, absolute; None without a model or without such a row.
    flipped_share
        Share of rows with another decision than the complete one.
    """

    delay_us: int
    stale_share: float
    changed_share: float | None
    moved_mean: float | None
    moved_p99: float | None
    flipped_share: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """The rows of the sample that count, in the order of arrival."""

    features: list[pa.Array]
    scores: NDArray[np.float64] | None
    decisions: pa.Array


class Sample:
    """A stretch of a pipeline's streams, from which rows are computed in any order of release.

    Parameters
    ----------
    plan
        The pipeline's plan.
    scorer
        The model's scorer; None for a pipeline without a model.
    streams
        The events of every stream of the plan, by name.
    size
        Root events of the sample: the first ones that arrived.
    """

    def __init__(self, plan: PipelinePlan, scorer: Scorer | None, streams: dict[str, StreamEvents], size: int) -> None:
        self._plan, self._scorer = _unbounded(plan), scorer
        merged = Merged.of(plan, streams)
        self.after, self.arrivals = merged.after, merged.arrivals
        self.root_places = np.flatnonzero(merged.numbers == 0)
        self.root_times = merged.times[self.root_places]
        chosen = self.root_places[:size]
        # Windows look back only: nothing after the newest of the sample can matter to it, however late it comes.
        self._kept = np.flatnonzero(merged.times <= merged.times[chosen].max(initial=0))
        self._merged = merged
        self._stage = ScoringStage(self._plan, FeatureOperator(self._plan), scorer, top_reasons=0, detail="decision")
        self._compared = _compared(plan)
        self.size = len(chosen)
        self.warm_up = int(self.size * WARM_UP_SHARE)
        self._counted = np.flatnonzero(np.isin(self._kept, chosen[self.warm_up :], assume_unique=True))

    @property
    def events(self) -> int:
        """Events of all streams that go through the engine for each delay."""
        return len(self._kept)

    @property
    def counted(self) -> int:
        """Rows that are compared."""
        return len(self._counted)

    def at(self, delay_us: int | None) -> Rows:
        """Return the rows under a watermark delay, or `ON_ARRIVAL`; None: the complete ones."""
        return self._rows(self._order(delay_us))

    def compare(self, delay_us: int, complete: Rows) -> ScoresAt:
        """Hold the rows under a delay against the complete ones."""
        return compare(delay_us, self.at(delay_us), complete)

    def waits(self, delay_us: int) -> Micros:
        """Return how long each root event would wait for the watermarks of all streams; those still waiting are left out."""
        releases = release_places(self.root_times, self.root_places, self.after, delay_us)
        return waits(self.root_places, releases, self.arrivals)

    def _order(self, delay_us: int | None) -> NDArray[np.intp]:
        """Return the order in which the kept events go in, as places among them."""
        merged, kept = self._merged, self._kept
        is_root, times, ids = merged.numbers[kept] == 0, merged.times[kept], merged.ids[kept]
        if delay_us is None:
            releases = np.zeros(len(kept), np.intp)
        elif delay_us == ON_ARRIVAL:
            releases = kept
        else:
            releases = np.where(is_root, release_places(times, kept, merged.after, delay_us), kept)
        return np.lexsort((ids[:, 1], ids[:, 0], times, is_root, releases))

    def _rows(self, order: NDArray[np.intp]) -> Rows:
        merged, engine = self._merged, FeatureOperator(self._plan)
        places = self._kept[order]
        numbers = merged.numbers[places]
        feeds = [_Feed(merged, number, places[numbers == number]) for number in range(len(merged.streams))]
        parts: list[pa.RecordBatch] = []
        for first, end in blocks(numbers == 0, merged.times[places]):
            counts = np.bincount(numbers[first:end], minlength=len(feeds)).tolist()
            # The root last: the block is such that its rows see nothing that was not released before them.
            for number in (*range(1, len(feeds)), 0):
                parts += feeds[number].process(engine, counts[number])
            while engine.closed_sessions() is not None:
                pass
        table = pa.Table.from_batches(parts)
        rank = np.empty(len(order), np.intp)
        rank[order[numbers == 0]] = np.arange(int((numbers == 0).sum()))
        return self._scored(table.take(pa.array(rank[self._counted])))

    def _scored(self, table: pa.Table) -> Rows:
        (batch,) = table.combine_chunks().to_batches(max_chunksize=None) or [None]
        if batch is None:
            return Rows(features=[], scores=None, decisions=pa.array([], pa.string()))
        scored = self._stage.score(Batch.from_pyarrow(batch)).batch
        scores = None if self._scorer is None else scored.column(SCORE).to_numpy(zero_copy_only=False)
        return Rows(features=[batch[name] for name in self._compared], scores=scores, decisions=scored.column(DECISION))


@dataclass(frozen=True, slots=True, kw_only=True)
class Merged:
    """The events of several streams in one order of arrival; the root has number 0.

    ``locals`` are places in the stream's own events; ``after`` is the frontier of all streams after each arrival.
    """

    streams: list[StreamEvents]
    numbers: NDArray[np.int8]
    locals: NDArray[np.intp]
    times: Micros
    arrivals: Micros
    ids: NDArray[np.uint64]
    after: Micros

    @classmethod
    def of(cls, plan: PipelinePlan, streams: dict[str, StreamEvents]) -> Merged:
        """Merge, up to where every stream was read."""
        ordered = [streams[plan.root], *(streams[s.name] for s in plan.streams if s.name != plan.root)]
        cut = min((events.arrivals[-1] for events in ordered if not events.whole and len(events)), default=None)
        sizes = [len(e) if cut is None else int(np.searchsorted(e.arrivals, cut, side="right")) for e in ordered]
        numbers = np.repeat(np.arange(len(ordered), dtype=np.int8), sizes)
        places = np.concatenate([np.arange(size) for size in sizes])
        arrivals = np.concatenate([events.arrivals[:size] for events, size in zip(ordered, sizes, strict=True)])
        order = np.lexsort((-numbers, arrivals))  # Other streams first, as a run polls them.
        times = np.concatenate([events.times[:size] for events, size in zip(ordered, sizes, strict=True)])[order]
        ids = np.concatenate([events.ids[:size] for events, size in zip(ordered, sizes, strict=True)])[order]
        own = [column[order] for column in _own_partitions(ordered, sizes)]
        after = merged_frontier(own, times, arrivals[order], [events.node.idle_after_us for events in ordered])
        return cls(
            streams=ordered,
            numbers=numbers[order],
            locals=places[order],
            times=times,
            arrivals=arrivals[order],
            ids=ids,
            after=after,
        )


class _Feed:
    """Gives the events of one stream to an engine, in the order of their release."""

    def __init__(self, merged: Merged, number: int, places: NDArray[np.intp]) -> None:
        events = merged.streams[number]
        self._stream = events.node.name
        # Taken once: a take for each block would cost more than the engine.
        self._rows = events.rows.take(pa.array(merged.locals[places]))
        # In any order of release, the clock that stamps arrivals does not go back.
        self._arrivals = np.maximum.accumulate(merged.arrivals[places])
        self._given = 0

    def process(self, engine: FeatureOperator, count: int) -> Iterator[pa.RecordBatch]:
        """Give the next events, and yield the rows that come of them."""
        end = self._given + count
        while self._given < end:
            part = self._rows.slice(self._given, min(_MOST_RECORDS, end - self._given))
            self._given += part.num_rows
            done = engine.process(self._stream, Batch.from_pyarrow(part), int(self._arrivals[self._given - 1]))
            if done.rows is not None and done.rows.num_rows:
                yield done.rows.to_pyarrow()


def compare(delay_us: int, rows: Rows, complete: Rows) -> ScoresAt:
    """Hold rows against the complete ones, bit for bit."""
    count = len(complete.decisions)
    stale = np.zeros(count, np.bool_)
    for found, right in zip(rows.features, complete.features, strict=True):
        stale |= differs(found, right)
    flipped = differs(rows.decisions, complete.decisions)
    moved = changed = None
    if rows.scores is not None and complete.scores is not None and count:
        away = np.abs(rows.scores - complete.scores)
        changed = float((away > 0).mean())
        moved = away[stale] if stale.any() else None
    return ScoresAt(
        delay_us=delay_us,
        stale_share=float(stale.mean()) if count else 0.0,
        changed_share=changed,
        moved_mean=None if moved is None else float(moved.mean()),
        moved_p99=None if moved is None else float(np.quantile(moved, 0.99, method="higher")),
        flipped_share=float(flipped.mean()) if count else 0.0,
    )


def differs(found: pa.Array, right: pa.Array) -> NDArray[np.bool_]:
    """Return where two columns differ; null is equal to null, and NaN to NaN."""
    unequal = pc.fill_null(pc.not_equal(found, right), False)
    if pa.types.is_floating(found.type):
        both_nan = pc.and_(pc.is_nan(found), pc.is_nan(right))
        unequal = pc.and_not(unequal, pc.fill_null(both_nan, False))
    one_null = pc.xor(pc.is_null(found), pc.is_null(right))
    result: NDArray[np.bool_] = pc.or_(unequal, one_null).to_numpy(zero_copy_only=False)
    return result


def blocks(is_root: NDArray[np.bool_], times: Micros) -> Iterator[tuple[int, int]]:
    """Cut a sequence into blocks whose other events may go in before its root events without changing a row.

    A lookup reads what lies at or before its row's time. So an event of another stream that comes after a row may go in
    before it exactly where it is younger; one that is not begins the next block.
    """
    first, length = 0, _FIRST_BLOCK
    while first < len(times):
        end = min(first + length, len(times))
        newest_row = np.maximum.accumulate(np.where(is_root[first:end], times[first:end], np.iinfo(np.int64).min))
        conflicts = np.flatnonzero(~is_root[first:end] & (times[first:end] <= newest_row))
        cut = first + int(conflicts[0]) if len(conflicts) else end
        # About as far as the last block went, so that many short blocks do not each look far ahead.
        length = min(max(2 * (cut - first), _FIRST_BLOCK), 4 * _MOST_RECORDS)
        yield first, cut
        first = cut


def _own_partitions(streams: Sequence[StreamEvents], sizes: Sequence[int]) -> list[NDArray[np.int32]]:
    """Return for each stream the partitions of the events of all, one stream after the other; -1 for those of others."""
    own = []
    for number, (events, size) in enumerate(zip(streams, sizes, strict=True)):
        column = np.full(sum(sizes), -1, np.int32)
        column[sum(sizes[:number]) : sum(sizes[: number + 1])] = events.partitions[:size]
        own.append(column)
    return own


def _unbounded(plan: PipelinePlan) -> PipelinePlan:
    """Return the plan with nothing refused, forgotten or held, since what was late is scored too; its joins give no rows."""
    streams = tuple(
        replace(stream, allowed_lateness_us=_NO_LIMIT_US, max_ahead_us=_NO_LIMIT_US, earliest_us=-_NO_LIMIT_US)
        for stream in plan.streams
    )
    return replace(plan, streams=streams, revisions=False, emission=EmissionNode(), joins=())


def _compared(plan: PipelinePlan) -> list[str]:
    """Return the features that are compared: all but baselines, which move with the watermark, and what rests on them."""
    moving: set[str] = set()
    for feature in plan.features:
        rests = isinstance(feature, ExpressionNode) and columns_of(feature.expression) & moving
        if isinstance(feature, BaselineNode) or rests:
            moving.add(feature.name)
    return [feature.name for feature in plan.features if feature.name not in moving]
