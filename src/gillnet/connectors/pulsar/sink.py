"""Writes encoded records to a Pulsar topic: a bounded queue, every record acknowledged, nothing is lost in silence.

At-least-once. A producer keeps the order within a partition, and a key's records go to one partition. Broker-side deduplication would
need numbers that a run takes up again after a crash; none are kept, so after a restart records may come again.
"""

from __future__ import annotations

import threading
from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Any

import pulsar
import structlog

from gillnet.connectors.pulsar.client import Settings, check_settings, explained, make_client
from gillnet.connectors.pulsar.places import key_and_properties
from gillnet.core.errors import SinkError
from gillnet.core.messages import OutputRecord
from gillnet.core.time import Clock, SystemClock

if TYPE_CHECKING:
    from collections.abc import Sequence

ORIGINAL_BYTES = "gillnet.original_bytes"
"""The header of a record that was cut: the bytes that its value had."""

_KEPT_BYTES = 262_144
_WAIT_S = 0.1
_RETRY_S = 0.5
_LINGER_MS = 2
_UNBOUNDED = (
    2**31 - 1
)  # The client would divide it by the number of partitions, and all of them may have one partition's key.


class PulsarSink:
    """Write records to one topic.

    Parameters
    ----------
    topic
        ``tenant/namespace/name``. Where the broker makes topics by itself, it need not exist.
    service_url
        ``pulsar://host:port`` or ``pulsar+ssl://host:port``.
    settings
        Those of ``[pulsar]``.
    max_queued_records, max_queued_bytes
        The bound of what waits for its acknowledgement. At the bound `write` blocks.
    delivery_timeout_s
        How long a record may wait for its acknowledgement, for example while no broker can be reached.
    open_timeout_s
        How long to wait for a broker's first answer. 0 asks nothing before the first record, which then waits as the others do.

    Raises
    ------
    ConfigurationError
        If a setting is wrong.
    SinkError
        If no broker answers, or it refuses the access.

    Attributes
    ----------
    cut_records
        Records of side outputs that were written cut, since the broker refused them whole; see `write_records`.

    Notes
    -----
    Keys go to partitions by the C++ client's hash, which is not that of Pulsar's Java client: topics written by both are not
    co-partitioned. Batches are by key, so that key-shared consumers of the output get each key in order.
    """

    def __init__(
        self,
        *,
        topic: str,
        service_url: str,
        settings: Settings | None = None,
        max_queued_records: int = 20_000,
        max_queued_bytes: int = 64 * 1024 * 1024,
        delivery_timeout_s: float = 300.0,
        open_timeout_s: float = 10.0,
        clock: Clock | None = None,
    ) -> None:
        self.topic = topic
        self._what = f"Pulsar sink {topic!r} at {service_url}"
        self._service_url = service_url
        self._settings = check_settings(settings, what=self._what)
        self._clock = clock or SystemClock()
        self._log = structlog.get_logger("gillnet.pulsar").bind(topic=topic, role="sink")
        self._most_records, self._most_bytes = max_queued_records, max_queued_bytes
        self._timeout_s = delivery_timeout_s
        self._changed = threading.Condition()
        self._records = self._bytes = 0
        self._failure: str | None = None
        self._refused: deque[OutputRecord] = deque()  # Of side outputs, too large; at most what the queue holds.
        self._closed = False
        self.cut_records = 0
        self._producer: Any = None
        self._client = make_client(service_url, self._settings, timeout_s=open_timeout_s or 10.0, what=self._what)
        if open_timeout_s > 0:
            try:
                self._producer = self._open()
            except pulsar.PulsarException as error:
                self._client.close()
                raise SinkError(f"{self._what}: {self._explained(error)}.") from None

    def __repr__(self) -> str:
        return f"PulsarSink(topic={self.topic!r}, queued_records={self.queued_records})"

    def _explained(self, error: BaseException) -> str:
        return explained(error, topic=self.topic, service_url=self._service_url, settings=self._settings)

    def _open(self) -> Any:
        return self._client.create_producer(
            f"persistent://{self.topic}",
            send_timeout_millis=round(self._timeout_s * 1_000),
            # The bound is this sink's own, so that a wait can be ended and a failure told.
            max_pending_messages=self._most_records + 1,
            max_pending_messages_across_partitions=_UNBOUNDED,
            batching_enabled=True,
            batching_max_publish_delay_ms=_LINGER_MS,
            batching_type=pulsar.BatchingType.KeyBased,
        )

    def _opened(self) -> Any:
        """Return the producer; one that is opened with its first record waits for the broker as long as a record may."""
        deadline_s = self._clock.monotonic_s() + self._timeout_s
        while self._producer is None:
            try:
                self._producer = self._open()
            except (pulsar.Timeout, pulsar.ConnectError) as error:
                if self._clock.monotonic_s() >= deadline_s:
                    raise SinkError(f"{self._what}: {self._explained(error)}.") from None
                self._clock.sleep(_RETRY_S)
            except pulsar.PulsarException as error:
                raise SinkError(f"{self._what}: {self._explained(error)}.") from None
        return self._producer

    @property
    def queued_records(self) -> int:
        """Records that wait for their acknowledgement; at most ``max_queued_records``."""
        return self._records

    def figures(self) -> dict[str, int]:
        """Return the figures of the catalogue that this sink knows."""
        return {"queued_records": self._records, "cut_records": self.cut_records}

    def write(self, values: Sequence[bytes], keys: Sequence[bytes | None] | None = None) -> None:
        """Queue records in order; blocks while the queue is full.

        Raises
        ------
        SinkError
            If a record, this one or an earlier one, cannot be delivered.
        """
        if keys is None:
            for value in values:
                self._send(value, None, None, None)
            return
        for value, key in zip(values, keys, strict=True):
            text, properties = key_and_properties(key, [])
            self._send(value, text, properties, None)

    def write_records(self, records: Sequence[OutputRecord]) -> None:
        """Queue records with headers, in order; blocks while the queue is full.

        A record that the broker's ``maxMessageSize`` does not allow is written cut, behind the others: 256 KiB of its value, and
        ``gillnet.original_bytes`` among its headers; the stream goes on.
        """
        for record in records:
            text, properties = key_and_properties(record.key, record.headers)
            self._send(record.value, text, properties, record)

    def _send(
        self, value: bytes, key: str | None, properties: dict[str, str] | None, aside: OutputRecord | None
    ) -> None:
        producer = self._producer or self._opened()
        self._reserve(len(value))
        done = partial(self._on_delivery, len(value), aside)
        try:
            producer.send_async(value, done, properties, key)
        except pulsar.PulsarException as error:
            self._on_delivery(len(value), aside, None, None, error)

    def _reserve(self, size: int) -> None:
        if self._failure is not None:
            self._raise_failure()
        with self._changed:
            # A record that alone is larger than the bound goes when nothing else waits.
            while self._records and (self._records >= self._most_records or self._bytes + size > self._most_bytes):
                self._changed.wait(_WAIT_S)
                self._raise_failure()
            self._records += 1
            self._bytes += size

    def _on_delivery(
        self, size: int, aside: OutputRecord | None, result: Any, _message_id: Any, error: Exception | None = None
    ) -> None:
        """Note what became of a record; on a thread of the client."""
        name = "" if result == pulsar.Result.Ok else (type(error).__name__ if error is not None else str(result))
        with self._changed:
            self._records -= 1
            self._bytes -= size
            if name and aside is not None and "MessageTooBig" in name:
                self._refused.append(aside)
            elif name and self._failure is None:
                self._failure = name.rpartition(".")[2]
            if name or not self._records or self._records < self._most_records // 2:
                self._changed.notify_all()

    def _raise_failure(self) -> None:
        if self._failure is None:
            return
        kind: Any = getattr(pulsar, self._failure, None)
        known = isinstance(kind, type) and issubclass(kind, Exception)
        reason = self._explained(kind(self._failure) if known else Exception(self._failure))
        raise SinkError(f"{self._what}: {reason}. What was not acknowledged is written again by a restart.")

    def flush(self) -> None:
        """Return when every record written so far is acknowledged.

        Raises
        ------
        SinkError
            If a record could not be delivered within ``delivery_timeout_s``, or the broker refuses it. The sink stays failed: a run
            must not commit past a lost record.
        """
        self._drain()
        while self._refused:
            original = self._refused.popleft()
            self.cut_records += 1
            self._log.warning(
                "record cut to fit the topic", original_bytes=len(original.value), mend="raise maxMessageSize"
            )
            short = cut(original)
            text, properties = key_and_properties(short.key, short.headers)
            self._send(short.value, text, properties, None)
            self._drain()

    def _drain(self) -> None:
        with self._changed:
            while self._records and self._failure is None:
                self._changed.wait(_WAIT_S)
        self._raise_failure()

    def close(self) -> None:
        """Flush and release. Raises `SinkError` if a record could not be delivered, and is released all the same."""
        if self._closed:
            return
        try:
            self.flush()
        finally:
            self._closed = True
            self._client.close()


def cut(record: OutputRecord) -> OutputRecord:
    """Return a record with the beginning of its value, and how long it was."""
    headers = [*record.headers, (ORIGINAL_BYTES, str(len(record.value)).encode())]
    return OutputRecord(value=record.value[:_KEPT_BYTES], key=record.key, headers=headers)
