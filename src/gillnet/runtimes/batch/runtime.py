"""A plan over complete input: sort, cut into parts of event time, compute each part on all cores, score on demand.

The rows are those of a live run after its last revision, bit for bit (I2): `gillnet._kernel.BatchEngine` says how. It knows
neither where events come from nor where rows go: events come in as Arrow batches, and rows go out as Arrow batches.
"""

from __future__ import annotations

import os
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from gillnet._kernel import Batch, BatchEngine
from gillnet.core.errors import ConfigurationError, PlanError
from gillnet.operators.features import arrow_schema
from gillnet.plan.serde import dumps
from gillnet.runtimes.batch.scoring import RowScoring
from gillnet.runtimes.batch.sorting import EventSorter, cut_points, instant, within

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from gillnet.plan.nodes import PipelinePlan
    from gillnet.serving.scorers import Scorer

_BEGINNING = -(2**63)
JOINED_AT_ONCE = 65_536
"""Rows of a join in one part, or somewhat more."""
MATCHES_AT_ONCE = 16_384
"""Matches in one part, or somewhat more."""
_TIMES_OF_JOINS = ("__left_time", "__right_time")


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchOptions:
    """How a batch run uses the machine. No option changes a value.

    Attributes
    ----------
    threads
        Threads of the kernel; None takes the cores that the process may use.
    part_rows
        Events of all streams that are worked on together, about.
    memory_bytes
        Events of all streams that wait in memory to be sorted; more go to files.
    directory
        Where those files go, in a directory of their own that is removed at the end; None takes the system's place for
        temporary files. They take about as much room as the events in memory.
    """

    threads: int | None = None
    part_rows: int = 131_072
    memory_bytes: int = 1 << 29
    directory: Path | None = None


@dataclass(frozen=True, slots=True)
class BatchPart:
    """Rows of a span of event time, in the order of (time, id); sessions that closed, in the order of their ends; joins' rows, matches.

    Columns of rows: the root stream's, the features, ``__feature_states``, for sessions ``__session_start``, further columns of
    the events as they came (such as ``__arrival_time``), and with scores ``score``, ``__score``, ``decision`` and ``reasons``.

    Attributes
    ----------
    joined
        By join, the pairs whose later event is of the span, and the events of outer sides that had no partner up to its end and
        can find none after it; in no order that means anything. Columns: ``__key``, ``__left_id``, ``__left_time``, ``__right_id``,
        ``__right_time``, the join's own, and ``__revision``, ``__withdrawn``, ``__saturated``, which say nothing here. A span
        may have many pairs: they come in parts of their own, whose ``rows`` are empty.
    matches
        Matches of patterns that are complete with an event of the span, or with its time, in no order that means anything; in
        parts of their own. Columns: ``pattern``, ``key``, ``first``, ``last``, ``revision`` and ``withdrawn``, which say nothing
        here, ``start``, ``end``, ``events``.
    """

    rows: pa.RecordBatch
    sessions: pa.RecordBatch | None
    joined: Mapping[str, pa.RecordBatch] = field(default_factory=dict)
    matches: pa.RecordBatch | None = None


