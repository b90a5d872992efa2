"""librdkafka's producer with what every writer here needs: a bounded queue, back-pressure, and failures that are not missed."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from confluent_kafka import KafkaError, KafkaException, Producer

from gillnet.connectors.kafka.client import SILENT_S, BrokerWatch, Settings, make_client, readable
from gillnet.connectors.kafka.watchdog import WatchedProducer
from gillnet.core.errors import FencedError, SinkError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gillnet.core.messages import OutputRecord
    from gillnet.core.time import Clock

_ACKS = "a flushed record is on all in-sync replicas, so it is always 'all'"
RESERVED = {
    "bootstrap.servers": "give bootstrap_servers",
    "acks": _ACKS,
    "request.required.acks": _ACKS,
    "delivery.report.only.error": "the sink needs the delivery errors, and only these",
    "queue.buffering.max.messages": "give max_queued_records",
    "queue.buffering.max.kbytes": "give max_queued_bytes",
    "message.timeout.ms": "give delivery_timeout_s",
    "delivery.timeout.ms": "give delivery_timeout_s",
    "message.max.bytes": "give max_record_bytes",
}
"""Settings of a producer that are not passed through, and what to use in their place."""

_FENCED = frozenset(
    {
        KafkaError._FENCED,
        KafkaError.PRODUCER_FENCED,
        KafkaError.INVALID_PRODUCER_EPOCH,
        KafkaError.TRANSACTION_COORDINATOR_FENCED,
    }
)

OnDelivery = Callable[[KafkaError | None, object], None]

# One call of produce_batch. Long enough to spread its fixed cost, short enough to fit in a small queue.
_CHUNK_RECORDS = 4_096
_WAIT_S = 0.05
_HURRY_S = 0.001  # librdkafka counts milliseconds.


class ProducerQueue:
    """Records on their way to the broker.

    Parameters
    ----------
    config
        Settings of the producer beside those that every one has.
    bootstrap_servers
        ``host:port``, several with commas.
    settings
        The user's settings of librdkafka, checked.
    what
        Names it in errors.
    watch
        Notices a broker that is away.
    max_queued_records, max_queued_bytes
        The bound of the queue of records that wait for their acknowledgement. At the bound `write` blocks.
    max_record_bytes
        The largest record.
    delivery_timeout_s
        How long a record may wait for its acknowledgement.

    Attributes
    ----------
    client
        librdkafka's producer, and a watchdog that ends the process should a call of it hang.
    """

    def __init__(
        self,
        config: dict[str, Any],
        *,
        bootstrap_servers: str,
        settings: Settings,
        what: str,
        watch: BrokerWatch,
        clock: Clock,
        max_queued_records: int,
        max_queued_bytes: int,
        max_record_bytes: int,
        delivery_timeout_s: float,
    ) -> None:
        self._what = what
        self._settings = settings
        self._watch = watch
        self._clock = clock
        self._max_queued_records = max_queued_records
        self._stalled_since_s: float | None = None
        self._failed_records = 0
        self._first_failure = ""
        self._closed = False
        shared = {
            "bootstrap.servers": bootstrap_servers,
            "acks": "all",
            "enable.idempotence": "true",
            "partitioner": "murmur2_random",
            "message.max.bytes": max_record_bytes,
            "message.timeout.ms": int(delivery_timeout_s * 1_000),
            "queue.buffering.max.messages": max_queued_records,
            "queue.buffering.max.kbytes": max(1, max_queued_bytes // 1024),
            "delivery.report.only.error": True,
            "error_cb": watch,
        }
        client = make_client(Producer, {**shared, **config}, settings=settings, what=what)
        self.client = WatchedProducer(client, what=what)

    def __len__(self) -> int:
        """Return the records that wait for their acknowledgement."""
        return 0 if self._closed else len(self.client)

    def write(self, topic: str, values: Sequence[bytes], keys: Sequence[bytes | None] | None = None) -> None:
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
            self._enqueue(topic, messages[start : start + chunk_records])
        self.rest()

    def _enqueue(self, topic: str, messages: list[dict[str, Any]]) -> None:
        """Queue a chunk. Once the queue is full librdkafka refuses the whole rest of the chunk, so the order stays."""
        while messages:
            self._wait_for_room(len(messages))
            if self.client.produce_batch(topic, messages, on_delivery=self.on_delivery) == len(messages):
                return
            refused = [message for message in messages if "_error" in message]
            for message in refused:
                error = message.pop("_error")
                if error.code() != KafkaError._QUEUE_FULL:
                    self.on_delivery(error, None)
            self.raise_failure()
            messages = refused
            self.poll()

    def _wait_for_room(self, records: int) -> None:
        # One try per freed record would parse the chunk again and again: wait until the whole chunk fits.
        while len(self.client) + records > self._max_queued_records:
            self.poll()

    def produce(self, topic: str, record: OutputRecord, on_delivery: OnDelivery) -> None:
        """Queue one record with headers; blocks while the queue is full."""
        while not self._produced(topic, record, on_delivery):
            self.poll()

    def _produced(self, topic: str, record: OutputRecord, on_delivery: OnDelivery) -> bool:
        try:
            self.client.produce(
                topic, value=record.value, key=record.key, headers=list(record.headers), on_delivery=on_delivery
            )
        except BufferError:
            return False
        except KafkaException as error:
            on_delivery(error.args[0], None)
            self.raise_failure()
        return True

    def hurry(self) -> None:
        """Send what is queued now, without lingering; takes 1 ms at the most.

        Notes
        -----
        While librdkafka flushes, its threads do not linger, and they look at that when they are woken: a flush of no time at all
        would be over by then.
        """
        if len(self.client):
            self.client.flush(_HURRY_S)

    def poll(self) -> None:
        """Wait a moment for acknowledgements."""
        queued = len(self.client)
        self.client.poll(_WAIT_S)
        self._note_progress(len(self.client) < queued)
        self.raise_failure()

    def rest(self) -> None:
        """Serve what has come, after records were queued."""
        self._stalled_since_s = None
        self.client.poll(0)
        self._watch.settle()
        self.raise_failure()

    def _note_progress(self, made: bool) -> None:
        """Watch for a broker that keeps its connections and acknowledges nothing."""
        if made:
            self._stalled_since_s = None
            self._watch.seen()
        elif self._stalled_since_s is None:
            self._stalled_since_s = self._clock.monotonic_s()
        elif self._clock.monotonic_s() - self._stalled_since_s >= SILENT_S:
            self._watch.silent(f"no acknowledgement for {SILENT_S:g} s")

    def drain(self) -> None:
        """Return when every record is acknowledged.

        Raises
        ------
        SinkError
            If one could not be delivered. The queue stays failed: a run must not commit past a lost record.
        """
        queued = len(self.client)
        while queued:
            left = self.client.flush(0.5)
            self._note_progress(left < queued)
            queued = left
            self.raise_failure()
        self._stalled_since_s = None
        self.client.poll(0)
        while self._watch.settling:  # A second at the most, after an outage: nobody may call again for long.
            self.client.poll(0.1)
            self._watch.settle()
        self.raise_failure()

    def close(self, *, lost: bool = False) -> None:
        """Give up what waits, and release; ``lost``: the client can do nothing any more, and is not asked."""
        if not self._closed:
            self._closed = True
            self.client.purge()
            if not lost:
                self.client.flush(1.0)

    def on_delivery(self, error: KafkaError | None, _message: object) -> None:
        """Take librdkafka's word on a record: `raise_failure` then raises, if it could not be delivered."""
        if error is not None:
            self._failed_records += 1
            self._first_failure = self._first_failure or self._mend(error)

    def raise_failure(self) -> None:
        """Raise if a record could not be delivered, or no other will be: `FencedError` where another run has taken over."""
        if self._watch.fatal is None and not self._failed_records:
            return
        self.client.poll(0)  # The cause may not have been told yet.
        self.raise_if_fenced()
        if not self._failed_records:
            raise SinkError(f"{self._what}: {readable(self._watch.fatal, self._settings)}; start the run again.")
        raise SinkError(f"{self._what}: {self._failed_records} records could not be written: {self._first_failure}.")

    def raise_if_fenced(self, error: KafkaError | None = None) -> None:
        """Raise `FencedError` if this error, or the one after which nothing more can be done, says so."""
        if any(found is not None and found.code() in _FENCED for found in (error, self._watch.fatal)):
            raise FencedError(
                f"{self._what}: another run has taken over, so this one stops; nothing that it had not committed is visible. "
                "Run a pipeline once."
            )

    def _mend(self, error: KafkaError) -> str:
        reason = readable(error, self._settings)
        if error.code() == KafkaError.MSG_SIZE_TOO_LARGE:
            return f"{reason}; raise the topic's max.message.bytes (and the sink's max_record_bytes)"
        if error.code() == KafkaError._MSG_TIMED_OUT:
            seen = self._watch.reason or "no answer"
            return f"{reason} (last seen: {seen}); mend the broker or raise delivery_timeout_s"
        return reason
