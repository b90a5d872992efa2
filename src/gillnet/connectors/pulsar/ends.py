"""A read that stops: which partitions of a topic are still short of the end that they had when the read began."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pulsar

from gillnet.connectors.pulsar.places import place_of
from gillnet.core.errors import SourceError

if TYPE_CHECKING:
    from collections.abc import Mapping

_WAIT_MS = 10_000


class Ends:
    """The ends of partitions.

    Parameters
    ----------
    ends
        Partition to the place after its last message.

    Attributes
    ----------
    open
        The partitions that are not read up to their end.
    """

    def __init__(self, ends: Mapping[int, int]) -> None:
        self._ends = dict(ends)
        self.open = set(ends)

    @classmethod
    def read(cls, client: Any, topics: Mapping[int, str], *, what: str) -> Ends:
        """Ask for the last message of each partition.

        Raises
        ------
        SourceError
            If a partition has one and does not give it.
        """
        found = {number: _last(client, topic, what) for number, topic in topics.items()}
        return cls({number: end for number, end in found.items() if end is not None})

    def within(self, partition: int, place: int) -> bool:
        """Whether a message is before the end."""
        return place < self._ends.get(partition, 0)

    def reach(self, partition: int, position: int) -> None:
        """Note that everything before ``position`` is read."""
        if position >= self._ends.get(partition, 0):
            self.open.discard(partition)

    def close(self, partition: int) -> None:
        """Note that a partition has nothing to give."""
        self.open.discard(partition)

    def close_all(self) -> None:
        """Note that none has."""
        self.open.clear()


def _last(client: Any, topic: str, what: str) -> int | None:
    reader = client.create_reader(topic, pulsar.MessageId.latest, start_message_id_inclusive=True)
    try:
        if not reader.has_message_available():
            return None
        found = reader.read_next(_WAIT_MS).message_id()
    except pulsar.Timeout:
        raise SourceError(f"{what}: the last message of {topic} does not come; is the broker well?") from None
    finally:
        reader.close()
    return place_of(found.ledger_id(), found.entry_id(), found.batch_index()) + 1
