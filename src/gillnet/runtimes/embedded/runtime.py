"""The loop: poll, decode, compute features, score, decide, write; commit what is flushed.

At-least-once: offsets are committed after the outputs of everything polled before are flushed. Batches adapt: a poll
takes what is there, so one event at a low rate, and under load as many as the latency budget allows, by the measured
cost.
"""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial

import pyarrow as pa
import pyarrow.compute as pc
import structlog

from gillnet._kernel import Batch
from gillnet.core.errors import ConfigurationError
from gillnet.core.messages import RawBatch
from gillnet.core.ports import PartitionedSource, Source, StateBackend
from gillnet.core.time import Clock, SystemClock
from gillnet.observability.metrics import RunMetrics, StreamCounts
from gillnet.operators.decode import Decoded, Malformed, malformed_records, stream_decoder
from gillnet.operators.encode import EncodeOperator, record_keys
from gillnet.operators.features import ARRIVAL_TIME, FeatureOperator, Outcome
from gillnet.plan.nodes import PipelinePlan
from gillnet.runtimes.embedded.checkpoints import Checkpoints
from gillnet.runtimes.embedded.commits import Commits
from gillnet.runtimes.embedded.joins import JOINED_AT_ONCE, JoinStage
from gillnet.runtimes.embedded.keeping import keep_accepted
from gillnet.runtimes.embedded.matches import MATCHES, MatchStage
from gillnet.runtimes.embedded.outputs import Outputs
from gillnet.runtimes.embedded.overlap import HAND_OVER_RECORDS, OverlappedStage
from gillnet.runtimes.embedded.revisions import REVISED_AT_ONCE, REVISIONS, RevisionStage
from gillnet.runtimes.embedded.stages import Alert, Detail, ScoringStage, session_encoder
from gillnet.serving.scorers import Scorer
from gillnet.stores.history import HistoryWriter

_log = structlog.get_logger("gillnet.run")

# Until a batch's cost is known; and the least, so that one slow batch does not bring the run down to single records.
_FIRST_BATCH_RECORDS, _LEAST_BATCH_RECORDS = 256, 16

_SMALL_BATCH_RECORDS = 64

_COLLECT_AFTER_OBJECTS = 100_000

# Events that came before others of their key: so many are followed up at once, whatever the interval.
_MOST_DISTURBANCES = 50_000

_PROGRESS_EVERY_S = 0.25

