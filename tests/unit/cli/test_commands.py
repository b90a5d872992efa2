"""Every command on its good path, through files and pipes."""

from __future__ import annotations

import json
import re
from importlib.metadata import version
from pathlib import Path

import pytest
import structlog
import typer
from command_line import Command

from gillnet.cli import main
from gillnet.cli.logs import LogFormat, log_lines
from gillnet.plan.serde import loads

COMMANDS = (
    "demo",
    "run",
    "explain",
    "backfill",
    "verify",
    "repair",
    "lateness",
    "doctor",
    "simulate",
    "kafka",
    "models",
    "version",
)
SMALL = ("--duration", "2h", "--cards", "500", "--merchants", "64", "--payments-per-day", "12000")
FAULTY = ("--duplicate-share", "0.02", "--malformed-share", "0.02")


def records(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def figures(line: str, stream: str) -> dict[str, int]:
    """Read ``payments="read=10 scored=9 ..."`` of a log line."""
    found = re.search(rf'{stream}="([^"]*)"', line)
    assert found, line
    return {name: int(value) for name, value in (pair.split("=") for pair in found[1].split())}


@pytest.mark.parametrize("command", COMMANDS)
def test_help_says_what_a_command_does(gillnet: Command, command: str) -> None:
    overview, own = gillnet("--help").stdout, gillnet(command, "--help").stdout
    assert re.search(rf"^  {command} +[A-Z].*[a-z.]$", overview, re.MULTILINE), "cut off, or not there"
    assert "..." not in overview.partition("Commands:")[2], "a command's first line is too long for the overview"
    options = [line for line in own.splitlines() if line.startswith("  -")]
    assert options
    assert all(re.search(r"\S  +[\w.].*", line) for line in options), "an option without a word on it"


def test_without_a_command_there_is_help(gillnet: Command) -> None:
    result = gillnet()
    assert all(command in result.output for command in COMMANDS)


def test_version(gillnet: Command) -> None:
    assert gillnet("version").stdout == f"gillnet {version('gillnet')}\n"
    assert f"pyarrow {version('pyarrow')}" in gillnet("version", "--verbose").stdout


def test_models_lists_the_packaged_one(gillnet: Command) -> None:
    result = gillnet("models")
    assert re.search(r"^fraud@1 +champion +40 +.*average_precision=0\.\d+", result.stdout, re.MULTILINE), result.stdout
    assert result.exit_code == 0


@pytest.mark.parametrize("name", ["payments", "bots", "takeover", "app.py", "app.py:pipeline"])
def test_explain_prints_the_plan(gillnet: Command, app_file: Path, name: str) -> None:
    printed, written = gillnet("explain", name), gillnet("explain", name, "--json")
    assert printed.stdout.startswith("pipeline ")
    assert "policy (the first match decides; otherwise allow)" in printed.stdout
    assert f"pipeline {loads(written.stdout).name} " in printed.stdout
    assert printed.exit_code == written.exit_code == 0


def test_explain_says_what_leaves_memory_where_the_configuration_has_a_disk_for_it(
    gillnet: Command, tmp_path: Path
) -> None:
    (tmp_path / "gillnet.toml").write_text('[options]\nstate_backend = "rocksdb"\n')
    told = gillnet("explain", "takeover").stdout
    [leaves] = [line for line in told.splitlines() if "may leave memory" in line]
    stays = told[told.index("  stays in memory") :]
    keyed = [f"payments by {key}" for key in ("card_id", "device_id", "ip")]
    assert leaves.split("memory  ")[1].split("; ") == [f"events of {name}" for name in ("clicks by user_id", *keyed)]
    assert "ids of payments" in stays
    assert "patterns" in stays
    assert all(line == line.rstrip() for line in told.splitlines())
    (tmp_path / "gillnet.toml").write_text("[options]\n")
    assert "memory" not in gillnet("explain", "takeover").stdout
    (tmp_path / "other.toml").write_text('[options]\nstate_backend = "rocksdb"\n')
    assert gillnet("explain", "takeover", "--config", "other.toml").stdout == told


def test_what_is_simulated_into_files_and_run_from_them_adds_up(
    gillnet: Command, app_file: Path, tmp_path: Path
) -> None:
    simulated = gillnet("simulate", "all", "--to", "data", *SMALL, *FAULTY)
    assert simulated.exit_code == 0
    lines = (tmp_path / "data" / "payments.ndjson").read_bytes().splitlines()
    assert re.search(rf"payments +{len(lines):,} ", simulated.stderr)
    result = gillnet("run", str(app_file), "-s", "payments=data/payments.ndjson", "--sinks", "out")
    assert result.exit_code == 0
    counts = figures(result.stderr.splitlines()[-1], "payments")
    assert counts["read"] == sum(1 for line in lines if line)  # An empty line is none in NDJSON.
    assert counts["read"] == counts["scored"] + counts["duplicate"] + counts["malformed"] + counts["too_late"]
    assert min(counts["scored"], counts["duplicate"], counts["malformed"]) > 0
    decisions = records(tmp_path / "out" / "decisions.ndjson")
    assert len(decisions) == counts["scored"]
    assert len(records(tmp_path / "out" / "payments.duplicate.ndjson")) == counts["duplicate"]
    assert len(records(tmp_path / "out" / "payments.malformed.ndjson")) == counts["malformed"]
    reviewed = [row for row in decisions if row["decision"] == "review"]
    assert records(tmp_path / "out" / "alerts.ndjson") == reviewed
    assert reviewed


def test_payments_that_a_run_blocked_get_no_label(gillnet: Command, app_file: Path, tmp_path: Path) -> None:
    """As in production, where nobody disputes what was never charged: simulate, run, and simulate what becomes known."""
    app_file.write_text(app_file.read_text().replace("gn.review", "gn.block"))
    assert gillnet("simulate", "payments", "--to", "all", *SMALL).exit_code == 0
    assert gillnet("run", str(app_file), "-s", "payments=all/payments.ndjson", "--sinks", "out").exit_code == 0
    decided = records(tmp_path / "out" / "decisions.ndjson")
    blocked = {row["tx_id"] for row in decided if row["decision"] == "block"}
    assert 0 < len(blocked) < len(decided)
    given = ["--blocked", "out/decisions.ndjson"]
    assert gillnet("simulate", "labels", "--to", "known", *SMALL, *given).exit_code == 0
    every, known = (records(tmp_path / place / "labels.ndjson") for place in ("all", "known"))
    assert known == [label for label in every if label["tx_id"] not in blocked]
    assert len(known) == len(every) - len(blocked)
    assert gillnet("simulate", "payments", "--to", "again", *SMALL, *given).exit_code == 0
    assert (tmp_path / "again" / "labels.ndjson").read_bytes() == (tmp_path / "known" / "labels.ndjson").read_bytes()
    assert (tmp_path / "again" / "payments.ndjson").read_bytes() == (tmp_path / "all" / "payments.ndjson").read_bytes()
    piped = gillnet("simulate", "labels", "--to", "-", *SMALL, *given).stdout
    assert [json.loads(line) for line in piped.splitlines()] == known


def test_decisions_that_are_none_leave_the_labels_of_an_earlier_simulation_alone(
    gillnet: Command, tmp_path: Path
) -> None:
    assert gillnet("simulate", "payments", "--to", "data", *SMALL).exit_code == 0
    before = (tmp_path / "data" / "labels.ndjson").read_bytes()
    (tmp_path / "decisions.ndjson").write_text('{"tx_id":"t-1","decision":"allow"}\n{"tx_id":"t-2","decision":"no"}\n')
    failed = gillnet("simulate", "labels", "--to", "data", *SMALL, "--blocked", "decisions.ndjson")
    assert failed.exit_code == 2
    assert "record 2 is no decision on a payment" in " ".join(failed.stderr.split())
    assert (tmp_path / "data" / "labels.ndjson").read_bytes() == before


def test_the_same_options_simulate_the_same_bytes(gillnet: Command, tmp_path: Path) -> None:
    for place in ("a", "b"):
        assert gillnet("simulate", "payments", "--to", place, *SMALL).exit_code == 0
    assert (tmp_path / "a" / "payments.ndjson").read_bytes() == (tmp_path / "b" / "payments.ndjson").read_bytes()


def test_the_bundled_scenarios_run_by_name(gillnet: Command, tmp_path: Path) -> None:
    sources = [
        part for name in ("payments", "clicks") for part in ("-s", f"{name}=simulator:{name}?duration=30m&seed=3")
    ]
    payments = gillnet("run", "payments", *sources, "--sinks", "payments")
    takeover = gillnet("run", "takeover", *sources, "--sinks", "takeover")
    bots = gillnet(
        "run", "bots", "-s", "clicks=simulator:clicks?duration=1h&seed=3&bots_per_day=2000", "--sinks", "bots"
    )
    assert payments.exit_code == bots.exit_code == takeover.exit_code == 0
    assert {row["model"] for row in records(tmp_path / "payments" / "decisions.ndjson")} == {"fraud@1"}
    assert records(tmp_path / "bots" / "alerts.ndjson")
    assert records(tmp_path / "bots" / "sessions.ndjson")
    decided = records(tmp_path / "takeover" / "decisions.ndjson")
    joined = records(tmp_path / "takeover" / "joins.clicks_before.ndjson")
    assert {row["tx_id"] for row in decided} == {row["left_id"] for row in joined}


def test_json_log_lines_parse(gillnet: Command, app_file: Path) -> None:
    source = "payments=simulator:payments?duration=1h"
    result = gillnet("run", str(app_file), "-s", source, "--log", "json")
    lines = [json.loads(line) for line in result.stderr.splitlines()]
    assert lines[-1]["event"] == "finished"
    assert {line["event"] for line in lines} >= {"alert", "finished"}
    assert all(line["why"] == "much spent" for line in lines if line["event"] == "alert")


def test_max_records_stops_a_run(gillnet: Command, app_file: Path) -> None:
    result = gillnet("run", str(app_file), "-s", "payments=simulator:payments", "--max-records", "1000")
    assert figures(result.stderr.splitlines()[-1], "payments")["read"] == 1_000


def test_the_configuration_file_is_read_and_the_command_line_wins(
    gillnet: Command, app_file: Path, tmp_path: Path
) -> None:
    (tmp_path / "gillnet.toml").write_text(
        '[sources]\npayments = "simulator:payments?duration=10m"\n[sinks]\ndefault = "from_file/{name}.ndjson"\n'
        "[options]\nmax_records = 50\n",
        encoding="utf-8",
    )
    assert gillnet("run", str(app_file), "--sink", "decisions=given.ndjson", "--max-records", "20").exit_code == 0
    assert len(records(tmp_path / "given.ndjson")) == 20
    assert not (tmp_path / "from_file" / "decisions.ndjson").exists()


@pytest.mark.parametrize(("debug", "shown"), [("", ["info"]), ("0", ["info"]), ("1", ["debug", "info"])])
def test_debug_lines_are_for_those_who_ask(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, debug: str, shown: list[str]
) -> None:
    monkeypatch.setenv("GILLNET_DEBUG", debug)
    log_lines(LogFormat.JSON)
    logger = structlog.get_logger("gillnet.kafka")
    logger.debug("partitions assigned")
    logger.info("broker is back")
    assert [json.loads(line)["level"] for line in capsys.readouterr().err.splitlines()] == shown


@pytest.mark.parametrize("command", COMMANDS)
def test_what_a_command_logs_is_not_among_what_it_prints(
    gillnet: Command, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    """A source of Kafka logs where it reads; ``verify --json`` must stay JSON."""

    def log() -> None:
        structlog.get_logger("gillnet.kafka").debug("partitions assigned")
        structlog.get_logger("gillnet.kafka").info("broker is back")
        typer.echo("{}")

    [registered] = [one for one in main.app.registered_commands if one.callback.__name__ == command]  # type: ignore[union-attr]
    monkeypatch.setattr(registered, "name", command)
    monkeypatch.setattr(registered, "callback", log)
    result = gillnet(command)
    assert (result.exit_code, result.stdout) == (0, "{}\n")
    assert "broker is back" in result.stderr
    assert "partitions assigned" not in result.stderr
