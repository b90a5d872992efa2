"""Where a figure is going: a slope that outliers do not bend (Theil-Sen), and how sure it is (Kendall's tau)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

MOST_POINTS = 300
LEAST_POINTS = 8
LEAST_SPAN_S = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Trend:
    """How a figure moved.

    Attributes
    ----------
    per_s
        The median of the slopes between all pairs of points.
    steady
        From -1 to 1: how much more often it rose than fell between two points. Near 0 there is no trend.
    now
        The median of the last points.
    span_s
        From the first point to the last.
    """

    per_s: float
    steady: float
    now: float
    span_s: float
    points: int

    @property
    def rises(self) -> bool:
        """Whether it goes up, beyond doubt."""
        return self.per_s > 0 and self.steady >= 0.5

    @property
    def falls(self) -> bool:
        """Whether it goes down, beyond doubt."""
        return self.per_s < 0 and self.steady <= -0.5

    def until_s(self, limit: float) -> float | None:
        """Return in how many seconds it is at a limit; None if it does not go there."""
        distance = limit - self.now
        if distance * self.per_s <= 0:
            return 0.0 if distance == 0 else None
        return distance / self.per_s


def trend(times_s: Sequence[float], values: Sequence[float]) -> Trend | None:
    """Return the trend of a series; None where it is too short to tell.

    Notes
    -----
    O(n²) of at most `MOST_POINTS` points, which are taken evenly.

    References
    ----------
    Sen, P. K. (1968): Estimates of the regression coefficient based on Kendall's tau. JASA 63.

    Examples
    --------
    >>> found = trend(range(0, 100, 10), [5, 7, 900, 11, 13, 15, 17, 19, 21, 23])
    >>> round(found.per_s, 6), found.rises
    (0.2, True)
    """
    step = max(1, -(-len(times_s) // MOST_POINTS))
    # The last point counts, so taken from the end.
    times = np.asarray(list(times_s)[::-step][::-1], dtype=float)
    series = np.asarray(list(values)[::-step][::-1], dtype=float)
    if len(times) < LEAST_POINTS or times[-1] - times[0] < LEAST_SPAN_S:
        return None
    first, second = np.triu_indices(len(times), k=1)
    apart, moved = times[second] - times[first], series[second] - series[first]
    distinct = apart > 0
    slopes = moved[distinct] / apart[distinct]
    return Trend(
        per_s=float(np.median(slopes)),
        steady=float(np.mean(np.sign(slopes))),
        now=float(np.median(series[-3:])),
        span_s=float(times[-1] - times[0]),
        points=len(times),
    )
