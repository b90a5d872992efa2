"""A run of ``gillnet run`` on a real broker, to be killed, stopped and watched; and what it needs around it."""

from __future__ import annotations

import itertools
import json
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from confluent_kafka import Consumer, ConsumerGroupTopicPartitions, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient

from gillnet.connectors.kafka import KafkaSink, KafkaSource, ensure_topics

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from gillnet.connectors.local_kafka import LocalKafka
    from gillnet.core.messages import Headers

GILLNET = Path(sys.executable).with_name("gillnet")

APP = """
import gillnet as gn

Payment = gn.Schema(id=gn.String(), ts=gn.Timestamp("ms"), card=gn.String(), amount=gn.Decimal(2, minimum=0))
payments = gn.Stream("payments", schema=Payment, id="id", event_time="ts")
card = payments.by("card")
pipeline = gn.Pipeline(
    gn.Features(payments, spend_5m=card.sum("amount", over="5m"), payments_5m=card.count(over="5m")),
    name="faults",
    policy=[gn.review(gn.col("spend_5m") > 2_000)],
)
"""

#: So that a member that was killed gives its partitions up soon; the least that a broker allows.
QUICK_SESSION = ("kafka.session.timeout.ms=6000", "kafka.heartbeat.interval.ms=1000")


def wait_until(holds: Callable[[], object], what: str, *, timeout_s: float = 60.0) -> None:
    deadline_s = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < deadline_s, f"after {timeout_s:g} s: {what}"
        time.sleep(0.05)


