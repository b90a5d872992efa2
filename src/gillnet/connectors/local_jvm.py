"""Servers on the JVM for one machine: finding Java, bringing jars by Maven once, and processes that leave nothing behind.

What Kafka's broker and Flink's cluster on loopback have in common; each says for itself what it runs.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import structlog

from gillnet.core.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

JAVA_VERSION = 17
STOP_S = 20.0

_log = structlog.get_logger("gillnet.local_jvm")


def find_java(what: str) -> str:
    """Return the path of a Java of version 17 or newer: the one in ``JAVA_HOME``, else on the ``PATH``.

    Parameters
    ----------
    what
        Who asks, as the message begins: ``Local Kafka``.

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


def fetch_jars(what: str, name: str, pom: bytes, *, megabytes: int, properties: Mapping[str, str]) -> Path:
    """Return the directory of the jars of a POM, which Maven fetches once into the user's cache.

    Processes that come at the same time wait for one another, and a fetch that breaks off leaves nothing behind.

    Parameters
    ----------
    name
        Of the directory in the cache; it holds the version, so that another one is fetched anew.
    megabytes
        How much comes, for who waits.
    properties
        What the POM leaves open: versions.

    Raises
    ------
    ConfigurationError
        If Maven is missing or cannot fetch.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "gillnet"
    home = cache / name
    libs = home / "libs"
    if libs.is_dir():
        return libs
    cache.mkdir(parents=True, exist_ok=True)
    with _locked(cache / f"{name}.lock"):
        if not libs.is_dir():
            with tempfile.TemporaryDirectory(dir=cache, prefix=f"{name}-fetch-") as work:
                _log.info("fetching jars, this once", of=name, megabytes=megabytes)
                _run_maven(what, name, Path(work), pom, properties)
                home.mkdir(exist_ok=True)
                (Path(work) / "libs").rename(libs)
    return libs


def _run_maven(what: str, name: str, work: Path, pom: bytes, properties: Mapping[str, str]) -> None:
    mvn = shutil.which("mvn")
    if mvn is None:
        raise ConfigurationError(
            f"{what}: Maven was not found; it is needed once, to fetch {name}: install it "
            "(Debian, Ubuntu: `apt install maven`), or use a server that runs already."
        )
    (work / "pom.xml").write_bytes(pom)
    command = [mvn, "-q", "-B", "-f", str(work / "pom.xml"), *(f"-D{key}={value}" for key, value in properties.items())]
    command += ["dependency:copy-dependencies", "-DincludeScope=runtime", f"-DoutputDirectory={work / 'libs'}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode:
        raise ConfigurationError(
            f"{what}: Maven could not fetch {name}; is its repository reachable? It says: {tail(done.stdout + done.stderr)}"
        )


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


class GuardedProcess:
    """A server's process that ends with this one, however this one ends.

    Parameters
    ----------
    log_path
        Takes what it prints, behind what is there.
    """

    def __init__(
        self, command: Sequence[str], *, log_path: Path, directory: Path, environment: Mapping[str, str] | None = None
    ) -> None:
        self.log_path = log_path
        with log_path.open("ab") as log:
            # A session of its own: Ctrl-C must reach the run, which drains and commits, before the server goes.
            self._process = subprocess.Popen(  # noqa: S603
                list(command),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=directory,
                start_new_session=True,
                env=None if environment is None else {**os.environ, **environment},
            )
        # The guard reads a pipe that closes when this process dies, even by SIGKILL, and then ends the server.
        self._guard: subprocess.Popen[bytes] | None = subprocess.Popen(  # noqa: S603
            ["/bin/sh", "-c", 'cat >/dev/null; kill "$0" 2>/dev/null', str(self._process.pid)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    @property
    def pid(self) -> int | None:
        """The process id, or None when it has ended."""
        return self._process.pid if self._process.poll() is None else None

    @property
    def log_tail(self) -> str:
        """The end of what it printed, on one line."""
        return tail(self.log_path.read_text(encoding="utf-8", errors="replace")) or "(empty)"

    def send(self, number: signal.Signals) -> None:
        """Send a signal, if it still runs."""
        if self._process.poll() is None:
            self._process.send_signal(number)

    def end(self, number: signal.Signals) -> None:
        """End it by a signal, and by SIGKILL if it has not ended after 20 s."""
        guard, self._guard = self._guard, None
        if guard is not None:
            guard.kill()
            guard.wait()
            if guard.stdin is not None:
                guard.stdin.close()
        if self._process.poll() is not None:
            return
        self._process.send_signal(signal.SIGCONT)  # A paused process would take the next signal only when it goes on.
        self._process.send_signal(number)
        try:
            self._process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def free_port() -> int:
    """Return a port on loopback that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def answers(port: int) -> bool:
    """Whether somebody listens on a port on loopback."""
    with socket.socket() as probe:
        probe.settimeout(0.5)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def tail(text: str, characters: int = 600) -> str:
    """Return the end of a log, on one line."""
    return " ".join(text.split())[-characters:]
