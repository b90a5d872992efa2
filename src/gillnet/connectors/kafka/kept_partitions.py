"""The partitions whose records are in a run's state, and what becomes of them when the group is rebalanced.

The state of a partition's keys is in the checkpoints of the run that read it, and nowhere else. So a run that keeps state reads its
topic alone. A group may take every partition from it and give it the same ones back: then it goes on where it stood, which is behind
what it committed. Where one does not come back, or another run's state has what comes before, its rows would be wrong: it ends and
says so. At the start it reads nothing until it has every partition, since a member that has died holds some for a while.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from gillnet.core.errors import SourceError
from gillnet.core.time import Clock

IN_A_STATE = "gillnet: in the checkpoints of a run"
"""What a committed offset says beside its number, where what lies before it is in the state of a run that keeps it."""


class KeptPartitions:
    """Knows which partitions are another member's, or in another run's state; nothing while no state is kept.

    Parameters
    ----------
    what
        The source's words for itself, for the message.
    wait_s
        How long to wait for all partitions at the start: longer than a dead member holds its own.
    """

    def __init__(self, what: str, *, wait_s: float, clock: Clock) -> None:
        self._what = what
        self._wait_s = wait_s
        self._clock = clock
        self._keeps = False
        self._all: frozenset[int] = frozenset()
        self._in_state: set[int] = set()
        self._away: set[int] = set()
        self._lost: set[int] = set()
        self._others: set[int] = set()
        self._missing: frozenset[int] = frozenset()
        self._missing_until_s: float | None = None

    def begin(self, partitions: Iterable[int]) -> None:
        """From now on partitions must come back, and all of these are needed."""
        self._keeps = True
        self._all = frozenset(partitions)

    @property
    def waits(self) -> bool:
        """Whether some have not been given yet, so that none may be read."""
        return bool(self._missing)

    def read(self, partitions: Iterable[int]) -> None:
        """Note that records of partitions are in the state."""
        self._in_state.update(partitions)

    def revoked(self, positions: Mapping[int, int]) -> dict[int, int]:
        """Note that partitions were taken away; return where they must go on if they come back."""
        if not self._keeps:
            return {}
        self._away.update(positions)
        return dict(positions)

    def committed(self, found: Iterable[Any]) -> None:
        """Note the group's committed offsets, with what they say of themselves."""
        if self._keeps:
            self._others |= {place.partition for place in found if place.offset >= 0 and place.metadata == IN_A_STATE}

    def assigned(self, given: Iterable[int], now: Iterable[int]) -> bool:
        """Note what the group has given: ``given`` have places in this run's state, ``now`` are all that it has.

        True if it waits, or did until now.
        """
        if not self._keeps:
            return False
        waited = self.waits
        now = frozenset(now)
        self._in_state.update(given)
        self._others -= self._in_state
        self._lost |= self._away - now
        self._away.clear()
        self._missing = self._all - now
        if not self._missing:
            self._missing_until_s = None
        elif self._missing_until_s is None:
            self._missing_until_s = self._clock.monotonic_s() + self._wait_s
        return waited or self.waits

    def note(self, partition: int) -> str:
        """Return what a committed offset says beside its number."""
        return IN_A_STATE if self._keeps and partition in self._in_state else ""

    def check(self) -> None:
        """Raise where a partition is another member's now, or in the state of another run.

        Raises
        ------
        SourceError
            If so; waiting will not help.
        """
        if self._missing_until_s is not None and self._clock.monotonic_s() >= self._missing_until_s:
            self._lost |= self._missing
        if self._lost:
            raise SourceError(
                f"{self._what}: the group gave partition {_names(self._lost)} to another member, and the state of its keys is in the "
                "checkpoints of one run alone. Let one run read each group (?group=; --workers N uses the cores of a machine), and "
                "start this one again: it goes on from its last checkpoint."
            )
        if self._others:
            raise SourceError(
                f"{self._what}: what the group has read of partition {_names(self._others)} is in the checkpoints of another run, and "
                "not in this one's, whose rows would be wrong. Start the run with that place of checkpoints again; or, to begin with "
                "empty state, name another group (?group=), which reads from the beginning, or from the end with &start=latest."
            )


def _names(partitions: Iterable[int]) -> str:
    return ", ".join(map(str, sorted(partitions)))
