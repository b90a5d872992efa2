"""How people browse: the site's pages, the paths through them, and the pace of clicks.

Gaps between clicks are heavy-tailed, some people are very fast, some forget their password and reset it; so neither
rate nor a failed login sets a villain apart.
"""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple

import numpy as np

from gillnet.simulator.population import zipf_weights
from gillnet.simulator.randomness import (
    Floats,
    Integers,
    Mask,
    Rows,
    draw,
    draw_table,
    group_offsets,
    position_in_group,
)
from gillnet.simulator.schemas import CLICK_ROW, Event


class Page(IntEnum):
    """A kind of page; indexes `PAGE_URLS` and `PAGE_DIGITS`."""

    HOME = 0
    CATEGORY = 1
    SEARCH = 2
    PRODUCT = 3
    ACCOUNT = 4
    LOGIN = 5
    PASSWORD = 6
    CART = 7
    CHECKOUT = 8


PAGE_URLS = (
    "/",
    "/category/",
    "/search?q=",
    "/product/",
    "/account",
    "/login",
    "/password/reset",
    "/cart",
    "/checkout",
)
PAGE_DIGITS = (0, 2, 3, 5, 0, 0, 0, 0, 0)
NUMBER_WIDTH = 5
PRODUCTS, CATEGORIES_OF_GOODS, SEARCH_TERMS = 60_000, 60, 800

_SYSTEMS = (
    "Windows NT 10.0; Win64; x64",
    "Macintosh; Intel Mac OS X 10_15_7",
    "X11; Linux x86_64",
    "Linux; Android 15; Pixel 9",
    "Linux; Android 14; SM-S921B",
    "iPhone; CPU iPhone OS 18_2 like Mac OS X",
)
_BROWSERS = tuple(
    f"AppleWebKit/537.36 (KHTML, like Gecko) Chrome/{major}.0.0.0 Safari/537.36" for major in range(126, 141)
)
SCRIPT_AGENTS = ("python-requests/2.32.3", "curl/8.11.1", "Go-http-client/2.0", "Scrapy/2.12 (+https://scrapy.org)")
USER_AGENTS = tuple(f"Mozilla/5.0 ({system}) {browser}" for system in _SYSTEMS for browser in _BROWSERS) + SCRIPT_AGENTS
HUMAN_AGENTS = len(USER_AGENTS) - len(SCRIPT_AGENTS)

LONGEST_PURCHASE_MS = 45 * 60_000
"""A session that ends in a payment is squeezed into this span, so that it begins soon enough before the payment."""

_LONGEST_WALK, _LONGEST_GAP_S, _SHORTEST_GAP_S = 40, 1_500.0, 0.08
_BROWSE = (Page.HOME, Page.CATEGORY, Page.SEARCH, Page.PRODUCT, Page.ACCOUNT)
_ENTRY = np.cumsum([0.45, 0.15, 0.1, 0.3, 0.0])
_NEXT = np.cumsum(
    [
        [0.02, 0.36, 0.38, 0.19, 0.05],  # from home
        [0.05, 0.20, 0.10, 0.64, 0.01],  # from a category
        [0.02, 0.06, 0.27, 0.65, 0.00],  # from a search
        [0.06, 0.20, 0.21, 0.51, 0.02],  # from a product
        [0.40, 0.15, 0.15, 0.15, 0.15],  # from the account
    ],
    axis=1,
)
_PRODUCT_TABLE = draw_table(zipf_weights(PRODUCTS, 0.9, flat=30), 1 << 18)
_EVENT_PAGE = np.array(
    [Page.HOME, Page.SEARCH, Page.LOGIN, Page.LOGIN, Page.PASSWORD, Page.CART, Page.CHECKOUT], dtype=np.uint8
)


class Visits(NamedTuple):
    """What is decided of sessions before their first click; one element each.

    ``at_ms`` is the first click, or the last one where ``buys``. ``pace`` is the logarithm of the median gap in
    seconds. ``user`` is -1 for a guest. The ``forgetful`` must log in, and often fail.
    """

    at_ms: Integers
    user: Integers
    visitor: Integers
    ip: Integers
    agent: Integers
    pace: Floats
    buys: Mask
    forgetful: Mask


class _Plan(NamedTuple):
    """The make-up of sessions: ``walk`` pages, a login block before or after them, and ``close`` clicks of a purchase.

    A login block has ``login`` clicks: ``failed`` attempts, a ``reset`` or none, and the login.
    """

    walk: Integers
    failed: Integers
    reset: Integers
    login: Integers
    login_at: Integers
    close: Integers


def human_clicks(rng: np.random.Generator, visits: Visits) -> tuple[Rows, Integers]:
    """Let people browse.

    Returns
    -------
    tuple of rows and counts
        Clicks, session after session, each in the order of time; and how many each session has.
    """
    plan = _plan(rng, visits)
    counts = plan.walk + plan.login + plan.close
    session, place = np.repeat(np.arange(len(counts)), counts), position_in_group(counts)
    rows = np.zeros(len(session), CLICK_ROW)
    _set_events(rng, rows, plan, session, place)
    _set_numbers(rng, rows)
    for field in ("visitor", "ip", "agent"):
        rows[field] = getattr(visits, field)[session]
    known = (plan.login[session] == 0) | (place >= plan.login_at[session])
    rows["user"] = np.where(known, visits.user[session], -1)
    rows["opens"] = place == 0
    set_referrers(rows)
    rows["ts_ms"] = _instants(rng, visits, counts, session, place)
    missing = (rows["event"] == Event.VIEW) & (rng.random(len(rows), dtype=np.float32) < 0.012)
    rows["status"][missing] = 404
    return rows, counts