def payment(number: int, **fields: Any) -> bytes:
    record = {"id": f"p{number}", "ts": time.time_ns() // 1_000_000, "card": f"c{number % 97}", "amount": "1.25"}
    return json.dumps(record | fields).encode()


@dataclass
class Bench:
    """One topic of payments, one run's outputs beside it, and a file with the pipeline."""

    kafka: LocalKafka
    directory: Path
    name: str
    logs: list[Path] = field(default_factory=list)
    running: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def __post_init__(self) -> None:
        (self.directory / "app.py").write_text(APP)
        ensure_topics([self.topic], bootstrap_servers=self.servers, config={"max.message.bytes": "16777216"})

    @property
    def servers(self) -> str:
        return self.kafka.bootstrap_servers

    @property
    def topic(self) -> str:
        return self.name

    def out(self, output: str) -> str:
        return f"{self.name}-{output}"

    def start(
        self, *, until_end: bool = False, settings: Sequence[str] = (), options: Sequence[str] = ()
    ) -> subprocess.Popen[bytes]:
        """Start ``gillnet run`` as a process of its own, with ``options`` of the command line."""
        end = "&until_end=true" if until_end else ""
        told = (*QUICK_SESSION, "options.commit_interval=200ms", *settings)
        log = self.directory / f"run-{len(self.logs)}.log"
        command = [GILLNET, "run", self.directory / "app.py", "--plain", "--log", "json"]
        command += ["--source", f"payments=kafka://{self.servers}/{self.topic}?group={self.name}{end}"]
        command += ["--sinks", f"kafka://{self.servers}/{self.name}-{{name}}", *options]
        command += list(itertools.chain.from_iterable(("--set", setting) for setting in told))
        with log.open("wb") as stderr:
            process = subprocess.Popen(command, stdout=stderr, stderr=stderr, cwd=self.directory)
        self.logs.append(log)
        self.running.append(process)
        return process

    def finish(self, *, settings: Sequence[str] = (), options: Sequence[str] = ()) -> list[str]:
        """Let a last run read to the end; return its log."""
        process = self.start(until_end=True, settings=settings, options=options)
        code = process.wait(90)
        self.running.remove(process)
        assert code == 0, self.log()
        return self.events()

    def end(self, process: subprocess.Popen[bytes], how: signal.Signals = signal.SIGTERM) -> int:
        """Send a signal; return the exit code."""
        process.send_signal(how)
        code = process.wait(60)
        self.running.remove(process)
        return code

    def log(self, run: int = -1) -> str:
        return self.logs[run].read_text(errors="replace")

    def events(self, run: int = -1) -> list[str]:
        """What the log lines say, in order."""
        return [json.loads(line)["event"] for line in self.log(run).splitlines() if line.startswith("{")]

    def read(self, output: str) -> list[tuple[bytes, bytes | None, Headers]]:
        return read_topic(self.servers, self.out(output))

    def values(self, output: str) -> list[bytes]:
        return [value for value, _, _ in self.read(output)]

    def ids(self) -> list[str]:
        return [json.loads(value)["id"] for value in self.values("decisions")]

    def decided(self) -> int:
        """How many decisions are there, without reading them."""
        return count_records(self.servers, self.out("decisions"))

    def committed(self) -> int:
        """How many records the group has committed."""
        admin = AdminClient({"bootstrap.servers": self.servers})
        [future] = admin.list_consumer_group_offsets([ConsumerGroupTopicPartitions(self.name)]).values()
        return sum(max(place.offset, 0) for place in future.result().topic_partitions)

    def wait_until(self, holds: Callable[[], object], what: str, *, timeout_s: float = 60.0) -> None:
        """Wait for something that the runs bring about, and not longer than they live."""

        def holds_or_died() -> object:
            assert all(process.poll() is None for process in self.running), f"{what}; a run has ended: {self.log()}"
            return holds()

        wait_until(holds_or_died, what, timeout_s=timeout_s)

    def close(self) -> None:
        for process in self.running:
            if process.poll() is None:
                process.kill()
                process.wait()


def read_topic(servers: str, topic: str) -> list[tuple[bytes, bytes | None, Headers]]:
    source = KafkaSource(
        stream="s", topic=topic, bootstrap_servers=servers, group=f"reader-{time.monotonic_ns()}", until_end=True
    )
    got = []
    while not source.finished:
        if batch := source.poll(5_000, 0.2):
            got += [(value, *batch.envelope(place)) for place, value in enumerate(batch.values)]
    source.close()
    return got


def count_records(servers: str, topic: str) -> int:
    consumer = Consumer({"bootstrap.servers": servers, "group.id": "counter"})
    try:
        known = consumer.list_topics(topic, timeout=10).topics[topic]
        if known.error is not None:
            return 0
        ends = [consumer.get_watermark_offsets(TopicPartition(topic, p), timeout=10)[1] for p in known.partitions]
        return sum(ends)
    except KafkaException:  # A topic that was just made, or a broker that has just come back: it is asked again.
        return 0
    finally:
        consumer.close()


class Load(threading.Thread):
    """Writes payments at a steady rate until it is stopped; `ids` are those that the broker has acknowledged."""

    def __init__(self, kafka: LocalKafka, topic: str, *, rate: int = 2_000) -> None:
        super().__init__(name="load")
        self._sink = KafkaSink(topic=topic, bootstrap_servers=kafka.bootstrap_servers)
        self._rate = rate
        self._ended = threading.Event()
        self.written = 0
        self.failure: BaseException | None = None

    def payments(self, numbers: Sequence[int]) -> list[bytes]:
        """Return the payments of some numbers, as of now."""
        return [payment(number) for number in numbers]

    def run(self) -> None:
        step = self._rate // 20
        try:
            while not self._ended.wait(0.05):
                numbers = range(self.written, self.written + step)
                self._sink.write(self.payments(numbers), [b"c%d" % (n % 97) for n in numbers])
                self.written += step
            self._sink.close()
        except BaseException as failure:
            self.failure = failure

    def end(self) -> list[str]:
        """Stop, flush, and return the ids of everything that was written."""
        self._ended.set()
        self.join(120)
        assert not self.is_alive()
        assert self.failure is None, self.failure
        return [f"p{n}" for n in range(self.written)]

    def __enter__(self) -> Load:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self.join(120)
