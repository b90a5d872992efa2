"""The command line through a real broker."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from gillnet.connectors.kafka import KafkaSink, KafkaSource, count_records, ensure_topics

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gillnet.connectors.local_kafka import LocalKafka

pytestmark = [pytest.mark.kafka, pytest.mark.slow]
TIMEOUT_S = 150


@pytest.fixture
def processes() -> Iterator[list[subprocess.Popen[bytes]]]:
    started: list[subprocess.Popen[bytes]] = []
    yield started
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate()


def start(processes: list[subprocess.Popen[bytes]], cwd: Path, *arguments: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "gillnet.cli.main", *arguments]
    pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    process = subprocess.Popen(command, cwd=cwd, **pipes)  # type: ignore[call-overload]
    processes.append(process)
    return process


def read_decisions(servers: str, topic: str) -> list[dict[str, object]]:
    source = KafkaSource(
        stream="decisions", topic=topic, bootstrap_servers=servers, group=topic, start="earliest", until_end=True
    )
    values: list[bytes] = []
    deadline_s = time.monotonic() + TIMEOUT_S
    while not source.finished:
        assert time.monotonic() < deadline_s
        if batch := source.poll(10_000, 0.1):
            values += batch.values
    source.close()
    return [json.loads(value) for value in values]


def test_payments_from_kafka_to_kafka(
    kafka: LocalKafka, tmp_path: Path, processes: list[subprocess.Popen[bytes]]
) -> None:
    servers = kafka.bootstrap_servers
    simulate = start(
        processes, tmp_path, "simulate", "all", "--to", f"kafka://{servers}/cli-{{name}}", "--duration", "2h",
        "--duplicate-share", "0.01", "--malformed-share", "0.01",
    )  # fmt: skip
    _, told = simulate.communicate(timeout=TIMEOUT_S)
    assert simulate.returncode == 0, told
    written = {
        name: int(count.replace(",", "")) for name, count in re.findall(r"(\w+) +([\d,]+) +kafka:", told.decode())
    }
    topics = count_records([f"cli-{name}" for name in written], bootstrap_servers=servers)
    assert topics == {f"cli-{name}": count for name, count in written.items()}
    sources = [part for name in ("payments", "clicks") for part in
               ("-s", f"{name}=kafka://{servers}/cli-{name}?group=cli-{name}&until_end=true")]  # fmt: skip
    run = start(
        processes,
        tmp_path,
        "run",
        "payments",
        *sources,
        "--sinks",
        f"kafka://{servers}/cli-out-{{name}}",
        "--log",
        "json",
    )
    _, told = run.communicate(timeout=TIMEOUT_S)
    assert run.returncode == 0, told
    last = json.loads(told.splitlines()[-1])
    counts = {name: int(value) for name, value in (pair.split("=") for pair in last["payments"].split())}
    assert counts["read"] == written["payments"]
    decisions = read_decisions(servers, "cli-out-decisions")
    assert len({row["tx_id"] for row in decisions}) == len(decisions) == counts["scored"]
    assert all(0 <= row["score"] <= 1 for row in decisions)  # type: ignore[operator]
    sides = count_records(
        [f"cli-out-payments.{kind}" for kind in ("malformed", "duplicate")], bootstrap_servers=servers
    )
    assert sides == {f"cli-out-payments.{kind}": counts[kind] for kind in ("malformed", "duplicate")}


def test_the_demo_through_kafka(tmp_path: Path, processes: list[subprocess.Popen[bytes]]) -> None:
    process = start(processes, tmp_path, "demo", "--kafka", "--seconds", "8")
    shown, told = process.communicate(timeout=TIMEOUT_S)
    assert (process.returncode, told) == (0, b"")
    text = shown.decode()
    assert "through a real Apache Kafka broker" in text
    for name, kind, root in (("1 · bot sessions", "bots", "clicks"), ("2 · card payments", "payments", "payments")):
        summary = text.partition(f"\n{name}")[2]
        accounts = re.search(rf"{root} +([\d,]+) +([\d,]+) +([\d,]+) +([\d,]+) +([\d,]+)", summary)
        assert accounts is not None, text
        read, *parts = (int(figure.replace(",", "")) for figure in accounts.groups())
        assert read == sum(parts)
        assert f"{kind}.{root} {read:,}" in summary
        assert f"{kind}.alerts " in summary


def test_the_local_broker_starts_tells_its_address_and_stops(
    tmp_path: Path, processes: list[subprocess.Popen[bytes]]
) -> None:
    process = start(processes, tmp_path, "kafka", "--port", "0")
    assert process.stdout is not None
    servers = process.stdout.readline().decode().strip().removeprefix("bootstrap.servers=")
    assert count_records([], bootstrap_servers=servers) == {}
    process.send_signal(signal.SIGTERM)
    _, told = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == 0
    assert told.decode().strip().endswith("stopped")
    assert "Traceback" not in told.decode()
    assert not os.path.exists(tmp_path / ".gillnet")


def test_with_keep_topics_are_there_at_the_next_start(tmp_path: Path, processes: list[subprocess.Popen[bytes]]) -> None:
    def started() -> tuple[subprocess.Popen[bytes], str]:
        process = start(processes, tmp_path, "kafka", "--port", "0", "--keep")
        assert process.stdout is not None
        return process, process.stdout.readline().decode().strip().removeprefix("bootstrap.servers=")

    def stopped(process: subprocess.Popen[bytes]) -> str:
        process.send_signal(signal.SIGTERM)
        _, told = process.communicate(timeout=TIMEOUT_S)
        assert process.returncode == 0, told
        return told.decode()

    first, servers = started()
    ensure_topics(["kept"], bootstrap_servers=servers)
    sink = KafkaSink(topic="kept", bootstrap_servers=servers)
    sink.write([b'{"n":%d}' % n for n in range(500)])
    sink.close()
    assert "its topics stay in .gillnet/kafka" in stopped(first)
    assert (tmp_path / ".gillnet" / "kafka").is_dir()

    second, servers = started()
    assert sorted(row["n"] for row in read_decisions(servers, "kept")) == list(range(500))  # type: ignore[type-var]
    stopped(second)
