"""Event time and durations, and the only place that reads a clock.

Inside Gillnet every instant is ``event_time_us``: int64 microseconds since 1970-01-01 UTC. Other units exist at the
edges only.
"""

from __future__ import annotations

import re
import time
from datetime import timedelta
from typing import Protocol

from gillnet.core.errors import DefinitionError

MICROSECOND = 1
MILLISECOND = 1_000
SECOND = 1_000_000
MINUTE = 60 * SECOND
HOUR = 60 * MINUTE
DAY = 24 * HOUR

_UNITS = {"us": MICROSECOND, "ms": MILLISECOND, "s": SECOND, "m": MINUTE, "h": HOUR, "d": DAY, "w": 7 * DAY}
_DURATION = re.compile(r"(\d+)(us|ms|s|m|h|d|w)")


def duration_us(value: str | timedelta, *, what: str) -> int:
    """Convert a duration to microseconds.

    Parameters
    ----------
    value
        ``"5m"``, ``"1h30m"``, ``"250ms"`` (units us, ms, s, m, h, d, w) or a ``timedelta``; never negative.
    what
        The place that the error message names, such as ``over of feature 'spend_5m'``.

    Returns
    -------
    int
        Microseconds, 0 or more.

    Raises
    ------
    DefinitionError
        If the text is not a duration; the message shows one that is.
    """
    written = str(value) if isinstance(value, timedelta) else repr(value)
    text = value.removeprefix("-") if isinstance(value, str) else ""
    if isinstance(value, timedelta):
        total = value // timedelta(microseconds=1)
    elif isinstance(value, str) and text and _DURATION.sub("", text) == "":
        total = sum(int(number) * _UNITS[unit] for number, unit in _DURATION.findall(text))
        total = -total if text != value else total
    else:
        raise DefinitionError(f"{what}: {written} is not a duration; write one such as '5m', '1h30m' or '250ms'.")
    if total < 0:
        raise DefinitionError(f"{what}: {written} is negative; a duration is 0 or more.")
    if total > 366 * 10 * DAY:
        raise DefinitionError(f"{what}: {written} is longer than ten years; give a shorter duration.")
    return total


def format_duration(duration: int) -> str:
    """Write microseconds in the shortest form that ``duration_us`` reads back.

    >>> format_duration(5_400_000_000)
    '1h30m'
    """
    if duration == 0:
        return "0s"
    parts: list[str] = []
    for unit in ("d", "h", "m", "s", "ms", "us"):
        count, duration = divmod(duration, _UNITS[unit])
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts)


class Clock(Protocol):
    """The source of processing time. Injected, so that a whole run can be replayed."""

    def now_us(self) -> int:
        """Return processing time in microseconds since 1970-01-01 UTC."""
        ...

    def monotonic_s(self) -> float:
        """Return seconds on a clock that never goes back; for latencies and timeouts only."""
        ...

    def sleep(self, seconds: float) -> None:
        """Wait; a simulated clock moves instead."""
        ...


class SystemClock:
    """The machine's clock."""

    def now_us(self) -> int:
        """Return processing time in microseconds since 1970-01-01 UTC."""
        return time.time_ns() // 1_000

    def monotonic_s(self) -> float:
        """Return seconds on the machine's monotonic clock."""
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        """Block the calling thread."""
        time.sleep(seconds)