class BatchRuntime:
    """Computes the final answer of a plan.

    Parameters
    ----------
    plan
        The pipeline's plan.
    scorer
        The model's scorer, where rows shall have scores.
    decide
        Add decisions and reasons by the plan's policy; with a model this needs the scorer.
    joins
        Work the plan's joins out too.
    matches
        Give the matches of the plan's patterns too.
    options
        How the machine is used.

    Attributes
    ----------
    repeated
        By stream, how many events were left out since their id had come before.

    Raises
    ------
    PlanError
        If the plan cannot be executed.
    ConfigurationError
        If decisions are asked of a plan with a model, and there is no scorer.

    Notes
    -----
    Memory: ``memory_bytes`` twice while a run is sorted, one part, and the events that windows reach back to (about 8 bytes ×
    (4 + input columns) each). Not the whole input: events beyond ``memory_bytes`` are on disk.

    What differs from a live run's last revisions: nothing is late, so no row is stale; baselines and keys over their limit
    are as `gillnet._kernel.BatchEngine` says; a join's key keeps all events within its bounds, and no row of it is withdrawn; an id
    that comes again counts as a repetition however much later that is, while a live run remembers ids for the allowed
    lateness only.

    Examples
    --------
    >>> import gillnet as gn
    >>> payment = gn.Schema(id=gn.Integer(), ts=gn.Timestamp("us"), card=gn.String())
    >>> payments = gn.Stream("payments", schema=payment, id="id", event_time="ts")
    >>> plan = gn.Pipeline(gn.Features(payments, n=payments.by("card").count(over="1h"))).plan
    >>> events = pa.record_batch({"id": [2, 1], "ts": pa.array([7, 3], pa.timestamp("us", "UTC")), "card": ["a", "a"]})
    >>> [part.rows.column("n").to_pylist() for part in BatchRuntime(plan).run({"payments": [events]})]
    [[1, 2]]
    """

    def __init__(
        self,
        plan: PipelinePlan,
        *,
        scorer: Scorer | None = None,
        decide: bool = False,
        joins: bool = True,
        matches: bool = True,
        options: BatchOptions | None = None,
    ) -> None:
        self.plan = plan if joins else replace(plan, joins=())
        self._matches = matches
        self.options = options or BatchOptions()
        self.repeated: dict[str, int] = {}
        self._scoring = RowScoring(plan, scorer, decide=decide)
        self._threads = self.options.threads or len(os.sched_getaffinity(0))
        self._engine()  # So that a plan that cannot be executed is told now.

    def run(
        self,
        events: Mapping[str, Iterable[pa.RecordBatch]],
        *,
        from_us: int | None = None,
        to_us: int | None = None,
    ) -> Iterator[BatchPart]:
        """Compute the rows with event time in [from, to).

        Parameters
        ----------
        events
            For each stream its events as Arrow batches, in the order of arrival: of events with the same id the first counts.
            Columns beyond the stream's schema go through to the rows of the root.
        from_us, to_us
            Bounds of the rows, microseconds UTC; None for none. Events before ``from_us`` are read all the same, as far back
            as windows reach.

        Yields
        ------
        BatchPart
            In the order of event time. Sessions, joins and matches are those of the events before ``to_us``: sessions whose start
            is in the bounds, rows of joins whose later event is, and matches whose last event is.
        """
        engine = self._engine()
        reach = engine.lookback_us()
        first_us = None if from_us is None or reach is None else from_us - reach
        with tempfile.TemporaryDirectory(prefix="gillnet-batch-", dir=self.options.directory) as directory:
            sorters = self._sorted(events, Path(directory), first_us, to_us)
            points = cut_points(
                [c for sorter in sorters.values() for c in sorter.chunk_sizes()], self.options.part_rows
            )
            for part, until in _prefetched(sorters, [*points, None]):
                rows, sessions = engine.process(part, until)
                answer = self._part(rows, sessions, from_us)
                # Not a slice: where text begins behind the first byte, an empty one is refused by other readers of Arrow.
                no_rows = pa.RecordBatch.from_pylist([], schema=answer.rows.schema)
                yield answer
                for joined in self._joined(engine, from_us):
                    yield BatchPart(no_rows, None, joined)
                for matches in self._found(engine, from_us):
                    yield BatchPart(no_rows, None, matches=matches)

    def _engine(self) -> BatchEngine:
        try:
            # More shards than threads: their keys are not equally busy.
            shards = 1 if self._threads == 1 else 8 * self._threads
            return BatchEngine(dumps(self.plan), shards, self._threads, self._matches)
        except ValueError as error:
            raise PlanError(f"pipeline {self.plan.name!r} cannot be executed: {error}.") from error

    def _sorted(
        self,
        events: Mapping[str, Iterable[pa.RecordBatch]],
        directory: Path,
        first_us: int | None,
        to_us: int | None,
    ) -> dict[str, EventSorter]:
        _check_streams(self.plan, events)
        room = self.options.memory_bytes // len(self.plan.streams)
        sorters = {
            stream.name: EventSorter(
                stream, directory, memory_bytes=room, threads=self._threads, from_us=first_us, to_us=to_us
            )
            for stream in self.plan.streams
        }
        for name, sorter in sorters.items():
            columns = arrow_schema(sorter.stream.schema)
            for batch in events[name]:
                sorter.add(_typed(batch, columns, name))
            sorter.finish()
            self.repeated[name] = sorter.repeated
        return sorters

    def _part(self, rows: Batch, sessions: Batch | None, from_us: int | None) -> BatchPart:
        root = self.plan.stream(self.plan.root)
        scored = self._scoring.add(within(rows.to_pyarrow(), root, from_us, None))
        closed = None if sessions is None else sessions.to_pyarrow()
        if closed is not None and from_us is not None:
            closed = closed.filter(pc.greater_equal(closed.column("session_start"), instant(from_us)))
        return BatchPart(scored, closed)

    def _joined(self, engine: BatchEngine, from_us: int | None) -> Iterator[dict[str, pa.RecordBatch]]:
        while (joined := engine.joined(JOINED_AT_ONCE)) is not None:
            number, rows = joined[0], joined[1].to_pyarrow()
            if from_us is not None:
                within_bounds = [pc.greater_equal(rows.column(name), instant(from_us)) for name in _TIMES_OF_JOINS]
                rows = rows.filter(pc.or_kleene(*within_bounds))
            if rows.num_rows:
                yield {self.plan.joins[number].name: rows}

    def _found(self, engine: BatchEngine, from_us: int | None) -> Iterator[pa.RecordBatch]:
        while (found := engine.matches(MATCHES_AT_ONCE)) is not None:
            matches = found.to_pyarrow()
            if from_us is not None:
                matches = matches.filter(pc.greater_equal(matches.column("end"), instant(from_us)))
            if matches.num_rows:
                yield matches


