"""Labels: what becomes known of payments and visitors, and when.

Fraud becomes known by a chargeback, days to weeks later; a payment without one counts as legitimate after a fixed
time. A payment that was blocked never becomes known: nobody disputes what was not charged, and nobody confirms it
either.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import numpy as np

from gillnet.core.time import duration_us
from gillnet.simulator.encoding import fixed_ids
from gillnet.simulator.ledger import Window, ripen
from gillnet.simulator.population import DAY_MS, ONE_OFF, Population
from gillnet.simulator.randomness import Integers, Purpose, Rows, generator, scramble
from gillnet.simulator.schemas import VISITOR_KINDS, Scenario, VisitorKind

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gillnet.simulator.config import SimulationConfig

_LABEL = np.dtype([("known_ms", "i8"), ("sequence", "i8"), ("scenario", "u1")])
_EARLIEST_MS, _LATEST_MS = 3_600_000, 90 * DAY_MS
_CARD_TESTING_HASTE = 0.4  # issuers notice a tested batch of cards sooner than a customer reads a statement


class PaymentLabel(msgspec.Struct, frozen=True, kw_only=True):
    """A record of the payments' labels (`LABEL_SCHEMA`): ``msgspec.json.decode(value, type=PaymentLabel)``.

    Attributes
    ----------
    known_at
        When it became known: milliseconds since 1970-01-01 UTC. To use it earlier is to look into the future.
    """

    tx_id: str
    fraud: bool
    scenario: str
    known_at: int


class VisitorLabel(msgspec.Struct, frozen=True, kw_only=True):
    """A record of the visitors' labels (`VISITOR_LABEL_SCHEMA`). ``level``: a bot's difficulty, None for people."""

    visitor_id: str
    bot: bool
    kind: str
    level: int | None


def label_windows(config: SimulationConfig, payments: Iterator[tuple[Window, Rows]]) -> Iterator[Rows]:
    """Walk the labels of payments in the order in which they become known.

    Notes
    -----
    Holds 17 bytes for each payment whose label is not known yet: those of ``label_maturity``.
    """
    median_ms = duration_us(config.label_delay, what="SimulationConfig.label_delay") // 1_000
    maturity_ms = duration_us(config.label_maturity, what="SimulationConfig.label_maturity") // 1_000
    pending = np.zeros(0, _LABEL)
    for window, rows in payments:
        rng = generator(config.seed, Purpose.LABEL_DELAYS, window.number)
        labels = np.zeros(len(rows), _LABEL)
        labels["sequence"], labels["scenario"] = rows["sequence"], rows["scenario"]
        delay = np.full(len(rows), maturity_ms)
        fraud = np.flatnonzero(rows["scenario"])
        haste = np.where(rows["scenario"][fraud] == Scenario.CARD_TESTING, _CARD_TESTING_HASTE, 1.0)
        chargeback = median_ms * haste * rng.lognormal(0.0, 0.9, len(fraud))
        delay[fraud] = np.clip(chargeback, _EARLIEST_MS, _LATEST_MS).astype(np.int64)
        labels["known_ms"] = rows["ts_ms"] + delay
        known, pending = ripen(np.concatenate([pending, labels]), window.end_ms, "known_ms")
        yield known
    known, _ = ripen(pending, np.iinfo(np.int64).max, "known_ms")
    yield known


class NewVisitors:
    """Picks, out of click rows, the first appearance of each visitor.

    Notes
    -----
    A person's cookies are numbered one after another, months apart, so 64 bits for each of a user's two devices tell
    which were seen; other cookies are used once.
    """

    def __init__(self, population: Population) -> None:
        users = len(population.user_home)
        self._seen = np.zeros(2 * users, dtype=np.uint64)

    def pick(self, rows: Rows) -> Rows:
        """Return one row for each visitor that was not there before."""
        opening = rows[rows["opens"]]
        _, first = np.unique(opening["visitor"], return_index=True)
        opening = opening[np.sort(first)]
        owned = np.flatnonzero((opening["visitor"] & ONE_OFF) == 0)
        owner = self._owner(opening["visitor"][owned])
        bit = np.uint64(1) << (opening["visitor"][owned] & 63).astype(np.uint64)
        new = np.ones(len(opening), dtype=np.bool_)
        new[owned] = (self._seen[owner] & bit) == 0
        np.bitwise_or.at(self._seen, owner, bit)
        picked: Rows = opening[new]
        return picked

    def _owner(self, visitor: Integers) -> Integers:
        """Return user and device slot as one index; see `Population.device` for the layout."""
        owner: Integers = ((visitor >> 11) & (2**27 - 1)) * 2 + (visitor >> 38 & 1)
        return owner


def encode_visitor_labels(rows: Rows) -> tuple[list[bytes], list[bytes]]:
    """Write visitors' labels as NDJSON; the key is ``visitor_id``."""
    encode = msgspec.json.Encoder().encode
    keys = fixed_ids("v", scramble(rows["visitor"]), 13)
    values = []
    for key, kind, level in zip(keys, rows["kind"].tolist(), rows["level"].tolist(), strict=True):
        bot = kind in (VisitorKind.SCRAPER, VisitorKind.CREDENTIAL_STUFFING)
        label = VisitorLabel(visitor_id=key.decode(), bot=bot, kind=VISITOR_KINDS[kind], level=level if bot else None)
        values.append(encode(label))
    return values, keys
