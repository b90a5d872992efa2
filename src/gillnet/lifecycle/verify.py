"""Verifying a run: every output of it, after its last revision, against the batch answer over the same events (I2)."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from gillnet._kernel import Batch
from gillnet.lifecycle.comparers import SESSIONS, JoinComparer, MatchComparer, SessionComparer
from gillnet.lifecycle.consistency import Consistency, RowComparer
from gillnet.runtimes.batch import BatchOptions, BatchPart, BatchRuntime
from gillnet.runtimes.embedded.matches import MATCHES

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from gillnet.app.finished import FinishedRun
    from gillnet.lifecycle.output_consistency import OutputComparer
    from gillnet.serving.scorers import Scorer


def verify(
    run: FinishedRun, scorer: Scorer | None, *, flagged_only: bool, options: BatchOptions | None = None
) -> Consistency:
    """Compare a run with the batch answer.

    Parameters
    ----------
    run
        What it read and wrote.
    scorer
        The model's scorer, where the plan has a model.
    flagged_only
        The run wrote flagged rows only: a row that is simply allowed need not be there.
    options
        How the batch runtime uses the machine.

    Raises
    ------
    SourceError
        If something cannot be read, or is not of this plan.
    """
    names = _outputs(run)
    passed_us = run.watermarks() if names else {}
    comparers = {name: _comparer(run, name, passed_us) for name in names if run.uri(name) is not None}
    joins = any(name.startswith("joins.") for name in comparers)
    runtime = BatchRuntime(run.plan, joins=joins, matches=MATCHES in comparers, options=options)
    parts = runtime.run(run.accepted_events())
    result = RowComparer(run.plan, scorer).compare(run.outputs, _rows(parts, comparers), flagged_only=flagged_only)
    result.outputs = {name: comparer.result() for name, comparer in comparers.items()}
    result.unwritten = tuple(name for name in names if name not in comparers)
    return result


def _outputs(run: FinishedRun) -> list[str]:
    """Return the outputs beside the rows that have revisions."""
    names = [SESSIONS] if run.plan.sessions is not None else []
    if run.plan.has_patterns:
        names.append(MATCHES)
    return names + [f"joins.{join.name}" for join in run.plan.joins]


def _comparer(run: FinishedRun, name: str, passed_us: Mapping[str, int | None]) -> OutputComparer:
    records = partial(run.records, name)
    if name == SESSIONS:
        return SessionComparer(run.plan, records, passed_us[run.plan.root])
    if name == MATCHES:
        return MatchComparer(run.plan, records, passed_us)
    return JoinComparer(next(join for join in run.plan.joins if name == f"joins.{join.name}"), records, passed_us)


def _rows(parts: Iterable[BatchPart], comparers: Mapping[str, OutputComparer]) -> Iterator[Batch]:
    """Yield the rows of each part, and hand what else there is to its comparer."""
    for part in parts:
        others = {SESSIONS: part.sessions, MATCHES: part.matches}
        others |= {f"joins.{name}": rows for name, rows in part.joined.items()}
        for name, rows in others.items():
            if rows is not None and name in comparers:
                comparers[name].expect(Batch.from_pyarrow(rows))
        yield Batch.from_pyarrow(part.rows)
