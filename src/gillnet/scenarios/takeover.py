"""Scenario 3: taken-over accounts, from two streams that come with different delays.

Payments are scored as they come, with what their user has clicked as of the payment. Who takes an account over fails to log in,
resets the password, and pays from a machine that the account does not know: a *sequence* of clicks, and then a payment.
Clicks may come after the payment that they led to, by seconds or by hours. A payment waits for them a moment (`MAX_WAIT`);
what comes later revises its row.

Besides its decisions a run writes every match of the two patterns (``matches``) and every payment beside the clicks of the
ten minutes before it (``joins.clicks_before``), as one finds them in an investigation.

It has no model: the bundled one takes the features of scenario 2. ``python -m gillnet.lifecycle.report_takeover`` says what the rules find.
"""

import gillnet as gn
from gillnet import Stream, col
from gillnet.api.features import Feature
from gillnet.api.patterns import Pattern
from gillnet.simulator.schemas import CLICK_SCHEMA, PAYMENT_SCHEMA

LATENESS = "6h"
"""Late by up to this: scored, and revises what it changes. Later than this: set aside, for `gillnet repair`. Of records that
are half an hour late in the median and a day at the most, one in twenty is too late; every hour more keeps each row an hour longer."""

MAX_WAIT = "30ms"
"""What a payment waits for its clicks: less than a customer notices."""

BEFORE = "2h"
"""How far back a take-over is brought into connection with a payment."""

HABIT = "7d"
"""The time in which one learns what an account usually looks like."""

failed_login = col("event") == "login_failed"
password_reset = col("event") == "password_reset"
login = col("event") == "login"
resold = col("mcc").is_in(["5732", "5734", "5944", "5947"])  # electronics, software, jewellery, gift cards


def build() -> gn.Pipeline:
    """Return the pipeline."""
    payments = Stream("payments", schema=PAYMENT_SCHEMA, id="tx_id", event_time="ts", allowed_lateness=LATENESS)
    clicks = Stream("clicks", schema=CLICK_SCHEMA, id="click_id", event_time="ts", allowed_lateness=LATENESS)
    found = {**payment_features(payments), **account_features(clicks), **comparisons()}
    return gn.Pipeline(
        gn.Features(payments, **found),
        name="takeover",
        max_wait=MAX_WAIT,
        joins=[clicks_before(payments, clicks)],
        policy=policy(),
    )


def payment_features(payments: Stream) -> dict[str, Feature]:
    """Say what the card did lately, and whether its machine was seen before: with any card, but not just now."""
    card = payments.by("card_id")
    return {
        "spend_1h": card.sum("amount", over="1h"),
        "usual_amount": card.mean("amount", over=HABIT, delay="1ms"),
        "device_before": payments.by("device_id").count(over=HABIT, delay=BEFORE),
        "address_before": payments.by("ip").count(over=HABIT, delay=BEFORE),
        "tested": tested(payments),
    }


def tested(payments: Stream) -> Pattern:
    """Return the pattern of a card that is tried out: a small payment, and within a minute a large one."""
    small = gn.step("small", where=col("amount") < 10)
    large = gn.step("large", where=(col("amount") > 50) & (col("amount") > 10 * small.last("amount")))
    return payments.by("card_id").pattern(gn.seq(small, large), within="1m")


def account_features(clicks: Stream) -> dict[str, Feature]:
    """Say what was done on the site in the user's name before the payment."""
    account = clicks.by("user_id")
    return {
        "failed_logins": account.count(over=BEFORE, where=failed_login).at("user_id"),
        "took_over": taken_over(clicks).at("user_id"),
        # Who logged in last, and who used to: a browser and a network do not change with every visit.
        **account.as_of(login_agent="user_agent", login_ip="ip", within=BEFORE, where=login).at("user_id"),
        "agent_before": account.last("user_agent", over=HABIT, delay=BEFORE).at("user_id"),
        "ip_before": account.last("ip", over=HABIT, delay=BEFORE).at("user_id"),
    }


def taken_over(clicks: Stream) -> Pattern:
    """Return the pattern of a guessed password: failed logins, then a reset, with nobody logged in between."""
    failed = gn.step("failed", where=failed_login)
    reset = gn.step("reset", where=password_reset)
    return clicks.by("user_id").pattern(
        gn.seq(failed.times(2), gn.not_between(login), reset), within="30m", over=BEFORE
    )


def comparisons() -> dict[str, Feature]:
    """Hold the payment against the account's own habits."""
    return {
        "new_device": col("device_before") == 0,
        "new_address": col("address_before") == 0,
        "abroad": col("country") != col("billing_country"),
        "from_login": col("ip") == col("login_ip"),
        "new_browser": col("login_agent") != col("agent_before"),
        "new_network": col("login_ip") != col("ip_before"),
        "spree": col("spend_1h") / (col("usual_amount") + 1),
    }


def clicks_before(payments: Stream, clicks: Stream) -> gn.IntervalJoin:
    """Return each payment beside what its user did on the site in the ten minutes before, or beside nothing."""
    return gn.IntervalJoin(
        "clicks_before",
        payments.by("user_id"),
        clicks.by("user_id"),
        lower="-10m",
        upper="0s",
        how="left",
        where=~col("clicks.event").is_in(["view", "search"]),
        select={
            "amount": "payments.amount",
            "event": "clicks.event",
            "same_address": col("payments.ip") == col("clicks.ip"),
        },
    )


def policy() -> list[gn.Rule]:
    """Rules in order: the first that matches decides, and each that matches gives its reason.

    What is null does not match: without clicks in the user's name nothing is said about his login.
    """
    guessed = col("failed_logins") >= 1
    stranger = col("new_device") & col("new_browser") & col("new_network")
    return [
        gn.block(col("took_over") & stranger & (resold | col("abroad")), reason="taken_over"),
        gn.block(guessed & col("new_device") & col("abroad"), reason="guessed_from_abroad"),
        gn.block(col("from_login") & stranger & col("new_address") & col("abroad"), reason="stranger_logged_in"),
        gn.review(guessed & stranger & col("from_login") & (resold | col("took_over")), reason="guessed_password"),
        gn.review((col("spree") > 4) & col("new_device") & col("abroad"), reason="spree_abroad"),
        gn.step_up(col("tested") & col("new_device"), reason="tested_then_spent"),
    ]


pipeline = build()
