"""The loop: poll, take the step, commit what is there for good; when and how much is decided here, what it leads to in `flow`.

Batches adapt: a poll takes what is there, so one event at a low rate, and under load as many as the latency budget allows, by the
measured cost.
"""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager

import structlog

from gillnet.core.errors import ConfigurationError, StateError
from gillnet.core.messages import RawBatch
from gillnet.core.ports import PartitionedSource, Source, StateBackend, Transactions
from gillnet.core.time import Clock, SystemClock
from gillnet.observability.metrics import RunMetrics
from gillnet.operators.features import FeatureOperator
from gillnet.plan.nodes import PipelinePlan
from gillnet.runtimes.embedded.backlog import most_waiting, source_figures
from gillnet.runtimes.embedded.checkpoints import Checkpoints
from gillnet.runtimes.embedded.delivery import AtLeastOnce, Delivery, ExactlyOnce
from gillnet.runtimes.embedded.flow import Flow, Step
from gillnet.runtimes.embedded.journal import replay
from gillnet.runtimes.embedded.options import RuntimeOptions
from gillnet.runtimes.embedded.outputs import Outputs
from gillnet.runtimes.embedded.stages import Alert
from gillnet.serving.scorers import Scorer
from gillnet.stores.history import HistoryWriter

_log = structlog.get_logger("gillnet.run")

# Until a batch's cost is known; and the least, so that one slow batch does not bring the run down to single records.
_FIRST_BATCH_RECORDS, _LEAST_BATCH_RECORDS = 256, 16

_SMALL_BATCH_RECORDS = 64
# A turn of so many records makes the next one last twice as long as the least, and none lasts longer than so many times.
_GATHERED_RECORDS, _LONGEST_TURN = 8, 3

# Where more full batches than this wait at a source, latency is lost to the wait: what counts is to catch up, by batches that cost
# the least a record. On a busy machine the budget alone would bring them down to the least, and the run would never catch up.
_BEHIND_BATCHES = 10

_COLLECT_AFTER_OBJECTS = 100_000

# Events that came before others of their key: so many are followed up at once, whatever the interval.
_MOST_DISTURBANCES = 50_000

