"""The batch runtime: a plan over complete input, sorted out of core, on all cores; the answer that a live run comes to."""

from gillnet.runtimes.batch.inputs import InputCounts, parquet_events, source_events
from gillnet.runtimes.batch.replay import replay
from gillnet.runtimes.batch.runtime import BatchOptions, BatchPart, BatchRuntime

__all__ = [
    "BatchOptions",
    "BatchPart",
    "BatchRuntime",
    "InputCounts",
    "parquet_events",
    "replay",
    "source_events",
]
