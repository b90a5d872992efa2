"""Events for a batch run: typed Parquet as it is, and any bounded source through the decoder of a live run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from gillnet.core.errors import SourceError
from gillnet.operators.decode import stream_decoder

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from gillnet.core.ports import Source
    from gillnet.plan.nodes import PipelinePlan

POLL_RECORDS = 16_384


@dataclass(slots=True)
class InputCounts:
    """What became of the records of a source: ``read`` = ``malformed`` + events."""

    read: int = 0
    malformed: int = 0


def source_events(
    plan: PipelinePlan, source: Source, *, counts: InputCounts | None = None, wait_s: float = 0.05
) -> Iterator[pa.RecordBatch]:
    """Yield the events of a bounded source, decoded and checked as in a live run; then close it.

    A record is malformed by the same rules: its form, an event time before the stream's earliest, or one too far ahead of its
    arrival. Nothing is too late, since batch waits for everything.

    Parameters
    ----------
    plan
        The pipeline's plan.
    source
        The source of one of its streams; with Kafka one that reads ``until_end``.
    counts
        Is added to.
    """
    stream, decoder = plan.stream(source.stream), stream_decoder(plan, source.stream)
    counts = InputCounts() if counts is None else counts
    try:
        while not source.finished:
            raw = source.poll(POLL_RECORDS, wait_s)
            if raw is None:
                continue
            decoded = decoder.decode(raw)
            batch = decoded.batch.to_pyarrow()
            times = batch.column(stream.event_time).cast(pa.int64())
            latest = raw.arrival_time_us + stream.max_ahead_us
            plausible = pc.and_(pc.greater_equal(times, stream.earliest_us), pc.less_equal(times, latest))
            events = batch.filter(plausible)
            counts.read += len(raw.values)
            counts.malformed += len(raw.values) - events.num_rows
            yield events
    finally:
        source.close()


def parquet_events(paths: Sequence[Path], *, rows: int = 65_536) -> Iterator[pa.RecordBatch]:
    """Yield the rows of Parquet files that have a stream's columns in their types (or types that cast to them).

    Raises
    ------
    SourceError
        If a file cannot be read.
    """
    import pyarrow.parquet as pq

    for path in paths:
        try:
            with pq.ParquetFile(path) as file:
                yield from file.iter_batches(batch_size=rows)
        except (pa.ArrowException, OSError) as error:
            raise SourceError(f"{path}: the file cannot be read: {' '.join(str(error).split())}.") from error
