"""The input: JSON payments of a population of cards whose activity follows Zipf's law, from a seed.

The stream is built in chunks, each from its own random generator, so the first *n* payments of a long workload are
exactly the payments of a short one. That lets a slow contender run on a prefix while its scores are still held
against the same oracle.

Event times never go back over the whole stream, hence also within every partition.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from collections.abc import Iterator

CHUNK_EVENTS = 50_000
FIRST_EVENT_MS = 1_767_225_600_000  # 2026-01-01T00:00:00Z
STATUSES = ("approved", "declined")
COUNTRIES = ("DE", "FR", "GB", "US", "NL", "PL", "ES", "IT")
CHANNELS = ("online", "pos", "atm", "phone")
_DECLINED_SHARE = 0.08
_COUNTRY_SHARES = (0.40, 0.15, 0.12, 0.10, 0.08, 0.06, 0.05, 0.04)
_CHANNEL_SHARES = (0.55, 0.35, 0.06, 0.04)

IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """What is measured; two equal values give the same bytes on every machine.

    Attributes
    ----------
    events
        Number of payments.
    cards, merchants
        Size of the two populations; the activity of the k-th busiest member is proportional to ``k ** -zipf_exponent``.
    event_rate_per_s
        Payments per second of *event time*: how far the windows reach, not how fast the payments are sent.
    """

    events: int = 1_000_000
    cards: int = 50_000
    merchants: int = 5_000
    zipf_exponent: float = 1.0
    event_rate_per_s: float = 1_000.0
    seed: int = 20_260_101


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk:
    """Consecutive payments as columns; ``first`` is the number of the first one in the whole stream."""

    first: int
    event_time_ms: IntArray
    card: IntArray
    merchant: IntArray
    amount_cents: IntArray
    declined: npt.NDArray[np.bool_]
    country: IntArray
    channel: IntArray

    def __len__(self) -> int:
        return len(self.card)


def transaction_id(number: int) -> str:
    """Name the payment with this number; `transaction_number` is the inverse."""
    return f"p{number:011d}"


def transaction_number(tx_id: bytes | str) -> int:
    """Return the payment's number in the stream."""
    return int(tx_id[1:])


def generate(workload: Workload) -> Iterator[Chunk]:
    """Yield the payments of a workload in order, at most `CHUNK_EVENTS` at a time."""
    cards = _Zipf(workload.cards, workload.zipf_exponent, seed=workload.seed)
    merchants = _Zipf(workload.merchants, workload.zipf_exponent, seed=workload.seed + 1)
    elapsed_ms = 0.0
    for index, first in enumerate(range(0, workload.events, CHUNK_EVENTS)):
        random = np.random.default_rng([workload.seed, index])
        # Always draw a whole chunk and cut it, or the prefix property would not hold.
        gaps_ms = random.exponential(1_000.0 / workload.event_rate_per_s, CHUNK_EVENTS)
        times_ms = elapsed_ms + np.cumsum(gaps_ms)
        elapsed_ms = float(times_ms[-1])
        kept = slice(0, min(CHUNK_EVENTS, workload.events - first))
        yield Chunk(
            first=first,
            event_time_ms=(FIRST_EVENT_MS + np.floor(times_ms).astype(np.int64))[kept],
            card=cards.draw(random)[kept],
            merchant=merchants.draw(random)[kept],
            amount_cents=_amounts_cents(random)[kept],
            declined=(random.random(CHUNK_EVENTS) < _DECLINED_SHARE)[kept],
            country=random.choice(len(COUNTRIES), CHUNK_EVENTS, p=_COUNTRY_SHARES)[kept],
            channel=random.choice(len(CHANNELS), CHUNK_EVENTS, p=_CHANNEL_SHARES)[kept],
        )


def encode(chunk: Chunk) -> tuple[list[bytes], list[bytes]]:
    """Write a chunk as Kafka records.

    Returns
    -------
    keys, values : list of bytes
        The card's id, and the payment as compact JSON.
    """
    keys = [b"c%06d" % card for card in chunk.card.tolist()]
    rows = zip(
        range(chunk.first, chunk.first + len(chunk)),
        chunk.event_time_ms.tolist(),
        keys,
        chunk.merchant.tolist(),
        chunk.amount_cents.tolist(),
        chunk.declined.tolist(),
        chunk.country.tolist(),
        chunk.channel.tolist(),
        strict=True,
    )
    values = [
        b'{"tx_id":"p%011d","ts":%d,"card_id":"%b","merchant_id":"m%04d","amount":%d.%02d,'
        b'"status":"%b","country":"%b","channel":"%b"}'
        % (
            number,
            time_ms,
            key,
            merchant,
            cents // 100,
            cents % 100,
            _STATUS_BYTES[declined],
            _COUNTRY_BYTES[country],
            _CHANNEL_BYTES[channel],
        )
        for number, time_ms, key, merchant, cents, declined, country, channel in rows
    ]
    return keys, values


_STATUS_BYTES = [name.encode() for name in STATUSES]
_COUNTRY_BYTES = [name.encode() for name in COUNTRIES]
_CHANNEL_BYTES = [name.encode() for name in CHANNELS]


class _Zipf:
    """Draws members of a finite population by Zipf's law; which member is the busiest is shuffled."""

    def __init__(self, size: int, exponent: float, *, seed: int) -> None:
        weights = np.arange(1, size + 1, dtype=np.float64) ** -exponent
        self._cumulative = np.cumsum(weights) / weights.sum()
        self._member = np.random.default_rng([seed, size]).permutation(size)

    def draw(self, random: np.random.Generator) -> IntArray:
        rank = np.searchsorted(self._cumulative, random.random(CHUNK_EVENTS), side="right")
        members: IntArray = self._member[np.minimum(rank, len(self._member) - 1)]
        return members


def _amounts_cents(random: np.random.Generator) -> IntArray:
    """Draw amounts with a median of 30 and a long tail, from 0.50 to 20,000.00."""
    amounts: IntArray = np.clip(random.lognormal(np.log(3_000), 1.1, CHUNK_EVENTS), 50, 2_000_000).astype(np.int64)
    return amounts
