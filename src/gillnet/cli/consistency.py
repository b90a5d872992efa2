"""``gillnet verify`` and ``gillnet repair``: a run's rows against the batch answer, and what came too late put right."""

from __future__ import annotations

import itertools
import json
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from gillnet.app import RunConfig, load_config, load_pipeline
from gillnet.app.finished import FinishedRun
from gillnet.app.runs import choose_model_scorer
from gillnet.app.sinks import create_topics, make_directory
from gillnet.cli.numbers import number
from gillnet.cli.run import App
from gillnet.connectors.uri import open_sink, parse_uri
from gillnet.core.errors import ConfigurationError
from gillnet.core.ports import Sink
from gillnet.lifecycle.consistency import Consistency, Difference, first_difference
from gillnet.lifecycle.output_consistency import OutputConsistency, OutputDifference
from gillnet.lifecycle.repair import Repair
from gillnet.lifecycle.repair import repair as repair_run
from gillnet.lifecycle.verify import verify as verify_run
from gillnet.plan.nodes import PipelinePlan

Sources = Annotated[
    list[str] | None,
    typer.Option("--source", "-s", metavar="STREAM=URI", help="What the run read, where there is no history."),
]
History = Annotated[Path | None, typer.Option("--history", metavar="DIR", help="The history that the run wrote.")]
NamedSinks = Annotated[
    list[str] | None, typer.Option("--sink", metavar="NAME=URI", help="Where an output of the run is.")
]
SinkPattern = Annotated[
    str | None, typer.Option("--sinks", metavar="PATTERN", help="Where the run's other outputs are, as it was run.")
]
Settings = Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="As the run had them.")]
Models = Annotated[Path | None, typer.Option(help="The model registry's directory.")]
ConfigFile = Annotated[
    Path | None, typer.Option(help="A configuration file; by default gillnet.toml, if there is one.")
]

_SHOWN_STEPS = 8


def verify(
    app: App,
    source: Sources = None,
    history: History = None,
    sink: NamedSinks = None,
    sinks: SinkPattern = None,
    settings: Settings = None,
    models: Models = None,
    config: ConfigFile = None,
    as_json: Annotated[bool, typer.Option("--json", help="The result as JSON.")] = False,
) -> None:
    """Compare what a run emitted, after its last revisions, with the batch answer.

    Give the options that the run had. With --history the batch answer is over exactly the events that the run accepted; with
    --source over what the source has, without what the run set aside. Sessions, matches of patterns and rows of joins are
    compared too, where the run wrote them. Exit code 1 if anything differs.
    """
    chosen = _config(config, source, history, sink, sinks, settings, models)
    plan = load_pipeline(app).plan
    flagged_only = (chosen.options.emit or ("flagged" if plan.sessions else "all")) == "flagged"
    result = verify_run(FinishedRun(plan, chosen), choose_model_scorer(plan, chosen.models), flagged_only=flagged_only)
    if as_json:
        typer.echo(json.dumps(_as_json(result), indent=2))
    else:
        _print_consistency(plan, result)
    if not result.agrees:
        raise typer.Exit(1)


def repair(
    app: App,
    source: Sources = None,
    history: History = None,
    sink: NamedSinks = None,
    sinks: SinkPattern = None,
    out: Annotated[
        str | None, typer.Option(help="Where corrections go; by default decisions.corrections beside the decisions.")
    ] = None,
    settings: Settings = None,
    models: Models = None,
    config: ConfigFile = None,
    as_json: Annotated[bool, typer.Option("--json", help="The result as JSON.")] = False,
) -> None:
    """Put what came too late where it belongs, and write a correction for every row that it changes.

    Give the options that the run had. The rows from the earliest late event on are computed again over everything that ever
    came; the run's own outputs are not touched, and a second repair gives the same corrections.
    """
    chosen = _config(config, source, history, sink, sinks, settings, models)
    plan = load_pipeline(app).plan
    run = FinishedRun(plan, chosen)
    place = out or _beside(run.uri("decisions") or "")
    corrections = _open(place, chosen)
    try:
        result = repair_run(run, choose_model_scorer(plan, chosen.models), corrections)
    finally:
        corrections.close()
    if as_json:
        typer.echo(json.dumps(_repair_as_json(result, place), indent=2))
    else:
        _print_repair(plan, result, place)


def _config(
    path: Path | None,
    source: list[str] | None,
    history: Path | None,
    sink: list[str] | None,
    sinks: str | None,
    settings: list[str] | None,
    models: Path | None,
) -> RunConfig:
    return load_config(path).changed(
        sources=source or (),
        sinks=sink or (),
        settings=settings or (),
        default_sink=sinks,
        models=models,
        history=history,
    )


