"""I7 under overload on a real broker: more comes than can be written; memory stays, the lag is told, and catching up keeps the order.

The input is there at once, which is more than any factor of what a slow output takes: what is not bounded grows until it ends.
"""

from __future__ import annotations

import json
import re
import subprocess
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from gillnet.app import RunConfig, build_runtime, load_pipeline
from gillnet.connectors.kafka import KafkaSink, ensure_topics
from gillnet.connectors.local_kafka import LocalKafka

from .faulty import GILLNET, QUICK_SESSION, Bench, payment, read_topic, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gillnet.runtimes.embedded import EmbeddedRuntime

pytestmark = [pytest.mark.kafka, pytest.mark.slow]

MB = 1_000_000
RECORDS = 150_000
PAD = "x" * 1_000
"""A field of no column, so that what waits weighs 165 MB as it was read."""
SLOW_BYTES_PER_S = 500_000
"""About 1,500 decisions a second: less than a hundredth of what the run could do."""

# What may wait at once. The source's queue: 32 MB of records (queued.max.messages.kbytes), and with as many fetched before librdkafka
# sees that it is full as one response holds (1 MB for each of 4 partitions). The micro-batches between poll and sink: 6 of 4,096
# records, each as bytes (1.1 kB), as columns and as a row (1 kB). What malloc does not give back of it: as much again.
BOUND_BYTES = (32 + 4 + 6 * 4_096 * 0.0022) * 2 * MB
# While it stands, the state of what was written grows: some 300 bytes for each of 2,500 records a second.
STILL_BYTES = 20 * MB


@pytest.fixture
def bench(kafka: LocalKafka, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Bench]:
    made = Bench(kafka, tmp_path, re.sub(r"[^a-zA-Z0-9_.-]", "-", request.node.name))
    sink = KafkaSink(topic=made.topic, bootstrap_servers=made.servers)
    for start in range(0, RECORDS, 10_000):
        numbers = range(start, start + 10_000)
        sink.write([payment(n, pad=PAD) for n in numbers], [b"c%d" % (n % 97) for n in numbers])
    sink.close()
    yield made
    made.close()


def rss_bytes(pid: int | str = "self") -> int:
    """The resident memory of a process."""
    return int(Path(f"/proc/{pid}/status").read_text().split("VmRSS:")[1].split()[0]) * 1_024


def assert_in_order(ids: list[str]) -> None:
    """Whoever has one key has one partition, and what was written to it first comes first."""
    by_card: dict[int, list[int]] = {}
    for number in (int(text[1:]) for text in ids):
        by_card.setdefault(number % 97, []).append(number)
    assert all(numbers == sorted(numbers) for numbers in by_card.values())


@dataclass
class SlowReader(threading.Thread):
    """Reads a pipe as slowly as it is told, and keeps the ids of what comes."""

    pipe: subprocess.Popen[bytes]
    bytes_per_s: float | None = SLOW_BYTES_PER_S
    ids: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__(name="slow-reader", daemon=True)

    __hash__ = threading.Thread.__hash__

    def run(self) -> None:
        assert self.pipe.stdout is not None
        rest = b""
        while data := self.pipe.stdout.read1(32_768):  # type: ignore[attr-defined]
            *lines, rest = (rest + data).split(b"\n")
            self.ids += [json.loads(line)["id"] for line in lines]
            if self.bytes_per_s is not None:
                time.sleep(len(data) / self.bytes_per_s)


