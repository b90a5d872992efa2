"""Training rows from the past: features as a live run saw them or as they are in the end, labels as known at a cut-off (I6).

*As known then* replays a history in the order of arrival: late data has not arrived yet where it had not. *As corrected* is the
batch twin's answer, in the order of event time. Either way a row's label is what was known of its event at the cut-off; a row that
is not mature by then, or of which nothing was known, is pending: its label is null, and never good.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import pyarrow as pa

from gillnet._kernel import Batch
from gillnet.core.errors import ConfigurationError, SinkError
from gillnet.lifecycle.labels import PENDING, outcomes_when_mature
from gillnet.operators.encode import ColumnField, EncodeOperator
from gillnet.runtimes.batch import BatchRuntime, RowScoring, replay, within

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path
    from typing import BinaryIO

    from gillnet.lifecycle.labels import Labels
    from gillnet.plan.nodes import PipelinePlan
    from gillnet.runtimes.batch import BatchOptions
    from gillnet.serving.scorers import Scorer
    from gillnet.stores.history import History

Mode = Literal["as-known-then", "as-corrected"]
Format = Literal["parquet", "ndjson"]
FILE_ROWS = 1_000_000
"""A file of rows is closed beyond so many."""

LABEL, LABEL_KIND = "label", "label_kind"


@dataclass(frozen=True, slots=True, kw_only=True)
class Cutoff:
    """Labels, and the instant at which they count.

    Attributes
    ----------
    labels
        All labels, known by then or not.
    known_at_us
        The instant, microseconds UTC.
    maturity_us
        How old an event must be then, for either outcome to be known of it.
    """

    labels: Labels
    known_at_us: int
    maturity_us: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Which rows, and what of them.

    Attributes
    ----------
    from_us, to_us
        Rows with event time in [from, to), microseconds UTC; None for no bound.
    scores
        Add decisions, and with a model scores.
    scorer
        The model's scorer.
    cutoff
        Add labels; None for rows without.
    """

    from_us: int | None = None
    to_us: int | None = None
    scores: bool = False
    scorer: Scorer | None = None
    cutoff: Cutoff | None = None


@dataclass(slots=True)
class BackfillReport:
    """What was written."""

    rows: int = 0
    positive: int = 0
    negative: int = 0
    pending: int = 0
    sessions: int = 0
    repeated: dict[str, int] = field(default_factory=dict)
    files: list[Path] = field(default_factory=list)


def rows_as_known_then(plan: PipelinePlan, history: History, wanted: Wanted) -> Iterator[pa.RecordBatch]:
    """Yield the rows that the live scorer saw, in the order in which they left."""
    scoring = RowScoring(plan, wanted.scorer if wanted.scores else None, decide=wanted.scores)
    root = plan.stream(plan.root)
    for rows in replay(plan, history):
        chosen = within(rows, root, wanted.from_us, wanted.to_us)
        if chosen.num_rows:
            yield scoring.add(chosen)


def write_as_known_then(
    plan: PipelinePlan, history: History, wanted: Wanted, out: Path, *, file_format: Format = "parquet"
) -> BackfillReport:
    """Write the rows of a history as they were known when they left.

    Raises
    ------
    ConfigurationError
        If ``out`` holds rows already.
    SinkError
        If a file cannot be written.
    """
    report = BackfillReport()
    with _RowFiles(out, "rows", file_format, report) as files:
        for rows in rows_as_known_then(plan, history, wanted):
            files.write(labelled(plan, rows, wanted.cutoff, report))
    return report