def _beside(decisions: str) -> str:
    path, question, query = decisions.partition("?")
    head, _, name = path.rpartition("/")
    corrected = name.replace("decisions", "decisions.corrections", 1) if "decisions" in name else f"corrections.{name}"
    if not name:
        raise ConfigurationError("Corrections have no place; say where they go with --out corrections.ndjson.")
    return f"{head}/{corrected}{question}{query}" if head else f"{corrected}{question}{query}"


def _open(place: str, config: RunConfig) -> Sink:
    parsed = parse_uri(place, what="--out")
    if parsed.scheme == "kafka" and parsed.address:
        create_topics(parsed.address, [parsed.path.strip("/")], settings=config.kafka)
    elif parsed.scheme == "file" and parsed.path != "-":
        make_directory(Path(parsed.path).parent)
        # A repair is written anew, whole.
        place = place if "mode=" in place else f"{place}{'&' if parsed.parameters else '?'}mode=overwrite"
    return open_sink(place, settings=config.connection(place))


def _print_consistency(plan: PipelinePlan, result: Consistency) -> None:
    # Written to a pipe, a line must not break in the middle.
    console = Console(highlight=False) if sys.stdout.isatty() else Console(highlight=False, width=200)
    console.print(f"{plan.name}: {result.rows:,} rows of the run, after their last revision, against the batch answer")
    console.print(_consistency_table(result))
    if (largest := result.largest) is not None:
        console.print(f"largest difference: {largest[1]} of {largest[0]}, by {number(largest[2])}")
    first = first_difference(result.differences)
    stories = [] if first is None else [_story(first)]
    stories += [_output_story(name, output) for name, output in result.outputs.items()]
    for line in itertools.chain.from_iterable(stories):
        console.print(line, markup=False)


def _consistency_table(result: Consistency) -> Table:
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 2))
    table.add_column()
    table.add_column(justify="right")
    table.add_column()
    table.add_row("equal", f"{result.equal:,}", f"[bold]{_percent(result.share)}[/bold]")
    table.add_row("revised", f"{result.revised:,}", "rows went out more than once")
    for name, count, meaning in (
        ("differing", result.differing, "rows whose content is another"),
        ("missing", result.missing, "rows that the run never wrote"),
        ("extra", result.extra, "rows that the batch answer does not have"),
        ("other model", result.other_model, "rows that another model version scored: features compared, not scores"),
    ):
        if count:
            table.add_row(name, f"{count:,}", meaning)
    if result.left_out:
        table.add_row(
            "left out", f"{len(result.left_out)}", f"features that follow the population: {', '.join(result.left_out)}"
        )
    for name, output in result.outputs.items():
        table.add_row(name, f"{output.rows:,} rows", f"[bold]{_percent(output.share)}[/bold]{_unequal(name, output)}")
    for name in result.unwritten:
        table.add_row(name, "-", "went nowhere: not compared")
    return table


def _unequal(name: str, output: OutputConsistency) -> str:
    """Say what is not equal, by kind, and what could not be compared."""
    open_ = f"{'open' if name == 'sessions' else 'waiting'} at the end: left out"
    kinds = {"differing": output.differing, "missing": output.missing, "extra": output.extra, open_: output.undecided}
    return "".join(f", {count:,} {kind}" for kind, count in kinds.items() if count)


def _percent(value: float) -> str:
    # 100 % must mean all of them.
    return "100 %" if value == 1 else f"{min(value, 0.999999):.4%}".replace("%", " %")


def _story(difference: Difference) -> Iterator[str]:
    """Tell a row's history, and in what it differs."""
    yield f"first differing row: {difference.id}"
    for step in difference.history[:_SHOWN_STEPS]:
        side = step.get("new", step)
        what = (
            f"revision {step['revision']}, by {step['cause']['stream']} {step['cause']['id']}"
            if "new" in step
            else "went out"
        )
        yield f"  {what}: {side.get('decision')}{_scored(side)}"
    if not difference.history:
        yield "  the run never wrote it"
    if difference.expected is None:
        yield "  the batch answer does not have it"
        return
    yield f"  batch answer: {difference.expected.get('decision')}{_scored(difference.expected)}"
    if difference.emitted is not None:
        mine, theirs = ({**side, **side["features"]} for side in (difference.emitted, difference.expected))
        for name in difference.names:
            yield f"    {name}: {mine.get(name)} written, {theirs.get(name)} in the batch answer"


