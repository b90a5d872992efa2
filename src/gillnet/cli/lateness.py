"""``gillnet lateness``: what each watermark delay would cost, and which one fits a budget."""

from __future__ import annotations

import json as json_text
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from gillnet.api.pipeline import Pipeline
from gillnet.app import RunConfig, choose_model_scorer, load_config, load_pipeline
from gillnet.app.runs import check_streams
from gillnet.cli import lateness_table
from gillnet.cli.signals import stop_on_signals
from gillnet.core.errors import ConfigurationError, DefinitionError
from gillnet.core.time import HOUR, MILLISECOND, duration_us, format_duration
from gillnet.lifecycle.lateness import Budget, LatenessReport, StreamEvents, measure, read_stream, recommend
from gillnet.lifecycle.lateness.opening import open_bounded
from gillnet.lifecycle.lateness.page import write_page
from gillnet.lifecycle.lateness.reading import described
from gillnet.lifecycle.lateness.report import SAMPLE, Recommendation
from gillnet.operators.decode import key_columns
from gillnet.plan.nodes import StreamNode

Stop = Callable[[], bool]


def lateness(
    app: Annotated[
        str | None, typer.Argument(help="app.py, app.py:name, a module, or payments, bots: measure its scores, too.")
    ] = None,
    source: Annotated[
        list[str] | None, typer.Option("--source", "-s", metavar="STREAM=URI", help="Where a stream comes from.")
    ] = None,
    max_stale: Annotated[
        str | None, typer.Option(metavar="SHARE", help="Recommend a delay: at most so many stale scores, such as 0.5%.")
    ] = None,
    max_latency: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="Recommend a delay: waits of at most so long (p99), such as 50ms."),
    ] = None,
    html: Annotated[Path | None, typer.Option(help="Write a page with the curves.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Everything as JSON, on standard output.")] = False,
    event_id: Annotated[str, typer.Option("--id", help="The field with the id, where no pipeline says it.")] = "id",
    event_time: Annotated[str, typer.Option(help="The field with the event time, where no pipeline says it.")] = "ts",
    arrival: Annotated[
        str | None, typer.Option(help="The field with the arrival time; else what the source recorded.")
    ] = None,
    idle_after: Annotated[
        str, typer.Option(help="When a silent partition is not waited for, where no pipeline says it.")
    ] = "30s",
    sample: Annotated[int, typer.Option(min=10, help="Root events whose scores are compared.")] = SAMPLE,
    max_records: Annotated[int, typer.Option(min=1, help="Read so many records of a stream at the most.")] = 1_000_000,
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="kafka.<librdkafka's setting>.")
    ] = None,
    models: Annotated[Path | None, typer.Option(help="The model registry's directory.")] = None,
    config: Annotated[
        Path | None, typer.Option(help="A configuration file; by default gillnet.toml, if there is one.")
    ] = None,
) -> None:
    """Tell what each watermark delay would cost: late events, stale scores, latency.

    Sources are read as `gillnet run` reads them, to their end, and nothing is committed: files, kafka://host:9092/topic (what it
    holds now), simulator:payments?late_share=0.02. With a pipeline, a sample is scored once for each delay, in the order in
    which a watermark with that delay would release it, and compared with the scores of the complete data.
    """
    budget = read_budget(max_stale, max_latency)
    chosen = load_config(config).changed(sources=source or (), settings=settings or (), models=models)
    pipeline = None if app is None else load_pipeline(app)
    console = Console(stderr=True, highlight=False)
    with stop_on_signals() as stop:
        if pipeline is None:
            known = partial(
                described,
                id=event_id,
                event_time=event_time,
                idle_after_us=_duration(idle_after, "--idle-after"),
                max_ahead_us=HOUR,
            )
            streams = read_plain(chosen, known, arrival=arrival, most=max_records, stop=stop.is_set)
            report = measure(streams)
        else:
            report = measure_pipeline(
                pipeline, chosen, arrival=arrival, most=max_records, sample=sample, stop=stop.is_set, console=console
            )
    advice = None if budget == Budget() else recommend(report, budget)
    if html is not None:
        write_page(html, report, advice)
    say(report, advice, json=json, html=html)


