"""``gillnet backfill``: training rows from the past."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated
from urllib.parse import urlencode

import typer

from gillnet.app import RunConfig, choose_model_scorer, load_config, load_pipeline
from gillnet.cli.numbers import number
from gillnet.cli.run import App
from gillnet.connectors.pulsar_uri import refuse_reading_again
from gillnet.connectors.uri import open_source, parse_uri
from gillnet.core.errors import ConfigurationError, DefinitionError
from gillnet.core.time import duration_us
from gillnet.lifecycle.backfill import BackfillReport, Cutoff, Wanted, write_as_corrected, write_as_known_then
from gillnet.lifecycle.labels import label_schema, read_labels
from gillnet.runtimes.batch import InputCounts, parquet_events, source_events
from gillnet.stores.history import History, history_files

if TYPE_CHECKING:
    import pyarrow as pa

    from gillnet.core.ports import Source
    from gillnet.plan.nodes import PipelinePlan

_LABELS_AT_ONCE = 65_536


class Mode(StrEnum):
    """Which past."""

    AS_CORRECTED = "as-corrected"
    AS_KNOWN_THEN = "as-known-then"


class FileFormat(StrEnum):
    """How rows are written."""

    PARQUET = "parquet"
    NDJSON = "ndjson"


def backfill(
    app: App,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where the rows go; must hold none yet.")],
    begin: Annotated[
        str | None, typer.Option("--from", metavar="TIME", help="Rows from this event time on, such as 2026-01-05.")
    ] = None,
    end: Annotated[str | None, typer.Option("--to", metavar="TIME", help="Rows before this event time.")] = None,
    source: Annotated[
        list[str] | None,
        typer.Option("--source", "-s", metavar="STREAM=URI", help="A file, a Kafka topic, or a history's directory."),
    ] = None,
    history: Annotated[
        Path | None, typer.Option(metavar="DIR", help="What `gillnet run --history` wrote: every stream's events.")
    ] = None,
    mode: Annotated[
        Mode,
        typer.Option(
            metavar="MODE", help="as-corrected: with all that is known now; as-known-then: as the live run saw it."
        ),
    ] = Mode.AS_CORRECTED,
    labels: Annotated[
        str | None, typer.Option(metavar="URI", help="Label records: id, fraud, scenario, known_at.")
    ] = None,
    known_at: Annotated[
        str | None, typer.Option(metavar="TIME", help="Labels as known then; later ones do not count.")
    ] = None,
    maturity: Annotated[
        str, typer.Option(help="A row younger than this at --known-at is pending, whatever is known of it.")
    ] = "0s",
    scores: Annotated[bool, typer.Option("--scores", help="Add the model's score, and the decision.")] = False,
    models: Annotated[Path | None, typer.Option(help="The model registry's directory.")] = None,
    file_format: Annotated[
        FileFormat, typer.Option("--format", metavar="FORMAT", help="parquet or ndjson.")
    ] = FileFormat.PARQUET,
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="kafka.<librdkafka's setting>.")
    ] = None,
    config: Annotated[
        Path | None, typer.Option(help="A configuration file; by default gillnet.toml, if there is one.")
    ] = None,
) -> None:
    """Write training rows: features of the past, and labels as known at a cut-off.

    As corrected: every event counts where it belongs, however late it came. As known then: a history is replayed in the order
    of arrival, and rows are those that the live scorer saw. Labels of rows that are not mature are null, never good.
    """
    chosen = load_config(config).changed(sources=source or (), settings=settings or (), models=models, history=history)
    plan = load_pipeline(app).plan
    wanted = Wanted(
        from_us=_instant(begin, "--from"),
        to_us=_instant(end, "--to"),
        scores=scores,
        scorer=choose_model_scorer(plan, chosen.models) if scores else None,
        cutoff=_cutoff(plan, labels, known_at, maturity, chosen),
    )
    if mode is Mode.AS_KNOWN_THEN:
        if source or chosen.history is None:
            raise ConfigurationError(
                "--mode as-known-then needs to know when each event arrived: give --history, and no --source."
            )
        report = write_as_known_then(plan, History(chosen.history), wanted, out, file_format=file_format.value)
    else:
        counts = {stream.name: InputCounts() for stream in plan.streams}
        events = _events(plan, chosen, counts)
        report = write_as_corrected(plan, events, wanted, out, file_format=file_format.value)
        for name, count in counts.items():
            if count.malformed:
                typer.echo(f"{name}: {number(count.malformed)} of {number(count.read)} records are malformed", err=True)
    _tell(report, out, labelled=wanted.cutoff is not None)


def _instant(text: str | None, what: str) -> int | None:
    """Read an instant as microseconds UTC; without a zone it is UTC."""
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise ConfigurationError(
            f"{what} {text!r} is no time; write one such as 2026-01-05 or 2026-01-05T10:00:00Z."
        ) from error
    moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment
    return int(moment.timestamp()) * 1_000_000 + moment.microsecond


def _events(
    plan: PipelinePlan, config: RunConfig, counts: dict[str, InputCounts]
) -> dict[str, Iterable[pa.RecordBatch]]:
    """Return each stream's events: from its source, or else from the history."""
    events: dict[str, Iterable[pa.RecordBatch]] = {}
    live: dict[str, str] = {}
    kept = None if config.history is None else History(config.history)
    for stream in plan.streams:
        uri = config.sources.get(stream.name)
        if uri is None and kept is not None:
            events[stream.name] = parquet_events(kept.files(stream.name))
        elif uri is not None and Path(uri).is_dir():
            events[stream.name] = parquet_events(_history_of(Path(uri), stream.name))
        elif uri is not None:
            live[stream.name] = _to_its_end(uri, f"{plan.name}.{stream.name}")
        else:
            raise ConfigurationError(
                f"The stream {stream.name!r} has no events: give --source {stream.name}={stream.name}.parquet, or --history."
            )
    for name, uri in live.items():
        schema = plan.stream(name).schema
        opened = open_source(uri, stream=name, schema=schema, settings=config.kafka)
        events[name] = source_events(plan, opened, counts=counts[name])
    return events


