"""``gillnet doctor``: what is the matter with a run, why, and what to change."""

from __future__ import annotations

import json as json_text
import re
import sys
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from gillnet.app import RunConfig, load_config, load_pipeline
from gillnet.app.config import known_settings
from gillnet.cli import doctor_page
from gillnet.core.errors import ConfigurationError
from gillnet.lifecycle.doctor import SEVERITIES, Finding, Readings, diagnose, gather, gather_flink, job_address
from gillnet.plan.nodes import PipelinePlan

_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*(B|[kMGT]i?B?)?", re.IGNORECASE)


class FailOn(StrEnum):
    """From which severity on the exit code is 1."""

    CRITICAL = "critical"
    WARNING = "warning"
    NOTICE = "notice"
    NEVER = "never"


def doctor(
    what: Annotated[
        str,
        typer.Argument(
            metavar="PLACE|APP|JOB",
            help="Where the checkpoints are; the pipeline: app.py; or a job on Flink: http://host:8081/jobs/NAME.",
        ),
    ],
    config: Annotated[
        Path | None, typer.Option(help="A configuration file; by default gillnet.toml, if there is one.")
    ] = None,
    number: Annotated[int | None, typer.Option("--checkpoint", min=1, help="Which one; by default the newest.")] = None,
    limit: Annotated[
        str | None, typer.Option(metavar="SIZE", help="Memory that the run may take, such as 2GB; else what it saw.")
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="Leave the state closed: figures alone, without the memory that it takes.")
    ] = False,
    fail_on: Annotated[
        FailOn,
        typer.Option(metavar="SEVERITY", help="Exit with 1 from critical, warning or notice on; or never."),
    ] = FailOn.CRITICAL,
    json: Annotated[bool, typer.Option("--json", help="Readings and findings as JSON.")] = False,
) -> None:
    """Say what is the matter with a run, why, and what to change, in the order in which to act.

    It reads the newest checkpoint and the history of figures beside it, and changes nothing; the run may be live. The state is
    restored for that, which takes as much memory as in the run, and with the backend rocksdb memory for every key: --quick does
    without. Of a job on Flink it asks the REST API.
    """
    if what.startswith(("http://", "https://")):
        readings = of_flink(what, number=number, limit=limit, quick=quick)
    else:
        chosen = load_config(config)
        place, plan = where(what, chosen)
        readings = gather(
            place,
            plan=plan,
            checkpoint=number,
            with_state=not quick,
            limit_bytes=None if limit is None else read_size(limit),
            options=known_options(),
            configured=asdict(chosen.options),
        )
    found = diagnose(readings)
    if json:
        told = {"findings": [asdict(finding) for finding in found], "readings": plain(readings)}
        typer.echo(json_text.dumps(told))
    else:
        # Written to a pipe, a line must not break in the middle.
        console = Console(highlight=False) if sys.stdout.isatty() else Console(width=160, highlight=False)
        console.print(doctor_page.page(readings, found))
    if fails(found, fail_on):
        raise typer.Exit(1)


def of_flink(what: str, *, number: int | None, limit: str | None, quick: bool) -> Readings:
    """Return the readings of a job on Flink, which has no state of ours to open."""
    given = {"--checkpoint": number is not None, "--limit": limit is not None, "--quick": quick}
    if refused := [name for name, is_given in given.items() if is_given]:
        raise ConfigurationError(f"{what} is a job on Flink, which tells all of it: leave {', '.join(refused)} out.")
    return gather_flink(job_address(what))


def where(what: str, config: RunConfig) -> tuple[str, PipelinePlan | None]:
    """Return the place of checkpoints and the plan, where a pipeline is named."""
    if "://" in what or (Path(what).is_dir() and not what.endswith(".py")):
        return what, None
    plan = load_pipeline(what).plan
    if config.checkpoints is None:
        raise ConfigurationError(
            f"{what} is a pipeline, and no configuration says where its checkpoints are; name the place itself, or write "
            'checkpoints = "…" into gillnet.toml.'
        )
    return config.checkpoints, plan


def fails(found: list[Finding], fail_on: FailOn) -> bool:
    """Whether something as bad as that was found."""
    if fail_on is FailOn.NEVER:
        return False
    return any(SEVERITIES.index(finding.severity) <= SEVERITIES.index(fail_on.value) for finding in found)


def known_options() -> set[str]:
    """Return what this build can be told that a finding may advise."""
    settings = known_settings()
    return {"workers", *(("rocksdb",) if "options.state_backend" in settings else ())}


def read_size(text: str) -> float:
    """Read an amount of memory: ``2GB``, ``512MiB``, ``1e9`` is none.

    >>> read_size("1.5GB"), read_size("4GiB"), read_size("100")
    (1500000000.0, 4294967296.0, 100.0)
    """
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise ConfigurationError(f"--limit {text}: write an amount of memory such as 2GB or 512MiB.")
    unit = (match[2] or "B").upper()
    base = 1_024 if "I" in unit else 1_000
    power = "BKMGT".index(unit[0])
    return float(match[1]) * float(base**power)


def plain(readings: Readings) -> dict[str, object]:
    """Return readings as JSON has them."""
    told = asdict(readings)
    told["options"] = sorted(readings.options)
    return told
