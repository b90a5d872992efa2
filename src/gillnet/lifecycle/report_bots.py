"""Measure scenario 1: ``python -m gillnet.lifecycle.report_bots [--kafka]``.

For each difficulty of the bots, a simulation that the sequential score was not fitted on goes through the embedded
runtime, from memory or through a real broker, and what it wrote is held against the simulator's labels. The rate alone
is measured at the precision that the sequential score reaches, to show what the other evidence is for.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import structlog
import typer
from rich.console import Console
from rich.table import Table

from gillnet.connectors.memory import MemorySink
from gillnet.core.time import SystemClock
from gillnet.lifecycle.bot_detection import ACTED, RULE_KINDS, Detection, SessionTally, judge, rate_threshold
from gillnet.lifecycle.bot_prefixes import visitor_labels
from gillnet.lifecycle.records import save_runs
from gillnet.plan.nodes import ACTIONS, PipelinePlan
from gillnet.runtimes.embedded import Alert, EmbeddedRuntime, Outputs, RuntimeOptions
from gillnet.scenarios.bots import bots_pipeline
from gillnet.simulator import Simulation, SimulationConfig, SimulatorSource, produce

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from gillnet.core.ports import Sink, Source
    from gillnet.observability.metrics import StreamCounts

REPORT_SEED = 31
"""Far from the seeds that were fitted or chosen by."""

LEVELS = (0, 1, 2)
RESULTS = Path("bench/results/scenario_bots.json")
FLAGS = tuple(action for action in ACTIONS if action != "allow")

_log = structlog.get_logger("gillnet.bots")


@dataclass(frozen=True, slots=True, kw_only=True)
class KafkaFigures:
    """The same clicks through a real broker: ``clicks`` → ``alerts`` and ``sessions``.

    ``differing`` counts, by decision, alerts that are in one of the two runs only. Reviews may differ while a backlog
    of several partitions is read: baselines know the sessions that the watermark has closed so far. Blocks and
    step-ups, by limits and the score, may not.
    """

    clicks_per_second: float
    alerts: int
    sessions: int
    too_late: int
    differing: dict[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class LevelReport:
    """One difficulty.

    ``by_rule`` is each kind of rule by itself; ``rate_alone`` is at the precision of the sequential score.
    """

    level: int
    clicks: int
    human_sessions: int
    bot_sessions: int
    clicks_per_second: float
    any_alert: Detection
    acted_on: Detection
    by_rule: dict[str, Detection]
    rate_alone: Detection
    rate_alone_threshold: float | None
    kafka: KafkaFigures | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class BotsReport:
    """Scenario 1, measured."""

    seed: int
    days: int
    levels: tuple[LevelReport, ...]

    def table(self) -> Table:
        """Return the report for a terminal."""
        table = Table(title=f"Bot sessions, flagged while they run ({self.days} days, seed {self.seed})")
        for heading in ("difficulty", "flagged by", "precision", "recall", "scraper", "credential stuffing"):
            table.add_column(heading)
        for heading in ("clicks p50", "p90", "clicks spared", "false alarms per 1,000"):
            table.add_column(heading, justify="right")
        for level in self.levels:
            rows = {"any rule": level.any_alert, "block or step-up": level.acted_on}
            rows |= {f"{kind} rules": found for kind, found in level.by_rule.items()}
            rows["rate alone"] = level.rate_alone
            for number, (name, found) in enumerate(rows.items()):
                table.add_row("" if number else str(level.level), name, *_cells(found))
            table.add_section()
        return table


def report(
    *,
    seed: int = REPORT_SEED,
    days: int = 2,
    sessions_per_day: int = 10_000,
    payments_per_day: int = 50_000,
    bots_per_day: int = 200,
    levels: Sequence[int] = LEVELS,
    bootstrap_servers: str | None = None,
    on_alerts: Callable[[list[Alert]], None] | None = None,
) -> BotsReport:
    """Run the scenario at each difficulty, and measure it.

    Parameters
    ----------
    seed
        Of the simulations; each level adds its number.
    days
        Event time of each simulation.
    sessions_per_day, payments_per_day, bots_per_day
        Its traffic. Online payments bring sessions of their own; one in a hundred sessions is a bot's by default.
    levels
        Difficulties of bots, 0 to 2.
    bootstrap_servers
        Also run through this Kafka broker, in topics ``clicks-<level>``, ``alerts-<level>`` and ``sessions-<level>``,
        which must not exist.
    on_alerts
        Called with the alerts of the run through the broker, or of the run from memory if there is none.
    """
    measured = []
    for level in levels:
        config = SimulationConfig(
            seed=seed + level,
            duration=f"{days}d",
            bot_difficulty=level,
            sessions_per_day=sessions_per_day,
            payments_per_day=payments_per_day,
            bots_per_day=bots_per_day,
        )
        measured.append(_measure(Simulation(config), level, bootstrap_servers, on_alerts))
    return BotsReport(seed=seed, days=days, levels=tuple(measured))


def log_alerts(alerts: Sequence[Alert]) -> None:
    """Log each alert as one line: who, after how many clicks, what was decided, and why."""
    for alert in alerts:
        _log.info(
            "bot session",
            visitor=alert.key,
            decision=alert.decision,
            clicks=alert.row["clicks"],
            score=round(alert.row["sequential_score"], 2),
            reasons=list(alert.reasons),
        )


class _TallySink:
    """Folds what is written into a tally, so that a run's rows need not be kept."""

    def __init__(self, take: Callable[[Sequence[bytes]], None]) -> None:
        self._take = take

    def write(self, values: Sequence[bytes], keys: Sequence[bytes | None] | None = None) -> None:  # noqa: ARG002
        self._take(values)

    def write_records(self, records: Sequence[object]) -> None:
        raise TypeError(f"a tally takes rows, and not {len(records)} records with headers")

    def flush(self) -> None:
        """Do nothing: what is written is counted."""

    def close(self) -> None:
        """Do nothing: nothing is held."""


