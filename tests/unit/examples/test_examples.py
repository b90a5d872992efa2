"""The examples do what their headers say: every command there runs, and every plan is the golden one.

A plan that was meant to change: ``gillnet explain examples/bots.py > tests/unit/examples/golden/bots.txt``.
"""

from __future__ import annotations

import ast
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from gillnet.app import SinkRoutes, build_runtime, load_config, load_pipeline, output_names
from gillnet.app.config import RunConfig
from gillnet.connectors.local_kafka import LocalKafka
from gillnet.core.errors import ConfigurationError
from gillnet.plan.explain import explain

EXAMPLES = Path(__file__).parents[3] / "examples"
GOLDEN = Path(__file__).parent / "golden"
FILES = {path.stem: path for path in sorted(EXAMPLES.rglob("*.py"))}
LOCAL = [name for name in FILES if name not in ("fraud", "tenants")]
COMMAND = re.compile(r"^    ((?:gillnet|python|head) .*)$", re.M)


def commands(path: Path) -> list[str]:
    """The indented commands of a file's docstring; a backslash goes on with the next line."""
    docstring = ast.get_docstring(ast.parse(path.read_text("utf-8"))) or ""
    return COMMAND.findall(re.sub(r"\\\n\s*", "", docstring))


def run(command: str, directory: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    program, *arguments = shlex.split(command)
    found = {"python": sys.executable, "gillnet": str(Path(sys.executable).with_name("gillnet"))}.get(program, program)
    return subprocess.run(
        [found, *arguments],
        cwd=directory,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def rows(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    """A directory with the examples in it, as a user has after copying them."""
    shutil.copytree(EXAMPLES, tmp_path / "examples", ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


@pytest.mark.parametrize("name", FILES)
def test_the_plan_of_an_example_is_the_golden_one(name: str) -> None:
    assert explain(load_pipeline(str(FILES[name])).plan) == (GOLDEN / f"{name}.txt").read_text("utf-8")


@pytest.mark.parametrize("name", LOCAL)
def test_every_command_of_a_header_runs(name: str, copied: Path) -> None:
    told = commands(FILES[name])
    assert f"gillnet explain examples/{name}.py" in told
    assert any(command.startswith(f"gillnet run examples/{name}.py ") for command in told)
    for command in told:
        ended = run(command, copied)
        assert ended.returncode == 0, f"{command}\n{ended.stdout}\n{ended.stderr}"
        assert "error" not in ended.stderr, command
        assert "Traceback" not in ended.stderr, command
    decided, alerted = rows(copied / "out/decisions.ndjson"), rows(copied / "out/alerts.ndjson")
    actions = Counter(row["decision"] for row in decided)
    assert alerted, "an example that flags nothing shows nothing"
    if name == "bots":
        assert "allow" not in actions, "of sessions the flagged rows alone are written"
        assert len(rows(copied / "out/sessions.ndjson")) > 500
    else:
        assert len(decided) >= 5_000
        assert len(alerted) < 0.03 * len(decided), "an analyst has no time for more"
        assert len(alerted) == len(decided) - actions["allow"]
    if name == "own_model":
        assert {row["model"] for row in decided} == {"card-fraud@1"}
        assert all(row["contributions"] for row in alerted), "a score's flags come with their reasons"


def test_a_model_that_was_not_trained_yet_stops_the_start(copied: Path) -> None:
    ended = run("gillnet run examples/own_model.py --source 'payments=simulator:payments?seed=7'", copied)
    assert ended.returncode == 1
    assert "There is no model 'card-fraud@champion'" in " ".join(ended.stderr.split())
    assert not (copied / "out").exists()


def test_the_kafka_example_sends_every_output_to_a_topic_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KAFKA_PASSWORD", "secret")
    config = load_config(EXAMPLES / "kafka/gillnet.toml")
    plan = load_pipeline(str(FILES["fraud"])).plan
    routes = SinkRoutes(plan, config.sinks, default=config.default_sink, connection=config.connection)
    assert config.sources.keys() == {stream.name for stream in plan.streams}
    assert {uri.rpartition("/")[2] for uri in routes.uris.values()} == {f"fraud.{name}" for name in output_names(plan)}
    assert config.kafka["sasl.password"] == "secret"
    assert config.kafka["security.protocol"] == "SASL_SSL"
    assert "secret" not in repr(config)
    assert config.options.latency_budget_ms == 10


def test_the_pulsar_example_has_two_tenants_that_share_nothing_but_the_definition(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PULSAR_TOKEN", "a.b.c")
    configs = {t: load_config(EXAMPLES / f"pulsar/team-{t}.toml") for t in "ab"}
    for tenant, config in configs.items():
        plan = load_pipeline(str(FILES["tenants"])).plan
        routes = SinkRoutes(plan, config.sinks, default=config.default_sink, connection=config.connection)
        assert all(f"/team-{tenant}/fraud/" in uri for uri in (*routes.uris.values(), *config.sources.values()))
        assert config.connection(config.sources["payments"])["token"] == "a.b.c"
    assert configs["a"].models != configs["b"].models
    assert configs["a"].checkpoints != configs["b"].checkpoints
    told = commands(FILES["tenants"])
    assert "gillnet explain examples/pulsar/tenants.py" in told


def test_the_kafka_example_asks_for_its_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KAFKA_PASSWORD", raising=False)
    with pytest.raises(ConfigurationError, match=r"sasl\.password: the environment variable KAFKA_PASSWORD is not set"):
        load_config(EXAMPLES / "kafka/gillnet.toml")


def test_the_kafka_example_runs_without_a_broker(tmp_path: Path) -> None:
    simulated = RunConfig().changed(
        sources=["payments=simulator:payments?seed=7"],
        settings=["options.max_records=3000"],
        default_sink=str(tmp_path),
    )
    metrics = build_runtime(load_pipeline(str(FILES["fraud"])), simulated).run()
    assert metrics.stream("payments").scored >= 3_000
    assert len(rows(tmp_path / "decisions.ndjson")) == metrics.stream("payments").scored


@pytest.mark.kafka
def test_the_kafka_example_runs_through_a_real_broker(kafka: LocalKafka, topic: str, copied: Path) -> None:
    """The header's commands, on this session's broker and topics."""
    broker = f"kafka://{kafka.bootstrap_servers}"
    told = [command for command in commands(FILES["fraud"]) if "localhost:9092" in command]
    assert [command.split()[1] for command in told] == ["simulate", "run"]
    names = {"kafka://localhost:9092/{name}": f"{broker}/{topic}.{{name}}"}
    names["kafka://localhost:9092/payments"] = f"{broker}/{topic}.payments?start=earliest&until_end=true&group={topic}"
    for command in told:
        for local, here in names.items():
            command = command.replace(local, here)  # noqa: PLW2901 - the command, step by step
        limit = " --max-records 2000" if " simulate " in command else ""
        ended = run(command.replace("--rate 500", "") + limit, copied)
        assert ended.returncode == 0, f"{command}\n{ended.stderr}"
    assert 'payments="read=2000 scored=2000' in ended.stderr


def test_the_readme_lists_every_example() -> None:
    text = (EXAMPLES / "README.md").read_text("utf-8")
    listed = re.findall(r"^\| \[([\w/]+\.py)\]", text, re.M)
    assert sorted(listed) == sorted(path.relative_to(EXAMPLES).as_posix() for path in FILES.values())
