"""A real run whose secrets are canaries, with debug lines on: nothing that it writes holds one, and what it keeps is private."""

from __future__ import annotations

import re
import signal
import stat
from typing import TYPE_CHECKING

import pytest
from typer.testing import CliRunner

from gillnet.cli.main import app as command_line
from gillnet.connectors.kafka import KafkaSink

from .faulty import Bench, payment

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from gillnet.connectors.local_kafka import LocalKafka

pytestmark = pytest.mark.kafka

CANARIES = {
    "KAFKA_PASSWORD": "canary-sasl",
    "KEY_PASSWORD": "canary-ssl-key",
    "AWS_SECRET_ACCESS_KEY": "canary-s3",
    "STORE_TOKEN": "canary-token",
}
# The local broker asks for none of them: the settings are there all the same, as a wrong or idle one may be.
CONFIG = """
[kafka]
"sasl.username" = "ann"
"sasl.password" = "${KAFKA_PASSWORD}"
"ssl.key.password" = "${KEY_PASSWORD}"
"sasl.oauthbearer.client.secret" = "${STORE_TOKEN}"
"debug" = "all"
"""
RECORDS = [
    *(payment(number) for number in range(300)),
    payment(7),
    b'{"id": "torn',
    payment(400, ts=1),
    payment(401, ts=1_767_225_600_000),
    payment(402, amount="-1"),
]
OWN = ("checkpoints", "history")
"""What the run keeps for itself; file sinks are the user's, and follow the umask."""


@pytest.fixture
def bench(
    kafka: LocalKafka, tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Bench]:
    for name, value in CANARIES.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("GILLNET_DEBUG", "1")
    (tmp_path / "gillnet.toml").write_text(CONFIG)
    made = Bench(kafka, tmp_path, re.sub(r"[^a-zA-Z0-9_.-]", "-", request.node.name))
    sink = KafkaSink(topic=made.topic, bootstrap_servers=made.servers)
    sink.write(RECORDS)
    sink.close()
    yield made
    made.close()


def kept(bench: Bench) -> list[str]:
    where = [f"{option}={bench.directory / option.strip('-')}" for option in ("--checkpoints", "--history")]
    return [*where, "--sink", f"alerts={bench.directory / 'out' / 'alerts.ndjson'}"]


def texts(bench: Bench) -> dict[str, bytes]:
    """Everything that lies in the run's directory, and in its topics."""
    found = {path.name: path.read_bytes() for path in bench.directory.rglob("*") if path.is_file()}
    for output in ("decisions", "payments.malformed", "payments.duplicate", "payments.late"):
        found[output] = repr(bench.read(output)).encode()
    return found


def test_a_run_on_a_broker_writes_no_secret_and_keeps_its_state_private(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = ("options.checkpoint_interval=200ms",)
    process = bench.start(settings=settings, options=kept(bench))
    bench.wait_until(lambda: "checkpoint complete" in bench.events(), "no checkpoint")
    assert bench.end(process, signal.SIGKILL) == -signal.SIGKILL
    assert bench.finish(settings=settings, options=kept(bench))[-1] == "finished"

    found = texts(bench)
    assert {"manifest.json", "state.bin", "owner.json", "run-0.log", "run-1.log"} <= set(found)
    assert len(found["decisions"]) > 10_000
    assert len(found["payments.malformed"]) > 100
    assert "going on from a checkpoint" in bench.events()
    assert [name for name, data in found.items() if b"canary" in data] == []

    modes = {
        path: stat.S_IMODE(path.stat().st_mode)
        for own in OWN
        for path in [bench.directory / own, *(bench.directory / own).rglob("*")]
    }
    assert len(modes) > 8
    open_ones = {str(path): oct(mode) for path, mode in modes.items() if mode != (0o700 if path.is_dir() else 0o600)}
    assert open_ones == {}

    monkeypatch.chdir(bench.directory)
    verify = ["verify", "app.py", "--history", str(bench.directory / "history")]
    told = CliRunner().invoke(command_line, [*verify, "--sinks", f"kafka://{bench.servers}/{bench.name}-{{name}}"])
    assert "canary" not in told.output
    assert told.exit_code == 0, told.output


@pytest.mark.parametrize(
    ("options", "code"),
    [
        (["--sink", "decisions=/dev/full"], 1),
        (["--set", "kafka.security.protocol=SASL_PLAINTEXT", "--set", "kafka.sasl.mechanism=PLAIN"], 2),
    ],
    ids=["a sink that fails", "a broker that knows no passwords"],
)
def test_a_run_that_fails_tells_no_secret(bench: Bench, options: list[str], code: int) -> None:
    process = bench.start(until_end=True, options=options)
    assert process.wait(90) == code
    bench.running.remove(process)
    assert "error:" in bench.log()
    assert "Traceback" in bench.log()
    assert "canary" not in bench.log()
