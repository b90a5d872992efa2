"""What the local broker says when the machine lacks something. The broker itself is tested in tests/integration."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from gillnet.connectors.local_kafka import LocalKafka, fetch_kafka, find_java
from gillnet.core.errors import ConfigurationError

if TYPE_CHECKING:
    from pathlib import Path


def test_missing_java_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigurationError, match=r"no Java was found; install Java 17"):
        find_java()


def test_old_java_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    java = tmp_path / "bin" / "java"
    java.parent.mkdir()
    java.write_text("#!/bin/sh\necho 'openjdk version \"11.0.2\" 2019-01-15' >&2\n")
    java.chmod(0o755)
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    with pytest.raises(ConfigurationError, match=r"is not Java 17 or newer; install"):
        find_java()


def test_missing_maven_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with pytest.raises(ConfigurationError, match=r"Maven was not found.*apt install maven"):
        fetch_kafka()


def test_a_fetch_that_fails_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    mvn = tmp_path / "mvn"
    mvn.write_text("#!/bin/sh\necho 'cannot resolve org.apache.kafka'; exit 1\n")
    mvn.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with pytest.raises(ConfigurationError, match=r"could not fetch.*cannot resolve org\.apache\.kafka"):
        fetch_kafka()
    assert [path.name for path in (tmp_path / "cache" / "gillnet").iterdir()] == ["kafka-4.3.1.lock"]


def test_a_broker_that_is_not_started_says_so() -> None:
    with pytest.raises(ConfigurationError, match="not running; call start"):
        LocalKafka().pause()
