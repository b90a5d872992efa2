"""Runs on a real Pulsar: killed and gone on, beside a broker that is killed, malformed records, and two tenants of one cluster."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from typer.testing import CliRunner

from gillnet.cli.main import app
from gillnet.connectors.local_pulsar import CLUSTER, LocalPulsar
from gillnet.connectors.pulsar import PulsarSink, PulsarSource
from gillnet.connectors.pulsar.client import make_client
from gillnet.state import CheckpointStore

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

pytestmark = [pytest.mark.pulsar, pytest.mark.slow]

GILLNET = Path(sys.executable).with_name("gillnet")
EXAMPLES = Path(__file__).parents[2] / "examples" / "pulsar"
SEED = 20_261_127

APP = """
import gillnet as gn

Payment = gn.Schema(id=gn.String(), ts=gn.Timestamp("ms"), card=gn.String(), amount=gn.Decimal(2, minimum=0))
payments = gn.Stream("payments", schema=Payment, id="id", event_time="ts")
card = payments.by("card")
pipeline = gn.Pipeline(
    gn.Features(payments, spend_5m=card.sum("amount", over="5m"), payments_5m=card.count(over="5m")),
    name="faults",
    policy=[gn.review(gn.col("spend_5m") > 20)],
)
"""


class Runs:
    """Runs of one pipeline between topics of one namespace, and what they wrote."""

    def __init__(self, broker: LocalPulsar, directory: Path, namespace: str, role: str) -> None:
        self.broker, self.directory, self.namespace, self.role = broker, directory, namespace, role
        self.settings = {"token": broker.token(role), "admin_url": broker.admin_url}
        self.logs: list[Path] = []
        self._running: list[subprocess.Popen[bytes]] = []

    def uri(self, name: str) -> str:
        return f"pulsar://{self.broker.address}/{self.namespace}/{name}"

    def start(
        self, pipeline: str, *options: str, query: str = "", environment: Mapping[str, str] | None = None
    ) -> subprocess.Popen[bytes]:
        log = self.directory / f"run-{len(self.logs)}.log"
        command = [str(GILLNET), "run", pipeline, "--plain", "--log", "json"]
        command += ["--source", f"payments={self.uri('payments')}{query}", "--sinks", self.uri("{name}")]
        command += ["--set", f"pulsar.admin_url={self.broker.admin_url}", *options]
        with log.open("wb") as stderr:
            process = subprocess.Popen(
                command,
                stdout=stderr,
                stderr=stderr,
                cwd=self.directory,
                env={**os.environ, "PULSAR_TOKEN": self.settings["token"], **(environment or {})},
            )
        self.logs.append(log)
        self._running.append(process)
        return process

    def log(self) -> str:
        return self.logs[-1].read_text(errors="replace")

    def sink(self, name: str) -> PulsarSink:
        return PulsarSink(
            topic=f"{self.namespace}/{name}",
            service_url=f"pulsar://{self.broker.address}",
            settings=self.settings,
            max_queued_records=500_000,
        )

    def read(self, name: str) -> list[tuple[bytes, dict[str, Any]]]:
        """Value and headers of every record of a topic."""
        source = PulsarSource(
            stream=name,
            topic=f"{self.namespace}/{name}",
            service_url=f"pulsar://{self.broker.address}",
            subscription=f"reader-{time.monotonic_ns()}",
            start="earliest",
            until_end=True,
            settings=self.settings,
        )
        got: list[tuple[bytes, dict[str, Any]]] = []
        while not source.finished:
            if batch := source.poll(5_000, 0.2):
                got += [(value, dict(batch.envelope(place)[1])) for place, value in enumerate(batch.values)]
        source.close()
        return got

    def wait_for_decisions(self, process: subprocess.Popen[bytes], count: int) -> None:
        """Wait until each payment up to a number is decided."""
        deadline_s = time.monotonic() + 90
        while {json.loads(value)["id"] for value, _ in self.read("decisions")} != {f"p{n}" for n in range(count)}:
            assert process.poll() is None, self.log()
            assert time.monotonic() < deadline_s, self.log()
            time.sleep(0.3)

    def close(self) -> None:
        for process in self._running:
            if process.poll() is None:
                process.kill()
                process.wait()


@pytest.fixture
def runs(pulsar_broker: LocalPulsar, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Runs]:
    """A namespace of team-a for each test."""
    namespace = f"team-a/{request.node.name.removeprefix('test_')[:40]}"
    pulsar_broker.admin.create_namespace(namespace, roles=["team-a"])
    pulsar_broker.admin.create_topic(f"{namespace}/payments", partitions=3)
    (tmp_path / "app.py").write_text(APP)
    (tmp_path / "gillnet.toml").write_text('[pulsar]\ntoken = "${PULSAR_TOKEN}"\n')
    made = Runs(pulsar_broker, tmp_path, namespace, "team-a")
    yield made
    made.close()


def payments(numbers: Sequence[int], dice: random.Random) -> list[bytes]:
    """Payments of now; one in twenty was made up to ten minutes ago."""
    now_ms = time.time_ns() // 1_000_000
    return [
        json.dumps(
            {
                "id": f"p{n}",
                "ts": now_ms - (dice.randrange(600_000) if dice.random() < 0.05 else 0),
                "card": f"c{n % 97}",
                "amount": "1.25",
            }
        ).encode()
        for n in numbers
    ]


def test_kills_change_nothing_and_malformed_records_go_to_a_topic_aside(runs: Runs) -> None:
    dice = random.Random(SEED)
    broken = [b"\xff\x00", b'{"id": "torn', b"[]", b'{"id":"x","ts":1,"card":"c","amount":"-1"}']
    kept = ["--checkpoints", "checkpoints", "--history", "history", "--set", "options.checkpoint_interval=300ms"]
    kept += ["--set", "options.commit_interval=200ms"]
    sink = runs.sink("payments")
    sink.write(broken)
    written = 0
    for _ in range(3):
        process = runs.start("app.py", *kept)
        more = dice.randrange(20)  # The kill falls into whatever the run is doing, some checkpoints after its start.
        while more:
            numbers = range(written, written + 50)
            sink.write(payments(numbers, dice), [b"c%d" % (n % 97) for n in numbers])
            written += 50
            time.sleep(0.05)
            more -= runs.log().count("checkpoint complete") > 1
            assert process.poll() is None, runs.log()
        process.send_signal(signal.SIGKILL)
        process.wait(10)
    sink.close()
    last = runs.start("app.py", *kept, query="?until_end=true")
    assert last.wait(60) == 0, runs.log()
    assert "going on from a checkpoint" in runs.log()

    # I3: over the whole of its life the run has read each record once, and every one was scored or set aside.
    checkpoint, _ = CheckpointStore(str(runs.directory / "checkpoints")).latest() or pytest.fail("no checkpoint")
    counts = checkpoint.counts["streams"]["payments"]
    assert (counts["read"], counts["scored"], counts["duplicate"]) == (written + len(broken), written, 0)
    decisions = [value for value, _ in runs.read("decisions")]
    assert {json.loads(value)["id"] for value in decisions} == {f"p{n}" for n in range(written)}
    aside = runs.read("payments.malformed")
    assert {value for value, _ in aside} == set(broken)
    assert all(headers["gillnet.reason"] and headers["pulsar.message_id"] for _, headers in aside)
    # I2: the last word on each row is the batch answer over what was read.
    out = runs.directory / "out"
    out.mkdir()
    (out / "decisions.ndjson").write_bytes(b"\n".join(decisions) + b"\n")
    revisions = [value for value, _ in runs.read("decisions.revisions")]
    assert revisions
    (out / "decisions.revisions.ndjson").write_bytes(b"\n".join(revisions) + b"\n")
    verify = ["verify", str(runs.directory / "app.py"), "--history", str(runs.directory / "history"), "--json"]
    told = CliRunner().invoke(app, [*verify, "--sinks", str(out)])
    assert told.exit_code == 0, told.output
    found = json.loads(told.stdout)
    assert (found["equal"], found["rows"]) == (written, written), found
    assert runs.settings["token"] not in "".join(log.read_text(errors="replace") for log in runs.logs)


def test_a_broker_that_is_killed_and_comes_back_is_waited_for(runs: Runs) -> None:
    dice = random.Random(SEED)
    process = runs.start("app.py", "--checkpoints", "checkpoints", "--set", "options.checkpoint_interval=300ms")
    with closing(runs.sink("payments")) as sink:
        sink.write(payments(range(500), dice), [b"c%d" % (n % 97) for n in range(500)])
        sink.flush()
        runs.wait_for_decisions(process, 500)
        runs.broker.restart(signal.SIGKILL)
        sink.write(payments(range(500, 1_000), dice), [b"c%d" % (n % 97) for n in range(500, 1_000)])
        sink.flush()
    runs.wait_for_decisions(process, 1_000)
    process.terminate()
    assert process.wait(30) == 0, runs.log()


@pytest.fixture
def tenants(pulsar_broker: LocalPulsar, tmp_path: Path) -> dict[str, Runs]:
    """The example's two tenants, each with its topic, its quota and its model."""
    made = {}
    for tenant, usual in (("team-a", 500), ("team-b", 50)):
        runs = Runs(pulsar_broker, tmp_path, f"{tenant}/tenants", tenant)
        pulsar_broker.admin.create_tenant(tenant, roles=[tenant], clusters=[CLUSTER])
        pulsar_broker.admin.create_namespace(runs.namespace, roles=[tenant])
        pulsar_broker.admin.limit_backlog(runs.namespace, bytes_most=10_000_000)
        pulsar_broker.admin.create_topic(f"{runs.namespace}/payments", partitions=2)
        shutil.copytree(EXAMPLES, tmp_path / tenant, ignore=shutil.ignore_patterns("__pycache__"))
        models = tmp_path / tenant / f"models-{tenant[-1]}"
        publish = [sys.executable, str(EXAMPLES / "tenants.py"), "--models", str(models), "--usual-amount", str(usual)]
        subprocess.run(publish, check=True, capture_output=True, timeout=60)
        made[tenant] = runs
    return made


