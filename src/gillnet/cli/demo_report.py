"""What a demo says in the end, and while it runs where there is no terminal for a page."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rich.console import Group, RenderableType
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from gillnet.cli import render
from gillnet.cli.demo_run import Outcome
from gillnet.cli.demo_story_text import late_text, sequence_text
from gillnet.cli.demo_verdict import BotsVerdict, PaymentsVerdict, judge_bots, judge_payments
from gillnet.cli.numbers import count, money, share
from gillnet.cli.words import ReasonWords, milliseconds
from gillnet.core.time import format_duration
from gillnet.runtimes.embedded import Alert

_EXAMPLES = 3


@dataclass(frozen=True, slots=True)
class Judged:
    """A stage's outcome, its verdict, and the first alert by what was judged."""

    outcome: Outcome
    verdict: BotsVerdict | PaymentsVerdict
    alerts: Mapping[str, Alert]


def judge(outcome: Outcome) -> Judged:
    """Hold a stage's live alerts against the simulator's labels."""
    stage, feed = outcome.stage, outcome.feed
    values = feed.values(stage.plan.root)
    alerts: dict[str, Alert] = {}
    verdict: BotsVerdict | PaymentsVerdict
    for alert in outcome.alerts:
        alerts.setdefault((alert.key or "") if stage.kind == "bots" else alert.id, alert)
    if stage.kind == "bots":
        verdict = judge_bots(stage.simulation, values, alerts, since_us=feed.warm_until_us)
    else:
        verdict = judge_payments(stage.simulation, values, alerts)
    return Judged(outcome, verdict, alerts)


def report(judged: Judged, *, number: int) -> Group:
    """Return a stage's part of the summary."""
    outcome = judged.outcome
    facts = Table.grid(padding=(0, 2))
    facts.add_column(style="dim", no_wrap=True)
    facts.add_column()
    for name, text in _facts(judged):
        facts.add_row(name, text)
    parts: list[RenderableType] = [
        Rule(Text(f"{number} · {outcome.stage.title}", "bold"), align="left", style="blue"),
        facts,
    ]
    if not all(counts.balanced for counts in outcome.metrics.streams.values()):
        parts.append(Text("  The accounts do not add up: this is a fault of Gillnet; please report it.", "bold red"))
    return Group(*parts, *_examples(judged))


def _facts(judged: Judged) -> list[tuple[str, RenderableType]]:
    outcome, verdict = judged.outcome, judged.verdict
    facts: list[tuple[str, RenderableType]] = [
        ("records", _records(outcome)),
        ("accounts", render.accounting_table(outcome.metrics.streams)),
        ("decisions", _decisions(outcome)),
        ("latency", _latency(outcome)),
        ("judged", _judged(judged)),
        (
            "precision",
            _share(verdict.precision, f"{verdict.caught:,} of {verdict.flagged:,} flagged were {_guilty(judged)}"),
        ),
        ("recall", _share(verdict.recall, f"{verdict.caught:,} of {verdict.guilty:,} found: {_kinds(verdict.kinds)}")),
    ]
    if isinstance(verdict, PaymentsVerdict):
        facts.append(("money", _money(verdict)))
        facts += _stories(outcome)
    else:
        facts.append(("how early", _how_early(verdict)))
    if outcome.topics:
        filled = (f"{name} {records:,}" for name, records in outcome.topics.items() if records)
        facts.append(("topics", Text(" · ".join(filled))))
    return facts


def _stories(outcome: Outcome) -> list[tuple[str, RenderableType]]:
    stories = outcome.stories
    if stories is None:
        return []
    late, sequence = stories.late(), stories.sequence()
    rows = Text(f"{count(stories.revised, 'revision')} while live, {count(stories.flipped, 'decision')} changed")
    found = Text(f"failed logins, then a password reset: {count(stories.matched, 'time')} while live")
    if late is not None:
        rows.append("; for example ").append_text(late_text(late, ReasonWords(outcome.stage.plan)))
    if sequence is not None:
        found.append("; for example ").append_text(sequence_text(sequence))
    return [("late data", rows), ("sequences", found)]


