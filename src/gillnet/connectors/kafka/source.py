"""Reads one Kafka topic as a member of a consumer group, in batches.

At-least-once: offsets are committed for what the run has processed and never by librdkafka itself (I3, I5). A partition
that is taken away is forgotten at once, so that a late `commit` cannot move the offsets of its new owner.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import structlog
from confluent_kafka import (
    OFFSET_BEGINNING,
    OFFSET_END,
    OFFSET_STORED,
    Consumer,
    KafkaError,
    KafkaException,
    TopicPartition,
)

from gillnet.connectors.kafka.bounded import BoundedRead
from gillnet.connectors.kafka.client import (
    SILENT_S,
    BrokerWatch,
    Settings,
    check_settings,
    check_topic,
    is_incremental,
    make_client,
    readable,
)
from gillnet.connectors.kafka.kept_partitions import KeptPartitions
from gillnet.connectors.kafka.places import envelope, stretch_of, timestamp_us
from gillnet.connectors.kafka.replaying import StretchReader
from gillnet.connectors.kafka.source_settings import DEFAULTS, RESERVED
from gillnet.core.errors import ConfigurationError, SourceError
from gillnet.core.messages import RawBatch
from gillnet.core.time import Clock, SystemClock

if TYPE_CHECKING:
    from gillnet.core.formats import RecordFormat
    from gillnet.core.messages import Stretch

StartPosition = Literal["committed", "earliest", "latest"]

_MAX_BATCH_RECORDS = 1_000_000  # A limit of confluent-kafka.
_REQUEST_TIMEOUT_S = 5.0
_RETRY_S = 1.0
_QUIET_S = 3.0
_COMMIT_WAIT_S = 10.0

_HOPELESS = frozenset(
    {
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
        KafkaError.GROUP_AUTHORIZATION_FAILED,
        KafkaError.UNKNOWN_TOPIC_OR_PART,
        KafkaError._UNKNOWN_TOPIC,
        KafkaError._INVALID_ARG,
        KafkaError.TOPIC_EXCEPTION,
        KafkaError.INCONSISTENT_GROUP_PROTOCOL,
        KafkaError.INVALID_SESSION_TIMEOUT,
        KafkaError.FENCED_INSTANCE_ID,
    }
)


class KafkaSource:
    """Read one topic as one stream.

    Parameters
    ----------
    stream
        The stream's name in the pipeline.
    topic
        Must exist; see `ensure_topics`.
    bootstrap_servers
        ``host:port``, several with commas.
    group
        The consumer group: members share the partitions, and the committed offsets are the group's.
    start
        ``committed`` resumes where the group stopped, and reads from the beginning where it never was; ``earliest`` and ``latest`` begin
        there whatever the group committed. They apply to the first assignment only: a partition that comes later, from another member,
        resumes where that one stopped.
    until_end
        Stop at the end that each partition had when it was assigned: then `finished` is True.
    partition
        Read this one alone, without joining the group, whose offsets are committed all the same; None shares all with the group's
        members.
    settings
        librdkafka's settings, as strings: TLS, SASL, ``isolation.level``, ``partition.assignment.strategy`` and so on.
    record_format
        What the values are; None for JSON.
    open_timeout_s
        How long to wait for a broker's first answer.

    Raises
    ------
    ConfigurationError
        If a setting is unknown or wrong.
    SourceError
        If no broker answers or the topic does not exist.

    Attributes
    ----------
    expired_records
        Records that the topic's retention removed before they were read. Each time is also logged as an error.

    Notes
    -----
    Memory: the local queue holds at most 20,000 records per partition and about 32 MB (``queued.min.messages``,
    ``queued.max.messages.kbytes``), then fetching pauses: that is the back-pressure.

    A broker that is away for less than the group's ``session.timeout.ms`` (45 s) costs nothing but the wait. After a longer outage the
    member joins anew: what was not committed is read again, and the old membership holds its partitions until it expires, up to 45 s
    after the broker is back.
    """

    def __init__(
        self,
        *,
        stream: str,
        topic: str,
        bootstrap_servers: str,
        group: str,
        start: StartPosition = "committed",
        until_end: bool = False,
        partition: int | None = None,
        settings: Settings | None = None,
        record_format: RecordFormat | None = None,
        open_timeout_s: float = 10.0,
        clock: Clock | None = None,
    ) -> None:
        what = f"Kafka source {topic!r} at {bootstrap_servers}"
        if start not in ("committed", "earliest", "latest"):
            raise ConfigurationError(f"{what}: start={start!r} is unknown; use 'committed', 'earliest' or 'latest'.")
        self.stream = stream
        self.topic, self._format = topic, record_format
        self._what = what
        self._clock = clock or SystemClock()
        self._settings = check_settings(settings, reserved=RESERVED, what=what)
        self._log = structlog.get_logger("gillnet.kafka").bind(topic=topic, role="source")
        self._watch = BrokerWatch(topic=topic, role="source", settings=self._settings, clock=self._clock)
        self._start: StartPosition = start
        self._incremental = is_incremental(self._settings)
        self._assigned_once = False
        self._begins: dict[int, int] = {}  # Where each partition was begun; may be logical, such as OFFSET_END.
        self._positions: dict[int, int] = {}  # The offset after the last one that `poll` returned.
        self._given: dict[int, int] = {}  # Where a run's own checkpoint says to begin.
        session_s = int(self._settings.get("session.timeout.ms", 45_000)) / 1_000
        self._kept = KeptPartitions(what, wait_s=session_s + _REQUEST_TIMEOUT_S, clock=self._clock)
        self._replaying: StretchReader | None = None
        self._subscribed = False
        self._only = partition
        self._to_reset: set[int] = set()  # Partitions whose offset the broker does not hold.
        self._bounded: BoundedRead | None = None
        self._to_commit: dict[int, int] = {}
        self._committed: dict[int, int] = {}
        self._commit_in_flight = False
        self._retry_commit_at_s: float | None = None
        self._probe_at_s = 0.0
        self._answered_s = self._clock.monotonic_s()  # When the broker last gave a record or answered a probe.
        self._unanswered_since_s: float | None = None  # The first probe after that which it did not answer.
        self._group_check_at_s = 0.0
        self._hopeless: str | None = None
        self._closed = False
        self.expired_records = 0
        self._config = {
            **DEFAULTS,
            "bootstrap.servers": bootstrap_servers,
            "group.id": group,
            "enable.partition.eof": until_end,
            "error_cb": self._watch,
            "on_commit": self._on_commit,
        }
        self._consumer: Any = make_client(Consumer, self._config, settings=self._settings, what=what)
        try:
            self._open(until_end=until_end, timeout_s=open_timeout_s)
        except SourceError:
            self._consumer.close()
            raise

    def _open(self, *, until_end: bool, timeout_s: float) -> None:
        partitions = check_topic(
            self._consumer,
            self.topic,
            timeout_s=timeout_s,
            watch=self._watch,
            settings=self._settings,
            what=self._what,
            error_class=SourceError,
        )
        if self._only is not None:
            if self._only not in partitions:
                raise SourceError(f"{self._what}: it has no partition {self._only}, but {len(partitions)} of them.")
            partitions = [self._only]
        self._needed = partitions
        if until_end:
            try:
                self._bounded = BoundedRead({p: self._watermarks(p, timeout_s=timeout_s) for p in partitions})
            except KafkaException as error:
                raise SourceError(
                    f"{self._what}: its ends cannot be read: {readable(error, self._settings)}."
                ) from None

    def __repr__(self) -> str:
        return f"KafkaSource(stream={self.stream!r}, topic={self.topic!r}, partitions={sorted(self._begins)})"

    # Reading

    def poll(self, max_records: int, timeout_s: float) -> RawBatch | None:
        """Return what has come, up to ``max_records`` records, or None when none came within ``timeout_s`` seconds.

        Raises
        ------
        SourceError
            If waiting will not help: the topic is gone, or the access is refused.
        """
        if not self._subscribed:
            self._subscribe()
        messages = self._consume(min(max_records, _MAX_BATCH_RECORDS), timeout_s)
        self._kept.check()
        now_us = self._clock.now_us()
        events = [message for message in messages if message.error() is not None]
        if events:
            messages = [message for message in messages if message.error() is None]
        partitions = [message.partition() for message in messages]
        if messages:
            # dict() keeps the last message of each partition.
            last = {p: message.offset() for p, message in dict(zip(partitions, messages, strict=True)).items()}
            if self._bounded is not None and self._reach(self._bounded, last):
                messages = [m for m in messages if m.offset() < self._bounded.end(m.partition())]
                partitions = [message.partition() for message in messages]
            self._positions.update((p, offset + 1) for p, offset in last.items() if p in self._begins)
            self._kept.read(last)
        for event in events:
            self._on_event(event)
        self._tend(heard=bool(messages))
        return self._batch(messages, partitions, now_us) if messages else None

    def _subscribe(self) -> None:
        """Join the group: with the first poll, so that a run which replays for long beforehand is no silent member."""
        self._subscribed = True
        if self._replaying is not None:
            self._replaying.close()
            self._replaying = None
        if self._only is not None:
            self._on_assign(self._consumer, [TopicPartition(self.topic, self._only)])
            return
        self._consumer.subscribe(
            [self.topic], on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_revoke
        )

    def _batch(self, messages: list[Any], partitions: list[int], arrival_time_us: int) -> RawBatch:
        return RawBatch(
            stream=self.stream,
            values=[message.value() or b"" for message in messages],
            partitions=partitions,
            arrival_time_us=arrival_time_us,
            envelope=partial(envelope, messages),
            offset=lambda index: int(messages[index].offset()),
            stretch=lambda: stretch_of(messages, partitions),
            recorded_arrival_us=partial(timestamp_us, messages),
            format=self._format,
        )

    def replay(self, stretch: Stretch, arrival_time_us: int) -> RawBatch:
        """Read the records of a stretch again; they are then behind this source, as if `poll` had returned them.

        Raises
        ------
        SourceError
            If one of them is no longer there.
        """
        if self._replaying is None:
            self._replaying = StretchReader(
                self.topic, self._config, settings=self._settings, what=self._what, clock=self._clock
            )
        messages = self._replaying.read(stretch)
        self._given.update((partition, end) for partition, _, end in stretch)
        if self._bounded is not None:
            for partition, _, end in stretch:
                self._bounded.reach(partition, end)
        return self._batch(messages, [message.partition() for message in messages], arrival_time_us)

    def _consume(self, max_records: int, timeout_s: float) -> list[Any]:
        # librdkafka waits until the batch is full or the time is over. Take what is there, and wait for one record only
        # if nothing is: an event at a low rate must not wait for others.
        messages: list[Any] = self._consumer.consume(max_records, 0)
        if not messages and timeout_s > 0:
            messages = self._consumer.consume(1, timeout_s)
            if messages and max_records > 1:
                messages += self._consumer.consume(max_records - 1, 0)
        return messages

    def _reach(self, bounded: BoundedRead, last: dict[int, int]) -> bool:
        """Note the last offsets read; True if some lie beyond their end. Cuts ``last`` to the ends."""
        closed = [p for p, offset in last.items() if bounded.reach(p, offset + 1)]
        if closed:
            self._consumer.pause([TopicPartition(self.topic, p) for p in closed if p in self._begins])
        beyond = [p for p, offset in last.items() if offset >= bounded.end(p)]
        last.update((p, bounded.end(p) - 1) for p in beyond)
        return bool(beyond)

    def _on_event(self, event: Any) -> None:
        error = event.error()
        code = error.code()
        if code == KafkaError._PARTITION_EOF:
            if self._bounded is not None:
                self._bounded.reach(event.partition(), event.offset())
        elif code == KafkaError._AUTO_OFFSET_RESET:
            self._to_reset.add(event.partition())
        elif code in _HOPELESS or error.fatal():
            self._hopeless = readable(error, self._settings)
        else:
            self._log.debug("kafka event", reason=readable(error, self._settings))

    def _tend(self, *, heard: bool) -> None:
        """Do what waits for time to pass or for the broker; cheap when nothing does."""
        if self._hopeless is not None:
            raise SourceError(f"{self._what}: {self._hopeless}.")
        if self._retry_commit_at_s is not None and self._clock.monotonic_s() >= self._retry_commit_at_s:
            self._send_commit()
        for partition_id in list(self._to_reset):
            self._reset(partition_id)
        self._watch.settle()
        if heard and not self._watch.away:
            self._note_answer()
        else:
            # While it is away, records are no sign of the broker: they may have waited in the local queue.
            self._probe_if_due()
        if self._bounded is not None and not heard:
            self._ask_the_group(self._bounded)

    def _note_answer(self) -> None:
        self._answered_s = self._clock.monotonic_s()
        self._unanswered_since_s = None

    def _probe_if_due(self) -> None:
        """Ask whether the broker is there, for a topic on which nothing comes.

        A broker that is frozen keeps its connections: librdkafka tells of it late, or not at all.
        """
        now_s = self._clock.monotonic_s()
        quiet = self._watch.away or now_s - self._answered_s >= _QUIET_S
        if not quiet or now_s < self._probe_at_s:
            return
        self._probe_at_s = now_s + _RETRY_S
        try:
            self._consumer.list_topics(self.topic, timeout=0.2)
        except KafkaException:
            self._unanswered_since_s = self._unanswered_since_s or now_s
            if now_s - self._unanswered_since_s >= SILENT_S:
                self._watch.silent(f"no answer for {SILENT_S:g} s")
        else:
            self._note_answer()
            self._watch.seen()

    def _ask_the_group(self, bounded: BoundedRead) -> None:
        """Close the partitions that other members have read up to their end and committed."""
        others = bounded.still_open() - self._begins.keys()
        if not others or bounded.still_open(self._begins) or self._clock.monotonic_s() < self._group_check_at_s:
            return
        self._group_check_at_s = self._clock.monotonic_s() + _RETRY_S
        try:
            found = self._consumer.committed(
                [TopicPartition(self.topic, p) for p in others], timeout=_REQUEST_TIMEOUT_S
            )
        except KafkaException:
            return
        for offset in found:
            bounded.reach(offset.partition, offset.offset)

    @property
    def finished(self) -> bool:
        """Whether a bounded read has reached its ends; always False for a live one."""
        return self._bounded is not None and self._bounded.finished

    @property
    def partitions(self) -> frozenset[int]:
        """The partitions that the group has given to this member."""
        return frozenset(self._begins)

    @property
    def lag(self) -> int | None:
        """Records between what `poll` returned and the ends last heard from the broker.

        None until partitions are assigned. Asks librdkafka's memory and not the broker.
        """
        known = [self._lag_of(p) for p in self._begins]
        told = [lag for lag in known if lag is not None]
        return sum(told) if told else None

    def _lag_of(self, partition_id: int) -> int | None:
        low, high = self._consumer.get_watermark_offsets(TopicPartition(self.topic, partition_id), cached=True) or (
            -1,
            -1,
        )
        position = self._positions.get(partition_id, self._begins[partition_id])
        if high < 0:
            return None
        return max(0, high - (position if position >= 0 else max(low, 0)))

    def figures(self) -> dict[str, int]:
        """Return the figures of the catalogue that this source knows."""
        return {"expired_records": self.expired_records}

    # Assignment

    def _on_assign(self, _consumer: object, partitions: list[Any]) -> None:
        begins = self._begin_offsets([partition.partition for partition in partitions])
        given = {p: self._given.pop(p) for p in begins if p in self._given}
        begins |= given
        self._begins.update(begins)
        self._positions.update((p, offset) for p, offset in begins.items() if offset >= 0)
        self._take([TopicPartition(self.topic, p, offset) for p, offset in begins.items()])
        if self._kept.assigned(given, self._begins):
            hold = self._consumer.pause if self._kept.waits else self._consumer.resume
            hold([TopicPartition(self.topic, p) for p in self._begins])
        if begins and not self._assigned_once:
            self._assigned_once = True
            if self._start == "latest":
                # From now on this is where the group stands. Without a commit, a partition that moves to another member
                # before the first record would be read from its beginning.
                self.commit()
        self._log.debug("partitions assigned", partitions=sorted(self._begins))

    def _take(self, partitions: list[Any]) -> None:
        if self._incremental:
            self._consumer.incremental_assign(partitions)
        else:
            self._consumer.assign(partitions)

    def _begin_offsets(self, ids: list[int]) -> dict[int, int]:
        """Return where to begin; where the broker does not answer, logical offsets that librdkafka resolves later."""
        if self._start == "earliest" and not self._assigned_once:
            return dict.fromkeys(ids, OFFSET_BEGINNING)
        try:
            if self._start == "latest" and not self._assigned_once:
                return {p: self._watermarks(p, timeout_s=_REQUEST_TIMEOUT_S)[1] for p in ids}
            found = self._consumer.committed([TopicPartition(self.topic, p) for p in ids], timeout=_REQUEST_TIMEOUT_S)
        except KafkaException as error:
            self._log.debug("offsets unknown as yet", reason=readable(error, self._settings))
            return dict.fromkeys(
                ids, OFFSET_END if self._start == "latest" and not self._assigned_once else OFFSET_STORED
            )
        self._committed.update((f.partition, f.offset) for f in found if f.offset >= 0)
        self._kept.committed(found)
        return {f.partition: f.offset if f.offset >= 0 else OFFSET_BEGINNING for f in found}

    def _watermarks(self, partition_id: int, *, timeout_s: float) -> tuple[int, int]:
        found = self._consumer.get_watermark_offsets(TopicPartition(self.topic, partition_id), timeout=timeout_s)
        if found is None:
            raise KafkaException(KafkaError(KafkaError._TIMED_OUT))
        low, high = found
        return low, high

    def _on_revoke(self, _consumer: object, partitions: list[Any]) -> None:
        """Forget the partitions: what was read of them and not committed is the new owner's, unless this run keeps state."""
        taken = {p.partition: self._positions[p.partition] for p in partitions if p.partition in self._positions}
        self._given |= self._kept.revoked(taken)
        for partition in partitions:
            for known in (self._begins, self._positions, self._to_commit, self._committed):
                known.pop(partition.partition, None)
            self._to_reset.discard(partition.partition)

    def _reset(self, partition_id: int) -> None:
        """Go to the first offset that the broker holds, after it said that it does not hold the wanted one."""
        try:
            low, high = self._watermarks(partition_id, timeout_s=_REQUEST_TIMEOUT_S)
        except KafkaException:
            return  # Tried again by the next poll.
        self._to_reset.discard(partition_id)
        wanted = self._positions.get(partition_id, self._begins.get(partition_id, OFFSET_BEGINNING))
        if 0 <= wanted < low:
            self.expired_records += low - wanted
            self._log.error("records expired before they were read", partition=partition_id, records=low - wanted)
        elif wanted > high:
            self._log.error(
                "the topic was made anew, reading it from its beginning", partition=partition_id, offset=wanted
            )
        self._begins[partition_id] = self._positions[partition_id] = low
        moved = [TopicPartition(self.topic, partition_id, low)]
        if self._incremental:
            self._consumer.incremental_unassign(moved)
            self._consumer.incremental_assign(moved)
        else:
            places = {**self._begins, **self._positions}
            self._consumer.assign([TopicPartition(self.topic, p, offset) for p, offset in places.items()])

    # Committing

    def commit(self) -> None:
        """Commit the positions of everything that `poll` has returned.

        Does not wait: one request is under way at a time, and the next one carries the newest positions. A commit that
        fails is tried again; `close` waits for the last one. A process that dies in between reads those records again.
        """
        self.commit_to(self._positions)

    def mark(self) -> dict[int, int]:
        """Return the offset after the last record of each partition that `poll` returned."""
        # A partition that is not assigned yet is where a checkpoint says; one that has had no record yet, at its beginning.
        unread = {p: begin for p, begin in self._begins.items() if begin == OFFSET_BEGINNING}
        return {**self._given, **unread, **self._positions}

    def start_at(self, mark: Mapping[int, int]) -> None:
        """Begin the partitions of a mark there when they are first assigned, whatever the group committed."""
        self._given = dict(mark)
        self._kept.begin(self._needed)

    def commit_to(self, mark: object) -> None:
        """Commit the positions of a mark, as `commit` does; partitions that were taken away since are left out."""
        assert isinstance(mark, dict)
        mine = ((p, offset) for p, offset in mark.items() if p in self._begins and offset >= 0)
        self._to_commit.update((p, offset) for p, offset in mine if self._committed.get(p, -1) != offset)
        self._send_commit()

    def _send_commit(self) -> None:
        if self._commit_in_flight or not self._to_commit:
            return
        self._retry_commit_at_s = None
        offsets = [TopicPartition(self.topic, p, offset, self._kept.note(p)) for p, offset in self._to_commit.items()]
        try:
            self._consumer.commit(offsets=offsets, asynchronous=True)
        except KafkaException as error:
            self._commit_failed(error)
        else:
            self._commit_in_flight = True

    def _on_commit(self, error: KafkaError | None, partitions: list[Any]) -> None:
        self._commit_in_flight = False
        refused = error
        for partition in partitions:
            p, offset = partition.partition, partition.offset
            if error is None and partition.error is None:
                if p in self._begins:
                    self._committed[p] = offset
                if self._to_commit.get(p) == offset:
                    del self._to_commit[p]
            elif p in self._to_commit:
                refused = refused or partition.error
        if not self._to_commit:
            return
        if refused is None:
            self._send_commit()
        else:
            self._commit_failed(refused)

    def _commit_failed(self, error: object) -> None:
        self._retry_commit_at_s = self._clock.monotonic_s() + _RETRY_S
        if not self._watch.away:
            self._log.warning("offsets not committed, trying again", reason=readable(error, self._settings))

    def close(self) -> None:
        """Wait for the commits that were asked for (10 s at most), leave the group and release. Commit nothing more."""
        if self._closed:
            return
        self._closed = True
        deadline_s = self._clock.monotonic_s() + _COMMIT_WAIT_S
        try:
            while self._to_commit and self._clock.monotonic_s() < deadline_s:
                # Callbacks are served by consume; a record that it returns is not committed, so it will be read again.
                self._consumer.consume(1, 0.02)
                if self._retry_commit_at_s is not None and self._clock.monotonic_s() >= self._retry_commit_at_s:
                    self._send_commit()
            if self._to_commit:
                self._log.warning(
                    "offsets not committed; these records will be read again", partitions=list(self._to_commit)
                )
        finally:
            if self._replaying is not None:
                self._replaying.close()
            self._consumer.close()