def test_two_tenants_run_one_definition_apart(tenants: dict[str, Runs]) -> None:
    for tenant, runs in tenants.items():
        with closing(runs.sink("payments")) as sink:
            now_ms = time.time_ns() // 1_000_000
            rows = [
                {"id": f"{tenant}-{n}", "ts": now_ms + n, "card": f"c{n}", "amount": amount, "status": "ok"}
                for n, amount in enumerate(("20.00", "200.00", "900.00"))
            ]
            sink.write([json.dumps(row).encode() for row in rows], [row["card"].encode() for row in rows])
        mine = [f"{tenant}/tenants.py", "--config", f"{tenant}/{tenant}.toml"]
        process = runs.start(*mine, query="?until_end=true", environment={"TENANT": tenant})
        assert process.wait(60) == 0, runs.log()
    decided = {
        tenant: {row["id"]: row["decision"] for row in (json.loads(value) for value, _ in runs.read("decisions"))}
        for tenant, runs in tenants.items()
    }
    # The same features: A's model takes 200 as usual and its policy blocks; B's does not, and its policy asks for a review.
    assert decided == {
        "team-a": {"team-a-0": "allow", "team-a-1": "allow", "team-a-2": "block"},
        "team-b": {"team-b-0": "allow", "team-b-1": "review", "team-b-2": "review"},
    }


def test_a_tenant_s_run_on_another_s_topics_is_refused_before_it_reads(tenants: dict[str, Runs]) -> None:
    theirs = tenants["team-a"]
    token = tenants["team-b"].settings["token"]
    process = theirs.start(
        "team-b/tenants.py",
        "--config",
        "team-b/team-b.toml",
        query="?until_end=true",
        environment={"TENANT": "team-b", "PULSAR_TOKEN": token},
    )
    assert process.wait(60) == 1, theirs.log()
    told = " ".join(theirs.log().split())
    assert "refuses this client's role" in told
    assert "grant-permission team-a/tenants" in told
    assert token not in theirs.log()
    with (
        closing(make_client(f"pulsar://{theirs.broker.address}", {"token": token}, timeout_s=5, what="test")) as client,
        pytest.raises(Exception, match="AuthorizationError"),
    ):
        client.create_producer("persistent://team-a/tenants/payments")
