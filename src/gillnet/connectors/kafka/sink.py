"""Writes encoded records to a Kafka topic: bounded queue, all replicas acknowledge, nothing is lost in silence.

At-least-once. librdkafka's idempotent producer keeps the order within a partition and writes a record once per session;
after a restart of the run, records may come again.
"""

from __future__ import annotations

from collections import deque
from functools import partial
from typing import TYPE_CHECKING

import structlog
from confluent_kafka import KafkaError

from gillnet.connectors.kafka.client import BrokerWatch, Settings, check_settings, check_topic
from gillnet.connectors.kafka.queue import RESERVED, ProducerQueue
from gillnet.core.errors import SinkError
from gillnet.core.messages import OutputRecord
from gillnet.core.time import Clock, SystemClock

if TYPE_CHECKING:
    from collections.abc import Sequence

_RESERVED = {**RESERVED, "transactional.id": "this sink is at-least-once"}

ORIGINAL_BYTES = "gillnet.original_bytes"
"""The header of a record that was cut: the bytes that its value had."""

# What is kept of a side output's value that the topic is too narrow for; where even that is refused, nothing is.
_KEPT_BYTES = 262_144


class KafkaSink:
    """Write records to one topic.

    Parameters
    ----------
    topic
        Must exist; see `ensure_topics`.
    bootstrap_servers
        ``host:port``, several with commas.
    settings
        librdkafka's settings, as strings: TLS, SASL, ``compression.type``, ``linger.ms`` and so on.
    max_queued_records, max_queued_bytes
        The bound of the queue of records that wait for their acknowledgement. At the bound `write` blocks.
    max_record_bytes
        The largest record; the topic's ``max.message.bytes`` must allow it too.
    delivery_timeout_s
        How long a record may wait for its acknowledgement, for example while no broker can be reached, before `flush`
        raises.
    open_timeout_s
        How long to wait for a broker's first answer. 0 asks nothing: for a topic that is known to exist, so that a sink
        can be opened while the broker is away.

    Raises
    ------
    ConfigurationError
        If a setting is unknown or wrong.
    SinkError
        If no broker answers or the topic does not exist.

    Attributes
    ----------
    cut_records
        Records of side outputs that were written cut, since the topic refused them whole; see `write_records`.

    Notes
    -----
    Keys go to partitions by murmur2, as with Kafka's Java clients, so that topics written by Flink or Spark are
    co-partitioned. A record without key goes to a random partition.
    """

    def __init__(
        self,
        *,
        topic: str,
        bootstrap_servers: str,
        settings: Settings | None = None,
        max_queued_records: int = 100_000,
        max_queued_bytes: int = 64 * 1024 * 1024,
        max_record_bytes: int = 16 * 1024 * 1024,
        delivery_timeout_s: float = 300.0,
        open_timeout_s: float = 10.0,
        clock: Clock | None = None,
    ) -> None:
        what = f"Kafka sink {topic!r} at {bootstrap_servers}"
        self.topic = topic
        checked = check_settings(settings, reserved=_RESERVED, what=what)
        clock = clock or SystemClock()
        self._log = structlog.get_logger("gillnet.kafka").bind(topic=topic, role="sink")
        watch = BrokerWatch(topic=topic, role="sink", settings=checked, clock=clock)
        self._refused: deque[OutputRecord] = deque()  # Of side outputs, too large; at most what the queue holds.
        self._closed = False
        self.cut_records = 0
        self._queue = ProducerQueue(
            # Under load requests fill meanwhile; at a low rate `hurry` sends sooner.
            {"linger.ms": "2"},
            bootstrap_servers=bootstrap_servers,
            settings=checked,
            what=what,
            watch=watch,
            clock=clock,
            max_queued_records=max_queued_records,
            max_queued_bytes=max_queued_bytes,
            max_record_bytes=max_record_bytes,
            delivery_timeout_s=delivery_timeout_s,
        )
        if open_timeout_s > 0:
            check_topic(
                self._queue.client,
                topic,
                timeout_s=open_timeout_s,
                watch=watch,
                settings=checked,
                what=what,
                error_class=SinkError,
            )

    def __repr__(self) -> str:
        return f"KafkaSink(topic={self.topic!r}, queued_records={self.queued_records})"

    @property
    def queued_records(self) -> int:
        """Records that wait for their acknowledgement; at most ``max_queued_records``."""
        return len(self._queue)

    def figures(self) -> dict[str, int]:
        """Return the figures of the catalogue that this sink knows."""
        return {"queued_records": self.queued_records, "cut_records": self.cut_records}

    def hurry(self) -> None:
        """Send what was written now, instead of waiting for more of it; takes 1 ms at the most.

        The client's threads see it if they get a core within that; otherwise the records linger as they would have.
        """
        self._queue.hurry()

    def write(self, values: Sequence[bytes], keys: Sequence[bytes | None] | None = None) -> None:
        """Queue records in order; blocks while the queue is full.

        Raises
        ------
        SinkError
            If a record, this one or an earlier one, cannot be delivered.
        """
        self._queue.write(self.topic, values, keys)

    def write_records(self, records: Sequence[OutputRecord]) -> None:
        """Queue records with headers, in order; blocks while the queue is full.

        A record that the topic's ``max.message.bytes`` does not allow is written cut: 256 KiB of its value, and
        ``gillnet.original_bytes`` among its headers; the stream goes on. Where even that is refused, key, value and
        the producer's headers are left out.
        """
        for record in records:
            self._queue.produce(self.topic, record, partial(self._on_side_delivery, record))
        self._queue.rest()
        self._send_refused()

    def _send_refused(self) -> None:
        """Write again what was too large, each record alone: it may have been refused for its batch's size only."""
        while self._refused:
            original = self._refused.popleft()
            if self._delivered(original):
                continue
            self.cut_records += 1
            mend = "raise the topic's max.message.bytes"
            self._log.warning("record cut to fit the topic", original_bytes=len(original.value), mend=mend)
            if not self._delivered(cut(original)) and not self._delivered(bare(original)):
                self._queue.on_delivery(KafkaError(KafkaError.MSG_SIZE_TOO_LARGE), None)
                self._queue.raise_failure()

    def _delivered(self, record: OutputRecord) -> bool:
        """Write a record in a batch of its own; False if it is too large."""
        self._queue.drain()
        errors: list[KafkaError] = []

        def note(error: KafkaError | None, _message: object) -> None:
            if error is not None:
                errors.append(error)

        self._queue.produce(self.topic, record, note)
        self._queue.drain()
        too_large = [error.code() == KafkaError.MSG_SIZE_TOO_LARGE for error in errors]
        if errors and not all(too_large):
            self._queue.on_delivery(errors[0], None)
            self._queue.raise_failure()
        return not errors

    def flush(self) -> None:
        """Return when every record written so far is acknowledged by all in-sync replicas.

        Raises
        ------
        SinkError
            If a record could not be delivered within ``delivery_timeout_s``, or the broker refuses it. The sink stays
            failed: a run must not commit past a lost record.
        """
        self._queue.drain()
        self._send_refused()

    def close(self) -> None:
        """Flush and release. Raises `SinkError` if a record could not be delivered, and is released all the same."""
        if self._closed:
            return
        try:
            self.flush()
        finally:
            self._closed = True
            self._queue.close()

    def _on_side_delivery(self, record: OutputRecord, error: KafkaError | None, message: object) -> None:
        if error is not None and error.code() == KafkaError.MSG_SIZE_TOO_LARGE:
            self._refused.append(record)
        else:
            self._queue.on_delivery(error, message)


def cut(record: OutputRecord) -> OutputRecord:
    """Return a record with the beginning of its value, and how long it was."""
    headers = [*record.headers, (ORIGINAL_BYTES, str(len(record.value)).encode())]
    return OutputRecord(value=record.value[:_KEPT_BYTES], key=record.key, headers=headers)


def bare(record: OutputRecord) -> OutputRecord:
    """Leave what Gillnet itself says of the record."""
    headers = [(name, value) for name, value in cut(record).headers if name.startswith("gillnet.")]
    return OutputRecord(value=b"", headers=headers)
