"""``gillnet demo``: both scenarios, live, in about a minute."""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Iterator
from typing import Annotated

import typer
from rich.console import Console

from gillnet.app import choose_model_scorer
from gillnet.cli import demo_report
from gillnet.cli.demo_plain import DemoLines
from gillnet.cli.demo_report import Judged
from gillnet.cli.demo_run import Outcome, StageRun
from gillnet.cli.demo_stages import LEAST_SECONDS, Stage, demo_stages
from gillnet.cli.demo_story_text import StoriesPanel
from gillnet.cli.live import RunPage, live_page, repeating
from gillnet.cli.logs import log_lines
from gillnet.cli.signals import stop_on_signals
from gillnet.connectors.local_kafka import LocalKafka
from gillnet.core.time import SystemClock

_PLAIN_WIDTH = 120


def demo(
    kafka: Annotated[
        bool, typer.Option("--kafka", help="Through a real Kafka broker, started for it. Needs Java 17 and Maven.")
    ] = False,
    seconds: Annotated[float, typer.Option(min=LEAST_SECONDS, help="About how long it takes in all.")] = 60.0,
    seed: Annotated[int, typer.Option(min=0, help="The simulated people, fraud and bots follow from it.")] = 1,
    plain: Annotated[bool, typer.Option("--plain", help="Lines of text instead of a live page.")] = False,
) -> None:
    """Show bots and payment fraud caught live, on simulated streams, in about a minute.

    Scenario 1 flags bot sessions among website clicks while they run; scenario 2 scores card payments in flight, revises
    what late data changes, and finds failed logins that end in a password reset before a payment.
    In the end both are held against the simulator's labels. Ctrl-C stops early.
    """
    clock = SystemClock()
    began_s = clock.monotonic_s()
    live = sys.stdout.isatty() and not plain
    console = Console() if live else Console(width=_PLAIN_WIDTH, highlight=False)
    judged: list[Judged] = []
    stages = demo_stages(seed=seed, seconds=seconds)
    for stage in stages:
        choose_model_scorer(stage.plan, None)  # What is missing stops the start, not the second half.
    with stop_on_signals() as stop:
        with _broker(console, wanted=kafka) as servers:
            for number, stage in enumerate(stages, 1):
                if stop.is_set():
                    break
                outcome = _run(stage, number, servers, stop, console if live else None)
                console.print("comparing with the simulator's labels ...", style="dim")
                judged.append(demo_report.judge(outcome))
        _summarise(console, judged, clock.monotonic_s() - began_s, kafka=kafka, stopped=stop.is_set())


@contextlib.contextmanager
def _broker(console: Console, *, wanted: bool) -> Iterator[str | None]:
    if not wanted:
        yield None
        return
    console.print("starting Apache Kafka (the first time, Maven fetches 54 MB) ...", style="dim")
    with LocalKafka() as broker:
        yield broker.bootstrap_servers
        console.print("stopping Apache Kafka ...", style="dim")


def _run(stage: Stage, number: int, servers: str | None, stop: threading.Event, console: Console | None) -> Outcome:
    run = StageRun(stage, bootstrap_servers=servers)
    run.prepare()
    if console is None:
        lines = DemoLines(run, number=number, scenarios=2)
        with repeating(lines.write_due, 0.25):
            return run.run(stop)
    page = RunPage(
        run.monitor,
        tap=run.tap if stage.plan.sessions is not None else None,
        title=f"{number} of 2: {stage.name}",
        state=lambda: run.state,
        simulated=True,
        more=None if run.stories is None else StoriesPanel(run.stories, stage.plan),
    )
    try:
        with live_page(console, page, page.messages):
            return run.run(stop)
    finally:
        log_lines()


def _summarise(console: Console, judged: list[Judged], seconds: float, *, kafka: bool, stopped: bool) -> None:
    shown = [part for part in judged if part.outcome.live_records]
    if not shown:
        console.print("stopped before anything was live, so there is nothing to judge")
        return
    with console.capture() as captured:
        console.print("\n", demo_report.headline(shown, seconds=seconds, kafka=kafka, stopped=stopped), sep="")
        for part in shown:
            console.print("\n", demo_report.report(part, number=judged.index(part) + 1), sep="")
        console.print("\n", demo_report.next_steps(kafka=kafka), sep="")
    # A log or a pasted text should have no blanks at its lines' ends.
    print("\n".join(line.rstrip() for line in captured.get().splitlines()), flush=True)
