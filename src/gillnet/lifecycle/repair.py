"""Repairing a run: what came too late is put where it belongs, and every row that it changes is corrected.

The batch twin computes the rows from the earliest late event on, over everything that ever came; a row that differs from what the
run wrote last is a correction. Nothing of the run is touched, so a repair can be run again, with the same result.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from gillnet._kernel import Batch
from gillnet.app.finished import chained
from gillnet.lifecycle.consistency import Consistency, Difference, RowComparer
from gillnet.runtimes.batch import BatchOptions, BatchRuntime

if TYPE_CHECKING:
    from gillnet.app.finished import FinishedRun
    from gillnet.core.ports import Sink
    from gillnet.serving.scorers import Scorer

LATE = ("late", "too_late")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_WRITTEN_AT_ONCE = 1_000


@dataclass(slots=True)
class Repair:
    """What a repair found.

    Attributes
    ----------
    late
        By stream and side output, the events that were repaired with: ``{"payments": {"too_late": 12}}``.
    since_us
        The earliest of them, microseconds UTC; rows before it are as they were. None where nothing was late.
    rows
        Rows that were computed again.
    changed, added
        Corrections: rows that are others now, and rows of events that were never scored.
    flips
        How often which decision became which, as (then, now); of rows that were never scored only what is not ``allow``.
    """

    late: dict[str, dict[str, int]] = field(default_factory=dict)
    since_us: int | None = None
    rows: int = 0
    changed: int = 0
    added: int = 0
    flips: Counter[tuple[str, str]] = field(default_factory=Counter)

    @property
    def decisions(self) -> int:
        """Decisions that would have been others."""
        return sum(self.flips.values())


def repair(run: FinishedRun, scorer: Scorer | None, sink: Sink, *, options: BatchOptions | None = None) -> Repair:
    """Write the corrections of a run.

    Parameters
    ----------
    run
        What it read and wrote: the history, or the sources; the decisions, their revisions, and the late side outputs.
    scorer
        Today's model, where the plan has one. Rows that another version scored are corrected where their features changed.
    sink
        Takes the corrections, in the order of event time.
    options
        How the batch runtime uses the machine.

    Raises
    ------
    SourceError
        If something cannot be read, or is not of this plan.
    """
    result = Repair()
    for stream in run.plan.streams:
        for kind in LATE:
            _count_late(run, stream.name, stream.event_time, kind, result)
    if result.since_us is None:
        return result
    late = {stream.name: run.set_aside(stream.name, *LATE) for stream in run.plan.streams}
    parts = BatchRuntime(run.plan, joins=False, matches=False, options=options).run(
        chained(run.events(), late), from_us=result.since_us
    )
    expected = (Batch.from_pyarrow(part.rows) for part in parts)
    comparer = RowComparer(run.plan, scorer)
    found = comparer.compare(run.outputs, expected, since=_rfc3339(result.since_us), most=None)
    _write(_corrections(found, run.plan.stream(run.plan.root).id, scorer), sink)
    return _summed(result, found)


def _count_late(run: FinishedRun, stream: str, event_time: str, kind: str, result: Repair) -> None:
    count, earliest = 0, result.since_us
    for batch in run.set_aside(stream, kind):
        count += batch.num_rows
        first = pc.min(batch.column(event_time).cast(pa.int64())).as_py()
        earliest = first if earliest is None else min(earliest, first)
    if count:
        result.late.setdefault(stream, {})[kind] = count
        result.since_us = earliest


def _summed(result: Repair, found: Consistency) -> Repair:
    result.rows = found.rows - found.extra
    result.added, result.changed = found.missing, found.differing
    for difference in found.differences:
        then = "never scored" if difference.emitted is None else difference.emitted.get("decision", "allow")
        now = None if difference.expected is None else difference.expected.get("decision", "allow")
        if now is not None and now != then and (then != "never scored" or now != "allow"):
            result.flips[then, now] += 1
    return result


def _corrections(found: Consistency, id_column: str, scorer: Scorer | None) -> Iterator[bytes]:
    model = {} if scorer is None else {"model": scorer.model.label}
    for difference in found.differences:
        if difference.expected is not None:
            yield msgspec.json.encode(_correction(difference, id_column, model))


def _correction(difference: Difference, id_column: str, model: dict[str, str]) -> dict[str, Any]:
    """Return a correction in the form of a revision, so that a consumer handles both alike."""
    assert difference.expected is not None
    now = dict(difference.expected)
    record = {id_column: difference.id, "event_time": now.pop("event_time")}
    if difference.emitted is None:
        return {**record, "correction": "added", "flipped": now.get("decision") != "allow", "new": {**model, **now}}
    then = {name: value for name, value in difference.emitted.items() if name != "event_time"}
    changed = [name for name in difference.names if name in now["features"].keys() | then["features"].keys()]
    then["features"] = {name: then["features"].get(name) for name in changed}
    last = difference.history[-1]
    by = {key: value for key, value in last.get("new", last).items() if key == "model"}
    return {
        **record,
        "correction": "changed",
        "revision": max(step.get("revision", 0) for step in difference.history),
        "flipped": difference.flipped,
        "changed": changed,
        "old": {**by, **then},
        "new": {**model, **now},
    }


def _write(corrections: Iterator[bytes], sink: Sink) -> None:
    waiting: list[bytes] = []
    for correction in corrections:
        waiting.append(correction)
        if len(waiting) == _WRITTEN_AT_ONCE:
            sink.write(waiting)
            waiting = []
    sink.write(waiting)
    sink.flush()


def _rfc3339(time_us: int) -> str:
    """Write an instant as rows do."""
    return (_EPOCH + timedelta(microseconds=time_us)).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
