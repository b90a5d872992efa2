"""Fraud: campaigns that begin within a window, and the payments that they make then and later.

A campaign first *sketches* its payments: when, with which card, and what differs from an honest payment. The sketches
are then completed as if honest customers had paid, and the differences laid over. How loud a campaign is follows from
its own stealth in [0, 1], drawn around ``SimulationConfig.difficulty``. A plan is a pure function of (configuration,
window), which is how account take-overs appear in the clicks and in the payments alike, though each stream is
generated on its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from gillnet.simulator.browsing import HUMAN_AGENTS
from gillnet.simulator.payments import HOUR_MS, HonestPayments
from gillnet.simulator.population import COUNTRIES, DAY_MS, Population
from gillnet.simulator.randomness import Purpose, Rows, draw, generator
from gillnet.simulator.schemas import PAYMENT_ROW, Scenario

if TYPE_CHECKING:
    from collections.abc import Callable

    from gillnet.simulator.config import SimulationConfig

MINUTE_MS = 60_000

_SKETCH = np.dtype(
    [
        ("ts_ms", "i8"),
        ("card", "i4"),
        ("merchant", "i4"),  # -1: as the customer's habits have it
        ("amount", "i8"),  # -1: as usual there
        ("factor", "f8"),  # times the usual amount
        ("device", "i8"),  # -2: the customer's own; -1: none
        ("ip", "i8"),  # -1: the customer's own
        ("country", "i2"),  # -1: the customer's own
        ("decline", "f4"),  # probability; -1: as usual
        ("scenario", "u1"),
    ]
)

TAKEOVER = np.dtype(
    [
        ("user", "i4"),
        ("start_ms", "i8"),
        ("login_ms", "i8"),
        ("payment_ms", "i8"),
        ("failed", "i4"),
        ("reset", "?"),
        ("ip", "u4"),
        ("agent", "u1"),
    ]
)
"""An account take-over as the click stream sees it: failed logins from ``start_ms`` on, inside at ``login_ms``."""


class FraudPlan(NamedTuple):
    """What begins in a window: payments in no order (some later than the window), and take-overs."""

    sketches: Rows
    takeovers: Rows


class _Share(NamedTuple):
    """A scenario's share of fraud before and after drift, and its payments per campaign, loud and stealthy.

    The mean size of a campaign is linear in its stealth; from it follows how many campaigns make up the fraud rate.
    """

    before: float
    after: float
    size_loud: float
    size_stealthy: float


_MIX = {
    Scenario.CARD_TESTING: _Share(0.26, 0.12, 42.0, 22.2),
    Scenario.ACCOUNT_TAKEOVER: _Share(0.20, 0.30, 2.8, 1.72),
    Scenario.STOLEN_CARD_SPREE: _Share(0.24, 0.20, 9.0, 4.1),
    Scenario.MERCHANT_COLLUSION: _Share(0.10, 0.18, 38.0, 38.0),
    Scenario.QUIET_FRAUD: _Share(0.20, 0.20, 1.0, 1.0),
}


class FraudCampaigns:
    """Plans and carries out the fraud of a simulation."""

    def __init__(self, config: SimulationConfig, population: Population) -> None:
        self._config = config
        self._population = population
        self._drift_ms = None if config.drift_start_us is None else config.drift_start_us // 1_000
        self._scenarios: dict[Scenario, Callable[[np.random.Generator, int, float], Rows]] = {
            Scenario.CARD_TESTING: self._card_testing,
            Scenario.STOLEN_CARD_SPREE: self._spree,
            Scenario.MERCHANT_COLLUSION: self._collusion,
            Scenario.QUIET_FRAUD: self._quiet,
        }

    def plan(self, window: int, start_ms: int, end_ms: int) -> FraudPlan:
        """Plan the campaigns that begin within a window."""
        rng = generator(self._config.seed, Purpose.FRAUD_PLAN, window)
        drift = self._config.drift_strength if self._drift_ms is not None and start_ms >= self._drift_ms else 0.0
        sketches, takeovers = [np.zeros(0, _SKETCH)], [np.zeros(0, TAKEOVER)]
        per_window = self._config.fraud_rate * self._config.payments_per_day * (end_ms - start_ms) / DAY_MS
        for scenario, mix in _MIX.items():
            share = max(0.0, mix.before + drift * (mix.after - mix.before))
            size = mix.size_loud + self._mean_stealth(drift) * (mix.size_stealthy - mix.size_loud)
            for start in rng.integers(start_ms, end_ms, rng.poisson(per_window * share / size)).tolist():
                stealth = self._stealth(rng, drift)
                if scenario is Scenario.ACCOUNT_TAKEOVER:
                    sketch, takeover = self._takeover(rng, start, stealth)
                    takeovers.append(takeover)
                else:
                    sketch = self._scenarios[scenario](rng, start, stealth)
                sketch["scenario"] = scenario
                if drift and scenario in (Scenario.ACCOUNT_TAKEOVER, Scenario.STOLEN_CARD_SPREE):
                    sketch["factor"] *= 1.0 - 0.25 * drift
                sketches.append(sketch)
        return FraudPlan(np.concatenate(sketches), np.concatenate(takeovers))

    def carry_out(self, plan: FraudPlan, window: int, honest: HonestPayments) -> Rows:
        """Complete a plan's payments."""
        sketch = plan.sketches
        if len(sketch) == 0:
            return np.zeros(0, PAYMENT_ROW)
        rng = generator(self._config.seed, Purpose.FRAUD_DETAIL, window)
        rows = honest.complete(rng, sketch["ts_ms"], sketch["card"], sketch["merchant"])
        usual = np.clip(rows["amount"] * sketch["factor"], 50, 99_999_99).astype(np.int64)
        rows["amount"] = np.where(sketch["amount"] >= 0, sketch["amount"], usual)
        online = self._population.merchant_online[rows["merchant"]]
        for field, keep in (("device", -2), ("ip", -1), ("country", -1)):
            # A till has its own address and sees no device, whoever holds the card.
            replaced = (sketch[field] != keep) & online
            rows[field][replaced] = sketch[field][replaced]
        refused = rng.random(len(rows)) < sketch["decline"]
        rows["declined"] = np.where(sketch["decline"] >= 0, refused, rows["declined"])
        rows["scenario"] = sketch["scenario"]
        # Only quiet fraud, often by the family or the customer, comes with a visit to the site as honest payments do.
        rows["follows"] = sketch["scenario"] != Scenario.QUIET_FRAUD
        return rows

    def _mean_stealth(self, drift: float) -> float:
        return min(0.95, 0.08 + 0.8 * self._config.difficulty + 0.12 * drift)

    def _stealth(self, rng: np.random.Generator, drift: float) -> float:
        mean = self._mean_stealth(drift)
        return float(rng.beta(4 * mean, 4 * (1 - mean)))

    def _card_testing(self, rng: np.random.Generator, start: int, stealth: float) -> Rows:
        """Try many stolen cards with small amounts, from one machine or a small network."""
        cards = 6 + int(rng.poisson(22 * (1 - 0.6 * stealth)))
        # Stolen in bulk, most cards are seldom used; the careful buy cards that are in use.
        in_bulk = rng.integers(0, len(self._population.card_user), cards)
        stolen = np.where(rng.random(cards) < stealth, self._population.draw_cards(rng, cards), in_bulk)
        attempts = np.repeat(stolen, rng.integers(1, 3, cards))
        sketch = _blank(len(attempts))
        sketch["card"] = attempts
        gaps = rng.lognormal(np.log(6_000 * 90**stealth), 0.8, len(attempts))
        sketch["ts_ms"] = start + np.cumsum(gaps).astype(np.int64)
        merchants = draw(rng, self._population.small, 1 + int(12 * stealth))
        sketch["merchant"] = rng.choice(merchants, len(attempts))
        amounts = rng.lognormal(np.log(1.5 + 7 * stealth), 0.3 + 0.4 * stealth, len(attempts))
        natural = rng.random(len(attempts)) < stealth
        sketch["amount"] = np.where(natural, -1, np.clip(100 * amounts, 50, 5_000).astype(np.int64))
        devices = rng.choice(self._population.fresh_devices(rng, 1 + int(25 * stealth**2)), len(attempts))
        sketch["device"] = np.where(rng.random(len(attempts)) < 0.5 * stealth, -1, devices)
        self._set_addresses(rng, sketch, 1 + int(20 * stealth**2), hidden=0.3 + 0.4 * stealth)
        self._use_home_proxies(rng, sketch, 0.8 * stealth)
        sketch["decline"] = 0.6 - 0.48 * stealth
        return sketch

    def _takeover(self, rng: np.random.Generator, start: int, stealth: float) -> tuple[Rows, Rows]:
        """Guess or reset a password, then shop from a new device and another country."""
        card = self._population.draw_cards(rng, 1)
        takeover = np.zeros(1, TAKEOVER)
        takeover["user"] = self._population.card_user[card]
        takeover["start_ms"] = start
        takeover["failed"] = rng.poisson(5 * (1 - stealth))
        takeover["reset"] = rng.random() < 0.8 - 0.5 * stealth
        takeover["login_ms"] = start + int(rng.lognormal(np.log(3 * MINUTE_MS), 0.7))
        first = takeover["login_ms"] + MINUTE_MS + int(rng.lognormal(np.log(5 * MINUTE_MS * 8**stealth), 0.8))
        takeover["payment_ms"], takeover["agent"] = first, rng.integers(0, HUMAN_AGENTS)
        count = 1 + int(rng.poisson(1.8 * (1 - 0.6 * stealth)))
        sketch = _blank(count)
        gaps = rng.lognormal(np.log(6 * MINUTE_MS * 4**stealth), 0.8, count)
        gaps[0] = 0.0
        sketch["ts_ms"], sketch["card"] = first + np.cumsum(gaps).astype(np.int64), card
        resale = rng.random(count) < 0.7 - 0.4 * stealth
        elsewhere = draw(rng, self._population.online, count)
        sketch["merchant"] = np.where(resale, draw(rng, self._population.resale_online, count), elsewhere)
        sketch["factor"] = rng.lognormal(np.log(2.4 - 1.3 * stealth), 0.4, count)
        if rng.random() < 1 - 0.4 * stealth:
            sketch["device"] = self._population.fresh_devices(rng, 1)
        self._set_addresses(rng, sketch, 1, hidden=0.3, home=0.1 + 0.5 * stealth)
        takeover["ip"] = sketch["ip"][0]
        sketch["decline"] = 0.15
        return sketch, takeover

    def _spree(self, rng: np.random.Generator, start: int, stealth: float) -> Rows:
        """Buy what resells well with a stolen card, until it is declined."""
        count = 2 + int(rng.poisson(7 * (1 - 0.7 * stealth)))
        sketch = _blank(count)
        gaps = rng.lognormal(np.log(2.5 * MINUTE_MS * 25**stealth), 0.8, count)
        sketch["ts_ms"] = start + np.cumsum(gaps).astype(np.int64)
        sketch["card"] = self._population.draw_cards(rng, 1)
        cloned = rng.random() < 0.35
        usual = rng.random(count) < 0.5 * stealth
        loot = draw(rng, self._population.resale if cloned else self._population.resale_online, count)
        disguise = -1 if cloned else draw(rng, self._population.online, count)
        sketch["merchant"] = np.where(usual, disguise, loot)
        sketch["factor"] = rng.lognormal(np.log(2.0 - 0.9 * stealth), 0.5, count)
        if rng.random() < 0.9 - 0.3 * stealth:
            sketch["device"] = self._population.fresh_devices(rng, 1)
        self._set_addresses(rng, sketch, 1 + int(2 * stealth), hidden=0.35, home=0.15 + 0.5 * stealth)
        sketch["decline"] = np.minimum(0.8, 0.06 + (0.08 - 0.05 * stealth) * np.arange(count))
        return sketch

    def _collusion(self, rng: np.random.Generator, start: int, stealth: float) -> Rows:
        """Let a merchant charge a pool of cards, more and more over days, in amounts that look made up."""
        count = 12 + int(rng.poisson(26))
        merchant = int(rng.choice(self._population.obscure))
        sketch = _blank(count)
        length = rng.uniform(0.5, 3.0) * DAY_MS * (0.4 + stealth)
        sketch["ts_ms"] = start + (length * np.sqrt(rng.random(count))).astype(np.int64)
        pool = self._population.draw_cards(rng, int(rng.integers(4, 9) * (1 + 2 * stealth)))
        sketch["card"], sketch["merchant"] = rng.choice(pool, count), merchant
        round_amounts = rng.choice([2_500, 5_000, 10_000], count) * rng.integers(2, 9, count)
        made_up = rng.random(count) < 0.8 - 0.6 * stealth
        sketch["amount"] = np.where(made_up, round_amounts, -1)
        sketch["factor"] = rng.lognormal(np.log(2.2 - 0.9 * stealth), 0.4, count)
        sketch["decline"] = 0.03
        return sketch

    def _quiet(self, rng: np.random.Generator, start: int, stealth: float) -> Rows:
        """Pay once, much as the customer would: half of all such fraud is beyond any model."""
        sketch = _blank(1)
        sketch["ts_ms"], sketch["card"] = start + int(rng.integers(0, HOUR_MS)), self._population.draw_cards(rng, 1)
        if rng.random() < 0.6:
            sketch["merchant"] = draw(rng, self._population.online, 1)
        sketch["factor"] = rng.lognormal(0.5 * (1 - stealth), 0.5)
        if rng.random() < 0.45 * (1 - 0.5 * stealth):
            sketch["device"] = self._population.fresh_devices(rng, 1)
        return sketch

    def _set_addresses(
        self, rng: np.random.Generator, sketch: Rows, count: int, *, hidden: float, home: float = 0.0
    ) -> None:
        """Give a campaign ``count`` addresses: of data centres, of the victim's own country, or of strangers' homes."""
        if rng.random() < hidden:
            ip, country = self._population.data_centre_address(rng, count)
        else:
            country = rng.integers(0, len(COUNTRIES), count)
            if rng.random() < home:
                country[:] = self._population.user_home[self._population.card_user[sketch["card"][0]]]
            ip = self._population.address(country, rng.integers(0, 0x7F_FFFF, count))
        which = rng.integers(0, count, len(sketch))
        sketch["ip"], sketch["country"] = ip[which], country[which]

    def _use_home_proxies(self, rng: np.random.Generator, sketch: Rows, share: float) -> None:
        """Move a share of payments behind a home connection in the country of their card."""
        moved = np.flatnonzero(rng.random(len(sketch)) < share)
        home = self._population.user_home[self._population.card_user[sketch["card"][moved]]]
        sketch["ip"][moved] = self._population.address(home, rng.integers(0, 0x7F_FFFF, len(moved)))
        sketch["country"][moved] = home


def _blank(count: int) -> Rows:
    sketch = np.zeros(count, _SKETCH)
    for field, keep in (("merchant", -1), ("amount", -1), ("device", -2), ("ip", -1), ("country", -1), ("decline", -1)):
        sketch[field] = keep
    sketch["factor"] = 1.0
    return sketch
