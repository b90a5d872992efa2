"""Records and per-card state in plain Python, as the hand-written loop and the Bytewax flow keep it.

Amounts are summed as integer cents: running float sums that also subtract would drift away from the right answer.
"""

from __future__ import annotations

import math
from collections import deque

import msgspec

from bench.payments.contract import DAY_MS, HOUR_MS, MINUTE_MS

FIVE_MINUTES_MS = 5 * MINUTE_MS


class Payment(msgspec.Struct, gc=False):
    """The fields that scoring needs; msgspec skips the others without building them."""

    tx_id: str
    ts: int
    card_id: str
    amount: float
    status: str


class Scored(msgspec.Struct, gc=False):
    """One output record."""

    tx_id: str
    score: float
    decision: str


class CardState:
    """One card's windows: a deque per window and the sums over it. Payments must come in order of event time."""

    __slots__ = ("cents_1d", "cents_5m", "declined_1h", "last_1d", "last_1h", "last_5m", "last_ms", "peaks_1h")

    def __init__(self) -> None:
        self.last_5m: deque[tuple[int, int, bool]] = deque()
        self.last_1h: deque[tuple[int, int, bool]] = deque()
        self.last_1d: deque[tuple[int, int, bool]] = deque()
        self.peaks_1h: deque[tuple[int, int, bool]] = deque()  # amounts of the hour that no later one exceeds
        self.cents_5m = 0
        self.cents_1d = 0
        self.declined_1h = 0
        self.last_ms: int | None = None

    def update(self, time_ms: int, amount: float, declined: bool) -> tuple[float, ...]:
        """Take one payment and return its features in the order of the contract."""
        cents = round(amount * 100)
        event = (time_ms, cents, declined)

        last_5m = self.last_5m
        last_5m.append(event)
        spend = self.cents_5m + cents
        horizon = time_ms - FIVE_MINUTES_MS
        while last_5m[0][0] <= horizon:
            spend -= last_5m.popleft()[1]
        self.cents_5m = spend

        last_1h, peaks = self.last_1h, self.peaks_1h
        last_1h.append(event)
        while peaks and peaks[-1][1] <= cents:
            peaks.pop()
        peaks.append(event)
        declines = self.declined_1h + declined
        horizon = time_ms - HOUR_MS
        while last_1h[0][0] <= horizon:
            declines -= last_1h.popleft()[2]
        while peaks[0][0] <= horizon:
            peaks.popleft()
        self.declined_1h = declines

        last_1d = self.last_1d
        last_1d.append(event)
        total = self.cents_1d + cents
        horizon = time_ms - DAY_MS
        while last_1d[0][0] <= horizon:
            total -= last_1d.popleft()[1]
        self.cents_1d = total

        previous, self.last_ms = self.last_ms, time_ms
        return (
            amount,
            time_ms // HOUR_MS % 24,
            spend / 100,
            len(last_1h),
            declines,
            peaks[0][1] / 100,
            total / (100 * len(last_1d)),
            math.nan if previous is None else (time_ms - previous) / 1000,
        )
