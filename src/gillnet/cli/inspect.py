"""``gillnet explain``, ``models`` and ``version``: what is there, without running anything."""

from __future__ import annotations

import importlib.metadata
import platform
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from gillnet.app import load_config, load_pipeline
from gillnet.cli.numbers import number
from gillnet.cli.run import App
from gillnet.plan.explain import explain as explain_plan
from gillnet.plan.residency import explain_rocksdb
from gillnet.plan.serde import dumps
from gillnet.serving import ModelRegistry

_PACKAGES = (
    "numpy",
    "pyarrow",
    "msgspec",
    "xgboost-cpu",
    "xgboost",
    "confluent-kafka",
    "rocksdict",
    "rich",
    "typer",
    "structlog",
)


def explain(
    app: App,
    config: Annotated[
        Path | None, typer.Option(help="A configuration file; by default gillnet.toml, if there is one.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="The plan as JSON.")] = False,
) -> None:
    """Print what a pipeline computes: streams, features, model and policy.

    Where the configuration has the state backend rocksdb, it says as well which parts of the state may leave memory.
    """
    plan = load_pipeline(app).plan
    if json:
        typer.echo(dumps(plan))
        return
    typer.echo(explain_plan(plan).rstrip("\n"))
    if load_config(config).state.backend == "rocksdb":
        typer.echo(f"\n{explain_rocksdb(plan)}".rstrip("\n"))


def models(
    directory: Annotated[
        Path | None, typer.Option("--models", help="A model registry; by default the packaged models only.")
    ] = None,
) -> None:
    """List models: versions, aliases, metrics."""
    registry = ModelRegistry(directory)
    names = registry.names()
    if not names:
        typer.echo(
            "There are no models"
            + (f" in {directory}." if directory else " in the package; give a registry with --models.")
        )
        return
    table = Table(box=None, header_style="bold", padding=(0, 2, 0, 0))
    for column in ("model", "aliases", "features", "metrics"):
        table.add_column(column)
    for name in names:
        aliases = registry.aliases(name)
        for version in registry.versions(name):
            model = registry.load(f"{name}@{version}")
            pointing = ", ".join(sorted(alias for alias, target in aliases.items() if target == version))
            table.add_row(model.label, pointing, str(len(model.signature)), _metrics(model.metadata.get("metrics")))
    # Written to a pipe, a line must not break in the middle.
    console = Console() if sys.stdout.isatty() else Console(width=200)
    console.print(table)


def _metrics(metrics: object) -> str:
    if not isinstance(metrics, dict):
        return ""
    return ", ".join(
        f"{name}={number(value)}" for name, value in metrics.items() if isinstance(value, (int, float, str))
    )


def version(
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="With the versions of what it stands on.")] = False,
) -> None:
    """Print the version."""
    typer.echo(f"gillnet {_version('gillnet') or '(not installed)'}")
    if not verbose:
        return
    typer.echo(f"python {platform.python_version()} ({platform.machine()}, {platform.system()} {platform.release()})")
    for package in _PACKAGES:
        if found := _version(package):
            typer.echo(f"{package} {found}")


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
