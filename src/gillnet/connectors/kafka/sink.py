"""Writes encoded records to a Kafka topic: bounded queue, all replicas acknowledge, nothing is lost in silence.

At-least-once. librdkafka's idempotent producer keeps the order within a partition and writes a record once per session;
after a restart of the run, records may come again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import structlog
from confluent_kafka import KafkaError, KafkaException, Producer

from gillnet.connectors.kafka.client import (
    SILENT_S,
    BrokerWatch,
    Settings,
    check_settings,
    check_topic,
    make_client,
    readable,
)
from gillnet.core.errors import SinkError
from gillnet.core.messages import OutputRecord
from gillnet.core.time import Clock, SystemClock

if TYPE_CHECKING:
    from collections.abc import Sequence

_ACKS = "a flushed record is on all in-sync replicas, so it is always 'all'"
_RESERVED = {
    "bootstrap.servers": "give bootstrap_servers",
    "acks": _ACKS,
    "request.required.acks": _ACKS,
    "delivery.report.only.error": "the sink needs the delivery errors, and only these",
    "queue.buffering.max.messages": "give max_queued_records",
    "queue.buffering.max.kbytes": "give max_queued_bytes",
    "message.timeout.ms": "give delivery_timeout_s",
    "delivery.timeout.ms": "give delivery_timeout_s",
    "message.max.bytes": "give max_record_bytes",
    "transactional.id": "this sink is at-least-once",
}

ORIGINAL_BYTES = "gillnet.original_bytes"
"""The header of a record that was cut: the bytes that its value had."""

OnDelivery = Callable[[KafkaError | None, object], None]

# One call of produce_batch. Long enough to spread its fixed cost, short enough to fit in a small queue.
_CHUNK_RECORDS = 4_096
_WAIT_S = 0.05
# A broker that acknowledges nothing for so long is said to be away: a frozen one keeps its connections open.
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
        self._what = what
        self._settings = check_settings(settings, reserved=_RESERVED, what=what)
        self._max_queued_records = max_queued_records
        self._clock = clock or SystemClock()
        self._log = structlog.get_logger("gillnet.kafka").bind(topic=topic, role="sink")
        self._watch = BrokerWatch(topic=topic, role="sink", settings=self._settings, clock=self._clock)
        self._stalled_since_s: float | None = None
        self._failed_records = 0
        self._first_failure = ""
        self._refused: deque[OutputRecord] = deque()  # Of side outputs, too large; at most what the queue holds.
        self._closed = False
        self.cut_records = 0
        config = {
            "bootstrap.servers": bootstrap_servers,
            "acks": "all",
            "enable.idempotence": "true",
            # Under load batches fill by themselves; at a low rate a record waits this long.
            "linger.ms": "1",
            "partitioner": "murmur2_random",
            "message.max.bytes": max_record_bytes,
            "message.timeout.ms": int(delivery_timeout_s * 1_000),
            "queue.buffering.max.messages": max_queued_records,
            "queue.buffering.max.kbytes": max(1, max_queued_bytes // 1024),
            "delivery.report.only.error": True,
            "error_cb": self._watch,
        }
        self._producer: Any = make_client(Producer, config, settings=self._settings, what=what)
        if open_timeout_s > 0:
            check_topic(
                self._producer,
                topic,
                timeout_s=open_timeout_s,
                watch=self._watch,
                settings=self._settings,
                what=what,
                error_class=SinkError,
            )

    def __repr__(self) -> str:
        return f"KafkaSink(topic={self.topic!r}, queued_records={self.queued_records})"

    @property
    def queued_records(self) -> int:
        """Records that wait for their acknowledgement; at most ``max_queued_records``."""
        return 0 if self._closed else len(self._producer)

    def figures(self) -> dict[str, int]:
        """Return the figures of the catalogue that this sink knows."""
        return {"queued_records": self.queued_records, "cut_records": self.cut_records}

    def write(self, values: Sequence[bytes], keys: Sequence[bytes | None] | None = None) -> None:
        """Queue records in order; blocks while the queue is full.

        Raises
        ------
        SinkError
            If a record, this one or an earlier one, cannot be delivered.
        """
        messages: list[dict[str, Any]]
        if keys is None:
            messages = [{"value": value} for value in values]
        else:
            messages = [{"value": value, "key": key} for value, key in zip(values, keys, strict=True)]
        chunk_records = min(_CHUNK_RECORDS, self._max_queued_records)
        for start in range(0, len(messages), chunk_records):
            self._enqueue(messages[start : start + chunk_records])
        self._stalled_since_s = None
        self._producer.poll(0)
        self._watch.settle()
        self._raise_failure()

    def _enqueue(self, messages: list[dict[str, Any]]) -> None:
        """Queue a chunk. Once the queue is full librdkafka refuses the whole rest of the chunk, so the order stays."""
        while messages:
            self._wait_for_room(len(messages))
            if self._producer.produce_batch(self.topic, messages, on_delivery=self._on_delivery) == len(messages):
                return
            refused = [message for message in messages if "_error" in message]
            for message in refused:
                error = message.pop("_error")
                if error.code() != KafkaError._QUEUE_FULL:
                    self._on_delivery(error, None)
            self._raise_failure()
            messages = refused
            self._poll()

    def _wait_for_room(self, records: int) -> None:
        # One try per freed record would parse the chunk again and again: wait until the whole chunk fits.
        while len(self._producer) + records > self._max_queued_records:
            self._poll()

    def _poll(self) -> None:
        queued = len(self._producer)
        self._producer.poll(_WAIT_S)
        self._note_progress(len(self._producer) < queued)
        self._raise_failure()

    def _note_progress(self, made: bool) -> None:
        """Watch for a broker that keeps its connections and acknowledges nothing."""
        if made:
            self._stalled_since_s = None
            self._watch.seen()
        elif self._stalled_since_s is None:
            self._stalled_since_s = self._clock.monotonic_s()
        elif self._clock.monotonic_s() - self._stalled_since_s >= SILENT_S:
            self._watch.silent(f"no acknowledgement for {SILENT_S:g} s")

    def write_records(self, records: Sequence[OutputRecord]) -> None:
        """Queue records with headers, in order; blocks while the queue is full.

        A record that the topic's ``max.message.bytes`` does not allow is written cut: 256 KiB of its value, and
        ``gillnet.original_bytes`` among its headers; the stream goes on. Where even that is refused, key, value and
        the producer's headers are left out.
        """
        for record in records:
            while not self._produce(record, partial(self._on_side_delivery, record)):
                self._poll()
        self._stalled_since_s = None
        self._producer.poll(0)
        self._raise_failure()
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
            if not self._delivered(_cut(original)) and not self._delivered(_bare(original)):
                self._on_delivery(KafkaError(KafkaError.MSG_SIZE_TOO_LARGE), None)
                self._raise_failure()

    def _delivered(self, record: OutputRecord) -> bool:
        """Write a record in a batch of its own; False if it is too large."""
        self._drain()
        errors: list[KafkaError] = []

        def note(error: KafkaError | None, _message: object) -> None:
            if error is not None:
                errors.append(error)

        while not self._produce(record, note):
            self._poll()
        self._drain()
        too_large = [error.code() == KafkaError.MSG_SIZE_TOO_LARGE for error in errors]
        if errors and not all(too_large):
            self._on_delivery(errors[0], None)
            self._raise_failure()
        return not errors

    def _produce(self, record: OutputRecord, on_delivery: OnDelivery) -> bool:
        try:
            self._producer.produce(
                self.topic,
                value=record.value,
                key=record.key,
                headers=list(record.headers),
                on_delivery=on_delivery,
            )
        except BufferError:
            return False
        except KafkaException as error:
            on_delivery(error.args[0], None)
            self._raise_failure()
        return True

    def flush(self) -> None:
        """Return when every record written so far is acknowledged by all in-sync replicas.

        Raises
        ------
        SinkError
            If a record could not be delivered within ``delivery_timeout_s``, or the broker refuses it. The sink stays
            failed: a run must not commit past a lost record.
        """
        self._drain()
        self._send_refused()

    def _drain(self) -> None:
        queued = len(self._producer)
        while queued:
            left = self._producer.flush(0.5)
            self._note_progress(left < queued)
            queued = left
            self._raise_failure()
        self._stalled_since_s = None
        self._producer.poll(0)
        while self._watch.settling:  # A second at the most, after an outage: nobody may call again for long.
            self._producer.poll(0.1)
            self._watch.settle()
        self._raise_failure()

    def close(self) -> None:
        """Flush and release. Raises `SinkError` if a record could not be delivered, and is released all the same."""
        if self._closed:
            return
        try:
            self.flush()
        finally:
            self._closed = True
            self._producer.purge()
            self._producer.flush(1.0)

    def _on_delivery(self, error: KafkaError | None, _message: object) -> None:
        if error is not None:
            self._failed_records += 1
            self._first_failure = self._first_failure or self._mend(error)

    def _on_side_delivery(self, record: OutputRecord, error: KafkaError | None, message: object) -> None:
        if error is not None and error.code() == KafkaError.MSG_SIZE_TOO_LARGE:
            self._refused.append(record)
        else:
            self._on_delivery(error, message)

    def _raise_failure(self) -> None:
        if self._watch.fatal is not None and not self._failed_records:
            raise SinkError(f"{self._what}: {readable(self._watch.fatal, self._settings)}; start the run again.")
        if self._failed_records:
            raise SinkError(
                f"{self._what}: {self._failed_records} records could not be written: {self._first_failure}."
            )

    def _mend(self, error: KafkaError) -> str:
        reason = readable(error, self._settings)
        if error.code() == KafkaError.MSG_SIZE_TOO_LARGE:
            return f"{reason}; raise the topic's max.message.bytes (and the sink's max_record_bytes)"
        if error.code() == KafkaError._MSG_TIMED_OUT:
            seen = self._watch.reason or "no answer"
            return f"{reason} (last seen: {seen}); mend the broker or raise delivery_timeout_s"
        return reason


def _cut(record: OutputRecord) -> OutputRecord:
    headers = [*record.headers, (ORIGINAL_BYTES, str(len(record.value)).encode())]
    return OutputRecord(value=record.value[:_KEPT_BYTES], key=record.key, headers=headers)


def _bare(record: OutputRecord) -> OutputRecord:
    """Leave what Gillnet itself says of the record."""
    headers = [(name, value) for name, value in _cut(record).headers if name.startswith("gillnet.")]
    return OutputRecord(value=b"", headers=headers)