def _plan(rng: np.random.Generator, visits: Visits) -> _Plan:
    count = len(visits.user)
    walk = 2 + np.minimum(_LONGEST_WALK - 2, rng.lognormal(np.log(5), 0.8, count)).astype(np.int64)
    luck = rng.random((5, count))
    logs_in = (visits.user >= 0) & (luck[0] < np.where(visits.forgetful, 0.85, 0.25))
    fails = logs_in & (luck[1] < np.where(visits.forgetful, 0.4, 0.14))
    failed = np.where(fails, rng.geometric(0.45, count), 0)
    reset = (fails & (luck[2] < 0.1 + 0.2 * failed)).astype(np.int64)
    login = np.where(logs_in, failed + reset + 1, 0)
    close = np.where(visits.buys, 2, (luck[3] < 0.15).astype(np.int64))
    return _Plan(walk, failed, reset, login, np.where(luck[4] < 0.5, 0, walk), close)


def _set_events(rng: np.random.Generator, rows: Rows, plan: _Plan, session: Integers, place: Integers) -> None:
    """Say of each click which page and event it is: a walk over the pages, the login block, the purchase."""
    login_at, login = plan.login_at[session], plan.login[session]
    walked = np.minimum(place - np.where(place >= login_at + login, login, 0), plan.walk[session] - 1)
    page = _walk(rng, len(plan.walk), int(plan.walk.max(initial=1)))[session, walked]
    event = np.where(page == Page.SEARCH, Event.SEARCH, Event.VIEW).astype(np.uint8)
    step = place - login_at
    inside = (step >= 0) & (step < login)
    failed = plan.failed[session]
    event[inside] = Event.LOGIN
    event[inside & (step < failed)] = Event.LOGIN_FAILED
    event[inside & (step == failed) & (plan.reset[session] == 1)] = Event.PASSWORD_RESET
    closing = place - plan.walk[session] - login
    event[closing == 0] = Event.ADD_TO_CART
    event[closing == 1] = Event.CHECKOUT
    rows["event"] = event
    rows["page"] = np.where(event <= Event.SEARCH, page, _EVENT_PAGE[event])
    rows["status"] = np.where(event == Event.LOGIN_FAILED, 401, 200)


def _walk(rng: np.random.Generator, count: int, steps: int) -> Integers:
    """Walk the graph of pages: (count, steps) kinds of page."""
    pages = np.empty((count, steps), dtype=np.uint8)
    luck = rng.random((steps, count), dtype=np.float32)
    pages[:, 0] = np.minimum((luck[0][:, None] > _ENTRY).sum(axis=1), len(_BROWSE) - 1)
    for step in range(1, steps):
        odds = _NEXT[pages[:, step - 1]]
        pages[:, step] = np.minimum((luck[step][:, None] > odds).sum(axis=1), len(_BROWSE) - 1)
    return pages


def _set_numbers(rng: np.random.Generator, rows: Rows) -> None:
    count, page = len(rows), rows["page"]
    terms = (SEARCH_TERMS * rng.random(count) ** 3).astype(np.int64)
    number = np.where(page == Page.SEARCH, terms, 0)
    number = np.where(page == Page.CATEGORY, rng.integers(0, CATEGORIES_OF_GOODS, count), number)
    rows["number"] = np.where(page == Page.PRODUCT, draw(rng, _PRODUCT_TABLE, count), number)


def set_referrers(rows: Rows) -> None:
    """Make each click refer to the one before it; the first of a session refers to nothing."""
    rows["from_page"][1:], rows["from_number"][1:] = rows["page"][:-1], rows["number"][:-1]
    rows["from_page"][rows["opens"]] = -1


def _instants(
    rng: np.random.Generator, visits: Visits, counts: Integers, session: Integers, place: Integers
) -> Integers:
    noise = rng.standard_normal(len(session), dtype=np.float32)
    pause = 2.5 * (rng.random(len(session), dtype=np.float32) < 0.02)
    gaps = np.clip(np.exp(visits.pace[session] + noise + pause), _SHORTEST_GAP_S, _LONGEST_GAP_S) * 1_000
    gaps[place == 0] = 0.0
    offset = group_offsets(gaps, counts)
    length = offset[np.cumsum(counts) - 1]
    squeeze = np.where(visits.buys, np.minimum(1.0, LONGEST_PURCHASE_MS / np.maximum(length, 1.0)), 1.0)
    start = visits.at_ms - np.where(visits.buys, length * squeeze, 0.0)
    instants: Integers = (start[session] + offset * squeeze[session]).astype(np.int64)
    return instants
