"""The schemas of the simulated streams, and the rows that stand for their records until they are encoded.

A row holds numbers only (indices into the population, scaled integers, codes); its text is made at the very end, in
`gillnet.simulator.encoding`.
"""

from __future__ import annotations

from enum import IntEnum, IntFlag

import numpy as np

from gillnet.core.schema import Boolean, Decimal, Integer, Schema, String, Timestamp

PAYMENT_SCHEMA = Schema(
    tx_id=String(),
    ts=Timestamp("ms"),
    card_id=String(),
    user_id=String(),
    device_id=String(nullable=True),
    merchant_id=String(),
    ip=String(),
    country=String(),
    amount=Decimal(2, minimum=0),
    currency=String(),
    channel=String(),
    mcc=String(),
    status=String(),
    card_present=Boolean(),
    billing_country=String(),
)
"""A payment. ``channel``: online, pos, atm. ``status``: approved, declined. ``country``: where the customer seems
to be."""

CLICK_SCHEMA = Schema(
    click_id=String(),
    ts=Timestamp("ms"),
    user_id=String(nullable=True),
    visitor_id=String(),
    ip=String(),
    url=String(),
    method=String(),
    status_code=Integer(minimum=100, maximum=599),
    referrer=String(nullable=True),
    user_agent=String(),
    event=String(),
)
"""A request to the site. ``event``: one of `EVENTS`. ``visitor_id``: the cookie; ``user_id``: null if nobody is
logged in."""

LABEL_SCHEMA = Schema(tx_id=String(), fraud=Boolean(), scenario=String(), known_at=Timestamp("ms"))
"""What became known of a payment, and when. ``scenario``: one of `SCENARIOS`."""

VISITOR_LABEL_SCHEMA = Schema(visitor_id=String(), bot=Boolean(), kind=String(), level=Integer(nullable=True))
"""Who stood behind a cookie. ``kind``: one of `VISITOR_KINDS`. ``level``: a bot's difficulty,
0, 1 or 2; null for people."""

EVENTS = ("view", "search", "login", "login_failed", "password_reset", "add_to_cart", "checkout")
SCENARIOS = ("legitimate", "card_testing", "account_takeover", "stolen_card_spree", "merchant_collusion", "quiet_fraud")
VISITOR_KINDS = ("human", "scraper", "credential_stuffing", "account_takeover")


class Channel(IntEnum):
    """How a payment was made."""

    ONLINE = 0
    POS = 1
    ATM = 2


class Scenario(IntEnum):
    """Why a payment is fraudulent; indexes `SCENARIOS`."""

    LEGITIMATE = 0
    CARD_TESTING = 1
    ACCOUNT_TAKEOVER = 2
    STOLEN_CARD_SPREE = 3
    MERCHANT_COLLUSION = 4
    QUIET_FRAUD = 5


class Event(IntEnum):
    """What a click did; indexes `EVENTS`."""

    VIEW = 0
    SEARCH = 1
    LOGIN = 2
    LOGIN_FAILED = 3
    PASSWORD_RESET = 4
    ADD_TO_CART = 5
    CHECKOUT = 6


class VisitorKind(IntEnum):
    """Who clicks; indexes `VISITOR_KINDS`."""

    HUMAN = 0
    SCRAPER = 1
    CREDENTIAL_STUFFING = 2
    ACCOUNT_TAKEOVER = 3


class Fault(IntFlag):
    """What was done to a record on its way."""

    NONE = 0
    LATE = 1
    DUPLICATE = 2
    MALFORMED = 4


_ARRIVAL = [("ts_ms", "i8"), ("arrival_ms", "i8"), ("sequence", "i8"), ("fault", "u1"), ("malformed", "u1")]

PAYMENT_ROW = np.dtype(
    [
        *_ARRIVAL,
        ("device", "i8"),  # number before `scramble`; -1: none
        ("amount", "i8"),  # hundredths
        ("card", "i4"),
        ("merchant", "i4"),
        ("ip", "u4"),
        ("country", "u1"),
        ("declined", "?"),
        ("present", "?"),
        ("follows", "?"),  # a retry or a further payment of a burst: no session of its own precedes it
        ("scenario", "u1"),
    ]
)

CLICK_ROW = np.dtype(
    [
        *_ARRIVAL,
        ("visitor", "i8"),  # number before `scramble`
        ("user", "i4"),  # -1: nobody is logged in
        ("ip", "u4"),
        ("page", "u1"),
        ("number", "i4"),
        ("from_page", "i1"),  # -1: no referrer
        ("from_number", "i4"),
        ("agent", "u1"),
        ("event", "u1"),
        ("status", "u2"),
        ("opens", "?"),  # the first click of its session
        ("kind", "u1"),
        ("level", "u1"),
    ]
)
