"""Reads given stretches of a topic again, in their very order, beside the subscription: by a reader for each partition."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pulsar

from gillnet.connectors.pulsar.places import ids_of, place_of
from gillnet.core.errors import SourceError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gillnet.core.messages import Stretch

_WAIT_MS = 2_000
_QUEUE = 1_000


class StretchReader:
    """Reads partitions of one topic from given places.

    Parameters
    ----------
    topics
        The name of each partition.
    """

    def __init__(self, client: Any, topics: Mapping[int, str], *, what: str) -> None:
        self._client = client
        self._topics = topics
        self._what = what
        self._readers: dict[int, Any] = {}

    def read(self, stretch: Stretch) -> tuple[list[Any], list[int], list[int]]:
        """Return the messages of a stretch in its order, with their partitions and places.

        Raises
        ------
        SourceError
            If one is no longer there.
        """
        messages: list[Any] = []
        partitions: list[int] = []
        places: list[int] = []
        for partition, begin, end in stretch:
            place, first = -1, True
            while place != end - 1:
                message, place = self._next(partition, begin)
                if place < begin:
                    continue  # A reader begins with a whole entry.
                if (first and place != begin) or place >= end:
                    raise self.gone(partition, begin)
                first = False
                messages.append(message)
                partitions.append(partition)
                places.append(place)
        return messages, partitions, places

    def _next(self, partition: int, begin: int) -> tuple[Any, int]:
        if partition not in self._topics:
            raise self.gone(partition, begin)
        if partition not in self._readers:
            ledger, entry, _ = ids_of(begin)
            number = partition if "-partition-" in self._topics[partition] else -1
            self._readers[partition] = self._client.create_reader(
                self._topics[partition],
                pulsar.MessageId(number, ledger, entry, -1),
                receiver_queue_size=_QUEUE,
                start_message_id_inclusive=True,
            )
        reader = self._readers[partition]
        while True:
            try:
                message = reader.read_next(_WAIT_MS)
            except pulsar.Timeout:
                if not reader.has_message_available():
                    raise self.gone(partition, begin) from None
                continue
            found = message.message_id()
            return message, place_of(found.ledger_id(), found.entry_id(), found.batch_index())

    def gone(self, partition: int, place: int) -> SourceError:
        """Return the error of a record that should be there."""
        return SourceError(
            f"{self._what}: record {':'.join(map(str, ids_of(place)))} of partition {partition} was read before the run ended and is no "
            "longer there: the namespace's "
            "retention or TTL removed it, or the topic was made anew. Name an empty place of checkpoints to begin with empty state, "
            "and let the namespace retain what a restart needs: pulsar-admin namespaces set-retention."
        )

    def close(self) -> None:
        """Release."""
        for reader in self._readers.values():
            reader.close()
        self._readers.clear()
