"""``gillnet verify`` and ``gillnet repair`` on a small run of two streams, a tenth of whose records are late."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from command_line import Command

APP = """
import gillnet as gn
from gillnet import col

payments = gn.Stream(
    "payments",
    schema=gn.Schema(
        tx_id=gn.String(), ts=gn.Timestamp("ms"), card_id=gn.String(), user_id=gn.String(), amount=gn.Decimal(2)
    ),
    id="tx_id", event_time="ts", allowed_lateness="20m",
)
clicks = gn.Stream(
    "clicks",
    schema=gn.Schema(click_id=gn.String(), ts=gn.Timestamp("ms"), user_id=gn.String(nullable=True), event=gn.String()),
    id="click_id", event_time="ts", allowed_lateness="20m",
)
card = payments.by("card_id")
pipeline = gn.Pipeline(
    gn.Features(
        payments,
        spend_1d=card.sum("amount", over="1d"),
        payments_1d=card.count(over="1d"),
        clicks_1h=clicks.by("user_id").count(over="1h").at("user_id"),
    ),
    policy=[gn.review(col("payments_1d") > 2, reason="often"), gn.block(col("spend_1d") > 400, reason="much")],
)
"""
SOURCES = ("--source", "payments=data/payments.ndjson", "--source", "clicks=data/clicks.ndjson")


@pytest.fixture
def ended(gillnet: Command, tmp_path: Path) -> Path:
    """A run that has ended: its data, history and outputs in the directory."""
    (tmp_path / "app.py").write_text(APP, encoding="utf-8")
    small = ("--duration", "4h", "--cards", "300", "--payments-per-day", "6000", "--no-labels")
    assert gillnet("simulate", "all", *small, "--late-share", "0.1", "--to", "data").exit_code == 0
    result = gillnet("run", "app.py", *SOURCES, "--sinks", "out", "--history", "history", "--plain")
    assert result.exit_code == 0, result.output
    return tmp_path


def rows(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]


@pytest.mark.parametrize("read", [("--history", "history"), SOURCES], ids=["history", "sources"])
def test_a_run_is_verified_row_by_row(gillnet: Command, ended: Path, read: tuple[str, ...]) -> None:
    result = gillnet("verify", "app.py", *read, "--sinks", "out")
    assert result.exit_code == 0, result.output
    count = len(rows(ended / "out/decisions.ndjson"))
    assert re.search(rf"equal +{count:,} +100 %", result.stdout), result.stdout
    told = json.loads(gillnet("verify", "app.py", *read, "--sinks", "out", "--json").stdout)
    assert (told["rows"], told["equal"], told["share"], told["first"]) == (count, count, 1.0, None)
    assert told["revised"] > 20


def test_a_changed_row_is_found_with_its_history(gillnet: Command, ended: Path) -> None:
    path = ended / "out/decisions.revisions.ndjson"
    lines = path.read_bytes().splitlines()
    last = json.loads(lines[-1])
    last["new"]["features"]["spend_1d"] += 1
    path.write_bytes(b"\n".join([*lines[:-1], json.dumps(last, separators=(",", ":")).encode()]) + b"\n")
    result = gillnet("verify", "app.py", "--history", "history", "--sinks", "out")
    assert result.exit_code == 1
    assert f"first differing row: {last['tx_id']}" in result.stdout
    assert f"largest difference: spend_1d of {last['tx_id']}, by 1" in result.stdout
    assert "went out: " in result.stdout
    assert f"revision {last['revision']}, by {last['cause']['stream']} {last['cause']['id']}" in result.stdout
    assert "100 %" not in result.stdout


def test_without_its_revisions_a_run_does_not_verify(gillnet: Command, ended: Path) -> None:
    (ended / "out/decisions.revisions.ndjson").unlink()
    told = json.loads(gillnet("verify", "app.py", "--history", "history", "--sinks", "out", "--json").stdout)
    assert told["differing"] > 20
    assert told["share"] < 1


def test_repair_corrects_every_row_that_too_late_events_change(gillnet: Command, ended: Path) -> None:
    arguments = ("repair", "app.py", "--history", "history", "--sinks", "out")
    told = json.loads(gillnet(*arguments, "--json").stdout)
    too_late = rows(ended / "out/payments.too_late.ndjson")
    assert told["late"]["payments"]["too_late"] == len(too_late) == told["added"] > 5
    assert told["changed"] > 20
    assert told["decisions"] == sum(flip["rows"] for flip in told["flips"]) > 0
    corrections = rows(ended / "out/decisions.corrections.ndjson")
    assert len(corrections) == told["changed"] + told["added"]
    added = {row["tx_id"] for row in corrections if row["correction"] == "added"}
    assert added == {json.loads(str(record["value"]))["tx_id"] for record in too_late}
    times = [str(row["event_time"]) for row in corrections]
    assert times == sorted(times)


def test_a_repair_gives_the_same_again_and_from_the_sources(gillnet: Command, ended: Path) -> None:
    path = ended / "out/decisions.corrections.ndjson"
    found = []
    for read in (("--history", "history"), ("--history", "history"), SOURCES):
        result = gillnet("repair", "app.py", *read, "--sinks", "out")
        assert result.exit_code == 0, result.output
        found.append((result.stdout, path.read_bytes()))
    assert found[0] == found[1] == found[2]
    assert "decisions would have been different" in found[0][0]
    assert found[0][0].rstrip().endswith("written to out/decisions.corrections.ndjson")


def test_what_verifies_needs_no_repair_where_nothing_was_too_late(gillnet: Command, ended: Path) -> None:
    text = (ended / "app.py").read_text(encoding="utf-8").replace('"20m"', '"24h"')
    (ended / "app.py").write_text(text, encoding="utf-8")
    assert gillnet("run", "app.py", *SOURCES, "--sinks", "whole", "--plain").exit_code == 0
    told = json.loads(gillnet("repair", "app.py", *SOURCES, "--sinks", "whole", "--json").stdout)
    assert (told["changed"], told["added"], told["decisions"]) == (0, 0, 0)
    assert told["rows"] > 100


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--history", "history"), "no decisions to read"),
        (("--sinks", "out"), "--source payments="),
        (("--sinks", "out", "--history", "nowhere"), "gillnet run --history"),
    ],
)
def test_what_is_missing_is_told(gillnet: Command, ended: Path, arguments: tuple[str, ...], says: str) -> None:
    for command in ("verify", "repair"):
        result = gillnet(command, "app.py", *arguments)
        assert result.exit_code != 0
        assert says in " ".join(result.output.split()), result.output