def read_plain(
    config: RunConfig, known: Callable[..., StreamNode], *, arrival: str | None, most: int, stop: Stop
) -> list[StreamEvents]:
    """Read streams that no pipeline describes; ``known`` describes one by its first record and its name."""
    if not config.sources:
        raise ConfigurationError(
            "There is nothing to measure: give a source, such as --source payments=kafka://localhost:9092/payments, "
            "--source payments=payments.ndjson or, to try it, --source payments=simulator:payments?late_share=0.02."
        )
    return [
        read_one(
            name,
            uri,
            partial(known, name=name),
            config=config,
            arrival=arrival,
            most=most,
            stop=stop,
        )
        for name, uri in config.sources.items()
    ]


def measure_pipeline(
    pipeline: Pipeline,
    config: RunConfig,
    *,
    arrival: str | None,
    most: int,
    sample: int,
    stop: Stop,
    console: Console,
) -> LatenessReport:
    """Read a pipeline's streams, and measure them and its scores."""
    plan = pipeline.plan
    check_streams(plan, config.sources)
    scorer = choose_model_scorer(plan, config.models)
    streams = [
        read_one(
            node.name,
            config.sources[node.name],
            node,
            config=config,
            keys=key_columns(plan, node.name),
            arrival=arrival,
            most=most,
            stop=stop,
        )
        for node in plan.streams
    ]
    with console.status("scoring") as status:
        return measure(
            streams,
            plan=plan,
            scorer=scorer,
            sample=sample,
            on_delay=lambda delay_us: status.update(f"scoring, watermark delay {format_duration(delay_us)}"),
        )


def read_one(
    name: str,
    uri: str,
    node: StreamNode | Callable[[bytes], StreamNode],
    *,
    config: RunConfig,
    keys: tuple[str, ...] = (),
    arrival: str | None,
    most: int,
    stop: Stop,
) -> StreamEvents:
    """Read one source, and close it."""
    schema = node.schema if isinstance(node, StreamNode) else None
    source = open_bounded(name, uri, schema=schema, kafka=config.kafka)
    try:
        return read_stream(source, node, keys=keys, arrival=arrival, most=most, should_stop=stop)
    finally:
        source.close()


def say(report: LatenessReport, advice: Recommendation | None, *, json: bool, html: Path | None) -> None:
    """Print the report, as JSON or as tables."""
    if json:
        told = report.to_json() | {"recommendation": None if advice is None else lateness_table.advice_fields(advice)}
        typer.echo(json_text.dumps(told))
        return
    # Written to a pipe, a line must not break in the middle.
    console = Console(highlight=False) if sys.stdout.isatty() else Console(width=140, highlight=False)
    console.print(lateness_table.tables(report, advice))
    if html is not None:
        console.print(f"The curves are in {html}.")


def read_budget(max_stale: str | None, max_latency: str | None) -> Budget:
    """Read a budget.

    Raises
    ------
    ConfigurationError
        If a share is not between 0 and 100 %, or a time is none.
    """
    share = None
    if max_stale is not None:
        try:
            share = float(max_stale.removesuffix("%")) / (100 if max_stale.endswith("%") else 1)
        except ValueError:
            share = -1.0
        if not 0 <= share <= 1:
            raise ConfigurationError(f"--max-stale {max_stale}: write a share from 0% to 100%, such as 0.5%.")
    latency_ms = None if max_latency is None else _duration(max_latency, "--max-latency") / MILLISECOND
    return Budget(max_stale_share=share, max_latency_ms=latency_ms)


def _duration(text: str, what: str) -> int:
    try:
        return duration_us(text, what=what)
    except DefinitionError as error:
        raise ConfigurationError(str(error)) from error
