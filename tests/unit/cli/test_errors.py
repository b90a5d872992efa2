"""What people see when something is wrong: one readable paragraph, an exit code, no traceback."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

import pytest
from command_line import APP, Command

import gillnet.connectors as gillnet_connectors

SECRET = ("--set", "kafka.sasl.password=hunter2", "--set", "kafka.sasl.username=ann")
KAFKA = "gillnet.connectors.kafka"
SIMULATED = ("--source", "payments=simulator:payments?duration=1m")

USAGE = {
    "missing file": (["run", "nowhere.py"], r"There is no file nowhere\.py"),
    "mistyped file": (["run", "ap.py"], r"There is no file ap\.py; did you mean app\.py\?"),
    "missing module": (["explain", "no.such.module"], r"There is no module 'no\.such\.module'.*bundled scenarios"),
    "no such pipeline": (["explain", "app.py:pipelin"], r"app\.py has no pipeline 'pipelin'.*did you mean 'pipeline'"),
    "no source": (["run", "app.py"], r"'payments' has no source.*--source payments=kafka://"),
    "source of no stream": (["run", "app.py", "-s", "payment=x.ndjson"], r"no stream 'payment'.*did you mean 'payments'"),
    "source without =": (["run", "app.py", "-s", "payments"], r"write name=value"),
    "format unknown": (["run", "app.py", "-s", "payments=."], r"its suffix tells no format; use \.ndjson"),
    "unknown scheme": (["run", "app.py", "-s", "payments=kafak://x:1/t"], r"'kafak' is unknown; did you mean 'kafka'"),
    "no topic": (["run", "app.py", "-s", "payments=kafka://x:1"], r"the topic is missing"),
    "password in a URI": (["run", "app.py", "-s", "payments=kafka://ann:hunter2@x/t"], r"must not hold a user or password"),
    "unknown parameter": (["run", "app.py", "-s", "payments=simulator:payments?cads=3"], r"'cads' is unknown.*did you mean 'cards'"),
    "wrong rate": (["run", "app.py", "-s", "payments=simulator:payments?rate=-1"], r"above 0"),
    "unknown output": (["run", "app.py", *SIMULATED, "--sink", "decision=-"], r"no output 'decision'.*did you mean 'decisions'"),
    "one place for all": (["run", "app.py", *SIMULATED, "--sinks", "-"], r"write \{name\} for the output's name"),
    "unknown setting": (["run", "app.py", *SIMULATED, "--set", "options.latency=1ms"], r"'latency' is unknown.*latency_budget"),
    "setting of no section": (["run", "app.py", *SIMULATED, "--set", "kafak.x=1"], r"the key 'kafak\.x' is unknown"),
    "wrong budget": (["run", "app.py", *SIMULATED, "--latency-budget", "soon"], r"'soon' is not a duration"),
    "missing configuration": (["run", "app.py", "--config", "none.toml"], r"no configuration file none\.toml"),
    "directory that cannot be made": (["run", "app.py", *SIMULATED, "--sinks", "app.py/out"], r"app\.py/out cannot be made"),
    "simulated parameter": (["simulate", "--duration", "long"], r"'long' is not a duration"),
    "simulated into a file's place": (["simulate", "all", "--to", "app.py/x"], r"app\.py/x cannot be made"),
    "all to stdout": (["simulate", "all", "--to", "-"], r"write \{name\} for the output's name"),
    "blocked without labels": (["simulate", "clicks", "--blocked", "x.ndjson"], r"none are written.*simulate labels"),
    "blocked of a stream": (["simulate", "labels", "--blocked", "simulator:payments"], r"cannot be read again"),
    "blocked of something else": (["simulate", "labels", "--blocked", "app.py"], r"app\.py"),
    "simulated rate": (["simulate", "payments", "--rate", "0"], r"above 0"),
}  # fmt: skip

TYPED = {
    "demo too short": (["demo", "--seconds", "1"], r"'--seconds'.*4"),
    "unknown option": (["demo", "--kafak"], r"No such option: --kafak.*--kafka"),
    "unknown command": (["rum"], r"'rum'\. Did you mean 'run'"),
    "port out of range": (["kafka", "--port", "99999"], r"'--port'.*65535"),
    "stream of no simulation": (["simulate", "refunds"], r"'refunds'"),
}

FAILURES = {
    "broken model": (["run", "model.py", *SIMULATED, "--models", "models"], r"fraud"),
    "syntax error": (["explain", "syntax.py"], r"syntax\.py, line 2: .*"),
    "unknown column": (["explain", "column.py"], r"column\.py, line 6: .*'amuont'.*Did you mean col\('amount'\)"),
    "user's own exception": (["explain", "raises.py"], r"raises\.py, line 2: ZeroDivisionError.*in `x = 1 / 0`"),
    "missing model": (["run", "model.py", *SIMULATED], r"'nosuch'|nosuch@champion"),
    "blocked of no file": (["simulate", "labels", "--blocked", "x.ndjson"], r"x\.ndjson"),
    "missing input": (
        ["run", "app.py", "-s", "payments=none.ndjson"],
        r"none\.ndjson: the file cannot be opened: No such file",
    ),
    "no Parquet": (["run", "app.py", "-s", "payments=app.py?format=parquet"], r"app\.py"),
}

FILES = {
    "app.py": APP,
    "syntax.py": "import gillnet as gn\nfeatures = gn.Features(\n",
    "column.py": APP.replace('sum("amount"', 'sum("amuont"'),
    "raises.py": "import gillnet\nx = 1 / 0\n",
    "model.py": APP.replace("features, policy", 'features, model="nosuch@champion", policy'),
}


@pytest.fixture(autouse=True)
def _files(tmp_path: Path) -> None:
    for name, text in FILES.items():
        (tmp_path / name).write_text(text, encoding="utf-8")


def one_paragraph(text: str) -> str:
    assert "Traceback" not in text
    assert "hunter2" not in text
    assert "Something unexpected" not in text
    assert "\n\n" not in text.strip()
    return " ".join(text.split())


@pytest.mark.parametrize(("arguments", "message"), USAGE.values(), ids=USAGE)
def test_wrong_usage_is_one_paragraph_and_exit_code_2(gillnet: Command, arguments: list[str], message: str) -> None:
    result = gillnet(*arguments)
    assert result.stdout == ""
    assert_matches(message, one_paragraph(result.stderr))
    assert result.exit_code == 2


@pytest.mark.parametrize(("arguments", "message"), TYPED.values(), ids=TYPED)
def test_a_mistyped_command_says_what_there_is(gillnet: Command, arguments: list[str], message: str) -> None:
    result = gillnet(*arguments)
    assert result.stdout == ""
    assert "Traceback" not in result.stderr
    assert "--help" in result.stderr
    assert_matches(message, " ".join(result.stderr.split()))
    assert result.exit_code == 2


@pytest.mark.parametrize(("arguments", "message"), FAILURES.values(), ids=FAILURES)
def test_a_failure_is_one_paragraph_and_exit_code_1(gillnet: Command, arguments: list[str], message: str) -> None:
    result = gillnet(*arguments)
    assert result.stdout == ""
    assert_matches(message, one_paragraph(result.stderr))
    assert result.exit_code == 1


def assert_matches(pattern: str, text: str) -> None:
    assert re.search(pattern, text), text


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read and write everything")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "app.py", "-s", "payments=locked.ndjson"], r"locked\.ndjson.*ermission denied"),
        (["run", "app.py", *SIMULATED, "--sinks", "locked"], r"locked.*ermission denied"),
        (["simulate", "--duration", "1m", "--to", "locked/data"], r"locked/data cannot be made: Permission denied"),
    ],
)
def test_what_may_not_be_touched_is_named(gillnet: Command, tmp_path: Path, arguments: list[str], message: str) -> None:
    (tmp_path / "locked.ndjson").touch(mode=0)
    (tmp_path / "locked").mkdir(mode=0o500)
    result = gillnet(*arguments)
    assert_matches(message, one_paragraph(result.stderr))
    assert result.exit_code in (1, 2)


@pytest.mark.slow  # librdkafka is given ten seconds to find the broker.
@pytest.mark.parametrize("side", ["source", "sink"])
def test_a_broker_that_is_not_there_is_named(gillnet: Command, side: str) -> None:
    uri = "kafka://127.0.0.1:9/payments"
    arguments = ["-s", f"payments={uri}"] if side == "source" else [*SIMULATED, "--sink", f"decisions={uri}"]
    result = gillnet("run", "app.py", *arguments, *SECRET)
    text = one_paragraph(result.stderr)
    assert "127.0.0.1:9" in text
    assert result.exit_code in (1, 2)


@pytest.mark.parametrize(
    ("package", "arguments", "extra"),
    [
        ("confluent_kafka", ["run", "app.py", "-s", "payments=kafka://localhost:9092/payments"], "gillnet[kafka]"),
        (
            "confluent_kafka",
            ["run", "app.py", *SIMULATED, "--sinks", "kafka://localhost:9092/{name}"],
            "gillnet[kafka]",
        ),
        ("confluent_kafka", ["simulate", "--to", "kafka://localhost:9092/{name}"], "gillnet[kafka]"),
        ("confluent_kafka", ["kafka", "--port", "0"], "gillnet[kafka]"),
        ("confluent_kafka", ["demo", "--kafka"], "gillnet[kafka]"),
        ("xgboost", ["run", "payments", *SIMULATED, "-s", "clicks=simulator:clicks?duration=1m"], "gillnet[xgboost]"),
        ("xgboost", ["demo"], "gillnet[xgboost]"),
    ],
)
def test_a_missing_package_names_the_extra(
    gillnet: Command, monkeypatch: pytest.MonkeyPatch, package: str, arguments: list[str], extra: str
) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == package or name.startswith(KAFKA)]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delattr(gillnet_connectors, "kafka", raising=False)
    monkeypatch.setitem(sys.modules, package, None)
    result = gillnet(*arguments)
    assert extra in one_paragraph(result.stderr)
    assert result.exit_code in (1, 2)


@pytest.mark.parametrize("place", ["--set", "gillnet.toml", "environment"])
def test_a_secret_never_appears(gillnet: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str) -> None:
    monkeypatch.setenv("KAFKA_PASSWORD", "hunter2")
    value = {"gillnet.toml": "hunter2", "environment": "${KAFKA_PASSWORD}"}.get(place)
    settings: list[str] = [*SECRET]
    if value is not None:
        (tmp_path / "gillnet.toml").write_text(
            f'[kafka]\n"sasl.password" = "{value}"\n"sasl.username" = "ann"\n', encoding="utf-8"
        )
        settings = []
    source = ["-s", "payments=kafka://127.0.0.1:9/payments"]
    refused = gillnet("run", "app.py", *source, *settings, "--set", "kafka.security.protocol=nonsense")
    assert "librdkafka refuses the settings" in one_paragraph(refused.stderr)
    assert "hunter2" not in refused.stdout + refused.stderr
    assert refused.exit_code == 2


def test_a_fault_of_gillnet_itself_asks_for_a_report(gillnet: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise KeyError("spend")

    monkeypatch.setattr("gillnet.cli.inspect.load_pipeline", broken)
    result = gillnet("explain", "app.py")
    assert "KeyError: 'spend'" in result.stderr
    assert "GILLNET_DEBUG=1" in result.stderr
    assert "Traceback" not in result.stderr
    assert result.exit_code == 1
    monkeypatch.setenv("GILLNET_DEBUG", "1")
    assert "Traceback" in gillnet("explain", "app.py").stderr
