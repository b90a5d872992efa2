"""The half of a run that a clock, a poll or a crash does not touch: steps in, rows out, the same for the same steps.

A run is a sequence of steps: a micro-batch, the passing of time, a look at rows that changed. Which steps there are, and when,
is decided by the loop (`gillnet.runtimes.embedded.runtime`), which lives in real time. What they lead to is decided here,
by the steps and their order alone; so a run that goes on after a crash can take the same ones again and come to the same
rows (`gillnet.runtimes.embedded.journal`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from gillnet._kernel import Batch
from gillnet.core.messages import RawBatch
from gillnet.core.time import Clock
from gillnet.observability.metrics import RunMetrics, StreamCounts
from gillnet.operators.decode import Decoded, Malformed, malformed_records, stream_decoder
from gillnet.operators.encode import EncodeOperator, record_keys
from gillnet.operators.features import ARRIVAL_TIME, FeatureOperator, Outcome
from gillnet.operators.records import session_encoder
from gillnet.plan.nodes import PipelinePlan
from gillnet.runtimes.embedded.joins import JOINED_AT_ONCE, JoinStage
from gillnet.runtimes.embedded.keeping import keep_accepted
from gillnet.runtimes.embedded.matches import MATCHES, MatchStage
from gillnet.runtimes.embedded.options import RuntimeOptions
from gillnet.runtimes.embedded.outputs import Outputs
from gillnet.runtimes.embedded.overlap import HAND_OVER_RECORDS, OverlappedStage
from gillnet.runtimes.embedded.revisions import REVISED_AT_ONCE, REVISIONS, RevisionStage
from gillnet.runtimes.embedded.stages import Alert, ScoringStage
from gillnet.serving.scorers import Scorer
from gillnet.stores.history import HistoryWriter

Step = list[Any]
"""The name of a step, and what it is taken with, as JSON has it."""

OnCost = Callable[[int, float], None]
"""Called with a batch's records and the seconds that were spent on it, on the thread that wrote it."""

_SET_ASIDE: dict[int, tuple[str, str]] = {
    Outcome.DUPLICATE: ("duplicate", "a record with this id was read before"),
    Outcome.TOO_LATE: ("too_late", "further behind the watermark than the allowed lateness"),
    Outcome.BEFORE_EARLIEST: ("event_time_too_early", "before the stream's earliest event time"),
    Outcome.AHEAD_OF_ARRIVAL: ("event_time_ahead", "too far ahead of its arrival"),
    Outcome.LATE: ("late", "behind the watermark, inside the allowed lateness"),
}


