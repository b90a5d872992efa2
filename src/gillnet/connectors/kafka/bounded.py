"""A read that stops: which partitions of a topic are still short of the end that they had when the read began."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


class BoundedRead:
    """Keep the ends of a topic's partitions, for a whole consumer group.

    A member has finished when every partition is read up to its end, by itself or by another member. So a partition
    that a member which died still holds is waited for and not left out.

    Parameters
    ----------
    watermarks
        Partition to (low, high) offsets when the read began; high is the offset after the last record.
    """

    def __init__(self, watermarks: Mapping[int, tuple[int, int]]) -> None:
        self._ends = {partition: high for partition, (_, high) in watermarks.items()}
        self._open = {partition for partition, (low, high) in watermarks.items() if high > low}

    @property
    def finished(self) -> bool:
        """Whether every partition has been read up to its end."""
        return not self._open

    def still_open(self, partitions: Iterable[int] | None = None) -> set[int]:
        """Return the partitions, or those among ``partitions``, that are not read up to their end."""
        return set(self._open) if partitions is None else self._open.intersection(partitions)

    def end(self, partition: int) -> int:
        """Return the offset at which the read of a partition stops; 0 for one that was added after the read began."""
        return self._ends.get(partition, 0)

    def reach(self, partition: int, position: int) -> bool:
        """Note that everything before ``position`` is read; True if that closes the partition now."""
        if partition in self._open and position >= self._ends[partition]:
            self._open.remove(partition)
            return True
        return False
