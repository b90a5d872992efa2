"""A real Apache Pulsar on loopback, with token authentication, for the tests and to try things.

Broker and bookie in a JVM of their own, from the jars that Maven fetches once into the user's cache. It is for one machine: no
replication, no TLS. Needs Java 17 or newer, and Maven for the first start.
"""

from __future__ import annotations

import atexit
import base64
import contextlib
import hashlib
import hmac
import json
import shutil
import signal
import tempfile
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

from gillnet.connectors.local_jvm import GuardedProcess, answers, fetch_jars, find_java, free_port
from gillnet.connectors.pulsar_admin import PulsarAdmin
from gillnet.core.errors import ConfigurationError, GillnetError
from gillnet.core.secrets import new_key
from gillnet.core.time import Clock, SystemClock

if TYPE_CHECKING:
    from types import TracebackType

PULSAR_VERSION = "4.2.4"
CLUSTER = "standalone"
ADMIN = "admin"
"""The role that may do everything."""

_WHAT = "Local Pulsar"

_JVM = ("-Xms256m", "-Xmx512m", "-XX:MaxDirectMemorySize=512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1")
_OPENED = (
    "java.base/java.nio",
    "java.base/jdk.internal.misc",
    "java.base/jdk.internal.platform",
    "java.base/java.lang",
    "java.base/java.util.zip",
    "java.base/sun.net",
    "java.management/sun.management",
    "jdk.management/com.sun.management.internal",
)

_CONFIGURATION = """\
metadataStoreUrl=
configurationMetadataStoreUrl=
clusterName={cluster}
bindAddress=127.0.0.1
advertisedAddress=127.0.0.1
brokerServicePort={port}
webServicePort={admin_port}
managedLedgerDefaultEnsembleSize=1
managedLedgerDefaultWriteQuorum=1
managedLedgerDefaultAckQuorum=1
journalSyncData=false
diskUsageThreshold=0.99
diskUsageWarnThreshold=0.98
allowLoopback=true
dbStorage_writeCacheMaxSizeMb=32
dbStorage_readAheadCacheMaxSizeMb=16
numIOThreads=2
numHttpServerThreads=8
systemTopicEnabled=true
topicLevelPoliciesEnabled=true
acknowledgmentAtBatchIndexLevelEnabled=true
backlogQuotaCheckIntervalInSeconds=2
authenticationEnabled=true
authorizationEnabled=true
authenticationProviders=org.apache.pulsar.broker.authentication.AuthenticationProviderToken
tokenSecretKey=file://{home}/secret.key
superUserRoles={admin}
brokerClientAuthenticationPlugin=org.apache.pulsar.client.impl.auth.AuthenticationToken
brokerClientAuthenticationParameters={{"token":"{token}"}}
"""

_LOGGING = """\
<Configuration><Appenders><Console name="C"><PatternLayout pattern="%d %p %c - %m%n"/></Console></Appenders>
<Loggers><Root level="warn"><AppenderRef ref="C"/></Root></Loggers></Configuration>
"""


