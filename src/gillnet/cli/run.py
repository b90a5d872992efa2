"""``gillnet run``."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import structlog
import typer
from rich.console import Console

from gillnet.api.pipeline import Pipeline
from gillnet.app import RunConfig, SinkRoutes, build_runtime, load_config, load_pipeline
from gillnet.app.lanes import Lanes, Worker, count_lanes
from gillnet.cli import render
from gillnet.cli.live import PLAIN_EVERY_S, RunPage, live_page, plain_report
from gillnet.cli.logs import LogFormat, log_lines
from gillnet.cli.monitor import RowTap, RunMonitor
from gillnet.cli.signals import stop_on_signals
from gillnet.cli.workers import run_workers
from gillnet.core.errors import ConfigurationError
from gillnet.core.ports import Sink
from gillnet.state import CheckpointStore
from gillnet.state.savepoints import copy_newest

_log = structlog.get_logger("gillnet.run")

App = Annotated[
    str, typer.Argument(help="app.py, app.py:name, a module, or a bundled scenario (payments, bots, takeover).")
]


def run(
    app: App,
    source: Annotated[
        list[str] | None, typer.Option("--source", "-s", metavar="STREAM=URI", help="Where a stream comes from.")
    ] = None,
    sink: Annotated[list[str] | None, typer.Option("--sink", metavar="NAME=URI", help="Where an output goes.")] = None,
    sinks: Annotated[
        str | None,
        typer.Option(
            "--sinks", metavar="PATTERN", help="Where all other outputs go: a URI with {name}, or a directory."
        ),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="kafka.<librdkafka's setting> or options.<option>."),
    ] = None,
    latency_budget: Annotated[
        str | None, typer.Option(help="The longest that a micro-batch should take, such as 10ms.")
    ] = None,
    max_records: Annotated[
        int | None, typer.Option(min=1, help="Stop after about so many records of the root stream.")
    ] = None,
    models: Annotated[Path | None, typer.Option(help="The model registry's directory.")] = None,
    history: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Keep every accepted event there, as Parquet: for backfill.")
    ] = None,
    checkpoints: Annotated[
        str | None,
        typer.Option(metavar="PLACE", help="Keep checkpoints there, and go on from the last: a directory, or s3://..."),
    ] = None,
    from_savepoint: Annotated[
        str | None,
        typer.Option(
            metavar="PLACE",
            help="Begin from this savepoint, where the place of checkpoints has none: see gillnet savepoint.",
        ),
    ] = None,
    delivery: Annotated[
        str | None,
        typer.Option(metavar="GUARANTEE", help="at-least-once (the default), or exactly-once: Kafka's transactions."),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(
            min=1, help="Share the topics' partitions among so many processes; each partition has its own state."
        ),
    ] = None,
    worker: Annotated[str | None, typer.Option(metavar="NUMBER/OF/PARTITIONS", hidden=True)] = None,
    state_backend: Annotated[
        str | None, typer.Option(metavar="NAME", help="Where the state of keys is kept: memory, or rocksdb.")
    ] = None,
    state_memory: Annotated[
        str | None, typer.Option(metavar="SIZE", help="What rocksdb may take of memory for state, such as 512MB.")
    ] = None,
    state_directory: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Where rocksdb keeps cold keys while the run lasts.")
    ] = None,
    config: Annotated[
        Path | None, typer.Option(help="A configuration file; by default gillnet.toml, if there is one.")
    ] = None,
    plain: Annotated[bool, typer.Option("--plain", help="Log lines instead of a live page.")] = False,
    log_format: Annotated[LogFormat, typer.Option("--log", help="How log lines are written.")] = LogFormat.TEXT,
) -> None:
    """Run a pipeline until its sources end, or until it is stopped.

    Ctrl-C or SIGTERM: what was read is finished, flushed and committed. A second Ctrl-C quits at once.

    Sources: kafka://host:9092/topic?group=g, a file (NDJSON, CSV, Parquet), - for standard input, or
    simulator:payments?rate=500. Sinks: kafka://host:9092/topic, a file (.csv, .parquet: in parts), - for standard output.
    Outputs: decisions, alerts, sessions, and for each stream <stream>.malformed, .duplicate, .late, .too_late.
    """
    extra = [f"options.latency_budget={latency_budget}"] if latency_budget else []
    extra += [f"options.max_records={max_records}"] if max_records else []
    extra += [f"options.delivery={delivery}"] if delivery else []
    state = {"state_backend": state_backend, "state_memory": state_memory, "state_directory": state_directory}
    extra += [f"options.{name}={value}" for name, value in state.items() if value is not None]
    log_lines(log_format)
    chosen = load_config(config).changed(
        sources=source or (),
        sinks=sink or (),
        settings=[*(settings or ()), *extra],
        default_sink=sinks,
        models=models,
        history=history,
        checkpoints=checkpoints,
    )
    pipeline = load_pipeline(app)
    if from_savepoint is not None:
        begin_from(from_savepoint, chosen)
    if workers is not None:
        run_workers(workers, count_lanes(pipeline.plan, chosen))
        return
    if worker is not None:
        run_lanes(pipeline, chosen, Worker.parse(worker))
        return
    to_stdout = SinkRoutes(pipeline.plan, chosen.sinks, default=chosen.default_sink).uses_stdout
    if plain or to_stdout or not sys.stdout.isatty():
        run_plain(pipeline, chosen)
    else:
        run_live(pipeline, chosen, Console())


def begin_from(savepoint: str, config: RunConfig) -> None:
    """Put a savepoint into the run's place of checkpoints, if that has none yet: a run that is started again goes on from its own.

    Raises
    ------
    ConfigurationError
        If the run keeps no checkpoints.
    StateError
        If the savepoint is not whole.
    """
    if config.checkpoints is None:
        raise ConfigurationError(
            "--from-savepoint: name the place where the run keeps its own checkpoints, with --checkpoints PLACE."
        )
    store = CheckpointStore(config.checkpoints)
    if store.numbers() or store.lanes():
        _log.warning(
            "the place has checkpoints, so the run goes on from these, not from the savepoint", place=store.place
        )
        return
    copy_newest(savepoint, config.checkpoints)


def run_lanes(pipeline: Pipeline, config: RunConfig, worker: Worker) -> None:
    """Run the lanes of one worker, with log lines on standard error."""
    partitions = worker.lanes()  # Who started it has looked at the topics.
    monitors = {partition: RunMonitor(pipeline.plan) for partition in partitions}
    lanes = Lanes(pipeline, config, partitions, watch=monitors.__getitem__)
    with ExitStack() as reports, stop_on_signals() as stop:
        for partition, monitor in monitors.items():
            monitor.watch(lanes.runtimes[partition])
            # As many lines as one run writes, however many lanes there are.
            reports.enter_context(plain_report(monitor, every_s=PLAIN_EVERY_S * len(partitions), lane=partition))
        lanes.run(stop)


def run_plain(pipeline: Pipeline, config: RunConfig) -> None:
    """Run with log lines on standard error."""
    monitor = RunMonitor(pipeline.plan)
    runtime = build_runtime(pipeline, config, on_alerts=monitor.on_alerts, on_turn=monitor.on_turn)
    monitor.watch(runtime)
    with stop_on_signals() as stop, plain_report(monitor):
        runtime.run(stop)


def run_live(pipeline: Pipeline, config: RunConfig, console: Console) -> None:
    """Run with a live page, and leave a summary on the terminal."""
    monitor = RunMonitor(pipeline.plan)
    tap: RowTap | None = None

    def wrap(name: str, opened: Sink | None) -> Sink | None:
        nonlocal tap
        if name == "decisions" and pipeline.plan.sessions is not None:
            tap = RowTap(opened)  # A pipeline with sessions writes flagged rows only, so this costs little.
            return tap
        return opened

    runtime = build_runtime(pipeline, config, on_alerts=monitor.on_alerts, on_turn=monitor.on_turn, wrap_sink=wrap)
    monitor.watch(runtime)
    page = RunPage(monitor, tap=tap)
    try:
        with stop_on_signals() as stop, live_page(console, page, page.messages):
            runtime.run(stop)
    finally:
        log_lines()
    console.print(render.summary(pipeline.plan.name, monitor.view(), stopped=stop.is_set()))
