"""Verifying a run: its rows after their last revision against the batch answer over the same events (I2)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gillnet._kernel import Batch
from gillnet.lifecycle.consistency import Consistency, RowComparer
from gillnet.runtimes.batch import BatchOptions, BatchRuntime

if TYPE_CHECKING:
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
    parts = BatchRuntime(run.plan, options=options).run(run.accepted_events())
    expected = (Batch.from_pyarrow(part.rows) for part in parts)
    return RowComparer(run.plan, scorer).compare(run.outputs, expected, flagged_only=flagged_only)
