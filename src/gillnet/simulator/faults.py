"""What happens to records between the event and the reader: disorder, lateness, duplication, damage.

Rows come in by event time and leave in the order of arrival. Everything that may arrive before the end of a window is
known once the window was generated, so no more is held back than what is still on its way: up to 24 hours of late
records.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np

from gillnet.simulator.ledger import ripen
from gillnet.simulator.population import DAY_MS
from gillnet.simulator.randomness import Integers, Purpose, Rows, generator
from gillnet.simulator.schemas import Fault

if TYPE_CHECKING:
    from collections.abc import Callable

    from gillnet.simulator.config import SimulationConfig

MALFORMED_SEQUENCE = 900_000_000_000
"""Malformed records are numbered from here, so that their ids meet no others."""

_SHORTEST_LATENESS_MS = 60_000


class Road:
    """Takes one stream's records from their event to their reader.

    Parameters
    ----------
    purpose
        Whose randomness to use, so that the streams' faults are independent.
    empty
        No rows, of the stream's dtype.
    """

    def __init__(self, config: SimulationConfig, purpose: Purpose, empty: Rows) -> None:
        self._config = config
        self._purpose = purpose
        self._pending = empty
        self._damaged = 0

    def travel(self, rows: Rows, window: int, before_ms: int) -> Rows:
        """Send a window's rows off; return all that arrive before an instant, in the order of arrival."""
        config, rng = self._config, generator(self._config.seed, self._purpose, window)
        count = len(rows)
        latest = int(config.disorder_s * 1_000)
        delay = rng.integers(0, latest + 1, count)
        late = rng.random(count) < config.late_share
        delay[late] = _lateness(rng, int(late.sum()), floor=latest + _SHORTEST_LATENESS_MS)
        rows["arrival_ms"] = rows["ts_ms"] + delay
        rows["fault"] = np.where(late, Fault.LATE, Fault.NONE)
        again = rows[rng.random(count) < config.duplicate_share]
        again["fault"] |= np.uint8(Fault.DUPLICATE)
        again["arrival_ms"] += 1 + np.minimum(rng.lognormal(np.log(20_000), 2.0, len(again)), DAY_MS).astype(np.int64)
        damaged = rows[rng.random(count) < config.malformed_share]
        damaged["fault"] = Fault.MALFORMED
        damaged["malformed"] = rng.integers(0, len(DAMAGES), len(damaged))
        damaged["sequence"] = MALFORMED_SEQUENCE + self._damaged + np.arange(len(damaged))
        self._damaged += len(damaged)
        arrived, self._pending = ripen(np.concatenate([self._pending, rows, again, damaged]), before_ms, "arrival_ms")
        return arrived

    def drain(self) -> Rows:
        """Return all that is still on its way when the last window is over."""
        arrived, self._pending = ripen(self._pending, np.iinfo(np.int64).max, "arrival_ms")
        return arrived


def _lateness(rng: np.random.Generator, count: int, *, floor: int) -> Integers:
    """Draw delays: half an hour in the median, with a tail that is cut at 24 hours."""
    delay: Integers = np.clip(rng.lognormal(np.log(30 * 60_000), 1.5, count), floor, DAY_MS).astype(np.int64)
    return delay


def _set(field: bytes, value: bytes) -> Callable[[bytes], bytes]:
    pattern = re.compile(rb'"' + field + rb'":("[^"]*"|[^,}]*)')
    return lambda record: pattern.sub(lambda _: b'"' + field + b'":' + value, record)


def _drop(field: bytes) -> Callable[[bytes], bytes]:
    pattern = re.compile(rb'"' + field + rb'":("[^"]*"|[^,}]*),')
    return lambda record: pattern.sub(b"", record)


def _both(payment: Callable[[bytes], bytes], click: Callable[[bytes], bytes]) -> Callable[[bytes], bytes]:
    return lambda record: payment(record) if record.startswith(b'{"tx_id"') else click(record)


DAMAGES: tuple[tuple[str, Callable[[bytes], bytes]], ...] = (
    ("empty", lambda _: b""),
    ("truncated", lambda record: record[: len(record) // 2]),
    ("not_an_object", lambda record: b"[" + record + b"]"),
    ("not_utf8", lambda record: record.replace(b'"ip":"', b'"ip":"\xff\xfe')),
    ("missing_field", _drop(b"ip")),
    ("missing_time", _drop(b"ts")),
    ("wrong_type", _both(_set(b"amount", b'"a lot"'), _set(b"status_code", b'"fine"'))),
    ("wrong_time_type", _set(b"ts", b'"yesterday"')),
    ("out_of_range", _both(_set(b"amount", b"-12.50"), _set(b"status_code", b"-1"))),
    ("not_a_number", _both(_set(b"amount", b"NaN"), _set(b"status_code", b"NaN"))),
    ("too_precise", _both(_set(b"amount", b"12.3456"), _set(b"status_code", b"200.5"))),
    ("year_1970", _set(b"ts", b"86400000")),
    ("far_future", _set(b"ts", b"32503680000000")),
    ("null_key", _both(_set(b"card_id", b"null"), _set(b"visitor_id", b"null"))),
    ("empty_key", _both(_set(b"card_id", b'""'), _set(b"visitor_id", b'""'))),
    ("oversized", _set(b"ip", b'"' + b"9" * 70_000 + b'"')),
)
"""Every way in which a record is damaged: its name, and what it does to the bytes."""


def damage(value: bytes, key: bytes, kind: int) -> tuple[bytes, bytes | None]:
    """Damage a record; return its value and key."""
    name, spoil = DAMAGES[kind]
    if name in ("null_key", "empty_key"):
        return spoil(value), None if name == "null_key" else b""
    return spoil(value), key
