"""The batch runtime: a plan over complete input, sorted out of core, on all cores; the answer that a live run comes to."""

from gillnet.runtimes.batch.inputs import InputCounts, parquet_events, source_events
from gillnet.runtimes.batch.replay import replay
from gillnet.runtimes.batch.runtime import BatchOptions, BatchPart, BatchRuntime
from gillnet.runtimes.batch.scoring import RowScoring
from gillnet.runtimes.batch.sorting import within

__all__ = [
    "BatchOptions",
    "BatchPart",
    "BatchRuntime",
    "InputCounts",
    "RowScoring",
    "parquet_events",
    "replay",
    "source_events",
    "within",
]