def test_i7_a_slow_reader_of_the_decisions_holds_the_source_back_and_memory_stays(bench: Bench) -> None:
    log = bench.directory / "run.log"
    command = [GILLNET, "run", bench.directory / "app.py", "--plain", "--log", "json", "--sink", "decisions=-"]
    command += ["--source", f"payments=kafka://{bench.servers}/{bench.topic}?group={bench.name}&until_end=true"]
    command += [part for setting in QUICK_SESSION for part in ("--set", setting)]
    with log.open("wb") as stderr:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=stderr)
    bench.logs.append(log)
    bench.running.append(process)
    reader = SlowReader(process)
    reader.start()
    bench.wait_until(lambda: len(reader.ids) > 100, "no decisions come")
    began, samples = rss_bytes(process.pid), []
    for _ in range(40):
        time.sleep(0.5)
        samples.append(rss_bytes(process.pid))
    assert process.poll() is None
    assert len(reader.ids) < RECORDS // 2, "it is no overload if everything gets through"
    assert max(samples) - began < BOUND_BYTES, [round(s / MB) for s in samples]
    settled = samples[len(samples) // 2 :]
    assert max(settled) - min(settled) < STILL_BYTES, [round(s / MB) for s in samples]

    lags = [json.loads(line)["lag"] for line in bench.log().splitlines() if '"lag"' in line]
    assert max(lags) > RECORDS // 2, "the lag is told while it lasts"
    reader.bytes_per_s = None
    reader.join(90)
    assert process.wait(60) == 0, bench.log()
    bench.running.remove(process)
    assert process.stdout is not None
    process.stdout.close()
    assert len(reader.ids) == len(set(reader.ids)) == RECORDS  # None lost, none twice.
    assert_in_order(reader.ids)


@pytest.fixture
def other_kafka() -> Iterator[LocalKafka]:
    """A second broker, for the decisions, to be paused."""
    with LocalKafka() as broker:
        yield broker


def figure(runtime: EmbeddedRuntime, name: str) -> float:
    return runtime.metrics.snapshot().get(name, 0)


def test_i7_a_broker_that_takes_no_decisions_stops_the_reading_and_the_figures_say_so(
    bench: Bench, other_kafka: LocalKafka
) -> None:
    ensure_topics(["out-decisions"], bootstrap_servers=other_kafka.bootstrap_servers)
    config = RunConfig(
        sources={"payments": f"kafka://{bench.servers}/{bench.topic}?group={bench.name}&until_end=true"},
        default_sink=f"kafka://{other_kafka.bootstrap_servers}/out-{{name}}",
    )
    runtime = build_runtime(load_pipeline(str(bench.directory / "app.py")), config)
    queued, lag = "sink_queued_records{output=decisions}", "source_lag_records{stream=payments}"
    sink_bound = 100_000
    other_kafka.pause()
    thread = threading.Thread(target=runtime.run, daemon=True)
    before = rss_bytes()
    thread.start()
    try:
        wait_until(lambda: figure(runtime, lag) > 0, "the lag is not told")
        # It stands when a whole second brings no record: commits wait for the sink, and so does the loop.
        read = [-2, -1]
        while read[-1] != read[-2]:
            time.sleep(1.0)
            read.append(runtime.metrics.stream("payments").read)
        standing, samples = read[-1], []
        for _ in range(10):
            time.sleep(0.5)
            samples.append(rss_bytes())
        assert runtime.metrics.stream("payments").read == standing < RECORDS
        assert standing + figure(runtime, lag) >= RECORDS * 0.9
        assert 0 < figure(runtime, queued) <= sink_bound
        assert max(samples) - min(samples) < STILL_BYTES, [round(s / MB) for s in samples]
        # The source's bound, and the sink's: 64 MB of its records, each with librdkafka's own 300 bytes beside it.
        assert max(samples) - before < BOUND_BYTES + (64 + sink_bound * 0.0003) * MB
    finally:
        other_kafka.resume()
    thread.join(120)
    assert not thread.is_alive()
    assert figure(runtime, queued) == 0
    assert figure(runtime, lag) == 0
    rows = read_topic(other_kafka.bootstrap_servers, "out-decisions")
    ids = [json.loads(value)["id"] for value, _, _ in rows]
    assert len(ids) == len(set(ids)) == RECORDS
    assert_in_order(ids)
