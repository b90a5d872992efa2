"""When a Kafka record arrived, by its own timestamp, and how a bounded look at a topic is opened."""

from __future__ import annotations

from typing import Any

import pytest
from confluent_kafka import TIMESTAMP_CREATE_TIME, TIMESTAMP_LOG_APPEND_TIME, TIMESTAMP_NOT_AVAILABLE

from gillnet.connectors.kafka.places import timestamp_us
from gillnet.lifecycle.lateness import opening


class Message:
    def __init__(self, kind: int, timestamp_ms: int) -> None:
        self._timestamp = kind, timestamp_ms

    def timestamp(self) -> tuple[int, int]:
        return self._timestamp


@pytest.mark.parametrize(
    ("kind", "expected_us"),
    [(TIMESTAMP_LOG_APPEND_TIME, 5_000), (TIMESTAMP_CREATE_TIME, 5_000), (TIMESTAMP_NOT_AVAILABLE, None)],
)
def test_a_record_arrived_when_its_timestamp_says(kind: int, expected_us: int | None) -> None:
    assert timestamp_us([Message(kind, 5)], 0) == expected_us


@pytest.mark.parametrize(
    ("uri", "opened"),
    [
        (
            "kafka://host:9092/payments",
            "kafka://host:9092/payments?until_end=true&start=earliest&group=gillnet.lateness.payments",
        ),
        (
            "kafka://host:9092/payments?start=latest&group=mine",
            "kafka://host:9092/payments?until_end=true&start=latest&group=mine",
        ),
    ],
)
def test_a_topic_is_read_to_its_end_by_a_group_of_its_own(
    monkeypatch: pytest.MonkeyPatch, uri: str, opened: str
) -> None:
    seen: list[tuple[str, Any]] = []
    monkeypatch.setattr(opening, "open_source", lambda given, **options: seen.append((given, options["settings"])))
    opening.open_bounded("payments", uri, schema=None, kafka={"security.protocol": "SSL"})
    assert seen == [(opened, {"security.protocol": "SSL"})]