def _records(outcome: Outcome) -> Text:
    filled = (
        f"{outcome.warm_records:,} of the {format_duration(outcome.stage.warm_us)} before filled the windows in "
        f"{outcome.warm_s:.1f} s ({outcome.warm_records / max(outcome.warm_s, 1e-3):,.0f}/s)"
    )
    if not outcome.live_records:
        return Text(filled)
    live = f"{outcome.live_records:,} live in {outcome.live_s:.0f} s ({outcome.live_records / outcome.live_s:,.0f}/s)"
    return Text.assemble((live, "bold"), f"; {filled}")


def _decisions(outcome: Outcome) -> Text:
    what = "one a click" if outcome.stage.kind == "bots" else "one a payment"
    alerts = count(len(outcome.alerts), "alert")
    return (
        render.decisions_text(outcome.metrics.decisions)
        .append(f"  {what}, replay included; ", "dim")
        .append(f"{alerts} while live")
    )


def _latency(outcome: Outcome) -> Text:
    p50, p95, p99 = (milliseconds(outcome.latency_ms.percentile(point)) for point in (0.5, 0.95, 0.99))
    figures = Text.assemble("p50 ", (p50, "bold"), "  p95 ", (p95, "bold"), "  p99 ", (p99, "bold"))
    way = "through Kafka, " if outcome.topics else ""
    return figures.append(f"  {way}from a live record's falling due to its decision", "dim")


def _judged(judged: Judged) -> Text:
    verdict, kind = judged.verdict, judged.outcome.stage.kind
    if kind == "bots":
        what = f"{verdict.judged:,} visitors who came while live, {verdict.guilty:,} of them bots"
    else:
        what = f"the {verdict.judged:,} live payments, {verdict.guilty:,} of them fraud"
    return Text.assemble(what, (", by the simulator's labels, which the pipeline never sees", "dim"))


def _guilty(judged: Judged) -> str:
    return "bots" if judged.outcome.stage.kind == "bots" else "fraud"


def _share(value: float | None, detail: str) -> Text:
    return Text.assemble((share(value), "bold"), f"  {detail}")


def _kinds(kinds: Mapping[str, tuple[int, int]]) -> str:
    return ", ".join(f"{kind.replace('_', ' ')} {found}/{there}" for kind, (found, there) in kinds.items()) or "none"


def _money(verdict: PaymentsVerdict) -> Text:
    stopped = sum(verdict.money_stopped.values())
    part = share(stopped / verdict.money_fraud) if verdict.money_fraud else "-"
    ways = ", ".join(
        f"{decision.replace('_', ' ')} {money(verdict.money_stopped[decision])}"
        for decision in ("block", "step_up", "review")
        if decision in verdict.money_stopped
    )
    disturbed = verdict.flagged - verdict.caught
    good = verdict.judged - verdict.guilty
    return Text.assemble(
        (f"{money(stopped)} stopped", "bold green"),
        f" of {money(verdict.money_fraud)} that fraud tried to take ({part}{': ' if ways else ''}{ways}); "
        f"{count(disturbed, 'good payment')} of {good:,} flagged",
    )


def _how_early(verdict: BotsVerdict) -> Text:
    if not verdict.clicks_before:
        return Text("no bot was caught")
    median, late = (verdict.clicks_before[int((len(verdict.clicks_before) - 1) * point)] for point in (0.5, 0.9))
    after = 1 - sum(verdict.clicks_before) / verdict.clicks_of_caught
    return Text.assemble(
        (f"at its {_ordinal(median)} click", "bold"),
        f" in the median, by the {_ordinal(late)} for nine in ten; {share(after)} of these bots' clicks came after their flag",
    )


def _ordinal(number: int) -> str:
    ending = "th" if 10 <= number % 100 <= 20 else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{ending}"


