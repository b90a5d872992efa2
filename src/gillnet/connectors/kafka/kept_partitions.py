"""The partitions whose records are in a run's state, and what becomes of them when the group is rebalanced.

A group may take every partition from a member and give it the same ones back: then the run goes on where it stood, which is behind
what it committed. One that does not come back is another member's, while the state of its keys is here: a run that went on would
give rows that are wrong, and so would the other, so the run ends and says so.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from gillnet.core.errors import SourceError


class KeptPartitions:
    """Knows which partitions were taken away and have not come back; nothing while no state is kept.

    Parameters
    ----------
    what
        The source's words for itself, for the message.
    """

    def __init__(self, what: str) -> None:
        self._what = what
        self._keeps = False
        self._away: set[int] = set()
        self._lost: set[int] = set()

    def begin(self) -> None:
        """From now on partitions must come back."""
        self._keeps = True

    def revoked(self, positions: Mapping[int, int]) -> dict[int, int]:
        """Note that partitions were taken away; return where they must go on if they come back."""
        if not self._keeps:
            return {}
        self._away.update(positions)
        return dict(positions)

    def assigned(self, partitions: Iterable[int]) -> None:
        """Note what the group has given: it is complete, or behind what was taken away."""
        self._lost |= self._away.difference(partitions)
        self._away.clear()

    def check(self) -> None:
        """Raise where a partition is another member's now.

        Raises
        ------
        SourceError
            If so; waiting will not help.
        """
        if self._lost:
            names = ", ".join(map(str, sorted(self._lost)))
            raise SourceError(
                f"{self._what}: the group gave partition {names} to another member, and the state of its keys is in this run's "
                "checkpoints. Let one run read each group (?group=; --workers N uses the cores of a machine), and start this one "
                "again: it goes on from its last checkpoint."
            )
