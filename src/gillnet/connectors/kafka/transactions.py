"""Exactly-once: the outputs of a run and its journal in Kafka's transactions.

One producer with one ``transactional.id`` writes to every topic of a run. What it wrote since the last commit becomes visible to
readers that read committed at once, or not at all. A run that starts under the same id
aborts what the one before left open, and fences it: a zombie's next commit is refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import structlog
from confluent_kafka import KafkaError, KafkaException

from gillnet.connectors.kafka.client import (
    SILENT_S,
    BrokerWatch,
    Settings,
    check_settings,
    readable,
)
from gillnet.connectors.kafka.journal import KafkaJournal
from gillnet.connectors.kafka.queue import RESERVED, ProducerQueue
from gillnet.connectors.kafka.sink import bare, cut
from gillnet.connectors.kafka.topics import largest_records
from gillnet.core.errors import FencedError, SinkError
from gillnet.core.time import Clock, SystemClock

if TYPE_CHECKING:
    from gillnet.core.messages import OutputRecord

_RESERVED = {**RESERVED, "transactional.id": "give transactional_id", "transaction.timeout.ms": "give timeout_s"}

# Of a record beside its value and headers: lengths, offsets, the batch's own header.
_OVERHEAD_BYTES = 512


class KafkaTransactions:
    """Transactions around everything that one run writes.

    Parameters
    ----------
    bootstrap_servers
        ``host:port``, several with commas.
    transactional_id
        Under which they are committed: the same for every start of one pipeline, and of no other.
    topics
        What will be written to; they must exist.
    journal
        The topic of the journal; it must exist, with one partition.
    settings
        librdkafka's settings, as strings.
    max_queued_records, max_queued_bytes, max_record_bytes, delivery_timeout_s
        As for `KafkaSink`, over all topics.
    timeout_s
        How long a transaction may be open before the broker aborts it: longer than an outage that the run should outlast, and how
        long readers wait where a killed run is not started again. The broker's ``transaction.max.timeout.ms`` bounds it.
    open_timeout_s
        How long to wait for a broker's first answer.

    Raises
    ------
    ConfigurationError
        If a setting is unknown or wrong.
    SinkError
        If no broker answers, or it does not allow transactions.
    """

    def __init__(
        self,
        *,
        bootstrap_servers: str,
        transactional_id: str,
        topics: Sequence[str],
        journal: str,
        settings: Settings | None = None,
        max_queued_records: int = 100_000,
        max_queued_bytes: int = 64 * 1024 * 1024,
        max_record_bytes: int = 16 * 1024 * 1024,
        delivery_timeout_s: float = 300.0,
        timeout_s: float = 120.0,
        open_timeout_s: float = 30.0,
        clock: Clock | None = None,
    ) -> None:
        self._what = f"Kafka transactions {transactional_id!r} at {bootstrap_servers}"
        self._settings = check_settings(settings, reserved=_RESERVED, what=self._what)
        self._clock = clock or SystemClock()
        self._watch = BrokerWatch(
            topic=transactional_id, role="transactions", settings=self._settings, clock=self._clock
        )
        self._log = structlog.get_logger("gillnet.kafka").bind(role="transactions")
        self._closed = self._fenced = False
        self._timeout_s = timeout_s
        # What a transaction holds is bounded by its queue; a delivery must not outlast the transaction that it is part of.
        delivery_s = min(delivery_timeout_s, timeout_s)
        self._queue = ProducerQueue(
            {
                "transactional.id": transactional_id,
                "transaction.timeout.ms": int(timeout_s * 1_000),
                # A broker that has stopped without closing its connections is noticed after this time.
                "socket.timeout.ms": "10000",
                # A commit sends what waits at once; this only gathers what comes before it.
                "linger.ms": "2",
            },
            bootstrap_servers=bootstrap_servers,
            settings=self._settings,
            what=self._what,
            watch=self._watch,
            clock=self._clock,
            max_queued_records=max_queued_records,
            max_queued_bytes=max_queued_bytes,
            max_record_bytes=max_record_bytes,
            delivery_timeout_s=delivery_s,
        )
        self._limits = largest_records(
            topics, bootstrap_servers=bootstrap_servers, settings=self._settings, timeout_s=open_timeout_s
        )
        try:
            self._queue.client.init_transactions(open_timeout_s)
        except KafkaException as failure:
            raise self._failure("begin", failure.args[0]) from None
        self._queue.client.begin_transaction()
        self.journal = KafkaJournal(
            journal, self._queue, bootstrap_servers=bootstrap_servers, settings=self._settings, clock=self._clock
        )

    def __repr__(self) -> str:
        return f"KafkaTransactions({self._what.split(' at ')[0]!r})"

    def sink(self, name: str) -> TransactionalSink:
        """Return a sink on one of the topics."""
        return TransactionalSink(name, self._queue, limit_bytes=self._limits[name])

    @property
    def queued_records(self) -> int:
        """Records that wait for their acknowledgement."""
        return len(self._queue)

    def commit(self) -> None:
        """Make everything that was written since the last commit visible, and begin the next transaction.

        Raises
        ------
        FencedError
            If another run has started under the same id.
        SinkError
            If a record cannot be delivered or the transaction not be committed; nothing of it is visible then.

        Notes
        -----
        A commit whose time is over goes on with the next call; what has come meanwhile is served in between. The consumer group's
        offsets are not in it: the journal has the places of every batch. (``send_offsets_to_transaction`` of librdkafka 2.16 may
        never come back when a broker is restarted.)
        """
        began_s = self._clock.monotonic_s()
        while True:
            try:
                self._queue.client.commit_transaction(SILENT_S)
            except KafkaException as failure:
                error = failure.args[0]
                if error.retriable() and self._clock.monotonic_s() - began_s < self._timeout_s:
                    self._watch.silent(self._watch.reason or f"no answer for {SILENT_S:g} s")
                    self._queue.client.poll(0)
                    continue
                raise self._failure("commit", error) from None
            break
        self._queue.client.begin_transaction()
        self._watch.seen()

    def _failure(self, what: str, error: KafkaError) -> Exception:
        try:
            self._queue.raise_if_fenced(error)
        except FencedError as fenced:
            self._fenced = True
            return fenced
        if error.txn_requires_abort():
            self._abort()
            try:
                self._queue.raise_failure()
            except SinkError as cause:
                return cause
        return SinkError(
            f"{self._what}: cannot {what}: {readable(error, self._settings)}. Nothing of this transaction is visible; start the run "
            "again, and it goes on from its checkpoint."
        )

    def _abort(self) -> None:
        try:
            self._queue.client.abort_transaction(SILENT_S)
        except KafkaException as error:
            # The next start aborts it, or the broker after the transaction's timeout.
            self._log.warning("transaction not aborted", reason=readable(error, self._settings))

    def close(self) -> None:
        """Abort what is not committed, and release."""
        if self._closed:
            return
        self._closed = True
        lost = self._fenced or self._watch.fatal is not None
        if not lost:
            self._abort()
        self._queue.close(lost=lost)
        self.journal.close()


class TransactionalSink:
    """Writes records to one topic, in the transactions that it belongs to.

    Parameters
    ----------
    topic
        Must exist.
    queue
        That of the transactions.
    limit_bytes
        The largest record that the topic takes: here a record that is refused would abort the transaction, so a side output's
        record beyond that is cut before it is sent.

    Attributes
    ----------
    cut_records
        Records of side outputs that were written cut.
    """

    def __init__(self, topic: str, queue: ProducerQueue, *, limit_bytes: int) -> None:
        self.topic = topic
        self.cut_records = 0
        self._queue = queue
        self._limit_bytes = limit_bytes
        self._log = structlog.get_logger("gillnet.kafka").bind(topic=topic, role="sink")

    def __repr__(self) -> str:
        return f"TransactionalSink(topic={self.topic!r})"

    def write(self, values: Sequence[bytes], keys: Sequence[bytes | None] | None = None) -> None:
        """Queue records in order; blocks while the queue is full."""
        self._queue.write(self.topic, values, keys)

    def write_records(self, records: Sequence[OutputRecord]) -> None:
        """Queue records with headers, in order; one that is larger than the topic takes is cut, as `KafkaSink` does."""
        for record in records:
            fitting = record
            if _size(record) > self._limit_bytes:
                self.cut_records += 1
                mend = "raise the topic's max.message.bytes"
                self._log.warning("record cut to fit the topic", original_bytes=len(record.value), mend=mend)
                fitting = cut(record) if _size(cut(record)) <= self._limit_bytes else bare(record)
            self._queue.produce(self.topic, fitting, self._queue.on_delivery)
        self._queue.rest()

    def figures(self) -> dict[str, int]:
        """Return the figures of the catalogue that this sink knows; the queue is that of all."""
        return {"queued_records": len(self._queue), "cut_records": self.cut_records}

    def flush(self) -> None:
        """Return when every record is acknowledged; it is visible after the transaction's commit only."""
        self._queue.drain()

    def close(self) -> None:
        """Do nothing: the transactions are closed as a whole."""


def _size(record: OutputRecord) -> int:
    headers = sum(len(name) + len(value or b"") + 10 for name, value in record.headers)
    return len(record.value) + len(record.key or b"") + headers + _OVERHEAD_BYTES
