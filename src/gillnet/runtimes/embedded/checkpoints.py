"""Checkpoints of a run: when one is due, what belongs to its cut, and how a run goes on from one (I5).

A cut lies between two micro-batches, after every row of what was read is there for good; so what a checkpoint holds was never
lost. What came behind it is in the journal (`gillnet.runtimes.embedded.journal`), or is read again from the sources.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import structlog

from gillnet.core.errors import ConfigurationError, DefinitionChangedError, FencedError, StateError
from gillnet.core.ports import Journal, MarkingSource, ReplayableSource, Source, StateBackend
from gillnet.core.time import Clock, SystemClock
from gillnet.observability.metrics import RunMetrics
from gillnet.operators.features import FeatureOperator
from gillnet.plan.nodes import PipelinePlan
from gillnet.plan.serde import dumps, loads
from gillnet.plan.upgrade import compare
from gillnet.runtimes.embedded.journal import JournalWriter, Replay
from gillnet.state.checkpoints import Checkpoint, CheckpointStore
from gillnet.state.warming import still_warming, warming_words
from gillnet.state.writing import CheckpointWriter, Taken

_log = structlog.get_logger("gillnet.run")


class Checkpoints:
    """The checkpoints of one run, which becomes the owner of their place.

    Parameters
    ----------
    store
        Where they are kept.
    interval_s
        How often one is taken, where something has come since the last.
    in_background
        Write them beside the run.
    journal
        Where the steps behind the newest one are noted; None for none: what came behind it is then read again, in other batches.
    backend
        The run's state backend, whose keys are part of each; None for all state in memory.

    Attributes
    ----------
    restored
        The checkpoint from which this run goes on; None for a run that begins with empty state.
    started_us
        When the state was empty.
    warming
        The features that are warming since an upgrade, as `Checkpoint` has them.

    Raises
    ------
    StateError
        If the place cannot be read or written, or holds checkpoints and none that is whole.
    """

    def __init__(
        self,
        store: CheckpointStore,
        *,
        interval_s: float = 30.0,
        in_background: bool = True,
        journal: Journal | None = None,
        clock: Clock | None = None,
        backend: StateBackend | None = None,
    ) -> None:
        self.journal = journal
        self._clock = clock or SystemClock()
        self._interval_s = interval_s
        self._backend = backend
        store.own()
        self._kept = deque(sorted(store.checkpoints(), key=lambda known: known.number), maxlen=store.keep)
        found = store.latest(backend)
        self.restored: Checkpoint | None = found[0] if found else None
        self._state = found[1] if found else b""
        self.started_us = self.restored.started_us if self.restored else self._clock.now_us()
        self._writer = CheckpointWriter(store, in_background=in_background, clock=clock, backend=backend)
        self._begun_s = self._clock.monotonic_s()
        self._place = store.place
        self._cut: Mapping[str, Any] = self.restored.journal if self.restored else {}
        self.warming: Mapping[str, int | None] = {}

    def journal_writer(self) -> JournalWriter | None:
        """Return what notes the steps of this run."""
        if self.journal is None:
            return None
        return JournalWriter(
            self.journal, run=self.started_us, sequence=int(self._cut.get("sequence", 0)), together=self.journal.strict
        )

    def replay(self) -> Replay | None:
        """Return the steps that the journal has behind the cut; None where no journal of this kind goes on from there."""
        if self.journal is None or self._cut.get("kind") != self.journal.kind:
            return None
        upgraded = self.restored is not None and self.restored.upgraded
        return Replay(self.journal, run=self.started_us, cut=self._cut, upgraded=upgraded)

    def restore(self, plan: PipelinePlan, sources: Mapping[str, Source], metrics: RunMetrics) -> FeatureOperator:
        """Bring the sources and the figures to the cut, and return the operator with the state of then.

        Raises
        ------
        ConfigurationError
            If a source's records cannot be read again, so that nothing could go on from a checkpoint.
        StateError
            If the state is of another pipeline or version.
        """
        for stream, source in sources.items():
            if not isinstance(source, ReplayableSource):
                raise ConfigurationError(
                    f"Stream {stream!r}: {source!r} cannot be read again from a place in it, so a run cannot go on from a checkpoint; "
                    "read from a topic or a file, or run without checkpoints."
                )
        if self.restored is None:
            for source in sources.values():
                assert isinstance(source, ReplayableSource)
                source.start_at({})
            return FeatureOperator(plan, backend=self._backend)
        if self.restored.pipeline != plan.name:
            raise StateError(
                f"Checkpoints {self._place}: they are of the pipeline {self.restored.pipeline!r}, and this is {plan.name!r}; "
                "name a place of its own for each pipeline."
            )
        operator = self._operator(plan, self.restored)
        self._state = b""
        for stream, source in sources.items():
            assert isinstance(source, ReplayableSource)
            source.start_at(self.restored.marks.get(stream, {}))
        metrics.restore(self.restored.counts)
        _log.info(
            "going on from a checkpoint",
            checkpoint=self.restored.number,
            taken_ago_s=round((self._clock.now_us() - self.restored.taken_us) / 1_000_000, 1),
            state_bytes=self.restored.bytes,
        )
        self.warming = still_warming(self.restored, plan.stream(plan.root), operator.watermark_us(plan.root))
        metrics.warming = self.warming
        if self.warming:
            _log.warning("features are warming since an upgrade", complete_from=warming_words(self.warming))
        if ended := self.restored.counts.get("ended"):
            _log.warning("the input of these streams had ended, so what comes now is too late", streams=ended)
        return operator

    def _operator(self, plan: PipelinePlan, checkpoint: Checkpoint) -> FeatureOperator:
        try:
            return FeatureOperator.restored(plan, self._state, backend=self._backend)
        except DefinitionChangedError as error:
            if not checkpoint.plan:
                raise
            found = [part for part in compare(loads(checkpoint.plan), plan) if part.outcome != "kept"]
            told = "; ".join(map(str, found)) or "the order of its parts, or the columns that its rules read"
            raise StateError(
                f"Checkpoints {self._place}: the definition of {plan.name!r} is another than that of checkpoint {checkpoint.number}: "
                f"{told}. To go on from its state, run `gillnet upgrade APP --from {self._place}` once (with --dry-run it "
                "only says what becomes of each); or put the old definition back, or name an empty place to begin with empty state."
            ) from error

    @property
    def due(self) -> bool:
        """Whether it is time for one, and none is under way."""
        return not self._writer.busy and self._clock.monotonic_s() - self._begun_s >= self._interval_s

    def begin(
        self,
        plan: PipelinePlan,
        sources: Mapping[str, Source],
        metrics: RunMetrics,
        remembered: Mapping[str, Any],
        write: Callable[[Path], None],
        writer: JournalWriter | None = None,
    ) -> None:
        """Begin a checkpoint of the run as it is now; everything that it wrote must be there for good."""
        self._begun_s = self._clock.monotonic_s()
        marks = {name: dict(source.mark()) for name, source in sources.items() if isinstance(source, ReplayableSource)}
        checkpoint = Checkpoint(
            number=self._writer.next_number(),
            taken_us=self._clock.now_us(),
            started_us=self.started_us,
            pipeline=plan.name,
            marks=marks,
            counts={**metrics.counts(), **remembered},
            plan=dumps(plan),
            journal={} if writer is None else writer.cut(),
            warming=self.warming,
        )
        self._attempt(metrics, lambda: self._writer.begin(checkpoint, write))

    def settle(self, sources: Mapping[str, Source], metrics: RunMetrics, *, wait: bool = False) -> None:
        """Note a checkpoint that has become complete, and commit the offsets of its cut.

        Not before: where there is no checkpoint to go on from, a run begins at the committed offsets with empty state.
        One that fails is told and counted, and the run goes on: the one before it holds.

        Raises
        ------
        FencedError
            If another run owns the place.
        """
        taken = self._attempt(metrics, lambda: self._writer.settle(wait=wait))
        if taken is None:
            return
        if (
            self.journal is None or not self.journal.strict
        ):  # A strict one has them in its transactions, and further on.
            for stream, mark in taken.checkpoint.marks.items():
                if isinstance(source := sources[stream], MarkingSource):
                    source.commit_to(mark)
        self._forget(taken.checkpoint)
        metrics.checkpoints += 1
        metrics.checkpoint = {
            "number": taken.checkpoint.number,
            "bytes": taken.checkpoint.bytes,
            "written_bytes": taken.written_bytes,
            "paused_ms": round(taken.paused_ms, 3),
            "wrote_ms": round(taken.wrote_ms, 3),
            "took_ms": round(taken.took_ms, 3),
            "taken_us": taken.checkpoint.taken_us,
        }
        _log.info("checkpoint complete", **{k: v for k, v in metrics.checkpoint.items() if k != "taken_us"})

    def _forget(self, complete: Checkpoint) -> None:
        """Let go of the journal before the oldest checkpoint that is kept."""
        self._kept.append(complete)
        if self.journal is None:
            return
        cuts = [known.journal for known in self._kept if known.journal.get("kind") == self.journal.kind]
        if cuts:
            self.journal.forget(min(int(cut["position"]) for cut in cuts))

    def close(self) -> None:
        """Give up what is under way."""
        self._writer.close()
        if self.journal is not None:
            self.journal.close()

    def _attempt(self, metrics: RunMetrics, work: Callable[[], Taken | None]) -> Taken | None:
        try:
            return work()
        except FencedError:
            raise
        except StateError as error:
            metrics.checkpoints_failed += 1
            _log.error("checkpoint failed, the one before it holds", reason=str(error))
            return None
