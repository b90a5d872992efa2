"""What each watermark delay would have done to a stream, worked out from the order of arrival alone.

A watermark with delay d is the *frontier* (the newest event time of each partition, merged by minimum) less d, for every d.
So the frontier is computed once, and the rest are sorted searches:

    behind[i]  = frontier before event i, less its time       late at d       ⇔ behind[i] > d
    release[i] = first event whose frontier reaches time + d   waits at d      = its arrival less the event's own

All arrays are int64 microseconds, in the order of arrival. `gillnet.testing.oracle_lateness` does the same step by step.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from gillnet.core.time import HOUR, MILLISECOND, MINUTE, SECOND

Micros = NDArray[np.int64]

NONE = np.iinfo(np.int64).min
"""No event yet."""

_NOT_WAITED_FOR = np.iinfo(np.int64).max

GRID_US: tuple[int, ...] = (
    *(factor * MILLISECOND for factor in (0, 10, 50, 100, 200, 500)),
    *(factor * SECOND for factor in (1, 2, 5, 10, 30)),
    *(factor * MINUTE for factor in (1, 2, 5, 10, 30)),
    *(factor * HOUR for factor in (1, 2, 6, 12, 24)),
)
"""The watermark delays that are compared."""


def frontier(partitions: NDArray[np.int32], times: Micros, arrivals: Micros, idle_after_us: int) -> Micros:
    """Return the frontier after each event: up to where everything is taken to have arrived, by a watermark without delay.

    Parameters
    ----------
    partitions
        Each event's partition, from 0; -1 for an event of another stream, at which time only passes. Each is waited for from
        the start, until it is heard or idle.
    times, arrivals
        Event and arrival times; arrivals ascend. A time ahead of its arrival counts as the arrival.
    idle_after_us
        After so long a silence a partition is not waited for.

    Returns
    -------
    ndarray
        Ascending; `NONE` while a partition is waited for that was never heard.

    Notes
    -----
    O(events × partitions), and 40 bytes an event.
    """
    return _frontier(_oldest(partitions, times, arrivals, idle_after_us))


def merged_frontier(
    streams: Sequence[NDArray[np.int32]], times: Micros, arrivals: Micros, idle_after_us: Sequence[int]
) -> Micros:
    """Return the frontier of several streams together: the least advanced one that is not idle holds it; never back.

    Parameters
    ----------
    streams
        For each stream the partitions of all events, -1 for those of others.
    times, arrivals
        Of all events, in their common order of arrival.
    idle_after_us
        Of each stream.
    """
    lowest = np.full(len(times), _NOT_WAITED_FOR)
    for partitions, silence_us in zip(streams, idle_after_us, strict=True):
        oldest = _oldest(partitions, times, arrivals, silence_us)
        idle = oldest == _NOT_WAITED_FOR
        np.minimum(lowest, np.where(idle, _NOT_WAITED_FOR, _frontier(oldest)), out=lowest)
    return _frontier(lowest)


def _oldest(partitions: NDArray[np.int32], times: Micros, arrivals: Micros, idle_after_us: int) -> Micros:
    """Return, after each event, the newest event time of the partition where it is the oldest, of those that are not idle."""
    counted = np.minimum(times, arrivals)
    lowest = np.full(len(times), _NOT_WAITED_FOR)
    for partition in range(int(partitions.max(initial=-1)) + 1):
        own = partitions == partition
        newest = np.maximum.accumulate(np.where(own, counted, NONE))
        heard = np.maximum.accumulate(np.where(own, arrivals, arrivals[0]))
        np.minimum(lowest, np.where(arrivals - heard > idle_after_us, _NOT_WAITED_FOR, newest), out=lowest)
    return lowest


def _frontier(oldest: Micros) -> Micros:
    # With every partition idle the watermark stays where it is.
    return np.maximum.accumulate(np.where(oldest == _NOT_WAITED_FOR, NONE, oldest))


def behind_frontier(times: Micros, after: Micros) -> Micros:
    """Return how far each event is behind the frontier that it arrives under; negative for one that is ahead of it.

    Parameters
    ----------
    times
        Event times.
    after
        What `frontier` returned.
    """
    before = np.concatenate([np.full(min(1, len(after)), NONE), after[:-1]])
    return np.where(before == NONE, -_NOT_WAITED_FOR, before - np.where(before == NONE, 0, times))


def behind_partition(partitions: NDArray[np.int32], times: Micros, arrivals: Micros) -> Micros:
    """Return how far each event is behind the newest one of its own partition; 0 for one that is the newest itself."""
    counted, behind = np.minimum(times, arrivals), np.zeros(len(times), np.int64)
    for partition in np.unique(partitions):
        own = np.flatnonzero(partitions == partition)
        behind[own] = np.maximum.accumulate(counted[own]) - counted[own]
    return behind


def shares_above(values: Micros, limits: Micros) -> NDArray[np.float64]:
    """Return the share of values above each limit."""
    if not len(values):
        return np.zeros(len(limits))
    return 1.0 - np.searchsorted(np.sort(values), limits, side="right") / len(values)


def release_places(times: Micros, places: NDArray[np.int64], after: Micros, delay_us: int) -> NDArray[np.int64]:
    """Return the place at which each event is released by a watermark with a delay: when it reaches the event's time.

    Parameters
    ----------
    times
        Event times.
    places
        Where each event arrives, as an index into ``after``. What is late by then is released at once.
    after
        The frontier after each arrival.

    Returns
    -------
    ndarray
        Indices into ``after``; its length for events that still wait when the data ends.
    """
    return np.maximum(places, np.searchsorted(after, times + delay_us, side="left"))


def waits(places: NDArray[np.int64], releases: NDArray[np.int64], arrivals: Micros) -> Micros:
    """Return how long each event waits from its arrival to its release; those that wait at the end are left out."""
    released = releases < len(arrivals)
    return arrivals[releases[released]] - arrivals[places[released]]