def _prefetched(
    sorters: Mapping[str, EventSorter], ends: Sequence[int | None]
) -> Iterator[tuple[list[tuple[str, Batch]], int | None]]:
    """Yield each part's events and its end; the next part is read and sorted meanwhile."""

    def read(low: int, until: int | None) -> list[tuple[str, Batch]]:
        spans = ((name, sorter.span(low, until)) for name, sorter in sorters.items())
        return [(name, batch) for name, batch in spans if batch is not None]

    lows = [_BEGINNING, *(end for end in ends if end is not None)]
    with ThreadPoolExecutor(1, thread_name_prefix="gillnet-batch") as reader:
        following = reader.submit(read, lows[0], ends[0])
        for number, until in enumerate(ends):
            part = following.result()
            if number + 1 < len(ends):
                following = reader.submit(read, lows[number + 1], ends[number + 1])
            yield part, until


def _check_streams(plan: PipelinePlan, events: Mapping[str, object]) -> None:
    wanted = {stream.name for stream in plan.streams}
    if wanted != set(events):
        raise ConfigurationError(
            f"pipeline {plan.name!r}: there are events for {', '.join(sorted(events)) or 'no stream'}, and its streams are "
            f"{', '.join(sorted(wanted))}; give the events of each."
        )


def _typed(batch: pa.RecordBatch, columns: pa.Schema, stream: str) -> pa.RecordBatch:
    """Return the batch with the stream's columns in their types, then the others, which must begin with ``__``."""
    if missing := [name for name in columns.names if name not in batch.schema.names]:
        raise ConfigurationError(f"stream {stream!r}: the events have no column {missing[0]!r}; rename or add it.")
    extra = [name for name in batch.schema.names if name.startswith("__")]
    try:
        arrays = [batch.column(field.name).cast(field.type) for field in columns]
    except pa.ArrowInvalid as error:
        raise ConfigurationError(f"stream {stream!r}: the events do not fit its schema: {error}.") from error
    fields = [*columns, *(batch.schema.field(name) for name in extra)]
    return pa.RecordBatch.from_arrays([*arrays, *(batch.column(name) for name in extra)], schema=pa.schema(fields))
