"""Fixtures that several suites share."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
import structlog

from gillnet.connectors.local_kafka import LocalKafka
from gillnet.runtimes.flink import LocalFlink

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(autouse=True)
def log_settings_end_with_the_test() -> Iterator[None]:
    """A command that a test calls in this process writes log lines to the test's own standard error, which is closed after it."""
    yield
    structlog.reset_defaults()


@pytest.fixture(scope="session")
def kafka() -> Iterator[LocalKafka]:
    """A real broker, one for the whole session. Tests that use it are marked ``kafka``."""
    with LocalKafka() as broker:
        yield broker


@pytest.fixture(scope="session")
def flink() -> Iterator[LocalFlink]:
    """A real cluster of two TaskManagers, one for the whole session. Tests that use it are marked ``flink``."""
    with LocalFlink() as cluster:
        yield cluster


@pytest.fixture
def topic(kafka: LocalKafka, request: pytest.FixtureRequest) -> str:
    """A fresh topic of four partitions, named after the test."""
    from gillnet.connectors.kafka import ensure_topics

    name = re.sub(r"[^a-zA-Z0-9_.-]", "-", request.node.name)
    assert ensure_topics([name], bootstrap_servers=kafka.bootstrap_servers) == [name]
    return name