_SET_ASIDE: dict[int, tuple[str, str]] = {
    Outcome.DUPLICATE: ("duplicate", "a record with this id was read before"),
    Outcome.TOO_LATE: ("too_late", "further behind the watermark than the allowed lateness"),
    Outcome.BEFORE_EARLIEST: ("event_time_too_early", "before the stream's earliest event time"),
    Outcome.AHEAD_OF_ARRIVAL: ("event_time_ahead", "too far ahead of its arrival"),
    Outcome.LATE: ("late", "behind the watermark, inside the allowed lateness"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class RuntimeOptions:
    """How a run behaves.

    Attributes
    ----------
    latency_budget_ms
        A micro-batch is kept so small that processing it takes at most about this long.
    turn_ms
        While batches are small, a turn of the loop takes at least so long: at some thousand records a second, a few of them
        then share the fixed cost of a turn, instead of keeping a core busy with batches of one. A record that comes after
        a pause is never held.
    max_batch_records
        Records of one micro-batch at the most.
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
    turn_ms: float = 1.0
    max_batch_records: int = 4_096
    commit_interval_s: float = 2.0
    checkpoint_interval_s: float = 30.0
    revision_interval_s: float = 1.0
    emit: str | None = None
    detail: Detail = "audit"
    top_reasons: int = 3
    overlap: bool = True
    max_records: int | None = None


class EmbeddedRuntime:
    """Runs a plan in this process.

    Parameters
    ----------
    plan
        The pipeline's plan.
    sources
        One source for each stream of the plan, by the stream's name.
    outputs
        Where rows, alerts, sessions and side outputs go.
    scorer
        The model's scorer, if the plan has a model.
    history
        Where accepted events are kept; committed before the sources are, and closed with the run.
    checkpoints
        From which the run goes on, and where it leaves its own; None for state that begins empty and ends with the run.
    backend
        Where cold keys are kept, the one of the checkpoints too; closed with the run. None for all state in memory.
    on_alerts
        Called with each batch's alerts, for a display, on the thread that scores; it must not block.
    on_turn
        Called after each turn of the loop, on the loop's thread, where the state may be looked at; it must not block.

    Raises
    ------
    ConfigurationError
        If a stream has no source, or a source no stream.
    PlanError
        If the plan cannot be executed.

    Notes
    -----
    At-least-once per sink: after a crash, records since the last checkpoint are processed again; without checkpoints those since
    the last commit, with empty state.
    """

    def __init__(
        self,
        plan: PipelinePlan,
        *,
        sources: Mapping[str, Source],
        outputs: Outputs,
        scorer: Scorer | None = None,
        options: RuntimeOptions | None = None,
        clock: Clock | None = None,
        history: HistoryWriter | None = None,
        checkpoints: Checkpoints | None = None,
        backend: StateBackend | None = None,
        on_alerts: Callable[[list[Alert]], None] | None = None,
        on_turn: Callable[[], None] | None = None,
    ) -> None:
        _check_sources(plan, sources)
        self.plan = plan
        self.options = options or RuntimeOptions()
        self.metrics = RunMetrics()
        self._checkpoints = checkpoints
        self.features = (
            checkpoints.restore(plan, sources, self.metrics) if checkpoints else FeatureOperator(plan, backend=backend)
        )
        self._backend = backend
        self._replaying = checkpoints is not None and checkpoints.restored is not None
        self._clock = clock or SystemClock()
        self._outputs = outputs
        self._history = history
        self._overlapped = OverlappedStage(HAND_OVER_RECORDS if self.options.overlap else None)
        self._on_alerts = on_alerts
        self._on_turn = on_turn
        self._decoders = {name: stream_decoder(plan, name) for name in sources}
        # Other streams first: a payment should see the clicks that came with it.
        self._sources = dict(sorted(sources.items(), key=lambda item: item[0] == plan.root))
        self._stage = ScoringStage(
            plan, self.features, scorer, top_reasons=self.options.top_reasons, detail=self.options.detail
        )
        if checkpoints is not None and checkpoints.restored is not None:
            self._stage.remember_alerts(checkpoints.restored.counts["alerted"])
        self._commits = Commits(self._sources.values())
        self._waits = plan.emission.kind != "on_arrival"
        self._emit_all = (self.options.emit or ("flagged" if plan.sessions else "all")) == "all"
        self._revise = RevisionStage(plan, scorer, emit_all=self._emit_all)
        self._matches = MatchStage(plan)
        self._joins = JoinStage(plan, outputs)
        self._session_encoder: EncodeOperator | None = None
        self._small_turn = True
        self._batch_limit = min(_FIRST_BATCH_RECORDS, self.options.max_batch_records)
        self._committed_s = self._revised_s = self._noted_s = self._clock.monotonic_s()
        self._uncommitted = self._unchecked = False
        self._done: set[str] = set()
        self._partitioned = {name: s for name, s in self._sources.items() if isinstance(s, PartitionedSource)}
        self._assigned: dict[str, frozenset[int]] = {}

    def run(self, stop: threading.Event | None = None) -> RunMetrics:
        """Run until every source is finished or ``stop`` is set; then finish what was read, flush, commit and close."""
        stop = stop or threading.Event()
        with _collector_at_rest():
            return self._run(stop)

    def _run(self, stop: threading.Event) -> RunMetrics:
        try:
            while not stop.is_set() and len(self._done) < len(self._sources) and not self._full():
                began_s = self._clock.monotonic_s()
                if not self._turn():
                    self._idle()
                elif self._small_turn:
                    self._clock.sleep(max(0.0, self.options.turn_ms / 1_000 - self._clock.monotonic_s() + began_s))
                self._release()
                self._revise_if_due()
                self._commit_if_due()
                self._checkpoint_if_due()
                self._note_progress()
                if self._on_turn is not None:
                    self._on_turn()
            self._release(everything=True)
            self._close_sessions()
            self._tell_matches()
            self._join()
            self._commit()
            self._last_checkpoint()
            self._note_progress(last=True)
        except BaseException:
            try:
                self._close()
            except Exception as error:  # The first error is the cause, and the one to tell.
                _log.warning("not everything could be closed", reason=str(error))
            raise
        self._close()
        return self.metrics

    def _close(self) -> None:
        """Close the sources, then flush and close the sinks: each of them, whatever another one raises."""
        with ExitStack() as closing:
            closing.callback(self._outputs.close)
            if self._backend is not None:
                closing.callback(self._backend.close)
            if self._history is not None:
                closing.callback(self._history.close)
            closing.callback(self._overlapped.close)
            if self._checkpoints is not None:
                closing.callback(self._checkpoints.close)
            for source in self._sources.values():
                closing.callback(source.close)

    def _full(self) -> bool:
        most = self.options.max_records
        return most is not None and self.metrics.stream(self.plan.root).read >= most

    def _most(self, stream: str) -> int:
        """Return how many records a poll may give: the batch's limit, and not beyond ``max_records``."""
        if self.options.max_records is None or stream != self.plan.root:
            return self._batch_limit
        return min(self._batch_limit, self.options.max_records - self.metrics.stream(stream).read)

    def _turn(self) -> bool:
        """Poll every source once; whether anything came."""
        self._small_turn = True
        alone, came = len(self._sources) - len(self._done) == 1, False
        for name, source in self._sources.items():
            if name in self._done:
                continue
            wait_s = 0.05 if alone else (0.002 if name == self.plan.root and not came else 0.0)
            raw = source.poll(self._most(name), wait_s)
            if raw is not None:
                came = True
                self._small_turn &= len(raw.values) < _SMALL_BATCH_RECORDS
                self._process(raw)
            elif source.finished:
                self._finish(name)
        return came

    def _finish(self, stream: str) -> None:
        self._done.add(stream)
        self._unchecked = True
        self.features.finish(stream)
        if self._history is not None:
            self._overlapped.submit(0, partial(self._history.end, stream, self.metrics.batches))

    def _process(self, raw: RawBatch) -> None:
        began = self._clock.monotonic_s()
        self._uncommitted = self._unchecked = True
        counts = self.metrics.stream(raw.stream)
        counts.read += len(raw.values)
        decoded = self._decoders[raw.stream].decode(raw)
        self._register_partitions(raw.stream, raw.arrival_time_us)
        partitions = raw.partitions
        if decoded.rows is not None:
            partitions = [partitions[i] for i in decoded.rows.to_pylist()]
        processed = self.features.process(raw.stream, decoded.batch, raw.arrival_time_us, partitions)
        # Not only when all is quiet: one silent partition must not hold the others' watermark.
        self.features.pass_time(raw.arrival_time_us)
        self._divert(raw, decoded, processed.outcomes, counts)
        self._keep(raw, decoded, processed.outcomes, partitions)
        self.metrics.batches += 1
        spent_s = self._clock.monotonic_s() - began
        if processed.rows is not None and processed.rows.num_rows:
            emit = partial(self._emit, processed.rows, raw.arrival_time_us, len(raw.values), spent_s)
            self._overlapped.submit(processed.rows.num_rows, emit)
        else:
            self._adapt(len(raw.values), spent_s)
        self._close_sessions()
        self._tell_matches()
        self._join()

    def _keep(self, raw: RawBatch, decoded: Decoded, outcomes: bytes, partitions: Sequence[int]) -> None:
        if self._history is not None and outcomes:
            number = self.metrics.batches
            keep = partial(keep_accepted, self._history, raw, decoded, outcomes, partitions, number)
            self._overlapped.submit(len(outcomes), keep)

    def _release(self, *, everything: bool = False) -> None:
        """Let rows go that have waited for the watermark, for another stream, or long enough."""
        now_us = self._clock.now_us()
        if self._waits and (rows := self.features.release(now_us, everything=everything)) is not None:
            self._overlapped.submit(rows.num_rows, partial(self._emit, rows, now_us, 0, 0.0))

    def _register_partitions(self, stream: str, now_us: int) -> None:
        """Let every assigned partition hold the watermark, before the first record of the fastest one can move it."""
        source = self._partitioned.get(stream)
        assigned = frozenset() if source is None else source.partitions
        if assigned == self._assigned.get(stream):
            return
        for partition in sorted(assigned - self._assigned.get(stream, frozenset())):
            self.features.register_partition(stream, partition, now_us)
        self._assigned[stream] = assigned

    def _divert(self, raw: RawBatch, decoded: Decoded, outcomes: bytes, counts: StreamCounts) -> None:
        """Count every record, and send what is not scored, and a copy of what is late, to its side output (I3)."""
        accepted, late = outcomes.count(Outcome.ACCEPTED), outcomes.count(Outcome.LATE)
        counts.scored += accepted + late
        counts.late += late
        malformed = list(decoded.malformed)
        aside: dict[str, list[Malformed]] = {}
        if accepted < len(outcomes):
            places = range(len(outcomes)) if decoded.rows is None else decoded.rows.to_pylist()
            for place, outcome in zip(places, outcomes, strict=True):
                if outcome == Outcome.ACCEPTED:
                    continue
                reason, detail = _SET_ASIDE[outcome]
                kind = reason if reason in ("duplicate", "too_late", "late") else "malformed"
                target = malformed if kind == "malformed" else aside.setdefault(kind, [])
                target.append(Malformed(place, reason, detail))
        counts.malformed += len(malformed)
        counts.duplicate += len(aside.get("duplicate", ()))
        counts.too_late += len(aside.get("too_late", ()))
        # The decoder's and the gate's refusals, in the order of arrival, wherever batches end.
        malformed.sort(key=lambda record: record.index)
        for kind, records in (("malformed", malformed), *aside.items()):
            if kind != "late":
                counts.reasons.update(record.reason for record in records)
            self._write_aside(raw, kind, records)

    def _write_aside(self, raw: RawBatch, kind: str, records: list[Malformed]) -> None:
        def write() -> None:
            name = f"{raw.stream}.{kind}"
            if self._outputs.wanted(name):
                self._outputs.write_records(name, malformed_records(raw, records))

        if records:
            self._overlapped.submit(len(records), write)

    def _emit(self, rows: Batch, arrival_us: int, records: int, spent_s: float) -> None:
        """Score, decide and write rows: of a batch of ``records``, on which ``spent_s`` were spent before."""
        began = self._clock.monotonic_s()
        scored = self._stage.score(rows)
        alerts = self._stage.new_alerts(scored)
        if self.options.top_reasons and alerts:
            scored = self._stage.explain(scored)
        self.metrics.decisions.update(scored.counts)
        if self._outputs.wanted("decisions"):
            chosen = scored.batch if self._emit_all else scored.batch.take(scored.flagged)
            self._outputs.write("decisions", *self._stage.encode(chosen))
        if alerts:
            self.metrics.alerts += len(alerts)
            if self._outputs.wanted("alerts"):
                self._outputs.write("alerts", *self._stage.encode(scored.batch.take(alerts)))
            if self._on_alerts is not None:
                self._on_alerts(self._stage.alerts(scored.batch, alerts))
        self._note_latency(rows, arrival_us)
        self._adapt(records, spent_s + self._clock.monotonic_s() - began)

    def _note_latency(self, rows: Batch, arrival_us: int) -> None:
        now_us = self._clock.now_us()
        if not self._waits:
            self.metrics.latency_ms.add((now_us - arrival_us) / 1_000, rows.num_rows)
            return
        arrivals = pc.value_counts(rows.column(ARRIVAL_TIME).cast(pa.int64()))
        for arrived_us, count in zip(*(column.to_pylist() for column in arrivals.flatten()), strict=True):
            self.metrics.latency_ms.add((now_us - arrived_us) / 1_000, count)

    def _close_sessions(self) -> None:
        if self.plan.sessions is None:
            return
        while (closed := self.features.closed_sessions()) is not None:
            self.metrics.sessions_closed += closed.num_rows
            self._overlapped.submit(closed.num_rows, partial(self._write_sessions, closed, self.plan.sessions.key))

    def _tell_matches(self) -> None:
        while self._matches.wanted and (rows := self.features.matches()) is not None:
            self._overlapped.submit(rows.num_rows, partial(self._write_matches, rows))

    def _write_matches(self, rows: Batch) -> None:
        withdrawn = self._matches.withdrawn(rows)
        self.metrics.matches += rows.num_rows - withdrawn
        self.metrics.matches_withdrawn += withdrawn
        if self._outputs.wanted(MATCHES):
            self._outputs.write(MATCHES, *self._matches.encode(rows))

    def _write_sessions(self, closed: Batch, key: str) -> None:
        if not self._outputs.wanted("sessions"):
            return
        if self._session_encoder is None:
            self._session_encoder = session_encoder(self.plan, closed.column_names)
        self._outputs.write("sessions", self._session_encoder.encode(closed), record_keys(closed, key))

    def _join(self) -> None:
        if not self.plan.joins:
            return
        while (joined := self.features.joined(JOINED_AT_ONCE)) is not None:
            number, rows = joined
            self._overlapped.submit(rows.num_rows, partial(self._joins.write, number, rows))
        self.metrics.joins = self.features.join_counts()

    def _revise_if_due(self) -> None:
        due = self._clock.monotonic_s() - self._revised_s >= self.options.revision_interval_s
        if due or self.features.disturbances > _MOST_DISTURBANCES:
            self._revise_rows()

    def _revise_rows(self) -> None:
        self._revised_s = self._clock.monotonic_s()
        caught_up = self._replaying and all(s.finished or s.lag == 0 for s in self._sources.values())
        while (rows := self.features.revisions(REVISED_AT_ONCE)) is not None:
            self._overlapped.submit(rows.num_rows, partial(self._write_revisions, rows))
        if caught_up:
            # Whatever the lost run had read was read again before this look.
            self._replaying = False
            self.features.set_replaying(False)

    def _write_revisions(self, rows: Batch) -> None:
        revised = self._revise.revise(rows)
        self.metrics.revisions += rows.num_rows
        self.metrics.revisions_flipped += revised.flipped
        if revised.batch.num_rows and self._outputs.wanted(REVISIONS):
            self._outputs.write(REVISIONS, *self._revise.encode(revised.batch))

    def _adapt(self, records: int, elapsed_s: float) -> None:
        """Move the batch's limit towards what the latency budget allows, at most twofold at a time."""
        if records < self._batch_limit // 2:
            return
        fitting = int(records * self.options.latency_budget_ms / 1_000 / max(elapsed_s, 1e-6))
        limit = min(max(fitting, self._batch_limit // 2), self._batch_limit * 2)
        self._batch_limit = min(max(limit, _LEAST_BATCH_RECORDS), self.options.max_batch_records)

    def _idle(self) -> None:
        self.features.pass_time(self._clock.now_us())
        self._close_sessions()
        self._tell_matches()
        self._join()

    def _note_progress(self, *, last: bool = False) -> None:
        """Sample how far the streams are, some times a second: only this thread may look at the kernel's state."""
        now_s = self._clock.monotonic_s()
        if not last and now_s - self._noted_s < _PROGRESS_EVERY_S:
            return
        self._noted_s, now_us = now_s, self._clock.now_us()
        self.metrics.progress = {name: self.features.progress(name, now_us) for name in self._sources}

    def _commit_if_due(self) -> None:
        if self._uncommitted and self._clock.monotonic_s() - self._committed_s >= self.options.commit_interval_s:
            self._commit()

    def _commit(self) -> None:
        # What disturbed a row is known to this process only: its revision must be out before its offset is.
        self._revise_rows()
        self._overlapped.drain()
        if self._history is not None:
            self._note_watermarks(self._history)
            self._history.commit()
        self._outputs.flush()
        if self._checkpoints is None:
            self._commits.commit(self._clock.now_us(), self.features.waiting_since_us() if self._waits else None)
        self._committed_s = self._clock.monotonic_s()
        self._uncommitted = False

    def _checkpoint_if_due(self) -> None:
        if self._checkpoints is None:
            return
        self._checkpoints.settle(self._sources, self.metrics)
        if self._unchecked and self._checkpoints.due:
            self._commit()
            self._begin_checkpoint(self._checkpoints)

    def _begin_checkpoint(self, checkpoints: Checkpoints) -> None:
        remembered = {"alerted": self._stage.remembered_alerts(), "ended": sorted(self._done)}
        checkpoints.begin(self.plan, self._sources, self.metrics, remembered, self.features.snapshot)
        self.features.write_behind()
        self._unchecked = False

    def _last_checkpoint(self) -> None:
        """Leave the state of the end, so that the next run reads nothing again."""
        if self._checkpoints is None:
            return
        self._checkpoints.settle(self._sources, self.metrics, wait=True)
        if self._unchecked:
            self._begin_checkpoint(self._checkpoints)
            self._checkpoints.settle(self._sources, self.metrics, wait=True)

    def _note_watermarks(self, history: HistoryWriter) -> None:
        for name in self._sources:
            watermark_us = self.features.watermark_us(name)
            if watermark_us is not None:
                history.passed(name, watermark_us)

    @property
    def lag(self) -> int | None:
        """Records that wait at the sources, as far as they can tell."""
        known = [source.lag for source in self._sources.values()]
        told = [lag for lag in known if lag is not None]
        return sum(told) if told else None


@contextmanager
def _collector_at_rest() -> Iterator[None]:
    """Let the cyclic garbage collector start less often, for the length of a run.

    A micro-batch makes thousands of objects that no cycle holds and that die together. By default the collector would walk
    over the half-made batch several times: 5 % of the CPU, for nothing.
    """
    before = gc.get_threshold()
    gc.set_threshold(max(before[0], _COLLECT_AFTER_OBJECTS) if before[0] else 0, *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)


def _check_sources(plan: PipelinePlan, sources: Mapping[str, Source]) -> None:
    wanted = {stream.name for stream in plan.streams}
    if missing := sorted(wanted - set(sources)):
        raise ConfigurationError(
            f"pipeline {plan.name!r}: stream {missing[0]!r} has no source; give one, such as "
            f"--source {missing[0]}=<uri>."
        )
    if extra := sorted(set(sources) - wanted):
        raise ConfigurationError(
            f"pipeline {plan.name!r}: there is a source for {extra[0]!r}, and its streams are"
            f" {', '.join(sorted(wanted))}."
        )
