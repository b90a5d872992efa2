"""Reads one Pulsar topic through a subscription, in batches.

At-least-once: messages are acknowledged for what the run has processed (I3, I5). What each type of subscription gives:

=============  ====================================================================================================
exclusive      one consumer; order within a partition; can be read again from a checkpoint (`start_at`), record for record
failover       several consumers, each partition one's at a time; order within a partition; no checkpoints
key_shared     several consumers, each key one's at a time; order within a key; no checkpoints
=============  ====================================================================================================

With the last two the broker moves partitions and keys between consumers and tells no one, while the state of their events would stay
in a run's checkpoints: rows would be wrong in silence, so `start_at` refuses them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import pulsar
import structlog

from gillnet.connectors.pulsar.acknowledging import Acknowledgements, CumulativeAcks, SingleAcks
from gillnet.connectors.pulsar.client import Settings, check_settings, explained, make_client, open_admin
from gillnet.connectors.pulsar.ends import Ends
from gillnet.connectors.pulsar.places import envelope, ids_of, place_of, stretch_of
from gillnet.connectors.pulsar.replaying import StretchReader
from gillnet.connectors.pulsar_admin import AdminError
from gillnet.core.errors import ConfigurationError, SourceError
from gillnet.core.messages import RawBatch
from gillnet.core.time import Clock, SystemClock

if TYPE_CHECKING:
    from gillnet.connectors.pulsar.event_time import EventTimeField
    from gillnet.core.messages import Stretch

StartPosition = Literal["committed", "earliest", "latest"]
SubscriptionType = Literal["exclusive", "failover", "key_shared"]

_TYPES = {
    "exclusive": pulsar.ConsumerType.Exclusive,
    "failover": pulsar.ConsumerType.Failover,
    "key_shared": pulsar.ConsumerType.KeyShared,
}
_BUSY_RETRY_S = 0.5
_SAMPLED_EVERY_S = 2.0
_ASKED_AGAIN_S = 60.0
_QUIET_S = 2.0


class PulsarSource:
    """Read one topic as one stream.

    Parameters
    ----------
    stream
        The stream's name in the pipeline.
    topic
        ``tenant/namespace/name``, partitioned or not.
    service_url
        ``pulsar://host:port`` or ``pulsar+ssl://host:port``.
    subscription
        Its name; what was acknowledged is the subscription's.
    subscription_type
        See the table above.
    start
        ``committed`` resumes where the subscription stopped, and reads from the beginning where it never was; ``earliest`` and
        ``latest`` move it there, and are for an exclusive one.
    until_end
        Stop at the end that each partition has now: then `finished` is True.
    partition
        Read this one alone; None for all.
    receiver_queue
        Messages that may wait in the client: that is the back-pressure, for the broker sends no more.
    event_time
        The column that the message's event timestamp goes to; None where records carry their time.
    settings
        Those of ``[pulsar]``.
    open_timeout_s
        How long to wait for a broker's first answer.
    busy_timeout_s
        How long to wait for another consumer to leave an exclusive subscription: one that was killed leaves at once, one on a machine
        that is gone after the broker's keep-alive.

    Raises
    ------
    ConfigurationError
        If a setting is wrong, or the start is not for this type of subscription.
    SourceError
        If no broker answers, it refuses the access, or the subscription is another consumer's.

    Notes
    -----
    With checkpoints the last record read of each partition stays unacknowledged, so that it can be seen at a restart that nothing
    behind it is missing: a backlog of one entry a partition is none.
    """

    def __init__(  # noqa: PLR0913 - what a URI and its settings can say
        self,
        *,
        stream: str,
        topic: str,
        service_url: str,
        subscription: str,
        subscription_type: SubscriptionType = "exclusive",
        start: StartPosition = "committed",
        until_end: bool = False,
        partition: int | None = None,
        receiver_queue: int = 5_000,
        event_time: EventTimeField | None = None,
        settings: Settings | None = None,
        open_timeout_s: float = 10.0,
        busy_timeout_s: float = 60.0,
        clock: Clock | None = None,
    ) -> None:
        self.stream = stream
        self.topic = topic
        self.subscription = subscription
        self._what = f"Pulsar source {topic!r} at {service_url}"
        _check_choices(subscription_type, start, until_end=until_end, what=self._what)
        self._type, self._start = subscription_type, start
        self._service_url = service_url
        self._settings = check_settings(settings, what=self._what)
        self._admin = open_admin(self._settings)
        self._clock = clock or SystemClock()
        self._log = structlog.get_logger("gillnet.pulsar").bind(topic=topic, role="source")
        self._receiver_queue = receiver_queue
        self._busy_timeout_s = busy_timeout_s
        self._event_time = event_time
        self._positions: dict[
            int, int
        ] = {}  # The place after the last message that `poll` returned, or is to return first.
        self._anchors: dict[int, int] = {}  # Where a checkpoint stood: this message must come first, and was read then.
        self._keeps = False
        self._replaying: StretchReader | None = None
        self._ends: Ends | None = None
        self._until_end = until_end
        self._begun = self._closed = False
        self._quiet_since_s = self._sampled_s = self._clock.monotonic_s()
        self._away = False
        self._lag: int | None = None
        self._client = make_client(service_url, self._settings, timeout_s=open_timeout_s, what=self._what)
        self._consumer: Any = None
        try:
            self._topics = self._partitions_of(partition)
            self._consumer = self._subscribe(self._name)
            self._acks: Acknowledgements = SingleAcks() if subscription_type == "key_shared" else CumulativeAcks()
            if until_end:
                self._ends = Ends.read(self._client, self._topics, what=self._what)
        except pulsar.PulsarException as error:
            self._client.close()
            raise SourceError(f"{self._what}: {self._explained(error)}.") from None
        except SourceError:
            self._client.close()
            raise

    def __repr__(self) -> str:
        return f"PulsarSource(stream={self.stream!r}, topic={self.topic!r}, subscription={self.subscription!r})"

    def _explained(self, error: BaseException) -> str:
        return explained(error, topic=self.topic, service_url=self._service_url, settings=self._settings)

    def _partitions_of(self, only: int | None) -> dict[int, str]:
        whole = f"persistent://{self.topic}"
        names: list[str] = self._client.get_topic_partitions(whole)
        topics = {0: whole} if names == [whole] else {int(name.rpartition("-")[2]): name for name in names}
        self._name = whole
        if only is not None:
            if only not in topics:
                raise SourceError(f"{self._what}: it has no partition {only}, but {len(topics)} of them.")
            self._name = topics[only]
            topics = {only: topics[only]}
        return topics

    def _subscribe(self, name: str, *, inclusive: bool = False) -> Any:
        """Return a consumer; waits while another one has an exclusive subscription."""
        deadline_s = self._clock.monotonic_s() + self._busy_timeout_s
        told = False
        latest = self._start == "latest"
        while True:
            try:
                return self._client.subscribe(
                    name,
                    self.subscription,
                    consumer_type=_TYPES[self._type],
                    initial_position=pulsar.InitialPosition.Latest if latest else pulsar.InitialPosition.Earliest,
                    receiver_queue_size=self._receiver_queue,
                    max_total_receiver_queue_size_across_partitions=self._receiver_queue,
                    start_message_id_inclusive=inclusive,
                    batch_index_ack_enabled=True,
                )
            except pulsar.ConsumerBusy:
                if self._clock.monotonic_s() >= deadline_s:
                    raise
                if not told:
                    self._log.warning("another consumer has the subscription, waiting", subscription=self.subscription)
                    told = True
                self._clock.sleep(_BUSY_RETRY_S)

    # Where to begin

    def start_at(self, mark: Mapping[int, int]) -> None:
        """Begin the partitions of a mark there, whatever was acknowledged.

        Raises
        ------
        ConfigurationError
            If the broker may give partitions or keys to others while their state is in this run's checkpoints.
        """
        if self._type != "exclusive":
            raise ConfigurationError(
                f"{self._what}: a {self._type} subscription goes with no checkpoints: the broker moves its "
                f"{'keys' if self._type == 'key_shared' else 'partitions'} between consumers and tells no one, while their state would "
                "stay in this run's checkpoints. Use ?type=exclusive, or run without --checkpoints (at-least-once, state from what is "
                "read after the start)."
            )
        self._keeps = True
        self._acks = CumulativeAcks(keep_last=True)
        self._positions.update(mark)

    def _begin(self) -> None:
        """Move the subscription to where this run begins, partition by partition; then read all of them through one consumer."""
        self._begun = True
        if self._replaying is not None:
            self._replaying.close()
            self._replaying = None
        places = {p: place for p, place in self._positions.items() if place > 0 and p in self._topics}
        if missing := sorted(set(self._positions) - set(self._topics)):
            raise SourceError(
                f"{self._what}: the checkpoint has read partition {missing[0]}, and the topic has no such partition now."
            )
        moves: dict[int, Any] = {p: self._message_id(p, place - 1) for p, place in places.items()}
        if self._start != "committed":
            to = pulsar.MessageId.earliest if self._start == "earliest" else pulsar.MessageId.latest
            moves = dict.fromkeys(self._topics, to) | moves
        if moves:
            self._consumer.close()
            for number, message_id in moves.items():
                one = self._subscribe(self._topics[number], inclusive=True)
                one.seek(message_id)
                one.close()
            self._consumer = self._subscribe(self._name)
        self._anchors = {p: place - 1 for p, place in places.items()}
        if self._ends is not None:
            self._close_what_is_read(self._ends)

    def _message_id(self, partition_id: int, place: int) -> Any:
        ledger, entry, _ = ids_of(place)
        number = partition_id if "-partition-" in self._topics[partition_id] else -1
        return pulsar.MessageId(number, ledger, entry, -1)  # The whole entry: its first messages are left out again.

    def _close_what_is_read(self, ends: Ends) -> None:
        """Close the partitions of a bounded read on which nothing waits."""
        if self._start == "latest":
            ends.close_all()
        for number in list(ends.open):
            if number in self._positions:
                ends.reach(number, self._positions[number])
            elif self._start == "committed" and self._backlog(number, needed=True) == 0:
                ends.close(number)

    def _backlog(self, partition_id: int, *, needed: bool = False) -> int | None:
        if self._admin is None:
            if needed:
                raise ConfigurationError(
                    f"{self._what}: until_end=true with start=committed needs to know what waits for the subscription: give [pulsar] "
                    "admin_url, or start=earliest."
                )
            return None
        try:
            return self._admin.backlog(self._topics[partition_id].removeprefix("persistent://"), self.subscription)
        except AdminError as error:
            if needed:
                raise SourceError(str(error)) from None
            return None

    # Reading

    def poll(self, max_records: int, timeout_s: float) -> RawBatch | None:
        """Return what has come, up to ``max_records`` records, or None when none came within ``timeout_s`` seconds.

        Raises
        ------
        SourceError
            If waiting will not help: the access is refused, or records are gone that a checkpoint goes on from.
        """
        try:
            if not self._begun:
                self._begin()
            if self.finished:
                return None
            messages, partitions, places = self._receive(max_records, timeout_s)
        except pulsar.PulsarException as error:
            raise SourceError(f"{self._what}: {self._explained(error)}.") from None
        self._tend(heard=bool(messages))
        return self._batch(messages, partitions, places, self._clock.now_us()) if messages else None

    def _receive(self, max_records: int, timeout_s: float) -> tuple[list[Any], list[int], list[int]]:
        messages: list[Any] = []
        partitions: list[int] = []
        places: list[int] = []
        wait_ms = max(0, round(timeout_s * 1_000))
        receive = self._consumer.receive
        while len(messages) < max_records:
            try:
                message = receive(wait_ms)
            except pulsar.Timeout:
                break
            wait_ms = 0
            message_id = message.message_id()
            partition_id = max(message_id.partition(), 0)
            place = place_of(message_id.ledger_id(), message_id.entry_id(), message_id.batch_index())
            if not self._is_new(partition_id, place, message_id):
                continue
            messages.append(message)
            partitions.append(partition_id)
            places.append(place)
        return messages, partitions, places

    def _is_new(self, partition_id: int, place: int, message_id: Any) -> bool:
        """Note a message that came; False for one that was read before, or lies behind the end."""
        if self._anchors and (anchor := self._anchors.pop(partition_id, None)) is not None and place > anchor:
            raise StretchReader(self._client, self._topics, what=self._what).gone(partition_id, anchor)
        if self._type == "key_shared":
            if not self._acks.read(partition_id, place, message_id):
                return False  # Sent again after the connection was lost, and not done with here.
        else:
            if place < self._positions.get(partition_id, 0):
                self._acks.seen(partition_id, place, message_id)
                return False
            self._acks.read(partition_id, place, message_id)
            self._positions[partition_id] = place + 1
        if self._ends is None:
            return True
        within = self._ends.within(partition_id, place)
        self._ends.reach(partition_id, place + 1)
        return within

    def _batch(self, messages: list[Any], partitions: list[int], places: list[int], arrival_time_us: int) -> RawBatch:
        values = [message.data() for message in messages]
        original: Callable[[int], bytes | None] = _nothing
        if (column := self._event_time) is not None:
            original = values.__getitem__
            values = [column.put(value, m.event_timestamp()) for value, m in zip(values, messages, strict=True)]
        return RawBatch(
            stream=self.stream,
            values=values,
            partitions=partitions,
            arrival_time_us=arrival_time_us,
            envelope=partial(envelope, messages, places),
            stretch=lambda: stretch_of(places, partitions),
            original=original,
            recorded_arrival_us=lambda index: int(messages[index].publish_timestamp()) * 1_000,
        )

    def replay(self, stretch: Stretch, arrival_time_us: int) -> RawBatch:
        """Read the records of a stretch again; they are then behind this source, as if `poll` had returned them.

        Raises
        ------
        SourceError
            If one of them is no longer there.
        """
        if self._replaying is None:
            self._replaying = StretchReader(self._client, self._topics, what=self._what)
        try:
            messages, partitions, places = self._replaying.read(stretch)
        except pulsar.PulsarException as error:
            raise SourceError(f"{self._what}: {self._explained(error)}.") from None
        self._positions.update((number, end) for number, _, end in stretch)
        return self._batch(messages, partitions, places, arrival_time_us)

    def _tend(self, *, heard: bool) -> None:
        """Say once that the broker is away, and when it is back; the client connects again by itself."""
        now_s = self._clock.monotonic_s()
        if heard:
            self._quiet_since_s = now_s
        if (heard and not self._away) or (not heard and now_s - self._quiet_since_s < _QUIET_S):
            return
        self._quiet_since_s = now_s
        away = not self._consumer.is_connected()
        if away != self._away:
            self._away = away
            if away:
                self._log.warning("broker is away, waiting")
            else:
                self._log.info("broker is back")

    @property
    def finished(self) -> bool:
        """Whether a bounded read has reached its ends; always False for a live one."""
        return self._ends is not None and self._begun and not self._ends.open

    @property
    def partitions(self) -> frozenset[int]:
        """The topic's partitions: which ones another consumer has is not told, and those that give nothing are idle."""
        return frozenset(self._topics)

    @property
    def lag(self) -> int | None:
        """What waits for the subscription, by the admin API, in entries (batches); None without it.

        What was polled and is not acknowledged counts.
        """
        if self.finished:
            return 0
        now_s = self._clock.monotonic_s()
        if self._admin is not None and now_s - self._sampled_s >= _SAMPLED_EVERY_S:
            self._sampled_s, self._lag = now_s, 0
            for number in self._topics:
                backlog = self._backlog(number)
                if backlog is None:
                    # Whoever does not answer must not hold the run up again and again.
                    self._sampled_s, self._lag = now_s + _ASKED_AGAIN_S, None
                    break
                kept = self._keeps and number in self._positions  # The last record read, which stays unacknowledged.
                self._lag += max(0, backlog - kept)
        return self._lag

    # Acknowledging

    def mark(self) -> dict[int, int]:
        """Return the place after the last message of each partition that `poll` returned."""
        return self._acks.mark(self._positions)

    def commit(self) -> None:
        """Acknowledge everything that `poll` has returned."""
        self.commit_to(self.mark())

    def commit_to(self, mark: object) -> None:
        """Acknowledge what lies before a mark. The client sends it a moment later; what it cannot send comes again."""
        assert isinstance(mark, dict)
        try:
            self._acks.settle(mark, self._consumer)
        except pulsar.PulsarException as error:
            self._log.warning("not acknowledged, will be with the next commit", reason=self._explained(error))

    def close(self) -> None:
        """Send the acknowledgements that were asked for, leave the subscription and release. Acknowledge nothing more."""
        if self._closed:
            return
        self._closed = True
        try:
            if self._replaying is not None:
                self._replaying.close()
            self._consumer.close()
        except pulsar.PulsarException as error:
            self._log.warning("not closed in order; what was read last may come again", reason=self._explained(error))
        finally:
            self._client.close()


def _check_choices(subscription_type: str, start: str, *, until_end: bool, what: str) -> None:
    if subscription_type not in _TYPES:
        raise ConfigurationError(
            f"{what}: the subscription type {subscription_type!r} is unknown; use exclusive, failover or key_shared."
        )
    if start not in ("committed", "earliest", "latest"):
        raise ConfigurationError(f"{what}: start={start!r} is unknown; use 'committed', 'earliest' or 'latest'.")
    if start != "committed" and subscription_type != "exclusive":
        raise ConfigurationError(
            f"{what}: start={start} would move a {subscription_type} subscription under its other consumers; leave start out, or use "
            "?type=exclusive."
        )

    if until_end and subscription_type != "exclusive":
        raise ConfigurationError(
            f"{what}: until_end=true cannot be told of a {subscription_type} subscription, since others read from it too; use "
            "?type=exclusive."
        )


def _nothing(_index: int) -> None:
    return None
