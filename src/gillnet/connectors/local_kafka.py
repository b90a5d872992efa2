"""A real Apache Kafka broker on loopback, for `gillnet kafka`, the demo and the tests.

One KRaft node in a JVM of its own, from the jars that Maven fetches once into the user's cache. It is for one machine:
no replication, no security. Needs Java 17 or newer, and Maven for the first start.
"""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import structlog

from gillnet.core.errors import ConfigurationError
from gillnet.core.time import Clock, SystemClock

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from types import TracebackType

KAFKA_VERSION = "4.3.1"
JAVA_VERSION = 17

QUICK_START = ("-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1")
"""JVM options for a broker that starts in seconds and stays small."""
SUSTAINED_LOAD = ("-XX:+UseSerialGC", "-XX:NewSize=400m", "-XX:+AlwaysPreTouch")
"""For a broker that is measured, with a heap of 1 GB and some two cores that it shares.

Threads that collect in parallel wait for each other where others want the cores too: Kafka's own G1 settings paused for 8 to 90 ms,
these for 13 to 20, a tenth as often. The heap is touched at the start, since a page's first use can be slow on a virtual machine.
"""

_log = structlog.get_logger("gillnet.local_kafka")

# Any 16 bytes will do for a cluster of one that nobody joins.
_CLUSTER_ID = "Z2lsbG5ldC1sb2NhbC0wMQ"

_PROPERTIES = """\
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller_port}
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_port}
advertised.listeners=PLAINTEXT://127.0.0.1:{port}
controller.listener.names=CONTROLLER
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
log.dirs={data}
num.partitions=4
default.replication.factor=1
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=4
group.initial.rebalance.delay.ms=0
auto.create.topics.enable=false
message.max.bytes=16777216
"""