def _output_story(name: str, output: OutputConsistency) -> Iterator[str]:
    """Tell by how much rows differ, the history of the first that does, and what it should be."""
    if output.largest is not None:
        identity, column, gap = output.largest
        yield f"largest difference of {name}: {column} of {_identity(name, identity)}, by {number(gap)}"
    first = output.first
    if first is None:
        return
    yield f"first differing row of {name}: {_identity(name, first.identity)}"
    for step in first.history[:_SHOWN_STEPS]:
        said = f"went out: {_content(step, first)}"
        if step.get("withdrawn"):
            said = "was withdrawn"
        elif "replaced_by" in step:
            said = f"was replaced by the session of {step['replaced_by']}"
        yield f"  revision {step['revision']} {said}"
    if not first.history:
        yield "  the run never wrote it"
    if first.expected is None:
        yield "  the batch answer does not have it"
    else:
        yield f"  batch answer: {_content(first.expected, first)}"


def _identity(name: str, identity: dict[str, Any]) -> str:
    values = ["nothing" if value is None else str(value) for value in identity.values()]
    if name == "sessions":
        return "{} from {}".format(*values)
    if name == "matches":
        return "{} of {}, {} to {}".format(*values)
    return " with ".join(values)


def _content(row: dict[str, Any], of: OutputDifference) -> str:
    """Write what a row says beside what it is known by."""
    hidden = {*of.identity, "revision", "withdrawn", "saturated"}
    shown = {name: value for name, value in row.items() if name not in hidden and not isinstance(value, dict)}
    shown |= row.get("columns", {}) | row.get("features", {})
    if "events" in shown:
        shown["events"] = " ".join(f"{event['step']}:{event['id']}" for event in shown["events"])
    return ", ".join(f"{name}={value}" for name, value in shown.items())


def _scored(side: dict[str, Any]) -> str:
    return f", score {side['score']}" if "score" in side else ""


def _as_json(result: Consistency) -> dict[str, Any]:
    figures = ("rows", "equal", "share", "differing", "missing", "extra", "revised", "other_model", "left_out")
    largest = result.largest
    outputs = {name: _output_as_json(output) for name, output in result.outputs.items()}
    return {name: getattr(result, name) for name in figures} | {
        "sessions": outputs.get("sessions"),
        "matches": outputs.get("matches"),
        "joins": {name: output for name, output in outputs.items() if name.startswith("joins.")},
        "unwritten": result.unwritten,
        "largest": largest and dict(zip(("id", "name", "difference"), largest, strict=True)),
        "first": _difference_as_json(first_difference(result.differences)),
    }


def _output_as_json(output: OutputConsistency) -> dict[str, Any]:
    first, largest = output.first, output.largest
    return asdict(output) | {
        "share": output.share,
        "largest": largest and largest[0] | {"name": largest[1], "difference": largest[2]},
        "first": first
        and first.identity
        | {"names": first.names, "emitted": first.emitted, "expected": first.expected, "history": first.history},
    }


def _difference_as_json(difference: Difference | None) -> dict[str, Any] | None:
    if difference is None:
        return None
    names = ("id", "names", "emitted", "expected", "history")
    return {name: getattr(difference, name) for name in names}


def _print_repair(plan: PipelinePlan, result: Repair, place: str) -> None:
    if result.since_us is None:
        typer.echo(f"{plan.name}: nothing came late; there is nothing to repair.")
        return
    for stream, kinds in result.late.items():
        told = ", ".join(f"{count:,} {kind.replace('_', ' ')}" for kind, count in kinds.items())
        typer.echo(f"{stream}: {told}")
    typer.echo(f"{result.rows:,} rows computed again, over everything that came")
    typer.echo(
        f"{result.changed + result.added:,} corrections: {result.changed:,} changed, {result.added:,} never scored before"
    )
    typer.echo(f"{result.decisions:,} decisions would have been different")
    for (then, now), count in sorted(result.flips.items()):
        typer.echo(f"  {count:>7,}  {then} -> {now}")
    typer.echo(f"written to {place}")


def _repair_as_json(result: Repair, place: str) -> dict[str, Any]:
    return {
        "late": result.late,
        "since_us": result.since_us,
        "rows": result.rows,
        "changed": result.changed,
        "added": result.added,
        "decisions": result.decisions,
        "flips": [{"then": then, "now": now, "rows": count} for (then, now), count in sorted(result.flips.items())],
        "corrections": place,
    }
