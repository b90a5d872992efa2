"""Scenario 2: card payments are scored while they are in flight, with rolling features, a model and a policy.

Copy this file to start a pipeline of your own. It reads two streams, payments and the site's clicks (`gillnet.simulator`
writes both), and needs nothing but `gillnet`. ``python -m gillnet.lifecycle.train_payments`` trains its model and says
which thresholds keep the alert budget.
"""

import gillnet as gn
from gillnet import Stream, col
from gillnet.api.features import Feature
from gillnet.simulator.schemas import CLICK_SCHEMA, PAYMENT_SCHEMA

MODEL = "fraud@champion"

ALERT_BUDGET = {"block": 0.0025, "step_up": 0.0010, "review": 0.0015}
"""The share of payments that each action may take by its score: one in two hundred together."""

THRESHOLDS = {"block": 0.891, "step_up": 0.684, "review": 0.268}
"""Scores from which the actions apply: the budget's quantiles on validation days, as the training measured them."""

BEFORE = "1ms"
"""The delay that leaves the payment itself out of its window: what was usual *before* it."""

declined = col("status") == "declined"
round_amount = col("amount") % 25 == 0
resold = col("mcc").is_in(["5732", "5734", "5944", "5947"])  # electronics, software, jewellery, gift cards


def build(clicks: bool = True) -> gn.Pipeline:
    """Return the pipeline; without ``clicks``, payments are its only stream, and it has no model.

    The shipped model takes the features of both streams. Train one on payments alone with
    ``python -m gillnet.lifecycle.train_payments --no-clicks``.
    """
    payments = Stream("payments", schema=PAYMENT_SCHEMA, id="tx_id", event_time="ts")
    found = {**payment_features(payments), **comparisons()}
    if clicks:
        found |= account_features(Stream("clicks", schema=CLICK_SCHEMA, id="click_id", event_time="ts"))
    return gn.Pipeline(
        gn.Features(payments, **found),
        name="payments",
        model=MODEL if clicks else "fraud-payments-only@champion",
        policy=policy(clicks=clicks),
    )


def payment_features(payments: Stream) -> dict[str, Feature]:
    """Say what the card, its user, the device, the address and the merchant did lately."""
    card, user, device = payments.by("card_id"), payments.by("user_id"), payments.by("device_id")
    address, merchant = payments.by("ip"), payments.by("merchant_id")
    return {
        # The card: how much, how fast, how often in vain, and what it was used for before.
        "spend_5m": card.sum("amount", over="5m"),
        "payments_5m": card.count(over="5m"),
        "payments_1d": card.count(over="1d"),
        "spend_today": card.sum("amount", over=gn.tumbling("1d")),
        "declined_1h": card.count(over="1h", where=declined),
        "merchants_1h": card.n_unique("merchant_id", over="1h"),
        "countries_1d": card.n_unique("country", over="1d"),
        "resold_1d": card.count(over="1d", where=resold),
        "since_last_s": card.seconds_since_last(over="14d"),
        "usual_amount": card.mean("amount", over="14d", delay=BEFORE),
        "usual_spread": card.std("amount", over="14d", delay=BEFORE),
        "country_before": card.last("country", over="14d", delay=BEFORE),
        # The user, with any card.
        "user_devices_14d": user.n_unique("device_id", over="14d"),
        # The device and the address: many cards on one is how stolen numbers are tried out.
        "device_payments_14d": device.count(over="14d"),
        "device_cards_1d": device.n_unique("card_id", over="1d"),
        "device_declined_1d": device.count(over="1d", where=declined),
        "ip_payments_1h": address.count(over="1h"),
        "ip_cards_1d": address.n_unique("card_id", over="1d"),
        "ip_declined_1h": address.count(over="1h", where=declined),
        "ip_payments_14d": address.count(over="14d"),
        # The merchant: today against the week that ended a day ago, so that a burst does not hide in its own average.
        "merchant_cards_1d": merchant.n_unique("card_id", over="1d"),
        "merchant_payments_1d": merchant.count(over="1d"),
        "merchant_payments_week": merchant.count(over="7d", delay="1d"),
        "merchant_mean_week": merchant.mean("amount", over="7d", delay="1d"),
        "merchant_declined_week": merchant.mean(declined, over="7d", delay="1d"),
        "merchant_round_1d": merchant.mean(round_amount, over="1d"),
    }


def comparisons() -> dict[str, Feature]:
    """How the payment compares with its card's own history, its user's and its merchant's."""
    return {
        "paid": col("amount"),
        "present": col("card_present"),
        "is_resold": resold,
        "hour": col("ts").dt.hour(),
        "abroad": col("country") != col("billing_country"),
        "moved": col("country") != col("country_before"),
        "new_device": col("device_payments_14d") == 1,
        "amount_z": (col("amount") - col("usual_amount")) / (col("usual_spread") + 5),
        "amount_to_merchant": col("amount") / (col("merchant_mean_week") + 1),
        "merchant_surge": 7 * col("merchant_payments_1d") / (col("merchant_payments_week") + 7),
        "merchant_repeats": col("merchant_payments_1d") / col("merchant_cards_1d"),
    }


def account_features(clicks: Stream) -> dict[str, Feature]:
    """Say what was done on the site in the user's name just before the payment."""
    account = clicks.by("user_id")
    return {
        "failed_logins_1h": account.count(over="1h", where=col("event") == "login_failed").at("user_id"),
        "password_resets_1h": account.count(over="1h", where=col("event") == "password_reset").at("user_id"),
        "account_clicks_15m": account.count(over="15m").at("user_id"),
        "since_login_s": account.seconds_since_last(over="1d", where=col("event") == "login").at("user_id"),
    }


def policy(*, clicks: bool) -> list[gn.Rule]:
    """Rules in order: the first that matches decides, and each that matches gives its reason."""
    score, many_cards = col("score"), col("device_cards_1d") >= 8
    rules = [
        gn.block(score >= THRESHOLDS["block"], reason="score_very_high"),
        gn.block(many_cards & (col("device_declined_1d") >= 4), reason="device_tries_cards"),
        gn.step_up(score >= THRESHOLDS["step_up"], reason="score_high"),
        gn.review(score >= THRESHOLDS["review"], reason="score_raised"),
        gn.review((col("spend_5m") > 2_000) & (col("payments_5m") >= 3), reason="spend_5m_high"),
    ]
    if clicks:
        taken_over = (col("failed_logins_1h") >= 3) & (col("password_resets_1h") >= 1) & col("new_device")
        rules.insert(2, gn.step_up(taken_over, reason="account_taken_over"))
    return rules


pipeline = build()
