"""``gillnet state``: what a checkpoint's state holds, by operator, by feature and by key."""

from __future__ import annotations

import json as json_text
import sys
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from gillnet.app import load_pipeline
from gillnet.cli import state_tables
from gillnet.core.errors import ConfigurationError
from gillnet.core.time import MICROSECOND
from gillnet.lifecycle.state_view import StateView, export_all, export_keys, feature_costs, open_state

state = typer.Typer(
    help=(
        "Look into the state of a checkpoint; a run that writes there is not disturbed. It takes memory for the whole state: with the "
        "backend rocksdb for every key, however small the run's own state_memory is."
    ),
    no_args_is_help=True,
    rich_markup_mode=None,
)

Place = Annotated[str, typer.Argument(help="Where the checkpoints are: a directory, or s3://bucket/path.")]
Number = Annotated[int | None, typer.Option("--checkpoint", min=1, help="Which one; by default the newest.")]
Definition = Annotated[
    str | None, typer.Option("--app", help="The pipeline, for checkpoints of a version that kept no plan.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Everything as JSON, on standard output.")]


@state.command("list", short_help="Show sizes, age, and what expires when.")
def list_state(
    place: Place,
    number: Number = None,
    top: Annotated[int, typer.Option(min=0, max=1_000, help="Largest keys of each operator.")] = 3,
    app: Definition = None,
    json: AsJson = False,
) -> None:
    """Show each operator and feature: keys, events, bytes, age, how long and why it is kept, and what expires when."""
    view = _open(place, number, app)
    operators = view.operators(top=top)
    costs = feature_costs(view.plan, operators)
    if json:
        told = {"checkpoint": _checkpoint(view), "operators": [asdict(operator) for operator in operators]}
        typer.echo(json_text.dumps(told | {"features": [asdict(cost) for cost in costs]}))
        return
    _console().print(state_tables.overview(view, operators, costs))


@state.command("get", short_help="Show one key in clear.")
def get_key(
    place: Place,
    key: Annotated[str, typer.Argument(help="The key, such as a card's number.")],
    entity: Annotated[
        str | None, typer.Option(help="Only of this entity: card_id, or payments.card_id.", metavar="NAME")
    ] = None,
    at: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="Read features as of this event time, such as 2026-07-01T12:00:00Z."),
    ] = None,
    most: Annotated[int, typer.Option("--events", min=0, help="The newest so many events of each operator.")] = 20,
    number: Number = None,
    app: Definition = None,
    json: AsJson = False,
) -> None:
    """Show one key in clear: its events, what reads them, and its features as of now."""
    view = _open(place, number, app)
    at_us = None if at is None else _instant(at)
    found = view.key(key, entity=entity, at_us=at_us)
    if not found:
        raise ConfigurationError(
            f"Checkpoint {view.checkpoint.number} of {place} holds nothing of the key {key!r}: no event of it is kept any more, or it is "
            "written otherwise; `gillnet state export` writes all keys."
        )
    if json:
        typer.echo(json_text.dumps({"checkpoint": _checkpoint(view), "key": key, "held": state_tables.plain(found)}))
        return
    as_of_us = view.inspector.as_of_us() if at_us is None else at_us
    _console().print(state_tables.one_key(view, key, found, as_of_us=as_of_us, most=most))


@state.command(short_help="Write keys and events as Parquet.")
def export(
    place: Place,
    out: Annotated[Path, typer.Argument(help="OUT.parquet: a row for each key; a directory: all events as well.")],
    number: Number = None,
    app: Definition = None,
) -> None:
    """Write keys, and events, as Parquet files that only you may read."""
    view = _open(place, number, app)
    if out.suffix == ".parquet":
        written = {out.name: export_keys(view, out)}
        directory = out.parent
    else:
        written, directory = export_all(view, out), out
    for name, rows in written.items():
        typer.echo(f"{directory / name}  {rows:,} rows")


def _open(place: str, number: int | None, app: str | None) -> StateView:
    return open_state(place, number=number, plan=None if app is None else load_pipeline(app).plan)


def _checkpoint(view: StateView) -> dict[str, object]:
    checkpoint = view.checkpoint
    return {
        "number": checkpoint.number,
        "taken_us": checkpoint.taken_us,
        "bytes": checkpoint.bytes,
        "pipeline": view.plan.name,
        "place": view.place,
        "warming": view.warming(),
    }


def _instant(text: str) -> int:
    try:
        instant = datetime.fromisoformat(text)
    except ValueError:
        raise ConfigurationError(f"--at {text}: write a time such as 2026-07-01T12:00:00Z.") from None
    instant = instant if instant.tzinfo else instant.replace(tzinfo=UTC)
    return round(instant.timestamp() * 1_000_000) * MICROSECOND


def _console() -> Console:
    # Written to a pipe, a line must not break in the middle.
    return Console(highlight=False) if sys.stdout.isatty() else Console(width=240, highlight=False)
