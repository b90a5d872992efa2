"""``gillnet flink``: a pipeline as a job of Apache Flink."""

from __future__ import annotations

import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer

from gillnet.app import load_config, load_pipeline
from gillnet.app.flink_job import flink_job
from gillnet.cli.errors import ReadableErrors
from gillnet.cli.logs import log_lines
from gillnet.cli.run import App
from gillnet.cli.signals import stop_on_signals
from gillnet.runtimes.flink import FlinkRest, LocalFlink
from gillnet.runtimes.flink.package import find_host_jar, package_job

flink = typer.Typer(
    cls=ReadableErrors, help="Run a pipeline on Apache Flink.", no_args_is_help=True, rich_markup_mode=None
)

Sources = Annotated[
    list[str] | None, typer.Option("--source", "-s", metavar="STREAM=URI", help="Where a stream comes from: a topic.")
]
OneSink = Annotated[list[str] | None, typer.Option("--sink", metavar="NAME=URI", help="Where an output goes.")]
Sinks = Annotated[
    str | None,
    typer.Option("--sinks", metavar="PATTERN", help="Where all other outputs go: kafka://host:9092/{name}."),
]
Settings = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="kafka.<setting> or options.<option>.")
]
Models = Annotated[Path | None, typer.Option(help="The model registry's directory.")]
Config = Annotated[Path | None, typer.Option(help="A configuration file; by default gillnet.toml, if there is one.")]
Delivery = Annotated[str | None, typer.Option(metavar="GUARANTEE", help="at-least-once (the default) or exactly-once.")]
Shards = Annotated[
    int | None,
    typer.Option(
        min=1, help="Into how many shards keys are shared out: the greatest parallelism; it stays with the state."
    ),
]
_STOPPED_S = 120.0


@flink.command(short_help="Write the jar of a job.")
def package(
    app: App,
    out: Annotated[Path, typer.Option("--out", "-o", help="The jar to write.")],
    source: Sources = None,
    sink: OneSink = None,
    sinks: Sinks = None,
    settings: Settings = None,
    delivery: Delivery = None,
    shards: Shards = None,
    models: Models = None,
    config: Config = None,
) -> None:
    """Write a pipeline as the jar of a Flink job: for `flink run`, the REST API, or the Kubernetes operator's jarURI.

    The jar needs nothing else: no Python, no library on the machines of the cluster. Topics that are missing are made.
    """
    log_lines()
    job = _job(app, source, sink, sinks, settings, delivery, shards, models, config)
    typer.echo(f"{package_job(job, out)}: {out.stat().st_size / 1e6:.0f} MB, {job['shards']} shards")


@flink.command(short_help="Run a pipeline on a cluster.")
def run(
    app: App,
    source: Sources = None,
    sink: OneSink = None,
    sinks: Sinks = None,
    settings: Settings = None,
    delivery: Delivery = None,
    shards: Shards = None,
    parallelism: Annotated[
        int | None, typer.Option("--parallelism", "-p", min=1, help="By default the cluster's.")
    ] = None,
    cluster: Annotated[
        str | None,
        typer.Option(
            metavar="URL", help="The cluster's REST address, http://host:8081; by default one is started here."
        ),
    ] = None,
    savepoint: Annotated[
        str | None, typer.Option(metavar="PATH", help="Go on from this savepoint or checkpoint.")
    ] = None,
    models: Models = None,
    config: Config = None,
) -> None:
    """Run a pipeline on a Flink cluster: on a given one, where the job stays; or on one that is started here and ends with Ctrl-C.

    Ctrl-C stops the job with a savepoint. Look at it with `gillnet doctor URL/jobs/NAME`.
    """
    log_lines()
    find_host_jar()  # Before anything is started.
    job = _job(app, source, sink, sinks, settings, delivery, shards, models, config)
    with ExitStack() as closing:
        work = Path(closing.enter_context(tempfile.TemporaryDirectory(prefix="gillnet-flink-")))
        jar = package_job(job, work / f"{job['name']}.jar")
        if cluster is not None:
            rest = FlinkRest(cluster)
        else:
            typer.echo("Starting Apache Flink ...", err=True)
            local = closing.enter_context(LocalFlink())
            rest = local.rest
        number = rest.run_jar(rest.upload_jar(jar), parallelism=parallelism, savepoint=savepoint)
        rest.wait_for(number, "RUNNING", "FINISHED")
        typer.echo(f"job {number} runs: {rest.url}/#/job/running/{number}")
        if cluster is None:
            _watch(rest, number)


def _watch(rest: FlinkRest, number: str) -> None:
    """Wait until the job ends, or stop it with a savepoint."""
    typer.echo("Ctrl-C stops it.", err=True)
    with stop_on_signals() as stop:
        while not stop.wait(0.5):
            if rest.status(number) in ("FINISHED", "FAILED", "CANCELED"):
                break
    if rest.status(number) == "RUNNING":
        typer.echo(f"stopped; savepoint {rest.stop_with_savepoint(number, timeout_s=_STOPPED_S)}")
    else:
        rest.wait_for(number, "FINISHED")
        typer.echo("finished")


def _job(
    app: str,
    source: list[str] | None,
    sink: list[str] | None,
    sinks: str | None,
    settings: list[str] | None,
    delivery: str | None,
    shards: int | None,
    models: Path | None,
    config: Path | None,
) -> dict[str, object]:
    extra = [f"options.delivery={delivery}"] if delivery else []
    chosen = load_config(config).changed(
        sources=source or (), sinks=sink or (), settings=[*(settings or ()), *extra], default_sink=sinks, models=models
    )
    return flink_job(load_pipeline(app).plan, chosen, shards=shards)
