"""A real object store on loopback: S3Proxy, which speaks S3, checks every signature, and keeps objects in a directory.

Maven fetches it once (28 MB) into the cache where the local Kafka is.
"""

from __future__ import annotations

import socket
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

from pyarrow import fs

from gillnet.connectors.local_jvm import fetch_jars, find_java

if TYPE_CHECKING:
    from types import TracebackType

S3PROXY_VERSION = "3.1.0"
KEY, SECRET = "gillnet-tests", "a-secret-of-these-tests"
BUCKET = "bucket"

_SETTINGS = """\
s3proxy.authorization=aws-v2-or-v4
s3proxy.endpoint=http://127.0.0.1:{port}
s3proxy.identity={key}
s3proxy.credential={secret}
jclouds.provider=filesystem-nio2
jclouds.identity=unused
jclouds.credential=unused
jclouds.filesystem.basedir={objects}
"""
_LOGGING = """\
<configuration>
  <appender name="OUT" class="ch.qos.logback.core.ConsoleAppender"><encoder><pattern>%level %logger{0} %msg%n</pattern></encoder></appender>
  <root level="warn"><appender-ref ref="OUT"/></root>
</configuration>
"""


class LocalObjectStore:
    """Starts and stops it; the bucket `BUCKET` is there, and its credentials are `KEY` and `SECRET`."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])

    def __enter__(self) -> LocalObjectStore:
        jars, objects = fetch(), self._directory / "objects"
        objects.mkdir()
        settings, logging = self._directory / "s3proxy.conf", self._directory / "logback.xml"
        settings.write_text(_SETTINGS.format(port=self.port, key=KEY, secret=SECRET, objects=objects))
        logging.write_text(_LOGGING)
        command = [find_java("S3Proxy"), "-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"]
        command += [f"-Dlogback.configurationFile={logging}", "-cp", f"{jars}/*", "org.gaul.s3proxy.Main"]
        self._log = self._directory / "s3proxy.log"
        with self._log.open("wb") as log:
            self._process = subprocess.Popen([*command, "--properties", settings], stdout=log, stderr=log)
        try:
            self._wait()
            self.files().create_dir(BUCKET)
        except BaseException:
            self._process.kill()
            raise
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self._process.terminate()
        self._process.wait(20)

    def _wait(self) -> None:
        deadline_s = time.monotonic() + 60
        while True:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            assert self._process.poll() is None, self._log.read_text(errors="replace")
            assert time.monotonic() < deadline_s, self._log.read_text(errors="replace")
            time.sleep(0.1)

    def files(self) -> fs.FileSystem:
        """Return a client of its own, with the right credentials."""
        return fs.S3FileSystem(
            access_key=KEY,
            secret_key=SECRET,
            scheme="http",
            endpoint_override=f"127.0.0.1:{self.port}",
            region="us-east-1",
            allow_bucket_creation=True,
        )

    def uri(self, path: str) -> str:
        """Return the URI of a place in the bucket, as a user writes it."""
        return f"s3://{BUCKET}/{path}?scheme=http&endpoint_override=127.0.0.1:{self.port}&region=us-east-1"


def fetch() -> Path:
    """Return the directory of its jars."""
    pom = Path(__file__).with_name("s3proxy-pom.xml").read_bytes()
    versions = {"s3proxy.version": S3PROXY_VERSION}
    return fetch_jars("S3Proxy", f"s3proxy-{S3PROXY_VERSION}", pom, megabytes=28, properties=versions)
