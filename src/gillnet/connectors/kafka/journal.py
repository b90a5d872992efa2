"""The journal of a run in a Kafka topic of one partition, written in the same transactions as the outputs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import structlog
from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient

from gillnet.connectors.kafka.client import Settings, connection_settings, make_client, readable
from gillnet.core.errors import StateError
from gillnet.core.messages import OutputRecord

if TYPE_CHECKING:
    from gillnet.connectors.kafka.queue import ProducerQueue
    from gillnet.core.time import Clock

_TIMEOUT_S = 10.0
_SILENCE_S = 30.0
_AT_ONCE = 500


class KafkaJournal:
    """A journal in a topic.

    Parameters
    ----------
    topic
        Of one partition, kept without limit: what no checkpoint needs is deleted by `forget`.
    queue
        That of the transactions.

    Attributes
    ----------
    strict
        True: the outputs go with it, so nothing may be missing.
    whole
        True: what was not committed has led to nothing that is visible.
    """

    strict = True
    whole = True

    def __init__(
        self, topic: str, queue: ProducerQueue, *, bootstrap_servers: str, settings: Settings, clock: Clock
    ) -> None:
        self.topic = topic
        self.kind = f"kafka {topic}"
        self._queue = queue
        self._settings = settings
        self._clock = clock
        self._what = f"Kafka journal {topic!r} at {bootstrap_servers}"
        self._log = structlog.get_logger("gillnet.kafka").bind(topic=topic, role="journal")
        connection = connection_settings(settings)
        address = {"bootstrap.servers": bootstrap_servers}
        config = {
            **address,
            "group.id": f"{topic}.reader",
            "enable.auto.commit": "false",
            "enable.partition.eof": "true",
            "isolation.level": "read_committed",
            "auto.offset.reset": "error",
        }
        self._reader: Any = make_client(Consumer, config, settings=connection, what=self._what)
        self._admin: Any = make_client(AdminClient, address, settings=connection, what=self._what)
        self._closed = False

    def __repr__(self) -> str:
        return f"KafkaJournal(topic={self.topic!r})"

    def read(self, position: int) -> Iterator[bytes]:
        """Yield the committed records from offset ``position`` on."""
        self._reader.assign([TopicPartition(self.topic, 0, position)])
        heard_s = self._clock.monotonic_s()
        try:
            while True:
                for message in self._reader.consume(_AT_ONCE, 0.5):
                    heard_s = self._clock.monotonic_s()
                    error = message.error()
                    if error is None:
                        yield message.value()
                    elif error.code() == KafkaError._PARTITION_EOF:
                        return
                    elif error.code() == KafkaError._AUTO_OFFSET_RESET:
                        raise StateError(
                            f"{self._what}: its records from {position} on are gone, and the checkpoint goes on from there; name an "
                            "empty place of checkpoints to begin with empty state."
                        )
                    elif not error.retriable():
                        raise StateError(f"{self._what}: it cannot be read: {readable(error, self._settings)}.")
                if self._clock.monotonic_s() - heard_s > _SILENCE_S:
                    raise StateError(f"{self._what}: no answer for {_SILENCE_S:g} s; is the broker well?")
        finally:
            self._reader.unassign()

    def append(self, record: bytes) -> None:
        """Write a record in the transaction that is open."""
        self._queue.produce(self.topic, OutputRecord(value=record), self._queue.on_delivery)

    def sync(self) -> None:
        """Do nothing: the transaction's commit does it."""

    def cut(self) -> int:
        """Return the offset after everything that readers see: a commit that was just acknowledged may not be seen yet."""
        try:
            found = self._reader.get_watermark_offsets(TopicPartition(self.topic, 0), timeout=_TIMEOUT_S)
        except KafkaException as error:
            raise StateError(f"{self._what}: its end cannot be read: {readable(error, self._settings)}.") from None
        if found is None:
            raise StateError(f"{self._what}: its end cannot be read: no answer for {_TIMEOUT_S:g} s.")
        return int(found[1])

    def forget(self, position: int) -> None:
        """Have the broker delete what lies before an offset. It is not waited for: the next call says it again."""
        try:
            self._admin.delete_records([TopicPartition(self.topic, 0, position)])
        except KafkaException as error:
            self._log.warning("journal not shortened", reason=readable(error, self._settings))

    def close(self) -> None:
        """Release."""
        if not self._closed:
            self._closed = True
            self._reader.close()