def _measure(
    simulation: Simulation, level: int, servers: str | None, on_alerts: Callable[[list[Alert]], None] | None
) -> LevelReport:
    plan, tally, alerts = bots_pipeline().plan, SessionTally(), MemorySink()
    sinks: dict[str, Sink] = {
        "decisions": _TallySink(tally.add_rows),
        "sessions": _TallySink(tally.add_sessions),
        "alerts": alerts,
    }
    counts, per_second = _run(
        plan, SimulatorSource(simulation, "clicks"), sinks.get, emit="all", on_alerts=None if servers else on_alerts
    )
    labels = visitor_labels(simulation)
    found = {kind: judge(tally.detected([kind]), tally.clicks, labels) for kind in RULE_KINDS}
    threshold = rate_threshold(tally, lambda session: labels[session[0]].bot, found["sequential"].precision or 1.0)
    fast = {} if threshold is None else tally.faster_than(threshold)
    bots = sum(labels[visitor].bot for visitor, _ in tally.clicks)
    return LevelReport(
        level=level,
        clicks=counts.read,
        human_sessions=sum(labels[visitor].kind == "human" for visitor, _ in tally.clicks),
        bot_sessions=bots,
        clicks_per_second=per_second,
        any_alert=judge(tally.detected(FLAGS), tally.clicks, labels),
        acted_on=judge(tally.detected(ACTED), tally.clicks, labels),
        by_rule=found,
        rate_alone=judge(fast, tally.clicks, labels),
        rate_alone_threshold=None if threshold is None else round(threshold, 2),
        kafka=_through_kafka(plan, simulation, level, servers, alerts.values, on_alerts) if servers else None,
    )


def _run(
    plan: PipelinePlan,
    source: Source,
    open_sink: Callable[[str], Sink | None],
    *,
    emit: str,
    on_alerts: Callable[[list[Alert]], None] | None,
) -> tuple[StreamCounts, float]:
    """Run to the end of the source; returns what became of its clicks, and clicks per second."""
    clock = SystemClock()
    runtime = EmbeddedRuntime(
        plan,
        sources={plan.root: source},
        outputs=Outputs(open_sink),
        options=RuntimeOptions(emit=emit),
        on_alerts=on_alerts,
    )
    began_s = clock.monotonic_s()
    counts = runtime.run().stream(plan.root)
    return counts, round(counts.read / (clock.monotonic_s() - began_s), 0)


