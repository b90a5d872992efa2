"""What decided the outcomes of a run, written down, so that a run that goes on takes the very same steps again (I2, I5).

State is a function of the steps and their order: which records came in one micro-batch and when, when partitions fell silent, when
rows that changed were looked at. After a crash none of that would be the same: the broker gives other batches, the clock is
another. So each step that changes something is noted as it is taken, before anything that follows from it leaves the process,
or together with it. A run that goes on restores a checkpoint and takes the noted steps behind it; then it stands where the lost
run stood, to the bit, and has said what that one said.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any, cast

import structlog

from gillnet.core.errors import StateError
from gillnet.core.messages import Stretch
from gillnet.core.ports import Journal, ReplayableSource, Source
from gillnet.runtimes.embedded.flow import Flow, Step

_log = structlog.get_logger("gillnet.run")


def take(flow: Flow, sources: Mapping[str, Source], step: Step) -> None:
    """Take a step that was noted.

    Raises
    ------
    SourceError
        If the records of a batch are no longer there.
    StateError
        If there is no such step.
    """
    match step:
        case ["batch", stream, arrival_us, stretch]:
            source = cast(ReplayableSource, sources[stream])
            runs: Stretch = [(partition, begin, end) for partition, begin, end in stretch]
            flow.take(source.replay(runs, arrival_us))
        case ["register", stream, partitions, now_us]:
            flow.register(stream, partitions, now_us)
        case ["time", now_us]:
            flow.pass_time(now_us)
        case ["release", now_us, everything]:
            flow.release(now_us, everything=everything)
        case ["look"]:
            flow.look()
        case ["finish", stream]:
            flow.finish(stream)
        case ["resume", now_us]:
            flow.resume(now_us)
        case ["repeat", repeating]:
            flow.repeat(repeating)
        case _:
            raise StateError(f"The journal has the step {step!r:.80}, which this version does not know.")


class JournalWriter:
    """Notes steps in a journal.

    Parameters
    ----------
    journal
        Where they are kept.
    run
        Whose steps these are: when the state was empty, as its checkpoints say.
    sequence
        The number of the last record that is there.
    together
        Collect steps until `flush`, for a journal whose records become visible together with the outputs; otherwise each one is
        kept at once.

    Attributes
    ----------
    sequence
        The number of the last record that was appended.
    """

    def __init__(self, journal: Journal, *, run: int, sequence: int, together: bool) -> None:
        self.journal = journal
        self.sequence = sequence
        self._run = run
        self._together = together
        self._steps: list[Step] = []

    def note(self, step: Step) -> None:
        """Note a step."""
        self._steps.append(step)
        if not self._together:
            self.journal.append(self.record())

    @property
    def waiting(self) -> int:
        """Steps that are noted and not in a record yet."""
        return len(self._steps)

    def record(self) -> bytes:
        """Return the next record, of every step that waits for one."""
        steps, self._steps = self._steps, []
        self.sequence += 1
        return json.dumps(
            {"run": self._run, "sequence": self.sequence, "steps": steps}, separators=(",", ":"), ensure_ascii=False
        ).encode()

    def cut(self) -> dict[str, object]:
        """Return where the journal stands, for a checkpoint; no step waits."""
        return {"kind": self.journal.kind, "position": self.journal.cut(), "sequence": self.sequence}


class Replay:
    """The steps behind a checkpoint.

    Parameters
    ----------
    journal
        Where they are kept.
    run
        Whose they are.
    cut
        What `JournalWriter.cut` returned when the checkpoint was taken.
    upgraded
        Whether the checkpoint is of another plan than the steps behind it.

    Attributes
    ----------
    sequence
        The number of the last record that was read.
    records
        How many were read.
    whole
        After `steps`: whether the lost run took no step beyond them.
    """

    def __init__(self, journal: Journal, *, run: int, cut: Mapping[str, Any], upgraded: bool = False) -> None:
        self._journal = journal
        self._run = run
        self._upgraded = upgraded
        self._position = int(cut["position"])
        self.sequence = int(cut["sequence"])
        self.records = 0
        self.whole = True

    def steps(self) -> Iterator[Step]:
        """Yield them in order.

        Raises
        ------
        StateError
            If a record is missing or of another run, and the journal is strict.
        """
        for data in self._journal.read(self._position):
            try:
                steps = self._opened(data)
            except StateError as error:
                if self._journal.strict:
                    raise
                _log.warning("journal has a gap, what lies behind it is read again", reason=str(error))
                self.whole = False
                return
            if steps and self._upgraded:
                raise StateError(
                    "The journal has steps behind the checkpoint that was upgraded, and they are of the definition before: the run had not "
                    "ended. Remove the directory of that checkpoint, start the old definition once, stop it, and upgrade again."
                )
            yield from steps
        self.whole = self._journal.whole

    def _opened(self, data: bytes) -> list[Step]:
        try:
            record = json.loads(data)
            run, sequence, steps = record["run"], record["sequence"], record["steps"]
        except (ValueError, KeyError, TypeError) as error:
            raise StateError("The journal has a record that is none; it is torn or was changed.") from error
        if self._before_the_cut(run, sequence):
            return []
        if run != self._run or sequence != self.sequence + 1:
            raise StateError(
                f"The journal goes on with record {sequence} of the run of {run}, and {self.sequence + 1} of {self._run} is next: it is "
                "not that of these checkpoints, or a part of it is gone. Restore the place of checkpoints from a copy, or name an "
                "empty one to begin with empty state."
            )
        self.sequence = sequence
        self.records += 1
        return cast(list[Step], steps)

    def _before_the_cut(self, run: int, sequence: int) -> bool:
        """Whether a record is older than the checkpoint: where a journal begins to be read may lie before its cut, not behind it."""
        return not self.records and (run != self._run or sequence <= self.sequence)


def replay(
    flow: Flow, sources: Mapping[str, Source], steps: Replay, *, stopped: Callable[[], bool] = lambda: False
) -> bool:
    """Take the steps behind a checkpoint again; False if it was stopped before the last of them."""
    flow.replaying = True
    taken = 0
    for step in steps.steps():
        if stopped():
            return False
        take(flow, sources, step)
        taken += 1
    flow.drain()
    flow.replaying = False
    if taken:
        _log.info("stands where the last run stood", steps=taken, records=steps.records)
    return True
