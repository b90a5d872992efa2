"""What librdkafka's messages say of themselves."""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING, Any

from confluent_kafka import TIMESTAMP_NOT_AVAILABLE

if TYPE_CHECKING:
    from gillnet.core.messages import Headers, Stretch

HEADERS_LOST = "gillnet.headers_lost"
"""The header of a record aside that had headers which cannot be read."""


def stretch_of(messages: list[Any], partitions: list[int]) -> Stretch:
    """Return where messages lie in their topic, in their order."""
    stretch: Stretch = []
    place = 0
    for partition, run in groupby(partitions):
        last = place + sum(1 for _ in run) - 1
        stretch.append((partition, messages[place].offset(), messages[last].offset() + 1))
        place = last + 1
    return stretch


def timestamp_us(messages: list[Any], index: int) -> int | None:
    """Return the timestamp of a message: when the broker appended it, or when its producer made it, as the topic is set."""
    kind, timestamp_ms = messages[index].timestamp()
    return None if kind == TIMESTAMP_NOT_AVAILABLE else int(timestamp_ms) * 1_000


def envelope(messages: list[Any], index: int) -> tuple[bytes | None, Headers]:
    """Return key and headers of a message."""
    message = messages[index]
    try:
        headers = list(message.headers() or [])
    except (SystemError, UnicodeDecodeError):
        # confluent-kafka cannot read a header's name that is no UTF-8. Whoever writes one must not stop the run.
        headers = [(HEADERS_LOST, b"a name that is no UTF-8")]
    return message.key(), headers