def _examples(judged: Judged) -> list[RenderableType]:
    chosen = example_alerts(judged)
    if not chosen:
        return []
    words = ReasonWords(judged.outcome.stage.plan)
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim", show_edge=False)
    payments = judged.outcome.stage.kind == "payments"
    for column in ("for example", *(("amount", "score") if payments else ()), "decision"):
        table.add_column(column, no_wrap=True, justify="right" if column in ("amount", "score") else "left")
    table.add_column("why")
    table.add_column("label")
    for alert in chosen:
        figures = (money(alert.row["amount"]), f"{alert.score:.2f}") if payments else ()
        why = "; ".join(words.of(alert, most=3))
        table.add_row(alert.key, *figures, render.decision_text(alert.decision), why, _truth(judged, alert))
    return [table]


def example_alerts(judged: Judged) -> list[Alert]:
    """Choose alerts of villains to show: of each kind the one with the most to say, then the next ones."""
    words, villains = ReasonWords(judged.outcome.stage.plan), judged.verdict.villains
    found = [(villains[name], alert) for name, alert in judged.alerts.items() if name in villains]
    found.sort(key=lambda pair: _telling(pair[1], words), reverse=True)
    rank: Counter[str] = Counter()
    ranked: list[tuple[int, Alert]] = []
    for kind, alert in found:
        ranked.append((rank[kind], alert))
        rank[kind] += 1
    ranked.sort(key=lambda pair: pair[0])
    return [alert for _, alert in ranked[:_EXAMPLES]]


def _telling(alert: Alert, words: ReasonWords) -> tuple[bool, int, float]:
    amount = alert.row.get("amount")
    return alert.decision == "block", len(words.of(alert)), 0.0 if amount is None else float(amount)


def _truth(judged: Judged, alert: Alert) -> str:
    name = (alert.key or "") if judged.outcome.stage.kind == "bots" else alert.id
    return judged.verdict.villains[name].replace("_", " ")


def alert_text(alert: Alert, words: ReasonWords) -> Text:
    """Return an alert as one line: decision, key, amount, score, and why."""
    text = Text.assemble(render.decision_text(alert.decision), f" {alert.key or alert.id}")
    if alert.row.get("amount") is not None:
        text.append(f"  {money(alert.row['amount'])}", "bold")
    if alert.score is not None:
        text.append(f"  score {alert.score:.2f}")
    return text.append(f"  {'; '.join(words.of(alert))}")


def headline(judged: Sequence[Judged], *, seconds: float, kafka: bool, stopped: bool) -> Text:
    """Return the first line of the summary."""
    way = "through a real Apache Kafka broker" if kafka else "in one process, without a broker"
    records = sum(part.outcome.warm_records + part.outcome.live_records for part in judged)
    state = "stopped early, after" if stopped else "done in"
    return Text.assemble(
        (" gillnet ", "bold white on blue"), f"  {state} {seconds:.0f} s: {records:,} records scored {way}"
    )


def next_steps(*, kafka: bool) -> Text:
    """Return commands to try next."""
    steps = [
        ("the pipeline that you saw: features, model, policy", "gillnet explain payments"),
        (
            "your own data: does live equal the batch answer, what would late data have decided, how late is it",
            "gillnet verify --help; gillnet repair --help; gillnet lateness --help",
        ),
        (
            "run it on a simulated stream, decisions and side outputs into files",
            "gillnet run payments --sinks out \\\n"
            '    -s "payments=simulator:payments?rate=500" -s clicks=simulator:clicks',
        ),
        ("streams with labels, to build a pipeline of your own on", "gillnet simulate all --to data --duration 1d"),
        ("this demo through a real Kafka broker (needs Java 17 and Maven)", "gillnet demo --kafka")
        if not kafka
        else ("a broker to keep, for pipelines of your own", "gillnet kafka"),
    ]
    text = Text("try next", "dim")
    for what, command in steps:
        text.append(f"\n  # {what}\n", "dim").append(f"  {command}", "bold")
    return text