def _history_of(directory: Path, stream: str) -> list[Path]:
    files = history_files(directory / stream if (directory / stream).is_dir() else directory)
    if not files:
        raise ConfigurationError(
            f"{directory}: there is no history of {stream!r}; a run writes one with `gillnet run --history {directory}`."
        )
    return files


def _to_its_end(uri: str, name: str) -> str:
    """Return the URI of a source that ends: a topic is read from its beginning up to where it ends now.

    As a group of its own: a member more in a live run's group would take partitions away from it.
    """
    parsed = parse_uri(uri, what="Source")
    refuse_reading_again(parsed, what="Source")
    if parsed.scheme != "kafka":
        return uri
    wanted = {"group": f"gillnet.backfill.{name}", "start": "earliest", "until_end": "true"}
    missing = urlencode({key: value for key, value in wanted.items() if key not in parsed.parameters})
    return f"{uri}{'&' if parsed.parameters else '?'}{missing}" if missing else uri


def _cutoff(
    plan: PipelinePlan, labels: str | None, known_at: str | None, maturity: str, config: RunConfig
) -> Cutoff | None:
    if labels is None:
        return None
    known_at_us = _instant(known_at, "--known-at")
    if known_at_us is None:
        raise ConfigurationError("--labels needs --known-at: the time as of which labels count, such as 2026-03-01.")
    try:
        maturity_us = duration_us(maturity, what="--maturity")
    except DefinitionError as error:
        raise ConfigurationError(str(error)) from error
    root = plan.stream(plan.root)
    schema = label_schema(root.id, root.schema[root.id])
    source = open_source(
        _to_its_end(labels, f"{plan.name}.labels"), stream="labels", schema=schema, settings=config.kafka
    )
    found = read_labels(_values(source), schema, id=root.id)
    return Cutoff(labels=found, known_at_us=known_at_us, maturity_us=maturity_us)


def _values(source: Source) -> Iterator[list[bytes]]:
    try:
        while not source.finished:
            raw = source.poll(_LABELS_AT_ONCE, 0.05)
            if raw is not None:
                yield list(raw.values)
    finally:
        source.close()


def _tell(report: BackfillReport, out: Path, *, labelled: bool) -> None:
    for name, count in report.repeated.items():
        typer.echo(f"{name}: {number(count)} events repeat an id that came before, and are left out", err=True)
    labels = (
        f": {number(report.positive)} fraud, {number(report.negative)} good, {number(report.pending)} pending"
        if labelled
        else ""
    )
    sessions = f", {number(report.sessions)} sessions" if report.sessions else ""
    typer.echo(f"{number(report.rows)} rows{labels}{sessions} in {len(report.files)} files of {out}")
