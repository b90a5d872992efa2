"""``gillnet upgrade`` and ``gillnet savepoint``: go on from a run's state with another definition, and keep a state for good."""

from __future__ import annotations

import json as json_text
import sys
from dataclasses import asdict
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from gillnet.app import load_pipeline
from gillnet.cli.run import App
from gillnet.lifecycle.upgrade import Upgrade, plan_upgrade, write_upgrade
from gillnet.state import CheckpointStore
from gillnet.state.savepoints import copy_newest
from gillnet.state.warming import complete_words

_REFUSED = 1


def upgrade(
    app: App,
    place: Annotated[
        str, typer.Option("--from", metavar="PLACE", help="Where the checkpoints of the run are that was stopped.")
    ],
    drop: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Forget this part's state where it cannot be carried over; it begins anew."),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what becomes of each part.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Everything as JSON, on standard output.")] = False,
) -> None:
    """Carry the state of a run that was stopped over to a definition that has changed.

    Prints what becomes of every part: kept, added, changed, dropped, or refused with the reason and the mend. A feature that needs
    what was never kept is warming, and from when on it is complete is said. Unless something is refused, the place has one more
    checkpoint then, from which `gillnet run` goes on with the new definition.
    """
    plan = load_pipeline(app).plan
    lanes = CheckpointStore(place).lanes()
    places = [f"{place.rstrip('/')}/{lane}" for lane in lanes] or [place]
    # All of them are looked at before the first is written.
    upgrades = [plan_upgrade(each, plan, drop=drop or ()) for each in places]
    for each in upgrades:
        _say(each, json=json)
    if any(each.refused for each in upgrades):
        raise typer.Exit(_REFUSED)
    if dry_run or not any(each.needed for each in upgrades):
        return
    for each in upgrades:
        written = write_upgrade(each)
        if not json:
            typer.echo(
                f"{each.place}: checkpoint {written.number} has the new definition; gillnet run goes on from it."
            )


def savepoint(
    place: Annotated[str, typer.Argument(help="Where the checkpoints of a run are: a directory, or s3://bucket/path.")],
    target: Annotated[str, typer.Argument(help="An empty place, where no run's clean-up comes.")],
) -> None:
    """Keep the newest whole checkpoint of a place for good.

    The target has everything that it needs, and every file was held against its checksum. A run begins from it with
    `gillnet run --from-savepoint TARGET --checkpoints AN_EMPTY_PLACE`. Stop the run before, or what came behind its newest
    checkpoint is not in it: those records are read again, and their rows go out again.
    """
    kept = copy_newest(place, target)
    typer.echo(f"{target}: checkpoint {kept.number} of pipeline {kept.pipeline}, {kept.bytes:,} bytes, whole")


def _say(upgrade: Upgrade, *, json: bool) -> None:
    if json:
        told = {
            "place": upgrade.place,
            "checkpoint": upgrade.checkpoint.number,
            "parts": [asdict(part) for part in upgrade.parts],
            "warming": upgrade.warming,
            "bytes": len(upgrade.state),
        }
        typer.echo(json_text.dumps(told))
        return
    console = Console(highlight=False) if sys.stdout.isatty() else Console(width=240, highlight=False)
    console.print(Text(f"{upgrade.plan.name}  checkpoint {upgrade.checkpoint.number} of {upgrade.place}"))
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for column in ("part", "name", "becomes", "why"):
        table.add_column(column, no_wrap=column != "why")
    for part in upgrade.parts:
        becomes: str = part.outcome
        if part.kind == "feature" and part.name in upgrade.warming:
            becomes += f", warming until {complete_words(upgrade.warming[part.name])}"
        why = f"{part.what}; mend: {part.mend}" if part.mend else part.what
        table.add_row(part.kind, part.name, becomes, why)
    console.print(table)
    if not upgrade.needed:
        console.print("Nothing differs: gillnet run goes on as it is.")
    elif upgrade.refused:
        console.print(f"{len(upgrade.refused)} refused, so nothing was written.")