_PROGRESS_EVERY_S = 0.25


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
    transactions
        Which the outputs are written through, for exactly-once; None for at-least-once.
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
    StateError
        If the checkpoint is of another pipeline or version.

    Notes
    -----
    At-least-once per sink: after a crash, the steps since the last checkpoint are taken again, and their rows go out again; without
    checkpoints records since the last commit are processed again, with empty state. With transactions no row goes out again.
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
        transactions: Transactions | None = None,
        backend: StateBackend | None = None,
        on_alerts: Callable[[list[Alert]], None] | None = None,
        on_turn: Callable[[], None] | None = None,
    ) -> None:
        _check_sources(plan, sources)
        self.plan = plan
        self.options = options or RuntimeOptions()
        self.metrics = RunMetrics()
        self._backend = backend
        self._clock = clock or SystemClock()
        self._checkpoints = checkpoints
        self._outputs = outputs
        self._history = history
        self._transactions = transactions
        self._on_turn = on_turn
        # Other streams first: a payment should see the clicks that came with it.
        self._sources = dict(sorted(sources.items(), key=lambda item: item[0] == plan.root))
        self.flow = Flow(
            plan,
            checkpoints.restore(plan, sources, self.metrics) if checkpoints else FeatureOperator(plan, backend=backend),
            outputs=outputs,
            scorer=scorer,
            options=self.options,
            clock=self._clock,
            history=history,
            metrics=self.metrics,
            on_alerts=on_alerts,
            on_cost=self._adapt,
            note=self._note_step if checkpoints and checkpoints.journal else None,
        )
        self._writer = checkpoints.journal_writer() if checkpoints else None
        self._delivery = self._guarantee()
        self._largest_poll, self._more_waits = 0, False
        self._batch_limit = min(_FIRST_BATCH_RECORDS, self.options.max_batch_records)
        self._committed_s = self._revised_s = self._noted_s = self._clock.monotonic_s()
        self._uncommitted = self._unchecked = False
        self._done: set[str] = set()
        self._partitioned = {name: s for name, s in self._sources.items() if isinstance(s, PartitionedSource)}
        self._assigned: dict[str, frozenset[int]] = {}

    def _guarantee(self) -> Delivery:
        if self._transactions is not None:
            if (
                self._writer is None
                or self._checkpoints is None
                or self._checkpoints.journal is not self._transactions.journal
            ):
                raise ConfigurationError(
                    f"pipeline {self.plan.name!r}: exactly-once needs checkpoints whose journal is that of the transactions."
                )
            return ExactlyOnce(
                self._transactions,
                self.flow.overlapped,
                self._sources,
                clock=self._clock,
                writer=self._writer,
                metrics=self.metrics,
                interval_ms=self.options.transaction_interval_ms,
            )
        return AtLeastOnce(
            self._outputs,
            self.flow.overlapped,
            self._sources.values(),
            clock=self._clock,
            writer=self._writer,
            waiting_since_us=lambda: self.features.waiting_since_us() if self.flow.waits else None,
        )

    def _note_step(self, step: Step) -> None:
        self._delivery.note(step)

    @property
    def features(self) -> FeatureOperator:
        """The state; only the loop's thread may look at it."""
        return self.flow.features

    def run(self, stop: threading.Event | None = None) -> RunMetrics:
        """Run until every source is finished or ``stop`` is set; then finish what was read, flush, commit and close."""
        stop = stop or threading.Event()
        with _collector_at_rest():
            return self._run(stop)

    def _run(self, stop: threading.Event) -> RunMetrics:
        try:
            if self._go_on(stop):
                self._live(stop)
        except BaseException:
            try:
                self.close()
            except Exception as error:  # The first error is the cause, and the one to tell.
                _log.warning("not everything could be closed", reason=str(error))
            raise
        self.close()
        return self.metrics

    def _live(self, stop: threading.Event) -> None:
        while not stop.is_set() and len(self._done) < len(self._sources) and not self._full():
            began_s = self._clock.monotonic_s()
            if not self._turn():
                self.flow.pass_time(self._clock.now_us())
            else:
                self._let_gather(began_s)
            self.flow.release(self._clock.now_us())
            self._revise_if_due()
            self._delivery.turn(busy=self._more_waits)
            self._commit_if_due()
            self._checkpoint_if_due()
            self._note_progress()
            if self._on_turn is not None:
                self._on_turn()
        self.flow.release(self._clock.now_us(), everything=True)
        self._commit()
        self._last_checkpoint()
        self._note_progress(last=True)

    def _go_on(self, stop: threading.Event) -> bool:
        """Come to where the last run stood, if there was one; False if it was stopped on the way."""
        checkpoints = self._checkpoints
        if checkpoints is None:
            return True
        restored = checkpoints.restored
        if restored is not None:
            self.flow.remember(restored.counts)
        behind = checkpoints.replay()
        if self._writer is not None:
            if behind is None:
                self._begin_journal(checkpoints)
            else:
                # With transactions, what these steps led to is visible already, all of it.
                self._outputs.muted = self._transactions is not None
                if not replay(self.flow, self._sources, behind, stopped=stop.is_set):
                    return False
                self._outputs.muted = False
                self._writer.sequence = behind.sequence
                self._uncommitted = self._unchecked = behind.records > 0
        if restored is not None:
            self.flow.resume(self._clock.now_us())
            if behind is None or not behind.whole:
                # The lost run may have said something of which nothing is known.
                self.flow.repeat(True)
        return True

    def _begin_journal(self, checkpoints: Checkpoints) -> None:
        """Take a checkpoint that the journal goes on from, before the first step."""
        self._begin_checkpoint(checkpoints)
        checkpoints.settle(self._sources, self.metrics, wait=True)
        if not self.metrics.checkpoints:
            raise StateError(
                f"pipeline {self.plan.name!r}: the first checkpoint was not written, so the run could not go on after a crash: see the "
                "error above. Mend the place of checkpoints, or run without one."
            )

    def close(self) -> None:
        """Close the sources, then flush and close the sinks: each of them, whatever another one raises. `run` does that itself."""
        with ExitStack() as closing:
            if self._transactions is not None:
                closing.callback(self._transactions.close)
            closing.callback(self._outputs.close)
            if self._backend is not None:
                closing.callback(self._backend.close)
            if self._history is not None:
                closing.callback(self._history.close)
            closing.callback(self.flow.overlapped.close)
            if self._checkpoints is not None:
                closing.callback(self._checkpoints.close)
            for source in self._sources.values():
                closing.callback(source.close)

    def _let_gather(self, began_s: float) -> None:
        """Let records gather for the next turn while turns are small: a little longer, the more this one had."""
        if self._largest_poll >= _SMALL_BATCH_RECORDS:
            return
        self._outputs.hurry()
        longer = 1 + min(_LONGEST_TURN - 1, self._largest_poll / _GATHERED_RECORDS)
        rest_s = longer * self.options.turn_ms / 1_000 - self._clock.monotonic_s() + began_s
        if rest_s > 0:  # A sleep of nothing gives the core away all the same.
            self._clock.sleep(rest_s)

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
        self._largest_poll, self._more_waits = 0, False
        alone, came = len(self._sources) - len(self._done) == 1, False
        for name, source in self._sources.items():
            if name in self._done:
                continue
            wait_s = 0.05 if alone else (0.002 if name == self.plan.root and not came else 0.0)
            most = self._most(name)
            raw = source.poll(most, wait_s)
            if raw is not None:
                came = True
                self._more_waits |= len(raw.values) >= most
                self._largest_poll = max(self._largest_poll, len(raw.values))
                self._process(raw)
            elif source.finished:
                self._finish(name)
        return came

    def _finish(self, stream: str) -> None:
        self._done.add(stream)
        self._unchecked = True
        self.flow.finish(stream)

    def _process(self, raw: RawBatch) -> None:
        self._uncommitted = self._unchecked = True
        self._register_partitions(raw.stream, raw.arrival_time_us)
        self.flow.take(raw)

    def _register_partitions(self, stream: str, now_us: int) -> None:
        source = self._partitioned.get(stream)
        assigned = frozenset() if source is None else source.partitions
        if assigned == self._assigned.get(stream):
            return
        if new := sorted(assigned - self._assigned.get(stream, frozenset())):
            self.flow.register(stream, new, now_us)
        self._assigned[stream] = assigned

    def _revise_if_due(self) -> None:
        due = self._clock.monotonic_s() - self._revised_s >= self.options.revision_interval_s
        if due or self.features.disturbances > _MOST_DISTURBANCES:
            self._revise_rows()

    def _revise_rows(self) -> None:
        self._revised_s = self._clock.monotonic_s()
        caught_up = self.flow.repeating and all(s.finished or s.lag == 0 for s in self._sources.values())
        self.flow.look()
        if caught_up:
            # Whatever the lost run had read was read again before this look.
            self.flow.repeat(False)

    def _adapt(self, records: int, elapsed_s: float) -> None:
        """Move the batch's limit towards what the latency budget allows, at most twofold at a time."""
        if records < self._batch_limit // 2:
            return
        fitting = int(records * self.options.latency_budget_ms / 1_000 / max(elapsed_s, 1e-6))
        if most_waiting(self.metrics.sources) > _BEHIND_BATCHES * self.options.max_batch_records:
            fitting = self.options.max_batch_records
        limit = min(max(fitting, self._batch_limit // 2), self._batch_limit * 2)
        self._batch_limit = min(max(limit, _LEAST_BATCH_RECORDS), self.options.max_batch_records)

    def _note_progress(self, *, last: bool = False) -> None:
        """Sample how far the streams are, some times a second: only this thread may look at the kernel's state."""
        now_s = self._clock.monotonic_s()
        if not last and now_s - self._noted_s < _PROGRESS_EVERY_S:
            return
        self._noted_s, now_us = now_s, self._clock.now_us()
        self.metrics.progress = {name: self.features.progress(name, now_us) for name in self._sources}
        self.metrics.sources, self.metrics.sinks = source_figures(self._sources), self._outputs.figures()
        self.metrics.backend = self.features.backend_figures()

    def _commit_if_due(self) -> None:
        # Transactions commit by themselves; only the history waits for this then.
        wanted = self._uncommitted and (self._transactions is None or self._history is not None)
        if wanted and self._clock.monotonic_s() - self._committed_s >= self.options.commit_interval_s:
            self._commit()

    def _commit(self) -> None:
        # What disturbed a row is known to this process only: its revision must be out before its offset is.
        self._revise_rows()
        self.flow.drain()
        if self._history is not None:
            self.flow.note_watermarks(self._history)
            self._history.commit()
        self._delivery.commit()
        if self._checkpoints is None or self._transactions is not None:
            self._delivery.settle()
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
        remembered = {**self.flow.remembered(), "ended": sorted(self._done)}
        checkpoints.begin(
            self.plan, self._sources, self.metrics, remembered, self.features.write_snapshot, self._writer
        )
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
