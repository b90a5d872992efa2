"""Writes encoded records to a Kafka topic: bounded queue, all replicas acknowledge, nothing is lost in silence.

At-least-once. librdkafka's idempotent producer keeps the order within a partition and writes a record once per session;
after a restart of the run, records may come again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from confluent_kafka import KafkaError, KafkaException, Producer

from gillnet.connectors.kafka.client import BrokerWatch, Settings, check_settings, check_topic, make_client, readable
from gillnet.core.errors import SinkError
from gillnet.core.time import Clock, SystemClock

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gillnet.core.messages import OutputRecord

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

# One call of produce_batch. Long enough to spread its fixed cost, short enough to fit in a small queue.
_CHUNK_RECORDS = 4_096
_WAIT_S = 0.05


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
        How long to wait for a broker's first answer.

    Raises
    ------
    ConfigurationError
        If a setting is unknown or wrong.
    SinkError
        If no broker answers or the topic does not exist.

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
        self._watch = BrokerWatch(topic=topic, role="sink", settings=self._settings, clock=clock or SystemClock())
        self._failed_records = 0
        self._first_failure = ""
        self._closed = False
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
        self._producer.poll(0)
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
        if len(self._producer) < queued:
            self._watch.seen()
        self._raise_failure()

    def write_records(self, records: Sequence[OutputRecord]) -> None:
        """Queue records with headers, in order; blocks while the queue is full."""
        for record in records:
            while not self._produce(record):
                self._poll()
        self._producer.poll(0)
        self._raise_failure()

    def _produce(self, record: OutputRecord) -> bool:
        try:
            self._producer.produce(
                self.topic,
                value=record.value,
                key=record.key,
                headers=list(record.headers),
                on_delivery=self._on_delivery,
            )
        except BufferError:
            return False
        except KafkaException as error:
            self._on_delivery(error.args[0], None)
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
        queued = len(self._producer)
        while queued:
            left = self._producer.flush(0.5)
            if left < queued:
                self._watch.seen()
            queued = left
            self._raise_failure()
        self._producer.poll(0)
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
