"""The click stream: sessions that lead to payments, sessions that do not, take-overs, and bots.

It walks the ledger of payments, so that an honest online payment mostly has a session of the same user just before
it, as a fraudulent one has; without that, any click before a payment would give a take-over away.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from gillnet.simulator.bots import BotFleet, Cookies
from gillnet.simulator.browsing import HUMAN_AGENTS, LONGEST_PURCHASE_MS, Page, Visits, human_clicks, set_referrers
from gillnet.simulator.ledger import Window, ripen
from gillnet.simulator.payments import sample_instants
from gillnet.simulator.population import ONE_OFF, Population
from gillnet.simulator.randomness import Integers, Purpose, Rows, generator, mix
from gillnet.simulator.schemas import CLICK_ROW, Event, Scenario, VisitorKind

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gillnet.simulator.config import SimulationConfig
    from gillnet.simulator.fraud import FraudCampaigns

_PAYMENTS_WITH_SESSION = 0.6
_GUESTS = 0.45
_LEAD_MS = LONGEST_PURCHASE_MS + 60_000


class ClickStream:
    """Walks all clicks in the order of event time, with ascending ``sequence`` from 0.

    Notes
    -----
    Holds one window, the lead of three quarters of an hour before payments, and the rest of sessions under way.
    """

    def __init__(self, config: SimulationConfig, population: Population, fraud: FraudCampaigns) -> None:
        self._config = config
        self._population = population
        self._fraud = fraud
        self._cookies = Cookies()
        self._bots = BotFleet(config, population, self._cookies)

    def windows(self, payments: Iterator[tuple[Window, Rows]]) -> Iterator[tuple[Window, Rows, int]]:
        """Yield window, clicks, and the instant in milliseconds before which no click will follow."""
        start_ms, end_ms = self._config.start_us // 1_000, self._config.end_us // 1_000
        pending, issued = np.zeros(0, CLICK_ROW), 0
        for window, paid in payments:
            fresh = self._window(window, paid)
            settled = end_ms if window.end_ms == end_ms else window.end_ms - _LEAD_MS
            # A purchase in the first minutes has a session from before the start: it is left out as a whole.
            early = fresh["visitor"][fresh["ts_ms"] < start_ms]
            if len(early):
                fresh = fresh[~np.isin(fresh["visitor"], early)]
            rows, pending = ripen(np.concatenate([pending, fresh]), settled)
            rows["sequence"] = np.arange(issued, issued + len(rows))
            issued += len(rows)
            yield window, rows, settled

    def _window(self, window: Window, paid: Rows) -> Rows:
        seed = self._config.seed
        rng = generator(seed, Purpose.SESSIONS, window.number)
        buying, buying_counts = human_clicks(rng, self._buying(rng, paid))
        looking, looking_counts = human_clicks(rng, self._looking(rng, window))
        rng = generator(seed, Purpose.BOTS, window.number)
        self._bots.watch(rng, looking, looking_counts)
        self._bots.watch(rng, buying, buying_counts)
        bots = self._bots.window(rng, window.start_ms, window.end_ms)
        rng = generator(seed, Purpose.TAKEOVER_CLICKS, window.number)
        takeovers = self._fraud.plan(*window).takeovers
        return np.concatenate([buying, looking, bots, *(self._takeover(rng, takeover) for takeover in takeovers)])

    def _buying(self, rng: np.random.Generator, paid: Rows) -> Visits:
        """Plan the sessions that end in an online payment."""
        population = self._population
        online = population.merchant_online[paid["merchant"]] & ~paid["follows"]
        usual = (paid["scenario"] == Scenario.LEGITIMATE) | (paid["scenario"] == Scenario.QUIET_FRAUD)
        paid = paid[online & usual & (rng.random(len(paid)) < _PAYMENTS_WITH_SESSION)]
        user = population.card_user[paid["card"]]
        slot = np.where((paid["device"] >= 0) & (paid["device"] < ONE_OFF), (paid["device"] >> 38) & 1, 0)
        cookie, new = population.device(user, slot, paid["ts_ms"])
        strange = paid["device"] >= ONE_OFF
        cookie[strange] = self._cookies.take(int(strange.sum()))
        return Visits(
            at_ms=paid["ts_ms"] - rng.integers(1_000, 20_000, len(paid)),
            user=user,
            visitor=cookie,
            ip=paid["ip"],
            agent=self._agents(cookie),
            pace=population.user_pace[user],
            buys=np.ones(len(paid), dtype=np.bool_),
            forgetful=new | strange,
        )

    def _looking(self, rng: np.random.Generator, window: Window) -> Visits:
        """Plan the sessions that lead to no payment, of customers and of guests."""
        population = self._population
        at_ms, card = sample_instants(rng, population, window.start_ms, window.end_ms, self._config.sessions_per_day)
        user, count = population.card_user[card], len(card)
        cookie, new = population.device(user, (rng.random(count) < 0.3).astype(np.int64), at_ms)
        here = population.location(user, at_ms)
        ip = population.home_address(user, at_ms, here)
        mobile = rng.random(count) < 0.4
        ip[mobile] = population.mobile_address(rng, here[mobile])
        guest = rng.random(count) < _GUESTS
        cookie[guest] = self._cookies.take(int(guest.sum()))
        return Visits(
            at_ms=at_ms,
            user=np.where(guest, -1, user),
            visitor=cookie,
            ip=ip,
            agent=self._agents(cookie),
            pace=population.user_pace[user],
            buys=np.zeros(count, dtype=np.bool_),
            forgetful=new,
        )

    def _agents(self, cookie: Integers) -> Integers:
        agents: Integers = (mix(self._population.salt + 6, cookie) % np.uint64(HUMAN_AGENTS)).astype(np.uint8)
        return agents

    def _takeover(self, rng: np.random.Generator, takeover: Rows) -> Rows:
        """Click as the villain does: guess, reset, log in, look around, buy."""
        failed, reset, walk = int(takeover["failed"]), int(takeover["reset"]), int(rng.integers(1, 7))
        events = [Event.LOGIN_FAILED] * failed + [Event.PASSWORD_RESET] * reset + [Event.LOGIN] + [Event.VIEW] * walk
        events += [Event.ADD_TO_CART, Event.CHECKOUT]
        rows = np.zeros(len(events), CLICK_ROW)
        rows["event"] = events
        pages = {Event.PASSWORD_RESET: Page.PASSWORD, Event.ADD_TO_CART: Page.CART, Event.CHECKOUT: Page.CHECKOUT}
        rows["page"] = [pages.get(event, Page.LOGIN) for event in events]
        look = rows["event"] == Event.VIEW
        rows["page"][look] = np.where(rng.random(walk) < 0.25, Page.ACCOUNT, Page.PRODUCT)
        rows["number"][look] = np.where(rows["page"][look] == Page.PRODUCT, rng.integers(0, 2_000, walk), 0)
        rows["status"] = np.where(rows["event"] == Event.LOGIN_FAILED, 401, 200)
        start, login, paid = int(takeover["start_ms"]), int(takeover["login_ms"]), int(takeover["payment_ms"])
        guessing = np.sort(rng.integers(start, login, failed + reset))
        shopping = np.sort(rng.integers(login + 1, max(login + 2, paid - 4_000), walk + 1))
        rows["ts_ms"] = np.concatenate([guessing, [login], shopping, [max(int(shopping[-1]), paid - 2_000)]])
        for field in ("user", "ip", "agent"):
            rows[field] = takeover[field]
        rows["visitor"] = self._cookies.take(1)
        rows["kind"] = VisitorKind.ACCOUNT_TAKEOVER
        rows["opens"][0] = True
        set_referrers(rows)
        return rows
