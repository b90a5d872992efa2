"""What of a subscription may be acknowledged, and when.

A mark is what a run keeps of where a source was. The client acknowledges message ids, not places, so the ids that belong to the marks
that were given out are kept here until they are settled.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Any, Protocol


class Acknowledgements(Protocol):
    """A way to acknowledge."""

    def read(self, partition: int, place: int, message_id: Any) -> bool:
        """Note a message; False if it is known, and not acknowledged."""
        ...

    def seen(self, partition: int, place: int, message_id: Any) -> None:
        """Note a message that came again."""
        ...

    def mark(self, positions: Mapping[int, int]) -> dict[int, int]:
        """Return a mark, of everything that was read."""
        ...

    def settle(self, mark: Mapping[int, int], consumer: Any) -> None:
        """Acknowledge what a mark stands for."""
        ...


class CumulativeAcks:
    """Everything of a partition up to a message, for subscriptions that keep its order.

    Parameters
    ----------
    keep_last
        Leave the entry with the last message unacknowledged, so that the broker keeps it.
    """

    def __init__(self, *, keep_last: bool = False) -> None:
        self._keep_last = keep_last
        self._last: dict[int, tuple[int, Any]] = {}  # The place after a partition's last message, and its id;
        self._before: dict[int, Any] = {}  # the last id of an entry before that one.
        self._marked: dict[int, deque[tuple[int, Any]]] = {}

    def read(self, partition: int, place: int, message_id: Any) -> bool:
        """Note a message; they come in order."""
        if self._keep_last and (last := self._last.get(partition)) is not None:
            entry = (last[1].ledger_id(), last[1].entry_id())
            if entry != (message_id.ledger_id(), message_id.entry_id()):
                self._before[partition] = last[1]
        self._last[partition] = (place + 1, message_id)
        return True

    def seen(self, partition: int, place: int, message_id: Any) -> None:
        """Note a message that came again: after a start it may be all that there is of what a mark stands for."""
        if partition not in self._last:
            self.read(partition, place, message_id)

    def mark(self, positions: Mapping[int, int]) -> dict[int, int]:
        """Return the positions, and keep the ids that they stand for."""
        for partition, (position, message_id) in self._last.items():
            found = self._before.get(partition) if self._keep_last else message_id
            marked = self._marked.setdefault(partition, deque())
            if found is not None and (not marked or marked[-1][0] < position):
                marked.append((position, found))
        return dict(positions)

    def settle(self, mark: Mapping[int, int], consumer: Any) -> None:
        """Acknowledge each partition up to its position in the mark."""
        for partition, position in mark.items():
            marked = self._marked.get(partition, deque())
            newest = None
            while marked and marked[0][0] <= position:
                newest = marked.popleft()
            if newest is not None:
                consumer.acknowledge_cumulative(newest[1])


class SingleAcks:
    """Each message by itself, for subscriptions that share a partition."""

    def __init__(self) -> None:
        self._read = 0
        self._waiting: dict[tuple[int, int], tuple[int, Any]] = {}

    @property
    def waiting(self) -> int:
        """Messages that were read and are not acknowledged; the broker's maxUnackedMessagesPerConsumer bounds them."""
        return len(self._waiting)

    def read(self, partition: int, place: int, message_id: Any) -> bool:
        """Note a message; False if it came again while it waits here."""
        if (partition, place) in self._waiting:
            return False
        self._read += 1
        self._waiting[partition, place] = (self._read, message_id)
        return True

    def seen(self, partition: int, place: int, message_id: Any) -> None:
        """Do nothing: it waits as it did."""

    def mark(self, positions: Mapping[int, int]) -> dict[int, int]:  # noqa: ARG002
        """Return how many were read."""
        return {0: self._read}

    def settle(self, mark: Mapping[int, int], consumer: Any) -> None:
        """Acknowledge the messages that were read by then."""
        done = []
        for known, (number, message_id) in self._waiting.items():  # In the order in which they were read.
            if number > mark.get(0, 0):
                break
            consumer.acknowledge(message_id)
            done.append(known)
        for known in done:
            del self._waiting[known]
