"""A real Apache Flink session cluster on loopback: a JobManager and TaskManagers as plain JVM processes.

For one machine: tests, benchmarks, the demo, and whoever tries a pipeline on Flink before there is a cluster. The jars come
from Maven Central once (144 MB, some 9 s) into the user's cache. PyPI's ``apache-flink-libraries`` has the same in 329 MB, with
the Table API and shell scripts that nobody here calls; and with it, pip would decide which Flink runs.

Memory is laid out here, as Flink's start scripts do it, so no script and no shell is between this process and the JVMs: each
has a guard that ends it when this process dies. Whoever can reach the REST port may run code in the cluster; it is on 127.0.0.1.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import shutil
import signal
import tempfile
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

from gillnet.connectors.local_jvm import GuardedProcess, fetch_jars, find_java, free_port
from gillnet.core.errors import ConfigurationError, EngineError
from gillnet.core.time import Clock, SystemClock
from gillnet.runtimes.flink.rest import FlinkRest

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import TracebackType

FLINK_VERSION = "2.3.0"
LOG4J_VERSION = "2.25.3"
QUICK_START = ("-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1")
"""JVM options for a cluster that starts in seconds."""
SUSTAINED_LOAD = ("-XX:+UseSerialGC",)
"""For one that is measured: with the optimising compiler."""

_OPENED = (
    *("lang", "lang.reflect", "net", "io", "nio", "text", "time", "util"),
    *("util.concurrent", "util.concurrent.atomic", "util.concurrent.locks"),
)
# Java 17 shuts what Flink's serialisers and its netty reach into; the list of Flink's own distribution.
_ACCESS = (
    "--add-exports=java.rmi/sun.rmi.registry=ALL-UNNAMED",
    "--add-exports=java.security.jgss/sun.security.krb5=ALL-UNNAMED",
    "--add-opens=java.base/sun.nio.ch=ALL-UNNAMED",
    *(f"--add-opens=java.base/java.{package}=ALL-UNNAMED" for package in _OPENED),
)
_LOGGING = """\
rootLogger.level = INFO
rootLogger.appenderRef.console.ref = console
appender.console.type = Console
appender.console.name = console
appender.console.layout.type = PatternLayout
appender.console.layout.pattern = %d{ISO8601} %-5p %c{1} - %m%n
logger.pekko.name = org.apache.pekko
logger.pekko.level = WARN
logger.kafka.name = org.apache.kafka
logger.kafka.level = WARN
"""
_FRAMEWORK_MB, _METASPACE_MB, _NETWORK_MB = 64, 160, 64


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterMemory:
    """Memory of the processes, MB.

    Attributes
    ----------
    job_manager
        The JobManager's heap.
    task_heap, managed, native
        Of each TaskManager: the heap of tasks; managed memory, which is RocksDB's; and what tasks take outside both, such as
        a native library's state. Some 400 MB at most of the framework's own come on top (its heap, metaspace, network, the JVM).
    """

    job_manager: int = 384
    task_heap: int = 320
    managed: int = 256
    native: int = 64


class LocalFlink:
    """A Flink session cluster of one's own, as a context manager.

    Parameters
    ----------
    work_dir
        Where configuration, logs, checkpoints and savepoints live. None makes a directory and removes it at the end; a given one is kept.
    task_managers, slots
        How many TaskManagers, and slots of each.
    memory
        How large the processes are.
    checkpoint_interval_ms
        For jobs that say nothing of their own.
    settings
        Flink's settings by name, over those of here: ``{"execution.checkpointing.unaligned.enabled": "true"}``.
    jars
        More for the cluster's own class path, for what several jobs share.
    jvm_options
        `QUICK_START`, `SUSTAINED_LOAD`, or others.
    environment
        Variables for the JVMs, beside those of this process.
    start_timeout_s
        How long to wait until all TaskManagers have registered.

    Examples
    --------
    >>> with LocalFlink() as flink:  # doctest: +SKIP
    ...     jar = flink.rest.upload_jar("job.jar")
    ...     job = flink.rest.run_jar(jar, arguments=["--plan", "plan.json"])
    """

    def __init__(
        self,
        *,
        work_dir: str | Path | None = None,
        task_managers: int = 2,
        slots: int = 2,
        memory: ClusterMemory | None = None,
        checkpoint_interval_ms: int = 1_000,
        settings: Mapping[str, str] | None = None,
        jars: Sequence[str | Path] = (),
        jvm_options: Sequence[str] = QUICK_START,
        environment: Mapping[str, str] | None = None,
        start_timeout_s: float = 60.0,
        clock: Clock | None = None,
    ) -> None:
        self._clock = clock or SystemClock()
        self._own_directory = work_dir is None
        self._directory = Path(work_dir).resolve() if work_dir is not None else None
        self._wanted, self._slots = task_managers, slots
        self._memory = memory or ClusterMemory()
        self._interval_ms = checkpoint_interval_ms
        self._settings = dict(settings or {})
        self._jars = [str(Path(jar).resolve()) for jar in jars]
        self._jvm_options = list(jvm_options)
        self._environment = environment
        self._start_timeout_s = start_timeout_s
        self._port = 0
        self._job_manager: GuardedProcess | None = None
        self._task_managers: dict[int, GuardedProcess] = {}
        self._started = 0  # Of TaskManagers, ever: a number is not used twice.

    # What a user asks for

    @property
    def rest_url(self) -> str:
        """The address of the REST API and of Flink's own pages."""
        return f"http://127.0.0.1:{self._port}"

    @property
    def rest(self) -> FlinkRest:
        """A client for it."""
        return FlinkRest(self.rest_url, clock=self._clock)

    @property
    def work_dir(self) -> Path:
        """Where everything lies: ``conf``, ``log``, ``checkpoints``, ``savepoints``."""
        if self._directory is None:
            raise ConfigurationError("LocalFlink: the cluster is not started; use it as `with LocalFlink() as flink:`.")
        return self._directory

    @property
    def checkpoint_dir(self) -> Path:
        """Where jobs keep checkpoints that say nothing of their own."""
        return self.work_dir / "checkpoints"

    @property
    def savepoint_dir(self) -> Path:
        """Where savepoints go that name no place."""
        return self.work_dir / "savepoints"

    @property
    def pid(self) -> int | None:
        """The JobManager's process id, or None when it is not running."""
        return None if self._job_manager is None else self._job_manager.pid

    @property
    def task_manager_pids(self) -> dict[int, int]:
        """The process ids of the TaskManagers that run, by number."""
        return {number: pid for number, process in self._task_managers.items() if (pid := process.pid) is not None}

    def start(self) -> LocalFlink:
        """Fetch Flink if need be, start all processes, and return when every TaskManager has registered.

        Raises
        ------
        ConfigurationError
            If Java or Maven is missing, or a process dies or does not answer; with the end of its log.
        """
        if self.pid is not None:
            return self
        find_java("Local Flink")
        fetch_flink()
        if self._directory is None:
            self._directory = Path(tempfile.mkdtemp(prefix="gillnet-flink-"))
        atexit.register(self.stop)
        try:
            self._configure()
            self._job_manager = self._launch(
                "jobmanager",
                "org.apache.flink.runtime.entrypoint.StandaloneSessionClusterEntrypoint",
                self._heap_of_job_manager(),
            )
            for _ in range(self._wanted):
                self._add()
            self._wait_for(self._wanted)
        except BaseException:  # Also Ctrl-C while it starts: nothing may stay behind.
            self.stop()
            raise
        return self

    def add_task_manager(self, *, wait: bool = True) -> int:
        """Start one more TaskManager; return its number when it has registered."""
        if self.pid is None:
            raise ConfigurationError("Local Flink: the cluster is not running; call start() first.")
        number = self._add()
        if wait:
            # Flink counts a killed one until its heartbeat times out, so what is waited for is this one.
            self._wait_for(1, only=number)
        return number

    def kill_task_manager(self, number: int) -> None:
        """End a TaskManager at once (SIGKILL), as a crash of its machine does; Flink learns of it by what breaks.

        Parameters
        ----------
        number
            From 0 on, in the order of their start.
        """
        if number not in self.task_manager_pids:
            raise ConfigurationError(
                f"Local Flink: TaskManager {number} is not running; those that are: {sorted(self.task_manager_pids)}."
            )
        self._task_managers.pop(number).end(signal.SIGKILL)

    def stop(self) -> None:
        """Stop all processes: SIGTERM, and SIGKILL if one has not ended after 20 s. Removes a directory that is its own."""
        atexit.unregister(self.stop)
        processes = [*self._task_managers.values(), *([self._job_manager] if self._job_manager else [])]
        self._task_managers, self._job_manager = {}, None
        for process in processes:  # All are told first, so that they end side by side.
            process.send(signal.SIGTERM)
        for process in processes:
            process.end(signal.SIGTERM)
        if self._own_directory and self._directory is not None:
            shutil.rmtree(self._directory, ignore_errors=True)
            self._directory = None

    def __enter__(self) -> LocalFlink:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    # How it is done

    def _configure(self) -> None:
        home = self.work_dir
        for name in ("conf", "log", "checkpoints", "savepoints", "tmp"):
            (home / name).mkdir(parents=True, exist_ok=True)
        self._port = free_port()
        settings = self._defaults(home, rpc_port=free_port()) | self._settings
        # JSON is YAML, and quotes what must be quoted.
        lines = [f"{name}: {json.dumps(value)}" for name, value in sorted(settings.items())]
        (home / "conf" / "config.yaml").write_text("\n".join(lines) + "\n", encoding="utf-8")
        (home / "conf" / "log4j.properties").write_text(_LOGGING, encoding="utf-8")

    def _defaults(self, home: Path, *, rpc_port: int) -> dict[str, str]:
        loopback = "127.0.0.1"
        return {
            "jobmanager.rpc.address": loopback,
            "jobmanager.rpc.port": str(rpc_port),
            "jobmanager.bind-host": loopback,
            "rest.address": loopback,
            "rest.bind-address": loopback,
            "rest.port": str(self._port),
            "rest.bind-port": str(self._port),
            "taskmanager.host": loopback,
            "taskmanager.bind-host": loopback,
            "taskmanager.numberOfTaskSlots": str(self._slots),
            # One that is killed is known by the first message that does not reach it; the timeout is for one that hangs.
            "heartbeat.interval": "500",
            "heartbeat.rpc-failure-threshold": "1",
            "heartbeat.timeout": "6000",
            "restart-strategy.type": "fixed-delay",
            "restart-strategy.fixed-delay.attempts": "100",
            "restart-strategy.fixed-delay.delay": "500 ms",
            "state.backend.type": "rocksdb",
            "execution.checkpointing.incremental": "true",
            "execution.checkpointing.interval": f"{self._interval_ms} ms",
            "execution.checkpointing.dir": (home / "checkpoints").as_uri(),
            "execution.checkpointing.savepoint-dir": (home / "savepoints").as_uri(),
            "io.tmp.dirs": str(home / "tmp"),
            "metrics.fetcher.update-interval": "500",
            "web.refresh-interval": "1000",
        }  # fmt: skip

    def _heap_of_job_manager(self) -> list[str]:
        return [
            f"-Xms{self._memory.job_manager // 2}m",
            f"-Xmx{self._memory.job_manager}m",
            f"-XX:MaxMetaspaceSize={_METASPACE_MB}m",
        ]

    def _add(self) -> int:
        number, self._started = self._started, self._started + 1
        heap_mb = _FRAMEWORK_MB + self._memory.task_heap
        direct_mb = _FRAMEWORK_MB + self._memory.native + _NETWORK_MB
        options = [f"-Xms{heap_mb // 2}m", f"-Xmx{heap_mb}m", f"-XX:MaxDirectMemorySize={direct_mb}m"]
        options += [f"-XX:MaxMetaspaceSize={_METASPACE_MB}m"]
        # A TaskManager wants every share spelled out: its start script does the sum elsewhere.
        memory = {
            "framework.heap": _FRAMEWORK_MB, "framework.off-heap": _FRAMEWORK_MB, "task.heap": self._memory.task_heap,
            "task.off-heap": self._memory.native, "managed": self._memory.managed, "jvm-metaspace": _METASPACE_MB,
        }  # fmt: skip
        shares = {f"taskmanager.memory.{name}.size": f"{megabytes}m" for name, megabytes in memory.items()}
        for bound in ("min", "max"):
            shares |= {
                f"taskmanager.memory.network.{bound}": f"{_NETWORK_MB}m",
                f"taskmanager.memory.jvm-overhead.{bound}": "64m",
            }
        shares |= {"taskmanager.cpu.cores": f"{float(self._slots)}", "taskmanager.resource-id": f"taskmanager-{number}"}
        self._task_managers[number] = self._launch(
            f"taskmanager-{number}",
            "org.apache.flink.runtime.taskexecutor.TaskManagerRunner",
            options,
            [part for name, value in shares.items() for part in ("-D", f"{name}={value}")],
        )
        return number

    def _launch(self, name: str, main: str, options: Sequence[str], arguments: Sequence[str] = ()) -> GuardedProcess:
        home = self.work_dir
        class_path = ":".join([f"{fetch_flink()}/*", *self._jars])
        command = [find_java("Local Flink"), *self._jvm_options, *options, *_ACCESS]
        command += [f"-Dlog4j.configurationFile={home / 'conf' / 'log4j.properties'}", "-cp", class_path, main]
        command += ["--configDir", str(home / "conf"), *arguments]
        log_path = home / "log" / f"{name}.log"
        return GuardedProcess(command, log_path=log_path, directory=home, environment=self._environment)

    def _wait_for(self, task_managers: int, *, only: int | None = None) -> None:
        deadline_s = self._clock.monotonic_s() + self._start_timeout_s
        while True:
            with contextlib.suppress(EngineError):
                names = {found.id for found in self.rest.task_managers()}
                if (only is None and len(names) >= task_managers) or f"taskmanager-{only}" in names:
                    return
            self._check_alive(deadline_s)
            self._clock.sleep(0.1)

    def _check_alive(self, deadline_s: float) -> None:
        processes = {"the JobManager": self._job_manager}
        processes |= {f"TaskManager {number}": process for number, process in self._task_managers.items()}
        for name, process in processes.items():
            if process is not None and process.pid is None:
                raise ConfigurationError(f"Local Flink: {name} died. The end of its log: {process.log_tail}")
        if self._clock.monotonic_s() > deadline_s:
            told = " ".join(f"{name}: {process.log_tail}" for name, process in processes.items() if process is not None)
            raise ConfigurationError(
                f"Local Flink: the cluster was not complete within {self._start_timeout_s:g} s. The ends of its logs: {told}"
            )


def fetch_flink() -> Path:
    """Return the directory of Flink's jars, which Maven fetches once (155 MB) into the user's cache.

    Raises
    ------
    ConfigurationError
        If Maven is missing or cannot fetch.
    """
    pom = resources.files("gillnet.runtimes.flink").joinpath("pom.xml").read_bytes()
    versions = {
        "flink.version": FLINK_VERSION,
        "log4j.version": LOG4J_VERSION,
    }
    return fetch_jars("Local Flink", f"flink-{FLINK_VERSION}", pom, megabytes=144, properties=versions)