class Flow:
    """Takes the steps of a run.

    Parameters
    ----------
    plan
        The pipeline's plan.
    features
        Its state.
    outputs, scorer, options, history, metrics
        As for `gillnet.runtimes.embedded.EmbeddedRuntime`.
    clock
        Tells how long rows took; decides nothing.
    on_alerts
        Called with each batch's alerts.
    on_cost
        Called with what each batch took.
    note
        Called with each step that changes something, before anything that follows from it is written.

    Attributes
    ----------
    features
        The state. Only the thread that takes the steps may look at it.
    overlapped
        What scores and writes beside the next step.
    repeating
        Whether `repeat` holds.
    replaying
        While the steps are those of a lost run, they are not noted again, and nothing is said of how long they took.
    """

    def __init__(
        self,
        plan: PipelinePlan,
        features: FeatureOperator,
        *,
        outputs: Outputs,
        scorer: Scorer | None,
        options: RuntimeOptions,
        clock: Clock,
        history: HistoryWriter | None,
        metrics: RunMetrics,
        on_alerts: Callable[[list[Alert]], None] | None,
        on_cost: OnCost,
        note: Callable[[Step], None] | None = None,
    ) -> None:
        self.plan = plan
        self.features = features
        self.metrics = metrics
        self.overlapped = OverlappedStage(HAND_OVER_RECORDS if options.overlap else None)
        self.replaying = self.repeating = False
        self.waits = plan.emission.kind != "on_arrival"
        self._outputs = outputs
        self._history = history
        self._clock = clock
        self._on_alerts = on_alerts
        self._on_cost = on_cost
        self._note_step = note
        self._top_reasons = options.top_reasons
        self._decoders = {stream.name: stream_decoder(plan, stream.name) for stream in plan.streams}
        self._emit_all = (options.emit or ("flagged" if plan.sessions else "all")) == "all"
        self._stage = ScoringStage(plan, features, scorer, top_reasons=options.top_reasons, detail=options.detail)
        self._revise = RevisionStage(plan, scorer, emit_all=self._emit_all)
        self._matches = MatchStage(plan)
        self._joins = JoinStage(plan, outputs)
        self._session_encoder: EncodeOperator | None = None

    # Steps

    def register(self, stream: str, partitions: Sequence[int], now_us: int) -> None:
        """Let assigned partitions hold the watermark, before the first record of the fastest one can move it."""
        self._note(["register", stream, list(partitions), now_us])
        for partition in partitions:
            self.features.register_partition(stream, partition, now_us)

    def take(self, raw: RawBatch) -> None:
        """Take a micro-batch."""
        if self._note_step is not None and not self.replaying:
            self._note_step(["batch", raw.stream, raw.arrival_time_us, raw.stretch()])
        began = self._clock.monotonic_s()
        counts = self.metrics.stream(raw.stream)
        counts.read += len(raw.values)
        decoded = self._decoders[raw.stream].decode(raw)
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
            self.overlapped.submit(processed.rows.num_rows, emit)
        else:
            self._on_cost(len(raw.values), spent_s)
        self._tell()

    def pass_time(self, now_us: int) -> bool:
        """Let silent partitions fall idle; whether that changed anything."""
        changed = self.features.pass_time(now_us)
        if changed:
            self._note(["time", now_us])
            self._tell()
        return changed

    def release(self, now_us: int, *, everything: bool = False) -> bool:
        """Let rows go that have waited for the watermark, for another stream, or long enough; whether any did."""
        if not self.waits or (rows := self.features.release(now_us, everything=everything)) is None:
            return False
        self._note(["release", now_us, everything])
        self.overlapped.submit(rows.num_rows, partial(self._emit, rows, now_us, 0, 0.0))
        return True

    def look(self) -> bool:
        """Compute again the rows that later arrivals have disturbed; whether there were such arrivals."""
        disturbed = self.features.disturbances > 0
        if disturbed:
            self._note(["look"])
        while (rows := self.features.revisions(REVISED_AT_ONCE)) is not None:
            self.overlapped.submit(rows.num_rows, partial(self._write_revisions, rows))
        return disturbed

    def finish(self, stream: str) -> None:
        """Note that a bounded stream has ended."""
        self._note(["finish", stream])
        self.features.finish(stream)
        if self._history is not None:
            self.overlapped.submit(0, partial(self._history.end, stream, self.metrics.batches))
        self._tell()

    def resume(self, now_us: int) -> None:
        """Go on at processing time ``now_us`` after the run was away: nobody was silent meanwhile."""
        self._note(["resume", now_us])
        self.features.resume(now_us)

    def repeat(self, repeating: bool) -> None:
        """Say every row again that an event disturbs, changed or not, while what the lost run may have said of it is not known."""
        self._note(["repeat", repeating])
        self.repeating = repeating
        self.features.set_replaying(repeating)

    def _note(self, step: Step) -> None:
        if self._note_step is not None and not self.replaying:
            self._note_step(step)

    # What a step leads to

    def _tell(self) -> None:
        self._close_sessions()
        self._tell_matches()
        self._join()

    def _keep(self, raw: RawBatch, decoded: Decoded, outcomes: bytes, partitions: Sequence[int]) -> None:
        if self._history is not None and outcomes:
            number = self.metrics.batches
            keep = partial(keep_accepted, self._history, raw, decoded, outcomes, partitions, number)
            self.overlapped.submit(len(outcomes), keep)

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
            if records and kind != "late":
                counts.reasons.update(record.reason for record in records)
            self._write_aside(raw, kind, records)

    def _write_aside(self, raw: RawBatch, kind: str, records: list[Malformed]) -> None:
        def write() -> None:
            name = f"{raw.stream}.{kind}"
            if self._outputs.wanted(name):
                self._outputs.write_records(name, malformed_records(raw, records))

        if records:
            self.overlapped.submit(len(records), write)

    def _emit(self, rows: Batch, arrival_us: int, records: int, spent_s: float) -> None:
        """Score, decide and write rows: of a batch of ``records``, on which ``spent_s`` were spent before."""
        began = self._clock.monotonic_s()
        scored = self._stage.score(rows)
        alerts = self._stage.new_alerts(scored)
        if self._top_reasons and alerts and not self._outputs.muted:
            scored = self._stage.explain(scored)
        for decision, count in scored.counts.items():
            self.metrics.decisions[decision] += count
        if self._outputs.wanted("decisions"):
            chosen = scored.batch if self._emit_all else scored.batch.take(scored.flagged)
            self._outputs.write("decisions", *self._stage.encode(chosen))
        if alerts:
            self.metrics.alerts += len(alerts)
            if self._outputs.wanted("alerts"):
                self._outputs.write("alerts", *self._stage.encode(scored.batch.take(alerts)))
            if self._on_alerts is not None and not self._outputs.muted:
                self._on_alerts(self._stage.alerts(scored.batch, alerts))
        if not self.replaying:
            self._note_latency(rows, arrival_us)
        self._on_cost(records, spent_s + self._clock.monotonic_s() - began)

    def _note_latency(self, rows: Batch, arrival_us: int) -> None:
        now_us = self._clock.now_us()
        if not self.waits:
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
            self.overlapped.submit(closed.num_rows, partial(self._write_sessions, closed, self.plan.sessions.key))

    def _write_sessions(self, closed: Batch, key: str) -> None:
        if not self._outputs.wanted("sessions"):
            return
        if self._session_encoder is None:
            self._session_encoder = session_encoder(self.plan, closed.column_names)
        self._outputs.write("sessions", self._session_encoder.encode(closed), record_keys(closed, key))

    def _tell_matches(self) -> None:
        while self._matches.wanted and (rows := self.features.matches()) is not None:
            self.overlapped.submit(rows.num_rows, partial(self._write_matches, rows))

    def _write_matches(self, rows: Batch) -> None:
        withdrawn = self._matches.withdrawn(rows)
        self.metrics.matches += rows.num_rows - withdrawn
        self.metrics.matches_withdrawn += withdrawn
        if self._outputs.wanted(MATCHES):
            self._outputs.write(MATCHES, *self._matches.encode(rows))

    def _join(self) -> None:
        if not self.plan.joins:
            return
        while (joined := self.features.joined(JOINED_AT_ONCE)) is not None:
            number, rows = joined
            self.overlapped.submit(rows.num_rows, partial(self._joins.write, number, rows))
        self.metrics.joins = self.features.join_counts()

    def _write_revisions(self, rows: Batch) -> None:
        revised = self._revise.revise(rows)
        self.metrics.revisions += rows.num_rows
        self.metrics.revisions_flipped += revised.flipped
        if revised.batch.num_rows and self._outputs.wanted(REVISIONS):
            self._outputs.write(REVISIONS, *self._revise.encode(revised.batch))

    # What a checkpoint keeps of it, beside the state

    def remembered(self) -> dict[str, object]:
        """Return what decides later rows and is not in the kernel's state, as JSON has it."""
        return {"alerted": self._stage.remembered_alerts(), "repeating": self.repeating}

    def remember(self, remembered: Mapping[str, Any]) -> None:
        """Take what `remembered` returned."""
        self._stage.remember_alerts(remembered.get("alerted", []))
        self.repeating = bool(remembered.get("repeating"))
        self.features.set_replaying(self.repeating)

    # Between steps

    def drain(self) -> None:
        """Return when everything that the steps so far led to is written."""
        self.overlapped.drain()

    def note_watermarks(self, history: HistoryWriter) -> None:
        """Let the history know how far the streams are."""
        for stream in self.plan.streams:
            watermark_us = self.features.watermark_us(stream.name)
            if watermark_us is not None:
                history.passed(stream.name, watermark_us)
