"""A real Kafka broker (KRaft, one node) on loopback, for the length of a benchmark.

The one place that knows how a broker is started. The jars come from Maven once and stay in the user's cache; the data
goes to a directory that is removed at the end.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import TracebackType

KAFKA_VERSION = "4.3.1"
_START_TIMEOUT_S = 60.0
# The garbage collector settings of Kafka's own start script.
_JVM_OPTIONS = ("-Xms1g", "-Xmx1g", "-XX:+UseG1GC", "-XX:MaxGCPauseMillis=20", "-XX:InitiatingHeapOccupancyPercent=35")
_POM = """<project xmlns="http://maven.apache.org/POM/4.0.0"><modelVersion>4.0.0</modelVersion>
<groupId>gillnet.bench</groupId><artifactId>kafka</artifactId><version>1</version><dependencies>
<dependency><groupId>org.apache.kafka</groupId><artifactId>kafka_2.13</artifactId><version>{version}</version></dependency>
<dependency><groupId>org.apache.kafka</groupId><artifactId>kafka-tools</artifactId><version>{version}</version></dependency>
<dependency><groupId>org.slf4j</groupId><artifactId>slf4j-simple</artifactId><version>1.7.36</version></dependency>
</dependencies></project>
"""
_PROPERTIES = """process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller_port}
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_port}
advertised.listeners=PLAINTEXT://127.0.0.1:{port}
controller.listener.names=CONTROLLER
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
log.dirs={data}
auto.create.topics.enable=false
offsets.topic.replication.factor=1
offsets.topic.num.partitions=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
log.retention.ms=-1
"""


def exit_on_sigterm() -> None:
    """Let SIGTERM unwind the stack like Ctrl-C does, so that no broker and no contender stays behind."""
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))


class Broker:
    """Starts a broker on entry and stops it on exit; ``bootstrap`` is its address."""

    def __init__(self) -> None:
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        self._home = cache / "gillnet" / f"bench-kafka-{KAFKA_VERSION}"
        self._process: subprocess.Popen[bytes] | None = None
        self._work: Path | None = None
        self.bootstrap = ""

    def __enter__(self) -> Broker:
        try:
            self._start()
        except BaseException:  # An interrupted start must leave nothing behind either: there is no __exit__ for it.
            self._stop()
            raise
        return self

    def _start(self) -> None:
        classpath = f"{_jars(self._home)}/*"
        self._work = Path(tempfile.mkdtemp(prefix="data-", dir=self._home))
        port, controller_port = _free_ports(2)
        self.bootstrap = f"127.0.0.1:{port}"
        properties = self._work / "server.properties"
        properties.write_text(
            _PROPERTIES.format(port=port, controller_port=controller_port, data=self._work / "logs"), encoding="utf-8"
        )
        storage = ["java", "-cp", classpath, "kafka.tools.StorageTool"]
        identity = subprocess.run([*storage, "random-uuid"], check=True, capture_output=True, text=True).stdout.split()[
            -1
        ]
        subprocess.run([*storage, "format", "-t", identity, "-c", properties], check=True, capture_output=True)
        with (self._work / "broker.log").open("wb") as log:
            options = [*_JVM_OPTIONS, "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn", "-Dlog4j2.level=WARN"]
            self._process = subprocess.Popen(
                ["java", *options, "-cp", classpath, "kafka.Kafka", properties], stdout=log, stderr=log
            )
        self._wait_for_port(port, self._work / "broker.log")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()

    def cpu_s(self) -> float:
        """Return the broker's CPU time so far, user and system, in seconds."""
        if self._process is None:
            return 0.0
        fields = Path(f"/proc/{self._process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def _stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None
        if self._work is not None:
            shutil.rmtree(self._work, ignore_errors=True)

    def _wait_for_port(self, port: int, log: Path) -> None:
        deadline_s = time.monotonic() + _START_TIMEOUT_S
        while time.monotonic() < deadline_s and self._process is not None and self._process.poll() is None:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    return
            time.sleep(0.1)
        tail = log.read_text(encoding="utf-8", errors="replace")[-2_000:]
        raise RuntimeError(f"The Kafka broker did not start within {_START_TIMEOUT_S:.0f} s. Its log ends:\n{tail}")


def _jars(home: Path) -> Path:
    """Return the directory of the broker's jars, fetched on first use."""
    jars = home / "libs"
    if not jars.is_dir():
        home.mkdir(parents=True, exist_ok=True)
        pom = home / "pom.xml"
        pom.write_text(_POM.format(version=KAFKA_VERSION), encoding="utf-8")
        # Into another directory first: a broken download must not look like a whole one.
        incoming = home / "incoming"
        shutil.rmtree(incoming, ignore_errors=True)
        goal = ["dependency:copy-dependencies", "-DincludeScope=runtime", f"-DoutputDirectory={incoming}"]
        subprocess.run(["mvn", "-q", "-B", "-f", pom, *goal], check=True)
        incoming.rename(jars)
    return jars


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    try:
        for listener in sockets:
            listener.bind(("127.0.0.1", 0))
        return [int(listener.getsockname()[1]) for listener in sockets]
    finally:
        for listener in sockets:
            listener.close()
