"""How well bots are found, in bands, on clicks that nothing was fitted on; and the arithmetic of it."""

from __future__ import annotations

import io
import json
import os
from dataclasses import asdict
from typing import TYPE_CHECKING

import pytest
from rich.console import Console

from gillnet.lifecycle.bot_detection import SessionTally, judge, rate_threshold
from gillnet.lifecycle.records import save_runs
from gillnet.lifecycle.report_bots import BotsReport, differing_alerts, report
from gillnet.simulator import VisitorLabel

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def measured() -> BotsReport:
    return report(seed=901, days=1, sessions_per_day=4_000, payments_per_day=2_000, bots_per_day=120, levels=(0, 2))


def test_scripts_are_blocked_at_once_and_people_hardly_ever(measured: BotsReport) -> None:
    scripts = measured.levels[0]
    assert scripts.acted_on.recall == 1.0
    assert scripts.acted_on.clicks_p90 is not None
    assert scripts.acted_on.clicks_p90 <= 6
    assert scripts.acted_on.false_alarms_per_1000 <= 1.5
    assert scripts.acted_on.precision is not None
    assert scripts.acted_on.precision > 0.95
    assert scripts.acted_on.spared > 0.95


def test_replayed_people_are_found_while_most_of_their_clicks_are_to_come(measured: BotsReport) -> None:
    replayed = measured.levels[1]
    assert 0.93 <= replayed.acted_on.recall <= 1.0
    assert replayed.acted_on.recall_by_kind["scraper"] > 0.95
    assert replayed.acted_on.false_alarms_per_1000 <= 1.5
    assert 0.6 < replayed.acted_on.spared < 0.95  # they are not free to find
    assert replayed.acted_on.clicks_p90 is not None
    assert 10 <= replayed.acted_on.clicks_p90 <= 45


def test_the_rate_alone_finds_a_part_of_the_scripts_and_no_replayed_person(measured: BotsReport) -> None:
    scripts, replayed = measured.levels
    assert 0.2 < scripts.rate_alone.recall < 0.8 < scripts.by_rule["sequential"].recall
    assert replayed.rate_alone.recall < 0.05
    assert replayed.by_rule["sequential"].recall > 0.93


def test_review_stays_within_what_wald_promises(measured: BotsReport) -> None:
    for level in measured.levels:
        assert level.by_rule["sequential"].false_alarms_per_1000 <= 10


def test_the_report_prints_and_saves(measured: BotsReport, tmp_path: Path) -> None:
    console = Console(width=150, record=True, file=io.StringIO())
    console.print(measured.table())
    assert "sequential rules" in console.export_text()
    save_runs(tmp_path / "new" / "bots.json", [asdict(measured)])
    saved = json.loads((tmp_path / "new" / "bots.json").read_text())
    assert saved["runs"][0]["levels"][1]["acted_on"]["recall"] == measured.levels[1].acted_on.recall
    assert saved["machine"]["cpus"] == os.cpu_count()


def row(visitor: str, clicks: int, decision: str, *reasons: str, rate: float = 0.0) -> bytes:
    return json.dumps(
        {
            "visitor_id": visitor,
            "session_start": "2026-01-05T00:00:00Z",
            "decision": decision,
            "reasons": reasons,
            "features": {"clicks": clicks, "clicks_per_minute": rate},
        }
    ).encode()


def label(visitor: str, kind: str) -> VisitorLabel:
    return VisitorLabel(visitor_id=visitor, bot=kind in ("scraper", "credential_stuffing"), kind=kind, level=None)


def tally_of(*rows: bytes) -> SessionTally:
    tally = SessionTally()
    tally.add_rows(rows)
    return tally


def test_a_session_is_found_by_the_first_row_of_each_cause() -> None:
    tally = tally_of(
        row("a", 4, "review", "baseline_rate"),
        row("a", 9, "block", "sequential_bot", "evidence_sweep"),
        row("a", 12, "block", "sequential_bot", "limit_rate"),
        row("b", 3, "allow"),
    )
    session = ("a", "2026-01-05T00:00:00Z")
    found = {kind: tally.detected([kind]) for kind in ("baseline", "sequential", "limit", "block", "step_up")}
    assert found == {
        "baseline": {session: 4},
        "sequential": {session: 9},
        "limit": {session: 12},
        "block": {session: 9},
        "step_up": {},
    }
    assert tally.detected(["block", "review"]) == {session: 4}


def test_precision_counts_villains_who_are_no_bots_against_it() -> None:
    labels = {
        "s": label("s", "scraper"),
        "c": label("c", "credential_stuffing"),
        "h": label("h", "human"),
        "t": label("t", "account_takeover"),
    }
    clicks = {(visitor, "0"): 10 for visitor in labels}
    found = judge({("s", "0"): 4, ("h", "0"): 3, ("t", "0"): 3}, clicks, labels)
    assert found.precision == pytest.approx(1 / 3, abs=1e-4)
    assert (found.recall, found.recall_by_kind) == (0.5, {"credential_stuffing": 0.0, "scraper": 1.0})
    assert (found.clicks_p50, found.spared) == (4.0, 0.3)
    assert (found.false_alarms_per_1000, found.takeovers) == (1_000.0, 1)


def test_the_rate_is_held_to_the_same_precision() -> None:
    tally = tally_of(
        row("bot1", 9, "allow", rate=100.0),
        row("bot2", 9, "allow", rate=90.0),
        row("human1", 9, "allow", rate=80.0),
        row("bot3", 9, "allow", rate=70.0),
        row("human2", 9, "allow", rate=60.0),
        row("short", 4, "allow", rate=240.0),
    )

    def is_bot(session: tuple[str, str]) -> bool:
        return session[0].startswith("bot")

    assert rate_threshold(tally, is_bot, 1.0) == 80.0
    assert rate_threshold(tally, is_bot, 0.75) == 60.0
    assert rate_threshold(tally, lambda _: False, 0.5) is None
    assert {visitor for visitor, _ in tally.faster_than(80.0)} == {"bot1", "bot2"}


def test_alerts_of_two_runs_are_compared_by_decision() -> None:
    left = [row("a", 3, "block"), row("b", 30, "review")]
    right = [row("a", 3, "block"), row("b", 31, "review")]
    assert differing_alerts(left, right) == {"review": 2, "step_up": 0, "block": 0}