def write_as_corrected(
    plan: PipelinePlan,
    events: Mapping[str, Iterable[pa.RecordBatch]],
    wanted: Wanted,
    out: Path,
    *,
    file_format: Format = "parquet",
    options: BatchOptions | None = None,
) -> BackfillReport:
    """Write the rows as they are in the end, in the order of (time, id), and the sessions that closed.

    Parameters
    ----------
    events
        For each stream its events as Arrow batches, in the order of arrival.

    Raises
    ------
    ConfigurationError
        If ``out`` holds rows already, or the events are not the plan's.
    SinkError
        If a file cannot be written.
    """
    report = BackfillReport()
    scorer = wanted.scorer if wanted.scores else None
    runtime = BatchRuntime(plan, scorer=scorer, decide=wanted.scores, joins=False, matches=False, options=options)
    with (
        _RowFiles(out, "rows", file_format, report) as files,
        _RowFiles(out, "sessions", file_format, report) as closed,
    ):
        for part in runtime.run(events, from_us=wanted.from_us, to_us=wanted.to_us):
            if part.rows.num_rows:
                files.write(labelled(plan, part.rows, wanted.cutoff, report))
            if part.sessions is not None and part.sessions.num_rows:
                closed.write(part.sessions)
                report.sessions += part.sessions.num_rows
    report.repeated = {name: count for name, count in runtime.repeated.items() if count}
    return report


def labelled(plan: PipelinePlan, rows: pa.RecordBatch, cutoff: Cutoff | None, report: BackfillReport) -> pa.RecordBatch:
    """Return the rows with `LABEL` (true: fraud, null: pending) and `LABEL_KIND`, and count them."""
    report.rows += rows.num_rows
    if cutoff is None:
        return rows
    root = plan.stream(plan.root)
    ids = rows.column(root.id).cast(pa.string())
    times = rows.column(root.event_time).cast(pa.int64()).to_numpy(zero_copy_only=False)
    outcomes = outcomes_when_mature(ids, times, cutoff.labels, at_us=cutoff.known_at_us, maturity_us=cutoff.maturity_us)
    pending = outcomes == PENDING
    kinds = cutoff.labels.kinds[cutoff.labels.places(ids)]
    report.pending += int(pending.sum())
    report.positive += int((outcomes == 1).sum())
    report.negative += int((outcomes == 0).sum())
    rows = rows.append_column(LABEL, pa.array(outcomes == 1, pa.bool_(), mask=pending))
    return rows.append_column(LABEL_KIND, pa.array(kinds, pa.string(), mask=pending))


class _RowFiles:
    """Files ``<name>-00000.parquet`` and on, each whole once it has its name."""

    def __init__(self, directory: Path, name: str, file_format: Format, report: BackfillReport) -> None:
        self._directory, self._name, self._format = directory, name, file_format
        self._report = report
        self._path: Path | None = None
        self._file: BinaryIO | None = None
        self._writer: pa.parquet.ParquetWriter | None = None
        self._encoder: EncodeOperator | None = None
        self._rows = 0
        self._numbers = iter(range(1_000_000))
        try:
            directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise SinkError(f"The directory {directory} cannot be made: {error.strerror}.") from error
        if found := sorted(directory.glob(f"{name}-*")):
            raise ConfigurationError(f"{found[0]} is there already; give an --out without rows, or remove them.")

    def __enter__(self) -> _RowFiles:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        self._close(whole=kind is None)

    def write(self, rows: pa.RecordBatch) -> None:
        try:
            if self._file is None:
                self._open(rows.schema)
            assert self._file is not None
            if self._writer is not None:
                self._writer.write_batch(rows)
            else:
                assert self._encoder is not None
                self._file.writelines(line + b"\n" for line in self._encoder.encode(Batch.from_pyarrow(rows)))
        except OSError as error:
            raise SinkError(f"{self._path}: rows cannot be written: {error.strerror}.") from error
        self._rows += rows.num_rows
        if self._rows >= FILE_ROWS:
            self._close(whole=True)

    def _open(self, schema: pa.Schema) -> None:
        self._path = self._directory / f"{self._name}-{next(self._numbers):05}.{self._format}"
        self._file = self._path.with_suffix(".tmp").open("wb")
        self._rows = 0
        if self._format == "parquet":
            import pyarrow.parquet as pq

            self._writer = pq.ParquetWriter(self._file, schema, compression="zstd")
        elif self._encoder is None:
            self._encoder = EncodeOperator([ColumnField(name) for name in schema.names])

    def _close(self, *, whole: bool) -> None:
        if self._file is None or self._path is None:
            return
        if self._writer is not None:
            self._writer.close()
        self._file.close()
        torn = self._path.with_suffix(".tmp")
        if whole:
            torn.rename(self._path)
            self._report.files.append(self._path)
        else:
            torn.unlink()
        self._file = self._writer = None
