"""A clock that a test moves: an hour of silence costs no waiting, and a run takes the same course each time."""

from __future__ import annotations

import threading

_START_US = 1_767_571_200_000_000  # 2026-01-05 00:00 UTC


class SimulatedClock:
    """Processing time that stands still until somebody sleeps on it or moves it.

    Parameters
    ----------
    start_us
        Where it begins, microseconds UTC.

    Examples
    --------
    >>> clock = SimulatedClock()
    >>> clock.sleep(90)
    >>> clock.monotonic_s()
    90.0
    """

    def __init__(self, start_us: int = _START_US) -> None:
        self._start_us = start_us
        self._elapsed_us = 0
        self._lock = threading.Lock()  # A sink's own thread may sleep on it too.

    def __repr__(self) -> str:
        return f"SimulatedClock(elapsed_s={self.monotonic_s():g})"

    def now_us(self) -> int:
        """Return processing time in microseconds since 1970-01-01 UTC."""
        return self._start_us + self._elapsed_us

    def monotonic_s(self) -> float:
        """Return the seconds since it began."""
        return self._elapsed_us / 1_000_000

    def sleep(self, seconds: float) -> None:
        """Move on by so many seconds, at once."""
        with self._lock:
            self._elapsed_us += round(seconds * 1_000_000)
