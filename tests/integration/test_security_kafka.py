"""A broker that asks for TLS and a password: source and sink through it, and what a wrong one is told."""

from __future__ import annotations

import re
import shutil
import socket
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest
from confluent_kafka.admin import (
    AdminClient,
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialUpsertion,
)

from gillnet.connectors import local_kafka
from gillnet.connectors.kafka import KafkaSink, KafkaSource, ensure_topics
from gillnet.connectors.local_kafka import LocalKafka
from gillnet.connectors.uri import open_sink, open_source
from gillnet.core.errors import ConfigurationError, SinkError, SourceError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.kafka

PASSWORD = "canary-right-password"
WRONG = "canary-wrong-password"
RECORDS = [b'{"n":%d}' % n for n in range(1_000)]

_SECURE = """\
listeners=PLAINTEXT://127.0.0.1:{{port}},SECURE://127.0.0.1:{port},CONTROLLER://127.0.0.1:{{controller_port}}
advertised.listeners=PLAINTEXT://127.0.0.1:{{port}},SECURE://127.0.0.1:{port}
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,SECURE:SASL_SSL
ssl.keystore.type=PEM
ssl.keystore.location={keystore}
listener.name.secure.sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-512
listener.name.secure.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required user_ann="{password}";
listener.name.secure.scram-sha-512.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;
"""


class SecureKafka(NamedTuple):
    servers: str
    authority: Path
    stranger: Path
    """A certificate authority that did not sign the broker's certificate."""

    def settings(self, mechanism: str = "SCRAM-SHA-512", **more: str) -> dict[str, str]:
        given = {
            "security.protocol": "SASL_SSL",
            "sasl.mechanism": mechanism,
            "sasl.username": "ann",
            "sasl.password": PASSWORD,
            "ssl.ca.location": str(self.authority),
        }
        return given | {name.replace("_", "."): value for name, value in more.items()}


def openssl(*arguments: str | Path) -> None:
    subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True, timeout=60)


def make_authority(directory: Path, name: str) -> Path:
    key, certificate = directory / f"{name}.key", directory / f"{name}.pem"
    new = ("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", f"/CN=Gillnet test {name}")
    openssl(*new, "-keyout", key, "-out", certificate)
    return certificate


def make_keystore(directory: Path, authority: Path) -> Path:
    """Make a key for 127.0.0.1 and have the authority sign its certificate."""
    key, request, certificate = (directory / f"broker.{suffix}" for suffix in ("key", "csr", "pem"))
    openssl("req", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=127.0.0.1", "-keyout", key, "-out", request)
    (directory / "names").write_text("subjectAltName=IP:127.0.0.1\n")
    sign = ("x509", "-req", "-in", request, "-CA", authority, "-CAkey", authority.with_suffix(".key"))
    openssl(*sign, "-CAcreateserial", "-days", "2", "-extfile", directory / "names", "-out", certificate)
    keystore = directory / "keystore.pem"
    keystore.write_bytes(key.read_bytes() + certificate.read_bytes() + authority.read_bytes())
    return keystore


def properties(port: int, keystore: Path) -> str:
    """The local broker's own properties, with a further listener."""
    secure = _SECURE.format(port=port, keystore=keystore, password=PASSWORD)
    ours = {line.partition("=")[0] for line in secure.splitlines()}
    kept = [line for line in local_kafka._PROPERTIES.splitlines() if line.partition("=")[0] not in ours]
    return "\n".join([*kept, secure])


def add_scram_user(servers: str) -> None:
    info = ScramCredentialInfo(ScramMechanism.SCRAM_SHA_512, 4096)
    change = UserScramCredentialUpsertion("ann", info, PASSWORD.encode())
    admin = AdminClient({"bootstrap.servers": servers})
    for future in admin.alter_user_scram_credentials([change]).values():
        future.result(timeout=15.0)


@pytest.fixture(scope="module")
def secure() -> Iterator[SecureKafka]:
    if shutil.which("openssl") is None:
        pytest.skip("needs openssl, to make certificates")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with tempfile.TemporaryDirectory() as made, pytest.MonkeyPatch.context() as patched:
        directory = Path(made)
        authority, stranger = (make_authority(directory, name) for name in ("authority", "stranger"))
        patched.setattr(local_kafka, "_PROPERTIES", properties(port, make_keystore(directory, authority)))
        with LocalKafka() as broker:
            add_scram_user(broker.bootstrap_servers)
            yield SecureKafka(f"127.0.0.1:{port}", authority, stranger)


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-512"])
def test_records_go_and_come_through_tls_with_a_password(secure: SecureKafka, mechanism: str) -> None:
    topic, settings = f"through-{mechanism}", secure.settings(mechanism)
    assert ensure_topics([topic], bootstrap_servers=secure.servers, settings=settings) == [topic]
    sink = open_sink(f"kafka://{secure.servers}/{topic}", settings=settings)
    sink.write(RECORDS)
    sink.close()
    got: list[bytes] = []
    for _ in range(2):  # The second begins where the first committed.
        uri = f"kafka://{secure.servers}/{topic}?group={topic}&start=committed&until_end=true"
        source = open_source(uri, stream="payments", settings=settings)
        while not source.finished:
            if batch := source.poll(500, 0.2):
                got += batch.values
        source.commit()
        source.close()
    assert sorted(got) == sorted(RECORDS)


MISTAKES = {
    "a wrong password, PLAIN": ({"sasl_password": WRONG, "sasl_mechanism": "PLAIN"}, "uthentication failed"),
    "a wrong password, SCRAM": ({"sasl_password": WRONG}, "uthentication failed"),
    "a mechanism that the broker has not": ({"sasl_mechanism": "SCRAM-SHA-256"}, "mechanism"),
    "no TLS": ({"security_protocol": "SASL_PLAINTEXT"}, "isconnected|transport failure|Timed out"),
    "an authority that did not sign": ({"ssl_ca_location": "{stranger}"}, "certificate verify failed"),
    "no authority": ({"ssl_ca_location": "/nowhere/ca.pem"}, "ssl.ca.location failed"),
}

#: Each gives up after 1.5 s, for librdkafka tries again whatever it was told.
REACH: dict[str, Callable[[str, dict[str, str]], object]] = {
    "source": lambda servers, settings: KafkaSource(
        stream="s", topic="t", group="g", bootstrap_servers=servers, settings=settings, open_timeout_s=1.5
    ),
    "sink": lambda servers, settings: KafkaSink(
        topic="t", bootstrap_servers=servers, settings=settings, open_timeout_s=1.5
    ),
    "topics": lambda servers, settings: ensure_topics(
        ["t"], bootstrap_servers=servers, settings=settings, timeout_s=1.5
    ),
}


@pytest.mark.parametrize("role", list(REACH))
@pytest.mark.parametrize(("changes", "words"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_readable_and_tells_no_secret(
    secure: SecureKafka, caplog: pytest.LogCaptureFixture, role: str, changes: dict[str, str], words: str
) -> None:
    changed = {name: value.format(stranger=secure.stranger) for name, value in changes.items()}
    settings = secure.settings(**changed)
    with pytest.raises((SourceError, SinkError, ConfigurationError)) as caught:
        REACH[role](secure.servers, settings)
    text = str(caught.value)
    assert re.search(words, text), text
    assert secure.servers in text
    assert "canary" not in text + caplog.text + repr(caught.value)
