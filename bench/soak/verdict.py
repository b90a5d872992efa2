"""Whether a figure is flat, by a slope that single outliers do not move."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """How much a figure may grow from the end of the warm-up to the end of the soak.

    Attributes
    ----------
    share
        Of its median.
    least
        Or so much, where that is more: what is a sample's own noise.
    """

    share: float
    least: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What became of one figure."""

    figure: str
    median: float
    growth: float
    allowed: float
    samples: int

    @property
    def flat(self) -> bool:
        """Whether it grew by no more than it may."""
        return self.growth <= self.allowed


LIMITS: dict[str, Limit] = {
    # A leak of one cache line a record at 1,000 records/s would be 100 MB in half an hour; malloc's own noise is about 1 %.
    "rss_bytes": Limit(share=0.03, least=2e6),
    # Whole numbers: anything that grows at all grows by one.
    "handles": Limit(share=0.0, least=0.9),
    "threads": Limit(share=0.0, least=0.9),
    # The checkpoints that are kept, of a state that is full.
    "checkpoints_bytes": Limit(share=0.05, least=1e5),
    "checkpoints_files": Limit(share=0.0, least=0.9),
    # The history grows by design; its files are joined when there are 64 of them, so their number goes up and down by that.
    "history_files": Limit(share=0.0, least=64.0),
    # It keeps up: what waits is no more at the end.
    "lag_records": Limit(share=0.0, least=500.0),
}


def robust_slope(times_s: Sequence[float], values: Sequence[float]) -> float:
    """Return the median slope over all pairs of samples (Theil and Sen): up to 29 % of them may be anything."""
    times, figures = np.asarray(times_s, float), np.asarray(values, float)
    first, second = np.triu_indices(len(times), 1)
    between = times[second] - times[first]
    slopes = (figures[second] - figures[first])[between > 0] / between[between > 0]
    return float(np.median(slopes)) if len(slopes) else 0.0


def judge(figure: str, times_s: Sequence[float], values: Sequence[float]) -> Verdict:
    """Judge one figure's samples after the warm-up."""
    median = float(np.median(values))
    limit = LIMITS[figure]
    return Verdict(
        figure=figure,
        median=median,
        growth=robust_slope(times_s, values) * (times_s[-1] - times_s[0]),
        allowed=max(limit.least, limit.share * median),
        samples=len(values),
    )
