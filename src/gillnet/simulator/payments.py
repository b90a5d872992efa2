"""Honest payments: when customers pay, and what such a payment looks like.

`sample_instants` gives the rhythm, `HonestPayments.complete` turns (instant, card) into whole payments. Fraud goes
through the same `complete` and then overrides what betrays it, so that nothing but its behaviour sets it apart.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from gillnet.simulator.population import CATEGORIES, CATEGORY_CHANNEL, COUNTRIES, DAY_MS, Population
from gillnet.simulator.randomness import (
    Floats,
    Integers,
    Mask,
    Purpose,
    Rows,
    generator,
    group_offsets,
    mix,
    unit,
)
from gillnet.simulator.schemas import PAYMENT_ROW, Channel

if TYPE_CHECKING:
    from gillnet.simulator.config import SimulationConfig

HOUR_MS = 3_600_000
_HOURS = np.array([3, 2, 1.5, 1, 1, 2, 4, 8, 11, 12, 13, 15, 17, 15, 13, 13, 14, 16, 18, 18, 15, 12, 9, 5], dtype=float)
_WEEKDAYS = np.array([0.93, 0.94, 0.97, 1.0, 1.14, 1.18, 0.84])  # from Monday
_THURSDAY = 3  # 1970-01-01
_RHYTHM = np.outer(_WEEKDAYS / _WEEKDAYS.mean(), _HOURS / _HOURS.mean()).ravel()
_UTC_OFFSET_MS = np.array([country.utc_offset_h for country in COUNTRIES]) * HOUR_MS
_LOG_TYPICAL = np.log([category.typical for category in CATEGORIES]).astype(np.float32)
_SPREAD = np.array([category.spread for category in CATEGORIES], dtype=np.float32)
_SMALL = np.array([category.small for category in CATEGORIES])
_ATM_STEP, _LARGEST = 1_000, 99_999_99

_CALIBRATION_VISITS = 20_000
_TRIP_SHARE, _BURST_SHARE, _RETRY_SHARE = 0.1, 0.2, 0.55


def sample_instants(
    rng: np.random.Generator, population: Population, start_ms: int, end_ms: int, per_day: float
) -> tuple[Integers, Integers]:
    """Draw instants and cards of a window by thinning a Poisson process to each customer's local rhythm.

    Returns
    -------
    tuple of int64 milliseconds and int32 card indices, in no order.
    """
    peak = float(_RHYTHM.max())
    count = int(rng.poisson(per_day * peak * (end_ms - start_ms) / DAY_MS))
    ts_ms = rng.integers(start_ms, end_ms, count)
    card = population.draw_cards(rng, count)
    user = population.card_user[card]
    local_hour = (ts_ms + _UTC_OFFSET_MS[population.user_home[user]] + population.rhythm_ms[user]) // HOUR_MS
    hour_of_week = (local_hour + 24 * _THURSDAY) % (7 * 24)
    kept = rng.random(count, dtype=np.float32) * peak < _RHYTHM[hour_of_week]
    return ts_ms[kept], card[kept]


class HonestPayments:
    """Generates the payments of honest customers, window by window, without state."""

    def __init__(self, config: SimulationConfig, population: Population) -> None:
        self._population = population
        drift = config.drift_start_us
        self._drift_ms = None if drift is None else drift // 1_000
        self._drift_strength = config.drift_strength
        # How many payments a visit brings, trips, bursts and retries included, depends on which merchants are popular.
        rng = generator(config.seed, Purpose.CALIBRATION)
        start_ms = config.start_us // 1_000
        ts_ms, card = sample_instants(rng, population, start_ms, start_ms + 7 * DAY_MS, _CALIBRATION_VISITS / 7)
        per_visit = len(self._visits(rng, ts_ms, card)) / max(1, len(ts_ms))
        self._visits_per_day = config.payments_per_day * (1.0 - config.fraud_rate) / per_visit

    def window(self, rng: np.random.Generator, start_ms: int, end_ms: int) -> Rows:
        """Return the payments of visits that begin within the window; a few of them lie after its end."""
        return self._visits(rng, *sample_instants(rng, self._population, start_ms, end_ms, self._visits_per_day))

    def _visits(self, rng: np.random.Generator, ts_ms: Integers, card: Integers) -> Rows:
        stops = np.ones(len(ts_ms), dtype=np.int64)
        trips = np.flatnonzero(rng.random(len(ts_ms), dtype=np.float32) < _TRIP_SHARE)
        stops[trips] += rng.geometric(0.5, len(trips))
        trip_gaps = rng.lognormal(np.log(12 * 60_000), 0.9, int(stops.sum()))
        first = np.cumsum(stops) - stops
        trip_gaps[first] = 0.0
        when = np.repeat(ts_ms, stops) + group_offsets(trip_gaps, stops).astype(np.int64)
        rows = self.complete(rng, when, np.repeat(card, stops))
        return np.concatenate([rows, self._bursts(rng, rows), self._retries(rng, rows)])

    def complete(
        self, rng: np.random.Generator, ts_ms: Integers, card: Integers, merchant: Integers | None = None
    ) -> Rows:
        """Fill in everything else of payments at given instants with given cards.

        Parameters
        ----------
        merchant
            Merchants that are decided already; -1 where the customer's habits shall choose.
        """
        population, count = self._population, len(ts_ms)
        user = population.card_user[card]
        here = population.location(user, ts_ms)
        chosen = self._habitual_merchants(rng, card, here)
        if merchant is not None:
            chosen = np.where(merchant >= 0, merchant, chosen)
        channel = CATEGORY_CHANNEL[population.merchant_category[chosen]]
        online = channel == Channel.ONLINE
        rows = np.zeros(count, PAYMENT_ROW)
        rows["ts_ms"], rows["card"], rows["merchant"] = ts_ms, card, chosen
        rows["amount"] = self._amounts(rng, ts_ms, card, chosen)
        rows["device"] = self._devices(rng, user, ts_ms, online)
        self._place(rng, rows, user, here, online)
        rows["present"] = ~online
        abroad = rows["country"] != population.user_home[user]
        rows["declined"] = rng.random(count, dtype=np.float32) < self._decline_risk(ts_ms, card, chosen, abroad)
        return rows

    def _habitual_merchants(self, rng: np.random.Generator, card: Integers, here: Integers) -> Integers:
        """Choose among a card's six favourites, its surroundings, and the online merchants of the world."""
        population, count = self._population, len(card)
        how = rng.random(count, dtype=np.float32)
        favourite = (6 * rng.random(count, dtype=np.float32) ** 2).astype(np.int64)
        place = np.where(how < 0.55, unit(population.salt + 4, card, favourite), rng.random(count))
        merchant = population.local_merchant(here, place)
        roaming = np.flatnonzero(how > 0.85)
        merchant[roaming] = population.online[rng.integers(0, len(population.online), len(roaming))]
        return merchant

    def _amounts(self, rng: np.random.Generator, ts_ms: Integers, card: Integers, merchant: Integers) -> Integers:
        population, count = self._population, len(card)
        category = population.merchant_category[merchant]
        level = _LOG_TYPICAL[category] + population.merchant_level[merchant] + population.card_level[card]
        noise = rng.standard_normal(count, dtype=np.float32)
        # One payment in forty is out of the ordinary: furniture, a wedding, a new bicycle.
        level += _SPREAD[category] * noise + 1.3 * (rng.random(count, dtype=np.float32) < 0.025)
        if self._drift_ms is not None:
            level += np.float32(0.2 * self._drift_strength) * (ts_ms >= self._drift_ms)
        cents = np.clip(np.exp(level) * 100, 50, _LARGEST).astype(np.int64)
        style = population.merchant_style[merchant]
        cents = np.where(style == 1, cents // 100 * 100 + 99, cents)  # 12.99
        cents = np.where(style == 2, np.maximum(100, cents // 100 * 100), cents)  # 12.00
        cash = CATEGORY_CHANNEL[category] == Channel.ATM
        amounts: Integers = np.where(cash, np.maximum(_ATM_STEP, cents // _ATM_STEP * _ATM_STEP), cents)
        return amounts

    def _devices(self, rng: np.random.Generator, user: Integers, ts_ms: Integers, online: Mask) -> Integers:
        """Give online payments and wallets at a till a device; a plain card has none."""
        luck = rng.random(len(user), dtype=np.float32)
        slot = ((luck * 8 % 1) < 0.3) & online
        device, _ = self._population.device(user, slot.astype(np.int64), ts_ms)
        device[np.where(online, luck > 0.96, luck > 0.25)] = -1
        thrown_away = np.flatnonzero(online & (luck < 0.015))  # private browsing, borrowed computers
        device[thrown_away] = self._population.fresh_devices(rng, len(thrown_away))
        return device

    def _place(self, rng: np.random.Generator, rows: Rows, user: Integers, here: Integers, online: Mask) -> None:
        """Set address and country: the terminal's at a till, the customer's connection online."""
        population = self._population
        rows["country"] = np.where(online, here, population.merchant_country[rows["merchant"]])
        rows["ip"] = population.merchant_ip[rows["merchant"]]
        at = np.flatnonzero(online)
        how, home = rng.random(len(at), dtype=np.float32), population.user_home[user[at]]
        ip = population.home_address(user[at], rows["ts_ms"][at], here[at])
        mobile = np.flatnonzero((how < 0.35) | (home != here[at]))
        ip[mobile] = population.mobile_address(rng, here[at][mobile])
        away = np.flatnonzero((how > 0.88) & (home == here[at]))  # at work, at friends', in a café
        ip[away] = population.address(here[at][away], rng.integers(0, 0x7F_FFFF, len(away)))
        hidden = np.flatnonzero(how > 0.965)
        ip[hidden], seen = population.data_centre_address(rng, len(hidden))
        rows["ip"][at] = ip
        rows["country"][at[hidden]] = seen

    def _decline_risk(self, ts_ms: Integers, card: Integers, merchant: Integers, abroad: Mask) -> Floats:
        """Return the probability of a decline: some days an account is empty, some merchants are always trouble."""
        population = self._population
        empty = (mix(population.salt + 5, card, ts_ms // DAY_MS) & np.uint64(63)) == 0
        risk: Floats = 0.018 + 0.45 * empty + 0.05 * abroad + population.merchant_declines[merchant]
        return risk

    def _bursts(self, rng: np.random.Generator, rows: Rows) -> Rows:
        """Return further small purchases at the same merchant, seconds apart: games and the like."""
        small = _SMALL[self._population.merchant_category[rows["merchant"]]]
        source = np.flatnonzero(small & (rng.random(len(rows), dtype=np.float32) < _BURST_SHARE))
        more = rng.geometric(0.28, len(source))
        burst = rows[np.repeat(source, more)]
        gaps = rng.lognormal(np.log(45_000), 0.9, len(burst))
        burst["ts_ms"] += group_offsets(gaps, more).astype(np.int64)
        burst["amount"] = self._amounts(rng, burst["ts_ms"], burst["card"], burst["merchant"])
        burst["declined"] = rng.random(len(burst)) < np.where(burst["declined"], 0.5, 0.05)
        burst["follows"] = True
        return burst

    def _retries(self, rng: np.random.Generator, rows: Rows) -> Rows:
        """Return second and third attempts after a decline."""
        attempts = []
        current = rows
        for _ in range(3):
            again = current["declined"] & (rng.random(len(current)) < _RETRY_SHARE)
            current = current[again]
            current["ts_ms"] += rng.lognormal(np.log(40_000), 0.6, len(current)).astype(np.int64)
            current["declined"] = rng.random(len(current)) < 0.6
            current["follows"] = True
            attempts.append(current)
        return np.concatenate(attempts)
