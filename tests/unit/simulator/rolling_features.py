"""Rolling features in numpy, for the test that holds the simulated fraud between trivial and hopeless.

They are computed here, apart from the kernel, so that the simulator is judged by nothing that could share its mistakes.
"""

from __future__ import annotations

from collections import defaultdict, deque

import numpy as np

HOUR_MS = 3_600_000


def codes(values: list[str | None]) -> np.ndarray:
    """Number distinct values; a missing one is a key of its own that is never seen twice."""
    seen: dict[str, int] = {}
    out = np.empty(len(values), dtype=np.int64)
    for place, value in enumerate(values):
        out[place] = seen.setdefault(f"\0{place}" if value is None else value, len(seen))
    return out


class Keyed:
    """Payments of one entity, sorted by key and time; windows are (t - width, t]."""

    def __init__(self, key: np.ndarray, ts: np.ndarray) -> None:
        self.order = np.lexsort((ts, key))
        self._key, self._ts = key[self.order], ts[self.order]
        self._span = int(ts.max() - ts.min()) + 40 * 24 * HOUR_MS
        self._place = self._key * self._span + (self._ts - ts.min())

    def _back(self, sorted_values: np.ndarray) -> np.ndarray:
        out = np.empty_like(sorted_values)
        out[self.order] = sorted_values
        return out

    def _window_start(self, width_ms: int) -> np.ndarray:
        floor = self._key * self._span
        return np.searchsorted(self._place, np.maximum(self._place - width_ms, floor - 1), side="right")

    def total(self, values: np.ndarray, width_ms: int) -> np.ndarray:
        running = np.concatenate([[0.0], np.cumsum(values[self.order].astype(np.float64))])
        return self._back(running[np.arange(len(self._ts)) + 1] - running[self._window_start(width_ms)])

    def since_last_s(self) -> np.ndarray:
        gap = np.diff(self._ts, prepend=self._ts[:1]) / 1_000
        gap[np.diff(self._key, prepend=-1) != 0] = 1e7
        return self._back(gap)


def distinct(key: np.ndarray, other: np.ndarray, ts: np.ndarray, width_ms: int) -> np.ndarray:
    """Count distinct ``other`` per key in the window, by a queue for each key."""
    queues: dict[int, deque[tuple[int, int]]] = defaultdict(deque)
    counts: dict[int, dict[int, int]] = defaultdict(dict)
    out = np.empty(len(key))
    for place, (k, o, t) in enumerate(zip(key.tolist(), other.tolist(), ts.tolist(), strict=True)):
        queue, count = queues[k], counts[k]
        queue.append((t, o))
        count[o] = count.get(o, 0) + 1
        while queue[0][0] <= t - width_ms:
            _, old = queue.popleft()
            count[old] -= 1
            if not count[old]:
                del count[old]
        out[place] = len(count)
    return out


def seen_before(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """How often the pair was seen before."""
    counts: dict[tuple[int, int], int] = defaultdict(int)
    out = np.empty(len(first))
    for place, pair in enumerate(zip(first.tolist(), second.tolist(), strict=True)):
        out[place] = counts[pair]
        counts[pair] += 1
    return out


def payment_features(payments: list[dict]) -> np.ndarray:
    """Compute some seventy features of payments that are sorted by time."""
    ts = np.array([p["ts"] for p in payments])
    amount = np.array([p["amount"] for p in payments])
    log_amount = np.log(amount)
    declined = np.array([p["status"] == "declined" for p in payments])
    small = amount < 10
    entity = {
        name: codes([p[name] for p in payments]) for name in ("card_id", "user_id", "device_id", "merchant_id", "ip")
    }
    abroad = np.array([p["country"] != p["billing_country"] for p in payments])
    columns = [
        log_amount,
        abroad,
        declined,
        (ts // HOUR_MS) % 24,
        codes([p["channel"] for p in payments]),
        np.array([int(p["mcc"]) for p in payments]),
        np.array([p["device_id"] is None for p in payments]),
        np.array([round(p["amount"] * 100) % 2_500 == 0 for p in payments]),
    ]
    for key in entity.values():
        keyed = Keyed(key, ts)
        widths = (HOUR_MS // 12, HOUR_MS, 24 * HOUR_MS, 7 * 24 * HOUR_MS)
        columns += [keyed.total(np.ones(len(ts)), width) for width in widths]
        columns += [keyed.total(declined, HOUR_MS), keyed.total(declined, 24 * HOUR_MS)]
        columns += [keyed.total(amount, HOUR_MS), keyed.total(small, 24 * HOUR_MS), keyed.since_last_s()]
        week = keyed.total(np.ones(len(ts)), 7 * 24 * HOUR_MS)
        columns.append(log_amount - keyed.total(log_amount, 7 * 24 * HOUR_MS) / week)
    card = entity["card_id"]
    for name in ("device_id", "ip", "merchant_id"):
        columns.append(distinct(entity[name], card, ts, 24 * HOUR_MS))
        columns.append(distinct(card, entity[name], ts, 24 * HOUR_MS))
        columns.append(seen_before(card, entity[name]))
    columns.append(seen_before(entity["user_id"], entity["device_id"]))
    return np.column_stack(columns).astype(np.float32)