class LocalPulsar:
    """A Pulsar of one's own, as a context manager.

    Parameters
    ----------
    directory
        Where data and logs live. None makes a directory and removes it at the end; a given one is kept.
    start_timeout_s
        How long to wait until the broker answers.

    Examples
    --------
    >>> with LocalPulsar() as pulsar:  # doctest: +SKIP
    ...     pulsar.admin.create_tenant("team-a", roles=["team-a"], clusters=["standalone"])
    """

    def __init__(
        self, *, directory: str | Path | None = None, start_timeout_s: float = 90.0, clock: Clock | None = None
    ) -> None:
        self._clock = clock or SystemClock()
        self._start_timeout_s = start_timeout_s
        self._own_directory = directory is None
        self._directory = Path(directory) if directory is not None else None
        self._port = self._admin_port = 0
        self._process: GuardedProcess | None = None

    # What a user asks for

    @property
    def address(self) -> str:
        """``host:port`` for clients, as a URI wants it behind ``pulsar://``."""
        return f"127.0.0.1:{self._port}"

    @property
    def admin_url(self) -> str:
        """The address of its admin API."""
        return f"http://127.0.0.1:{self._admin_port}"

    @property
    def admin(self) -> PulsarAdmin:
        """Its admin API, as the role that may do everything."""
        return PulsarAdmin(self.admin_url, token=self.token(ADMIN))

    @property
    def pid(self) -> int | None:
        """The JVM's process id, or None when it is not running."""
        return None if self._process is None else self._process.pid

    @property
    def log_path(self) -> Path:
        """The broker's log."""
        return self._home / "broker.log"

    def token(self, role: str) -> str:
        """Return a token (a signed JWT) of a role."""
        signed = _base64(b'{"alg":"HS256"}') + b"." + _base64(json.dumps({"sub": role}).encode())
        signature = hmac.new((self._home / "secret.key").read_bytes(), signed, hashlib.sha256).digest()
        return (signed + b"." + _base64(signature)).decode()

    def start(self) -> LocalPulsar:
        """Fetch Pulsar if need be, start it, and return when it answers.

        Raises
        ------
        ConfigurationError
            If Java or Maven is missing, or the broker dies or does not answer; with the end of its log.
        """
        if self.pid is not None:
            return self
        java = find_java(_WHAT)
        libs = fetch_pulsar()
        if self._directory is None:
            self._directory = Path(tempfile.mkdtemp(prefix="gillnet-pulsar-"))
        self._directory.mkdir(parents=True, exist_ok=True)
        atexit.register(self.stop)
        try:
            self._port, self._admin_port = free_port(), free_port()
            self._configure()
            self._launch(java, libs)
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

    def restart(self, how: signal.Signals = signal.SIGTERM) -> None:
        """End the broker, by SIGKILL as a crash does, and start it again on the same ports with the same data."""
        self._end(how)
        self._launch(find_java(_WHAT), fetch_pulsar())

    def __enter__(self) -> LocalPulsar:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    # How it is done

    @property
    def _home(self) -> Path:
        if self._directory is None:
            raise ConfigurationError(f"{_WHAT}: it is not started; use it as `with LocalPulsar() as pulsar:`.")
        return self._directory

    def _configure(self) -> None:
        key = self._home / "secret.key"
        if not key.exists():
            key.write_bytes(new_key())
        key.chmod(0o600)
        configuration = self._home / "standalone.conf"
        configuration.touch(0o600)
        configuration.write_text(
            _CONFIGURATION.format(
                cluster=CLUSTER,
                port=self._port,
                admin_port=self._admin_port,
                home=self._home,
                admin=ADMIN,
                token=self.token(ADMIN),
            ),
            encoding="utf-8",
        )
        (self._home / "log4j2.xml").write_text(_LOGGING, encoding="utf-8")

    def _launch(self, java: str, libs: Path) -> None:
        data = self._home / "data"
        command = [java, *_JVM, f"-Dlog4j2.configurationFile={self._home / 'log4j2.xml'}"]
        command += ["-Dio.netty.tryReflectionSetAccessible=true", "-Dpulsar.allocator.pooled=true"]
        command += [word for opened in _OPENED for word in ("--add-opens", f"{opened}=ALL-UNNAMED")]
        command += ["-cp", f"{libs}/*", "org.apache.pulsar.PulsarStandaloneStarter"]
        command += ["--config", str(self._home / "standalone.conf"), "--no-functions-worker", "--no-stream-storage"]
        command += ["-a", "127.0.0.1", "--metadata-dir", str(data / "meta"), "--bookkeeper-dir", str(data / "bk")]
        self._process = GuardedProcess(command, log_path=self.log_path, directory=self._home)
        self._wait_until_it_answers()

    def _wait_until_it_answers(self) -> None:
        """Wait for the namespace that it makes at the end of its start."""
        deadline_s = self._clock.monotonic_s() + self._start_timeout_s
        while True:
            self._check_alive(deadline_s)
            if answers(self._admin_port) and answers(self._port):
                with contextlib.suppress(GillnetError):
                    if "public/default" in self.admin.namespaces("public"):
                        return
            self._clock.sleep(0.1)

    def _check_alive(self, deadline_s: float) -> None:
        dead = self.pid is None
        if dead or self._clock.monotonic_s() > deadline_s:
            log = "" if self._process is None else self._process.log_tail
            self._end(signal.SIGKILL)
            happened = "died" if dead else f"did not answer within {self._start_timeout_s:g} s"
            raise ConfigurationError(f"{_WHAT}: the broker {happened}. The end of its log: {log}")

    def _end(self, number: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.end(number)


def fetch_pulsar() -> Path:
    """Return the directory of Pulsar's jars, which Maven fetches once (243 MB) into the user's cache.

    Raises
    ------
    ConfigurationError
        If Maven is missing or cannot fetch.
    """
    pom = resources.files("gillnet.connectors").joinpath("pulsar-pom.xml").read_bytes()
    versions = {"pulsar.version": PULSAR_VERSION}
    return fetch_jars(_WHAT, f"pulsar-{PULSAR_VERSION}", pom, megabytes=243, properties=versions)


def _base64(data: bytes) -> bytes:
    return base64.urlsafe_b64encode(data).rstrip(b"=")