class LocalKafka:
    """A Kafka broker of one's own, as a context manager.

    Parameters
    ----------
    port
        0 takes a free one.
    directory
        Where data and logs live. None makes a directory and removes it at the end; a given one is kept, and a later
        broker on it finds its topics again.
    heap_mb
        The JVM's largest heap.
    jvm_options
        `QUICK_START`, `SUSTAINED_LOAD`, or others.
    start_timeout_s
        How long to wait until the broker answers.

    Examples
    --------
    >>> with LocalKafka() as kafka:  # doctest: +SKIP
    ...     ensure_topics(["payments"], bootstrap_servers=kafka.bootstrap_servers)
    """

    def __init__(
        self,
        *,
        port: int = 0,
        directory: str | Path | None = None,
        heap_mb: int = 512,
        jvm_options: Sequence[str] = QUICK_START,
        start_timeout_s: float = 60.0,
        clock: Clock | None = None,
    ) -> None:
        self._clock = clock or SystemClock()
        self._port = port
        self._controller_port = 0
        self._jvm_options = [f"-Xmx{heap_mb}m", *jvm_options]
        self._start_timeout_s = start_timeout_s
        self._own_directory = directory is None
        self._directory = Path(directory) if directory is not None else None
        self._libs: Path | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._guard: subprocess.Popen[bytes] | None = None

    # What a user asks for

    @property
    def port(self) -> int:
        """The port on 127.0.0.1; 0 before `start` if it is to be a free one."""
        return self._port

    @property
    def bootstrap_servers(self) -> str:
        """The address for clients."""
        return f"127.0.0.1:{self._port}"

    @property
    def pid(self) -> int | None:
        """The JVM's process id, or None when it is not running."""
        return self._process.pid if self._process is not None and self._process.poll() is None else None

    @property
    def log_path(self) -> Path:
        """The broker's log."""
        return self._home / "broker.log"

    def start(self) -> LocalKafka:
        """Fetch Kafka if need be, start the broker, and return when it answers.

        Raises
        ------
        ConfigurationError
            If Java, Maven or the Kafka client is missing, the port is taken, or the broker dies or does not answer; with the end of its
            log.
        """
        if self.pid is not None:
            return self
        _check_client()
        java = find_java()
        self._libs = fetch_kafka()
        if self._directory is None:
            self._directory = Path(tempfile.mkdtemp(prefix="gillnet-kafka-"))
        self._directory.mkdir(parents=True, exist_ok=True)
        atexit.register(self.stop)
        try:
            self._choose_ports()
            self._format(java)
            self._launch(java)
        except BaseException:  # Also Ctrl-C while it starts: nothing may stay behind.
            self.stop()
            raise
        return self

    def stop(self) -> None:
        """Stop the broker: SIGTERM, and SIGKILL if it has not ended after 20 s. Removes a directory that is its own."""
        atexit.unregister(self.stop)
        self._end(signal.SIGTERM)
        if self._own_directory and self._directory is not None:
            shutil.rmtree(self._directory, ignore_errors=True)
            self._directory = None

    def kill(self) -> None:
        """End the broker at once, as a crash does; `restart` brings it back with its data."""
        self._end(signal.SIGKILL)

    def restart(self) -> None:
        """Stop the broker and start it again, on the same port with the same data."""
        self._end(signal.SIGTERM)
        self._launch(find_java())

    def pause(self) -> None:
        """Freeze the broker (SIGSTOP): connections stay open and nothing answers."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let a paused broker go on."""
        self._signal(signal.SIGCONT)

    def __enter__(self) -> LocalKafka:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    # How it is done

    @property
    def _home(self) -> Path:
        if self._directory is None:
            raise ConfigurationError("LocalKafka: the broker is not started; use it as `with LocalKafka() as kafka:`.")
        return self._directory

    def _choose_ports(self) -> None:
        if self._port and _answers(self._port):
            raise ConfigurationError(
                f"Local Kafka: port {self._port} is taken; choose another, or port 0 for a free one."
            )
        self._port = self._port or _free_port()
        self._controller_port = _free_port()

    def _format(self, java: str) -> None:
        properties = self._home / "server.properties"
        data = self._home / "data"
        properties.write_text(
            _PROPERTIES.format(port=self._port, controller_port=self._controller_port, data=data), encoding="utf-8"
        )
        if (data / "meta.properties").exists():
            return
        command = [java, "-XX:TieredStopAtLevel=1", "-cp", f"{self._libs}/*", "kafka.tools.StorageTool"]
        command += ["format", "-t", _CLUSTER_ID, "-c", str(properties)]
        done = subprocess.run(  # noqa: S603
            command,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise ConfigurationError(
                f"Local Kafka: its storage cannot be formatted: {_tail(done.stdout + done.stderr)}"
            )

    def _launch(self, java: str) -> None:
        command = [java, *self._jvm_options, "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn", "-cp", f"{self._libs}/*"]
        command += ["kafka.Kafka", str(self._home / "server.properties")]
        with self.log_path.open("ab") as log:
            # A session of its own: Ctrl-C must reach the run, which drains and commits, before the broker goes.
            self._process = subprocess.Popen(  # noqa: S603
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self._home, start_new_session=True
            )
        # The guard reads a pipe that closes when this process dies, even by SIGKILL, and then ends the broker.
        self._guard = subprocess.Popen(  # noqa: S603
            ["/bin/sh", "-c", 'cat >/dev/null; kill "$0" 2>/dev/null', str(self._process.pid)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        self._wait_until_it_answers()

    def _wait_until_it_answers(self) -> None:
        """Wait for metadata: the port opens before the controller has registered the broker."""
        from confluent_kafka import KafkaException
        from confluent_kafka.admin import AdminClient

        from gillnet.connectors.kafka.client import librdkafka_log

        deadline_s = self._clock.monotonic_s() + self._start_timeout_s
        while not _answers(self._port):
            self._check_alive(deadline_s)
            self._clock.sleep(0.05)
        config: dict[str, Any] = {"bootstrap.servers": self.bootstrap_servers, "logger": librdkafka_log}
        admin = AdminClient(config)
        while True:
            self._check_alive(deadline_s)
            with contextlib.suppress(KafkaException):
                if admin.list_topics(timeout=1.0).brokers:
                    return

    def _check_alive(self, deadline_s: float) -> None:
        dead = self.pid is None
        if dead or self._clock.monotonic_s() > deadline_s:
            log = _tail(self.log_path.read_text(encoding="utf-8", errors="replace"))
            self._end(signal.SIGKILL)
            happened = "died" if dead else f"did not answer within {self._start_timeout_s:g} s"
            raise ConfigurationError(f"Local Kafka: the broker {happened}. The end of its log: {log or '(empty)'}")

    def _signal(self, number: signal.Signals) -> None:
        if self._process is None or self._process.poll() is not None:
            raise ConfigurationError("Local Kafka: the broker is not running; call start() first.")
        self._process.send_signal(number)

    def _end(self, number: signal.Signals) -> None:
        process, self._process = self._process, None
        guard, self._guard = self._guard, None
        if guard is not None:
            guard.kill()
            guard.wait()
            if guard.stdin is not None:
                guard.stdin.close()
        if process is None or process.poll() is not None:
            return
        process.send_signal(signal.SIGCONT)  # A paused process would take the next signal only when it goes on.
        process.send_signal(number)
        try:
            process.wait(20.0)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _check_client() -> None:
    """Ask for the client first: without it, nobody could tell when the broker answers."""
    try:
        import confluent_kafka  # noqa: F401
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            "Local Kafka: the Kafka client is not installed; run `pip install 'gillnet[kafka]'`."
        ) from error


def find_java(what: str = "Local Kafka") -> str:
    """Return the path of a Java of version 17 or newer: the one in ``JAVA_HOME``, else on the ``PATH``.

    Raises
    ------
    ConfigurationError
        If there is none, or it is too old; the message says what to install.
    """
    mend = (
        f"install Java {JAVA_VERSION} or newer (Debian, Ubuntu: `apt install openjdk-17-jre-headless`) or set JAVA_HOME"
    )
    home = os.environ.get("JAVA_HOME")
    java = shutil.which(str(Path(home) / "bin" / "java")) if home else shutil.which("java")
    if java is None:
        raise ConfigurationError(f"{what}: no Java was found; {mend}.")
    told = subprocess.run([java, "-version"], capture_output=True, text=True, check=False).stderr  # noqa: S603
    version = re.search(r'version "(\d+)', told)
    if version is None or int(version.group(1)) < JAVA_VERSION:
        raise ConfigurationError(f"{what}: {java} is not Java {JAVA_VERSION} or newer; {mend}.")
    return java


def cache_directory() -> Path:
    """Return where brokers' jars are kept for the next start, whichever project or user's shell asks."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "gillnet"


def fetch_kafka() -> Path:
    """Return the directory of Kafka's jars, which Maven fetches once (54 MB) into the user's cache.

    Processes that come at the same time wait for one another, and a fetch that breaks off leaves nothing behind.

    Raises
    ------
    ConfigurationError
        If Maven is missing or cannot fetch.
    """
    cache = cache_directory()
    home = cache / f"kafka-{KAFKA_VERSION}"
    libs = home / "libs"
    if libs.is_dir():
        return libs
    cache.mkdir(parents=True, exist_ok=True)
    with _locked(cache / f"kafka-{KAFKA_VERSION}.lock"):
        if not libs.is_dir():
            with tempfile.TemporaryDirectory(dir=cache, prefix="kafka-fetch-") as work:
                _run_maven(Path(work))
                home.mkdir(exist_ok=True)
                (Path(work) / "libs").rename(libs)
    return libs


def _run_maven(work: Path) -> None:
    mvn = shutil.which("mvn")
    if mvn is None:
        raise ConfigurationError(
            "Local Kafka: Maven was not found; it is needed once, to fetch the broker: install it "
            "(Debian, Ubuntu: `apt install maven`), or use a broker that runs already."
        )
    pom = work / "pom.xml"
    pom.write_bytes(resources.files("gillnet.connectors").joinpath("kafka-pom.xml").read_bytes())
    _log.info("fetching Apache Kafka, this once", version=KAFKA_VERSION, megabytes=54)
    command = [mvn, "-q", "-B", "-f", str(pom), f"-Dkafka.version={KAFKA_VERSION}", "dependency:copy-dependencies"]
    command += ["-DincludeScope=runtime", f"-DoutputDirectory={work / 'libs'}"]
    done = subprocess.run(  # noqa: S603
        command,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise ConfigurationError(
            f"Local Kafka: Maven could not fetch Apache Kafka {KAFKA_VERSION}; is its repository reachable? "
            f"It says: {_tail(done.stdout + done.stderr)}"
        )


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(0.5)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _tail(text: str, characters: int = 600) -> str:
    return " ".join(text.split())[-characters:]
