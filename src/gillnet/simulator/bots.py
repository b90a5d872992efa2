"""Bots: scrapers and credential stuffing at three levels of difficulty.

====== =================================== ============================================== =====================
level  gaps                                paths of a scraper                             origin
====== =================================== ============================================== =====================
0      all the same, to the millisecond    the catalogue in order                         one address, a script
1      uniform around the mean             the catalogue in order, some categories        a few addresses, a browser
2      replayed from people, ±3 %          replayed, half the products swapped for its    many home addresses
                                           own targets
====== =================================== ============================================== =====================

At level 2 credential stuffing wraps its attempts in replayed walks and changes cookies; what is left to find is the
number of failures, and gaps that repeat somebody's.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from gillnet.simulator.browsing import HUMAN_AGENTS, PRODUCTS, USER_AGENTS, Page, set_referrers
from gillnet.simulator.population import COUNTRIES, DAY_MS, ONE_OFF, Population
from gillnet.simulator.schemas import CLICK_ROW, Event, VisitorKind

if TYPE_CHECKING:
    from gillnet.simulator.config import SimulationConfig
    from gillnet.simulator.randomness import Floats, Integers, Rows

_REMEMBERED, _REMEMBERED_PER_WINDOW, _WORTH_REPLAYING = 256, 64, 6
_SCRAPER_CLICKS = ((150, 600), (80, 300), (40, 160))
_STUFFING_CLICKS = ((60, 300), (40, 150), (30, 90))
_SCRAPERS = 0.6
_CLICKS_PER_COOKIE = 30
_ATTEMPT_SHARE = (1.0, 1.0, 0.4)


class Cookies:
    """Hands out cookies that are used for one visit."""

    def __init__(self) -> None:
        self._given = 0

    def take(self, count: int) -> Integers:
        """Return new cookie numbers."""
        self._given += count
        return ONE_OFF | np.arange(self._given - count, self._given)


class _Trace(NamedTuple):
    """A human session to replay: gaps in milliseconds before each click, and what was clicked."""

    gaps_ms: Floats
    page: Integers
    number: Integers
    event: Integers


class BotFleet:
    """Runs bots, window by window. Remembers some human sessions, which the cleverest bots replay."""

    def __init__(self, config: SimulationConfig, population: Population, cookies: Cookies) -> None:
        self._config = config
        self._population = population
        self._cookies = cookies
        self._traces: deque[_Trace] = deque(maxlen=_REMEMBERED)

    def watch(self, rng: np.random.Generator, rows: Rows, counts: Integers) -> None:
        """Remember some of these human sessions."""
        starts = np.cumsum(counts) - counts
        long_enough = np.flatnonzero(counts >= _WORTH_REPLAYING)
        for session in rng.permutation(long_enough)[:_REMEMBERED_PER_WINDOW].tolist():
            clicks = rows[starts[session] : starts[session] + counts[session]]
            gaps = np.diff(clicks["ts_ms"]).astype(np.float64)
            if gaps.max() < 5 * 60_000:  # a bot has no time for a coffee
                self._traces.append(_Trace(gaps, clicks["page"][1:], clicks["number"][1:], clicks["event"][1:]))

    def window(self, rng: np.random.Generator, start_ms: int, end_ms: int) -> Rows:
        """Return the clicks of bots that start within the window; many lie after its end."""
        runs = [np.zeros(0, CLICK_ROW)]
        expected = self._config.bots_per_day * (end_ms - start_ms) / DAY_MS
        for start in rng.integers(start_ms, end_ms, rng.poisson(expected)).tolist():
            level = int(self._config.bot_difficulty) + int(rng.random() < self._config.bot_difficulty % 1)
            if level == 2 and not self._traces:
                continue  # nobody was there yet whom it could replay
            run = self._scraper(rng, level) if rng.random() < _SCRAPERS else self._credential_stuffing(rng, level)
            run["ts_ms"] += start
            run["level"] = level
            runs.append(run)
        return np.concatenate(runs)

    def _scraper(self, rng: np.random.Generator, level: int) -> Rows:
        rows = self._paced(rng, level, int(rng.integers(*_SCRAPER_CLICKS[level])))
        count = len(rows)
        targets = (int(rng.integers(0, PRODUCTS)) + np.arange(count)) % PRODUCTS
        if level < 2:
            category = (np.arange(count) % 20 == 0) & (level == 1)
            rows["page"] = np.where(category, Page.CATEGORY, Page.PRODUCT)
            rows["number"] = np.where(category, targets % 60, targets)
        else:
            swapped = (rows["page"] == Page.PRODUCT) & (rng.random(count) < 0.5)
            rows["number"] = np.where(swapped, targets, rows["number"])
            rows["event"] = np.where(rows["page"] == Page.SEARCH, Event.SEARCH, Event.VIEW)
        rows["status"] = np.where(rng.random(count) < 0.02, 404, 200)
        rows["status"][rng.random(count) < (0.03, 0.01, 0.0)[level]] = 429
        rows["user"] = -1
        rows["kind"] = VisitorKind.SCRAPER
        addresses = (1, int(rng.integers(1, 4)), int(rng.integers(1, 6)))[level]
        self._disguise(rng, rows, level, np.arange(count) * addresses // count, agents=1)
        rows["visitor"] = self._cookies.take(1)
        self._finish(rows, refers=level > 0)
        return rows

    def _credential_stuffing(self, rng: np.random.Generator, level: int) -> Rows:
        rows = self._paced(rng, level, int(rng.integers(*_STUFFING_CLICKS[level])))
        count = len(rows)
        attempt = rng.random(count) < _ATTEMPT_SHARE[level]
        hit = attempt & (rng.random(count) < 0.01)
        rows["page"] = np.where(attempt, Page.LOGIN, rows["page"])
        rows["number"] = np.where(attempt, 0, rows["number"])
        walking = np.where(rows["page"] == Page.SEARCH, Event.SEARCH, Event.VIEW)
        rows["event"] = np.where(hit, Event.LOGIN, np.where(attempt, Event.LOGIN_FAILED, walking))
        rows["status"] = np.where(attempt & ~hit, 401, 200)
        known = attempt & (rng.random(count) < 0.7)  # the others are names that nobody here bears
        rows["user"] = np.where(known | hit, rng.integers(0, len(self._population.user_home), count), -1)
        rows["kind"] = VisitorKind.CREDENTIAL_STUFFING
        address = (np.zeros(count, dtype=np.int64), np.arange(count) // 12, np.arange(count) // 3)[level]
        self._disguise(rng, rows, level, address, agents=(1, 5, 40)[level])
        cookie = np.arange(count) // (count if level < 2 else _CLICKS_PER_COOKIE)
        rows["visitor"] = self._cookies.take(int(cookie[-1]) + 1)[cookie]
        self._finish(rows, refers=level > 0)
        return rows

    def _paced(self, rng: np.random.Generator, level: int, count: int) -> Rows:
        """Return rows with instants from 0, and at level 2 with a replayed path."""
        rows = np.zeros(count, CLICK_ROW)
        if level == 2:
            traces = self._enough_traces(rng, count)
            for field in ("page", "number", "event"):
                rows[field] = np.concatenate([getattr(trace, field) for trace in traces])[:count]
            gaps = np.concatenate([trace.gaps_ms for trace in traces])[:count] * rng.normal(1.0, 0.03, count)
            # A trace may hold a login or a purchase of its own; the bot walks by.
            rows["page"] = np.where(rows["event"] > Event.SEARCH, Page.HOME, rows["page"])
            rows["number"] = np.where(rows["event"] > Event.SEARCH, 0, rows["number"])
        else:
            mean = np.exp(rng.uniform(np.log(300), np.log(3_000)))
            gaps = np.full(count, np.rint(mean))
            if level == 1:
                gaps *= rng.uniform(0.35, 1.65, count)
        gaps[0] = 0
        rows["ts_ms"] = np.cumsum(np.maximum(gaps, 0)).astype(np.int64)
        return rows

    def _enough_traces(self, rng: np.random.Generator, count: int) -> list[_Trace]:
        traces: list[_Trace] = []
        held = 0
        while held < count:
            traces.append(self._traces[int(rng.integers(0, len(self._traces)))])
            held += len(traces[-1].gaps_ms)
        return traces

    def _disguise(self, rng: np.random.Generator, rows: Rows, level: int, address: Integers, agents: int) -> None:
        """Give the run its addresses (``address`` counts them up) and user agents."""
        count = int(address[-1]) + 1
        if level == 2:
            ip = self._population.address(rng.integers(0, len(COUNTRIES), count), rng.integers(0, 0x7F_FFFF, count))
        else:
            ip, _ = self._population.data_centre_address(rng, count)
        rows["ip"] = ip[address]
        lowest, highest = (HUMAN_AGENTS, len(USER_AGENTS)) if level == 0 else (0, HUMAN_AGENTS)
        rows["agent"] = rng.integers(lowest, highest, agents)[address % agents]

    @staticmethod
    def _finish(rows: Rows, *, refers: bool) -> None:
        rows["opens"][0] = True
        rows["opens"][1:] = rows["visitor"][1:] != rows["visitor"][:-1]
        if refers:
            set_referrers(rows)
        else:
            rows["from_page"] = -1
