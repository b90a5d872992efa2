"""The live page and the summary, drawn on terminals of several sizes."""

from __future__ import annotations

import dataclasses
import io
import re
import threading
from functools import cache

import pytest
from rich.console import Console

from gillnet.cli import demo_report
from gillnet.cli.demo_report import Judged
from gillnet.cli.demo_run import StageRun
from gillnet.cli.demo_stages import bots_stage, demo_stages, payments_stage
from gillnet.cli.demo_story_text import late_text, sequence_text
from gillnet.cli.live import RunPage
from gillnet.cli.words import ReasonWords
from gillnet.core.time import HOUR

SIZES = [(80, 24), (100, 30), (120, 30), (120, 40), (140, 40), (200, 50)]


@cache
def demo_run(kind: str) -> tuple[StageRun, Judged]:
    """Run a short stage at once; it stays as it ended."""
    stage = (bots_stage if kind == "bots" else payments_stage)(seed=1, seconds=6.0)
    run = StageRun(dataclasses.replace(stage, warm_us=(8 if kind == "bots" else 24) * HOUR, rate=20_000.0))
    run.prepare()
    return run, demo_report.judge(run.run(threading.Event()))


def draw(what: object, width: int, height: int = 40) -> list[str]:
    console = Console(width=width, height=height, record=True, file=io.StringIO(), force_terminal=True)
    console.print(what)
    return console.export_text().splitlines()


@pytest.mark.parametrize("kind", ["bots", "payments"])
@pytest.mark.parametrize(("width", "height"), SIZES)
def test_the_page_fits_the_terminal(kind: str, width: int, height: int) -> None:
    run, judged = demo_run(kind)
    page = RunPage(
        run.monitor, tap=run.tap if kind == "bots" else None, title="1 of 2: it", state=lambda: "live, 9 s to go"
    )
    run.monitor._alerts.extend(judged.outcome.alerts)
    lines = draw(page.draw(width, height), width, height)
    assert len(lines) <= height
    text = "\n".join(lines)
    assert "1 of 2: it  live, 9 s to go" in lines[0]
    assert lines[0].rstrip().endswith("Ctrl-C stops")
    assert "records/s" in text
    assert re.search(r"watermark +2026-01-0[56] \d\d:\d\d:\d\d", text)
    for stream, counts in judged.outcome.metrics.streams.items():
        (line,) = [line for line in lines if f"✓ {stream}" in line]
        assert f"{counts.read:,}" in line
        assert f"{counts.too_late:,}" in line.rpartition(f"{counts.malformed:,}")[2]
    for decision, decided in judged.outcome.metrics.decisions.items():
        assert f"{decision.replace('_', ' ')} {decided:,}" in text
    assert f"revised    {judged.outcome.metrics.revisions:,} rows by late data, " in text
    assert "another decision" in text
    assert f"alerts ({len(judged.outcome.alerts):,})" in text
    assert judged.outcome.alerts[-1].key in text


@pytest.mark.parametrize("kind", ["bots", "payments"])
@pytest.mark.parametrize(("width", "height"), SIZES)
def test_the_summary_adds_up_and_cuts_nothing_off(kind: str, width: int, height: int) -> None:
    judged = demo_run(kind)[1]
    text = "\n".join(draw(demo_report.report(judged, number=1), width))
    assert "…" not in text
    verdict = judged.verdict
    assert f"{verdict.caught:,} of {verdict.flagged:,} flagged" in " ".join(text.split())
    assert f"{verdict.caught:,} of {verdict.guilty:,} found" in " ".join(text.split())
    assert verdict.caught > 0
    for alert in demo_report.example_alerts(judged):
        assert (alert.key or "") in text
    for counts in judged.outcome.metrics.streams.values():
        assert counts.balanced


def test_latency_and_alerts_are_of_the_live_part_only() -> None:
    outcome = demo_run("payments")[1].outcome
    assert outcome.complete
    assert outcome.latency_ms.count == outcome.stage.records
    assert outcome.live_records == sum(len(outcome.feed.values(name)) for name in outcome.feed.sources)
    assert outcome.warm_records + outcome.live_records == sum(c.read for c in outcome.metrics.streams.values())
    assert len(outcome.alerts) < outcome.metrics.alerts


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_demo_of_20_s_has_a_late_event_and_a_sequence_to_tell(seed: int) -> None:
    stage = demo_stages(seed=seed, seconds=20)[1]
    run = StageRun(dataclasses.replace(stage, warm_us=24 * HOUR, rate=20_000.0))
    run.prepare()
    judged = demo_report.judge(run.run(threading.Event()))
    assert run.stories is not None
    late, sequence = run.stories.late(), run.stories.sequence()
    assert late is not None
    assert sequence is not None
    for width in (80, 120):
        text = " ".join(" ".join(draw(demo_report.report(judged, number=2), width, 60)).split())
        assert late_text(late, ReasonWords(stage.plan)).plain in text
        assert sequence_text(sequence).plain in text
