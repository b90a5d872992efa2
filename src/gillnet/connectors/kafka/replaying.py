"""Reads given stretches of a topic again, in their very order, outside of the consumer group."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

from confluent_kafka import Consumer, KafkaError, TopicPartition

from gillnet.connectors.kafka.client import SILENT_S, BrokerWatch, Settings, make_client, readable
from gillnet.core.errors import SourceError

if TYPE_CHECKING:
    from gillnet.core.messages import Stretch
    from gillnet.core.time import Clock

_AT_ONCE = 4_096
_WAIT_S = 0.2
# Of a partition whose turn has not come: then it is paused, so that a fast one does not fill the memory.
_MOST_WAITING = 20_000


class StretchReader:
    """Reads partitions of one topic from given offsets.

    Parameters
    ----------
    config
        The source's settings of librdkafka.
    """

    def __init__(self, topic: str, config: dict[str, Any], *, settings: Settings, what: str, clock: Clock) -> None:
        self._topic = topic
        self._what = what
        self._settings = settings
        self._clock = clock
        self._watch = BrokerWatch(topic=topic, role="replay", settings=settings, clock=clock)
        own = {**config, "enable.partition.eof": True, "error_cb": self._watch}
        own.pop("on_commit", None)
        # As no member of the group: the same stretches are read whoever has the partitions now.
        passed = {name: value for name, value in settings.items() if not name.startswith("group.")}
        self._consumer: Any = make_client(Consumer, own, settings=passed, what=what)
        self._waiting: dict[int, deque[Any]] = {}
        self._paused: set[int] = set()
        self._ends: dict[int, int] = {}
        self._heard_s = clock.monotonic_s()

    def read(self, stretch: Stretch) -> list[Any]:
        """Return the messages of a stretch, in its order.

        Raises
        ------
        SourceError
            If one is no longer there.
        """
        messages: list[Any] = []
        for partition, begin, end in stretch:
            self._begin(partition, begin)
            messages += self._run(partition, end)
        return messages

    def _begin(self, partition: int, offset: int) -> None:
        if partition not in self._waiting:
            self._waiting[partition] = deque()
            self._consumer.incremental_assign([TopicPartition(self._topic, partition, offset)])

    def _run(self, partition: int, end: int) -> list[Any]:
        """Return the messages of a partition up to offset ``end``: it is that after the last one of a run."""
        waiting = self._waiting[partition]
        taken: list[Any] = []
        while not taken or taken[-1].offset() < end - 1:
            while not waiting:
                if self._ends.get(partition, end) < end:
                    raise self._gone(partition, end - 1)
                self._fetch(partition)
            message = waiting.popleft()
            if message.offset() >= end:
                raise self._gone(partition, end - 1)
            taken.append(message)
        return taken

    def _fetch(self, wanted: int) -> None:
        if wanted in self._paused:
            self._paused.remove(wanted)
            self._consumer.resume([TopicPartition(self._topic, wanted)])
        for message in self._consumer.consume(_AT_ONCE, _WAIT_S):
            if message.error() is None:
                self._heard_s = self._clock.monotonic_s()
                self._waiting[message.partition()].append(message)
            else:
                self._on_event(message)
        if self._clock.monotonic_s() - self._heard_s > SILENT_S:
            self._watch.silent(self._watch.reason or f"no answer for {SILENT_S:g} s")
        for partition, waiting in self._waiting.items():
            if partition != wanted and partition not in self._paused and len(waiting) > _MOST_WAITING:
                self._paused.add(partition)
                self._consumer.pause([TopicPartition(self._topic, partition)])

    def _on_event(self, event: Any) -> None:
        error = event.error()
        if error.code() == KafkaError._PARTITION_EOF:
            self._ends[event.partition()] = event.offset()  # Told once; nothing that a run had read lies behind it.
        elif error.code() == KafkaError._AUTO_OFFSET_RESET:
            raise self._gone(event.partition(), event.offset())
        elif error.fatal() or not error.retriable():
            raise SourceError(f"{self._what}: {readable(error, self._settings)}.")

    def _gone(self, partition: int, offset: int) -> SourceError:
        return SourceError(
            f"{self._what}: record {offset} of partition {partition} was read before the run ended and is no longer there: the topic's "
            "retention removed it, or the topic was made anew. Name an empty place of checkpoints to begin with empty state."
        )

    def close(self) -> None:
        """Release."""
        self._consumer.close()
