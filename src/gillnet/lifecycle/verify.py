"""Verifying a run: its rows and those of joins, after their last revision, against the batch answer over the same events (I2)."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from gillnet._kernel import Batch
from gillnet.lifecycle.consistency import Consistency, RowComparer
from gillnet.lifecycle.join_consistency import JoinComparer
from gillnet.runtimes.batch import BatchOptions, BatchPart, BatchRuntime

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from gillnet.app.finished import FinishedRun
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
    joins = {join.name: JoinComparer(join, partial(run.records, f"joins.{join.name}")) for join in run.plan.joins}
    parts = BatchRuntime(run.plan, options=options).run(run.accepted_events())
    result = RowComparer(run.plan, scorer).compare(run.outputs, _rows(parts, joins), flagged_only=flagged_only)
    result.joins = {f"joins.{name}": comparer.result() for name, comparer in joins.items()}
    return result


def _rows(parts: Iterable[BatchPart], joins: Mapping[str, JoinComparer]) -> Iterator[Batch]:
    """Yield the rows of each part, and hand those of joins to their comparers."""
    for part in parts:
        for name, rows in part.joined.items():
            joins[name].expect(Batch.from_pyarrow(rows))
        yield Batch.from_pyarrow(part.rows)
