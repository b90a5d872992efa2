"""Seeded randomness: one generator per purpose and window, and stateless hashes for lasting traits.

A window's generator depends on (seed, purpose, window) only, so the streams can be generated apart, again, and in any
chunk size with the same result. What must last over windows, such as a person's telephone, is a hash of who and when
instead of state that would have to be carried.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

Integers = NDArray[Any]
Floats = NDArray[Any]
Mask = NDArray[np.bool_]
Rows = NDArray[Any]

_ID_BITS = np.uint64(40)
_ID_MASK = np.uint64((1 << 40) - 1)


class Purpose(IntEnum):
    """What a generator is for. The numbers are part of the seed: never renumber them, only append."""

    POPULATION = 0
    PAYMENTS = 1
    FRAUD_PLAN = 2
    FRAUD_DETAIL = 3
    PAYMENT_FAULTS = 4
    LABEL_DELAYS = 5
    SESSIONS = 6
    BOTS = 7
    TAKEOVER_CLICKS = 8
    CLICK_FAULTS = 9
    CALIBRATION = 10


def generator(seed: int, purpose: Purpose, window: int = 0) -> np.random.Generator:
    """Return the generator of one purpose in one window."""
    return np.random.Generator(np.random.SFC64(np.random.SeedSequence(seed, spawn_key=(int(purpose), window))))


def mix(salt: int, *parts: Integers) -> NDArray[np.uint64]:
    """Hash integers to 64 uniform bits (splitmix64 finaliser over a running combination)."""
    with np.errstate(over="ignore"):
        state = np.uint64(salt & 0xFFFF_FFFF_FFFF_FFFF) + np.uint64(0x9E3779B97F4A7C15)
        mixed: NDArray[np.uint64] = np.asarray(state)
        for part in parts:
            mixed = mixed ^ part.astype(np.uint64)
            mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
            mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
            mixed = mixed ^ (mixed >> np.uint64(31))
    return mixed


def unit(salt: int, *parts: Integers) -> Floats:
    """Hash integers to floats, uniform in [0, 1)."""
    return (mix(salt, *parts) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def scramble(number: Integers) -> Integers:
    """Permute the integers below 2**40, so that ids are unique by construction and yet tell nothing of their origin."""
    value = number.astype(np.uint64)
    with np.errstate(over="ignore"):
        for factor in (0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F):
            value = (value * np.uint64(factor)) & _ID_MASK
            value ^= value >> (_ID_BITS // np.uint64(2))
    return value.astype(np.int64)


def draw_table(weights: Floats, size: int) -> NDArray[np.int32]:
    """Spell out a discrete distribution as a table, so that a draw is one random index and one gather.

    Every item appears at least once; the share of the others is exact to one part in ``size``.
    """
    share = weights / weights.sum()
    counts = np.maximum(1, np.rint(share * size)).astype(np.int64)
    return np.repeat(np.arange(len(weights), dtype=np.int32), counts)


def draw(rng: np.random.Generator, table: Integers, size: int) -> Integers:
    """Draw ``size`` items of a `draw_table`."""
    return table[rng.integers(0, len(table), size)]


def group_offsets(values: Floats, counts: Integers) -> Floats:
    """Sum ``values`` up within consecutive groups of ``counts`` elements each, from a group's own first value on."""
    if len(values) == 0:
        return values
    total = np.cumsum(values)
    starts = np.cumsum(counts) - counts
    occupied = counts > 0
    before = total[starts[occupied]] - values[starts[occupied]]
    offsets: Floats = total - np.repeat(before, counts[occupied])
    return offsets


def position_in_group(counts: Integers) -> Integers:
    """Return the place of each element, 0, 1, …, in consecutive groups of ``counts`` elements each."""
    starts = np.cumsum(counts) - counts
    places: Integers = np.arange(int(counts.sum())) - np.repeat(starts, counts)
    return places
