"""When what a run wrote is there for good: the two guarantees, and what each does at a commit.

*At-least-once*: outputs leave as they are written. A commit waits until every sink has them, then lets the sources know.
*Exactly-once*: outputs become visible together with the journal of what led to them, in short transactions. The sources are told
afterwards, for those who watch how far they are: a run goes on from the journal.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Protocol

from gillnet.core.ports import MarkingSource, Source, Transactions
from gillnet.core.time import Clock
from gillnet.observability.metrics import RunMetrics
from gillnet.runtimes.embedded.commits import Commits
from gillnet.runtimes.embedded.flow import Step
from gillnet.runtimes.embedded.journal import JournalWriter
from gillnet.runtimes.embedded.outputs import Outputs
from gillnet.runtimes.embedded.overlap import OverlappedStage

_SHARE_WHEN_BUSY = 4
"""While records wait at the sources, a transaction lasts at least so many times as long as the commit before took: what it
costs is then a fifth of the time at the most."""

_TELL_EVERY_S = 1.0


class Delivery(Protocol):
    """A guarantee."""

    def note(self, step: Step) -> None:
        """Note a step that was taken, before what follows from it is submitted."""
        ...

    def turn(self, *, busy: bool) -> None:
        """Do what is due after a turn of the loop; ``busy`` while records wait."""
        ...

    def commit(self) -> None:
        """Return when everything written so far is there for good."""
        ...

    def settle(self) -> None:
        """Let the sources know that everything they gave is done with; after `commit`."""
        ...


class AtLeastOnce:
    """Outputs leave as they are written.

    Parameters
    ----------
    outputs, overlapped
        What was written, and what may not be written yet.
    sources
        Those that are told; none where a checkpoint tells them.
    writer
        Notes steps; None where no run will go on.
    waiting_since_us
        Gives the arrival of the row that has waited longest; None where none waits.
    """

    def __init__(
        self,
        outputs: Outputs,
        overlapped: OverlappedStage,
        sources: Collection[Source],
        *,
        clock: Clock,
        writer: JournalWriter | None,
        waiting_since_us: Callable[[], int | None],
    ) -> None:
        self._outputs = outputs
        self._overlapped = overlapped
        self._commits = Commits(sources)
        self._clock = clock
        self._writer = writer
        self._waiting_since_us = waiting_since_us

    def note(self, step: Step) -> None:
        """Note a step."""
        if self._writer is not None:
            self._writer.note(step)

    def turn(self, *, busy: bool) -> None:
        """Do nothing."""

    def commit(self) -> None:
        """Return when every sink has what was written."""
        self._overlapped.drain()
        if self._writer is not None:
            self._writer.journal.sync()
        self._outputs.flush()

    def settle(self) -> None:
        """Commit the sources, not beyond a row that waits before it is computed."""
        self._commits.commit(self._clock.now_us(), self._waiting_since_us())


class ExactlyOnce:
    """Outputs and journal become visible together.

    Parameters
    ----------
    transactions
        Which the outputs are written through.
    writer
        Notes steps in the transactions' journal.
    metrics
        Told of every commit.
    interval_ms
        How long a transaction lasts at least; longer while records wait at the sources, see the notes.

    Notes
    -----
    A transaction is committed on the thread that writes, while the next steps are taken. At a low rate it is as short as
    ``interval_ms`` and the broker allow, so that rows are visible soon; under load it is long enough that commits cost a fifth
    of the time at the most.
    """

    def __init__(
        self,
        transactions: Transactions,
        overlapped: OverlappedStage,
        sources: Mapping[str, Source],
        *,
        clock: Clock,
        writer: JournalWriter,
        metrics: RunMetrics,
        interval_ms: float,
    ) -> None:
        self._transactions = transactions
        self._overlapped = overlapped
        self._sources = [source for source in sources.values() if isinstance(source, MarkingSource)]
        self._committed_marks: list[object] = []
        self._clock = clock
        self._writer = writer
        self._metrics = metrics
        self._interval_s = interval_ms / 1_000
        self._under_way = False
        self._took_s = 0.0
        self._ended_s = self._told_s = clock.monotonic_s()

    def note(self, step: Step) -> None:
        """Note a step; it is kept with the transaction."""
        self._writer.note(step)

    def turn(self, *, busy: bool) -> None:
        """Commit the transaction, if it has lasted long enough and none is being committed."""
        if self._committed_marks and self._clock.monotonic_s() - self._told_s >= _TELL_EVERY_S:
            self.settle()
        if not self._writer.waiting or self._under_way:
            return
        least_s = max(self._interval_s, self._took_s * _SHARE_WHEN_BUSY) if busy else self._interval_s
        if self._clock.monotonic_s() - self._ended_s >= least_s:
            self._submit()

    def commit(self) -> None:
        """Return when everything written so far is visible."""
        if self._writer.waiting:
            self._submit()
        self._overlapped.drain()

    def settle(self) -> None:
        """Let the sources know of what is visible, as of the last commit that was begun before."""
        self._told_s = self._clock.monotonic_s()
        marks, self._committed_marks = self._committed_marks, []
        for source, mark in zip(self._sources, marks, strict=False):
            source.commit_to(mark)

    def _submit(self) -> None:
        self._under_way = True
        record = self._writer.record()
        marks = [source.mark() for source in self._sources]
        self._overlapped.submit_large(lambda: self._commit(record, marks))

    def _commit(self, record: bytes, marks: list[object]) -> None:
        began_s = self._clock.monotonic_s()
        self._transactions.journal.append(record)
        self._transactions.commit()
        self._committed_marks = marks
        self._ended_s = self._clock.monotonic_s()
        self._took_s = self._ended_s - began_s
        self._metrics.transaction_commit_ms.add(self._took_s * 1_000)
        self._under_way = False