def _through_kafka(
    plan: PipelinePlan,
    simulation: Simulation,
    level: int,
    servers: str,
    expected: Sequence[bytes],
    on_alerts: Callable[[list[Alert]], None] | None,
) -> KafkaFigures:
    from gillnet.connectors.kafka import KafkaSink, KafkaSource, ensure_topics

    topics = {name: f"{name}-{level}" for name in ("clicks", "alerts", "sessions")}
    ensure_topics(list(topics.values()), bootstrap_servers=servers)
    clicks = KafkaSink(topic=topics["clicks"], bootstrap_servers=servers)
    produce(simulation, clicks, stream="clicks")
    clicks.close()

    def source(name: str) -> KafkaSource:
        group = f"gillnet-bots-{level}"
        return KafkaSource(
            stream=name, topic=topics[name], bootstrap_servers=servers, group=group, start="earliest", until_end=True
        )

    def sink(name: str) -> Sink | None:
        return KafkaSink(topic=topics[name], bootstrap_servers=servers) if name in ("alerts", "sessions") else None

    counts, per_second = _run(plan, source("clicks"), sink, emit="flagged", on_alerts=on_alerts)
    alerts, sessions = _read(source("alerts")), _read(source("sessions"))
    return KafkaFigures(
        clicks_per_second=per_second,
        alerts=len(alerts),
        sessions=len(sessions),
        too_late=counts.too_late,
        differing=differing_alerts(expected, alerts),
    )


def differing_alerts(left: Sequence[bytes], right: Sequence[bytes]) -> dict[str, int]:
    """Return, for each decision, the sessions and clicks at which only one of two runs took it."""
    tallies = SessionTally(), SessionTally()
    for tally, values in zip(tallies, (left, right), strict=True):
        tally.add_rows(values)
    return {
        decision: len(set(tallies[0].first.get(decision, {}).items()) ^ set(tallies[1].first.get(decision, {}).items()))
        for decision in FLAGS
    }


def _read(source: Source) -> list[bytes]:
    values: list[bytes] = []
    while not source.finished:
        batch = source.poll(10_000, 0.2)
        values += batch.values if batch is not None else []
    source.close()
    return values


def _cells(found: Detection) -> list[str]:
    clicks = [found.clicks_p50, found.clicks_p90]
    return [
        "-" if found.precision is None else f"{found.precision:.3f}",
        f"{found.recall:.3f}",
        *(f"{found.recall_by_kind.get(kind, 0.0):.3f}" for kind in ("scraper", "credential_stuffing")),
        *("-" if value is None else f"{value:.0f}" for value in clicks),
        f"{100 * found.spared:.0f} %",
        f"{found.false_alarms_per_1000:.2f}",
    ]


def main(
    kafka: Annotated[bool, typer.Option(help="Also run it through a real Kafka broker, started for it.")] = False,
    alerts: Annotated[bool, typer.Option("--alerts", help="Log each alert of the run through Kafka.")] = False,
    days: Annotated[int, typer.Option(help="Days of clicks at each difficulty.")] = 2,
    output: Annotated[Path, typer.Option(help="Where the figures go, as JSON.")] = RESULTS,
) -> None:
    """Measure how well bot sessions are flagged while they run."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger("info"))
    with ExitStack() as stack:
        servers = None
        if kafka:
            from gillnet.connectors.local_kafka import LocalKafka

            servers = stack.enter_context(LocalKafka()).bootstrap_servers
        measured = report(days=days, bootstrap_servers=servers, on_alerts=log_alerts if alerts else None)
    save_runs(output, [asdict(measured)])
    console = Console()
    # The table needs its width where the output is no terminal, too.
    console.width = max(console.width, 130)
    console.print(measured.table())
    for level in measured.levels:
        if level.kafka:
            console.print(f"difficulty {level.level} through Kafka: {level.kafka}")


if __name__ == "__main__":
    typer.run(main)
