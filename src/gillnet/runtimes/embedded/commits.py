"""Commits sources as far as their rows have left: not beyond a row that waits before it is computed (I8).

At-least-once: called when the outputs are flushed. A source that cannot mark where it was is committed when no row waits.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection

from gillnet.core.ports import MarkingSource, Source


class Commits:
    """Commits the sources of one run.

    Parameters
    ----------
    sources
        All of them.
    """

    def __init__(self, sources: Collection[Source]) -> None:
        self._sources = sources
        self._marking = [source for source in sources if isinstance(source, MarkingSource)]
        self._marks: deque[tuple[int, list[object]]] = deque()

    def commit(self, now_us: int, waiting_since_us: int | None) -> None:
        """Commit what was polled before the row that has waited longest arrived; everything where none waits."""
        if waiting_since_us is None:
            self._marks.clear()
            for source in self._sources:
                source.commit()
            return
        self._marks.append((now_us, [source.mark() for source in self._marking]))
        passed: list[object] = []
        while self._marks and self._marks[0][0] < waiting_since_us:
            passed = self._marks.popleft()[1]
        for source, mark in zip(self._marking, passed, strict=False):
            source.commit_to(mark)
