"""Phrases for the reasons of the bundled scenarios, filled with the row's own values.

Pipelines of users do without: `gillnet.cli.words` writes their reasons from the plan. Here the same reasons read as an
analyst would say them.
"""

from __future__ import annotations

import string
from collections.abc import Callable, Mapping
from typing import Any

from gillnet.cli.numbers import count, money, number, seconds, share

SUMMARIES = frozenset({"score_very_high", "score_high", "score_raised", "sequential_bot", "sequential_suspect"})
"""Reasons that say only how high the score is; the ones that it rests on say more."""

_BOTS: dict[str, str | Mapping[bool, str]] = {
    "limit_failed_logins": "{failed_logins:n failed login}",
    "limit_rate": "{clicks_per_minute} clicks a minute",
    "limit_length": "{clicks:n click} in one session",
    "baseline_rate": "{clicks_per_minute} clicks a minute where {rate_p50} are usual",
    "baseline_length": "{clicks:n click} where {length_p50} are usual",
    # Evidence, in the order in which it convinces people; the score's own weights lean on one another.
    "evidence_failures": "{failed_logins:n failed login}",
    "evidence_agents": "{agents:n browser} under one cookie",
    "evidence_addresses": "from {addresses:n address}",
    "evidence_variation": "gaps between clicks vary by only {gap_variation:%}",
    "evidence_regularity": "{modal_gap_share:%} of the gaps are the same",
    "evidence_steadiness": "a click every {mean_gap_s} s, steadily",
    "evidence_neighbours": "{neighbour_products:n neighbouring product}",
    "evidence_sweep": "sweeps the catalogue",
    "evidence_errors": "{other_errors:n missing page}",
    "evidence_scripts": "{scripted:n request} by a script's user agent",
    "evidence_pace": "{clicks_per_minute} clicks a minute",
    "evidence_repeats": "{repeated_urls:n page} seen again",
    "evidence_paths": "{unique_urls:n page} in {clicks:n click}",
    "evidence_entropy": "{unique_urls:n page} in {clicks:n click}",
    "evidence_searches": "{searches:n search}",
    "evidence_accounts": "signed in to {accounts:n account}",
    "evidence_referrers": "{unreferred:n click} without a referrer",
    "evidence_length": "{clicks:n click} so far",
}

_PAYMENTS: dict[str, str | Mapping[bool, str]] = {
    "device_tries_cards": "{device_cards_1d:n card} on this device today, {device_declined_1d} declined",
    "account_taken_over": "{failed_logins_1h:n failed login}, a password reset, a new device",
    "spend_5m": "{spend_5m:$} spent on this card in 5m",
    "payments_5m": "{payments_5m:n payment} of this card in 5m",
    "payments_1d": "{payments_1d:n payment} of this card in 1d",
    "spend_today": "{spend_today:$} spent on this card today",
    "declined_1h": "{declined_1h} declined on this card in 1h",
    "merchants_1h": "this card at {merchants_1h:n merchant} in 1h",
    "countries_1d": "this card in {countries_1d:n country} in 1d",
    "resold_1d": "{resold_1d:n purchase} of goods that resell",
    "since_last_s": "{since_last_s:s} after the card's last payment",
    "usual_amount": "the card usually pays {usual_amount:$}",
    "usual_spread": "the card's amounts vary by {usual_spread:$}",
    "user_devices_14d": "{user_devices_14d:n device} of this user in 14d",
    "device_payments_14d": "{device_payments_14d:n payment} on this device in 14d",
    "device_cards_1d": "{device_cards_1d:n card} on this device in 1d",
    "device_declined_1d": "{device_declined_1d} declined on this device in 1d",
    "ip_payments_1h": "{ip_payments_1h:n payment} from this address in 1h",
    "ip_cards_1d": "{ip_cards_1d:n card} from this address in 1d",
    "ip_declined_1h": "{ip_declined_1h} declined from this address in 1h",
    "ip_payments_14d": "{ip_payments_14d:n payment} from this address in 14d",
    "merchant_cards_1d": "{merchant_cards_1d:n card} at this merchant in 1d",
    "merchant_payments_1d": "{merchant_payments_1d:n payment} at this merchant in 1d",
    "merchant_payments_week": "{merchant_payments_week:n payment} at this merchant in the week before",
    "merchant_mean_week": "this merchant's usual amount is {merchant_mean_week:$}",
    "merchant_declined_week": "this merchant usually declines {merchant_declined_week:%}",
    "merchant_round_1d": "{merchant_round_1d:%} round amounts at this merchant",
    "paid": "the amount {paid:$}",
    "present": {True: "card present", False: "card not present"},
    "is_resold": {True: "goods that resell", False: "not goods that resell"},
    "hour": "at {hour} h UTC",
    "abroad": {True: "not in the card's country", False: "in the card's country"},
    "moved": {True: "another country than before", False: "the country as before"},
    "new_device": {True: "a new device", False: "a known device"},
    "amount_z": "{amount_z} spreads above the card's usual amount",
    "amount_to_merchant": "{amount_to_merchant} times the merchant's usual amount",
    "merchant_surge": "the merchant has {merchant_surge} times its usual payments",
    "merchant_repeats": "{merchant_repeats:n payment} a card at this merchant",
    "failed_logins_1h": "{failed_logins_1h:n failed login} in 1h",
    "password_resets_1h": "{password_resets_1h:n password reset} in 1h",
    "account_clicks_15m": "{account_clicks_15m:n click} on the account in 15m",
    "since_login_s": "{since_login_s:s} after a login",
}

_TAKEOVER: dict[str, str | Mapping[bool, str]] = {
    "taken_over": "failed logins, a password reset, then a payment from an unknown machine",
    "guessed_from_abroad": "{failed_logins:n failed login}, then a payment from abroad on a new device",
    "stranger_logged_in": "logged in and paid from abroad, all of it unknown to the account",
    "guessed_password": "{failed_logins:n failed login}, then a payment from an unknown machine",
    "spree_abroad": "{spend_1h:$} spent in 1h from abroad, {spree} times what is usual",
    "tested_then_spent": "a small payment, then a large one within a minute",
}

PHRASES: Mapping[str, str | Mapping[bool, str]] = {**_BOTS, **_PAYMENTS, **_TAKEOVER}


_PLACES = {code: place for place, code in enumerate(_BOTS)}


def place(code: str) -> int:
    """Return where a reason stands among others; those without a place of their own come first, as they are given."""
    return _PLACES.get(code, -1)


def phrase(code: str, name: str, row: Mapping[str, Any]) -> str | None:
    """Return the phrase of a reason; None if there is none, or the row lacks one of its values.

    Parameters
    ----------
    code
        The reason code.
    name
        The code without its ``_high`` or ``_low``: the feature's name.
    row
        The values.
    """
    template = PHRASES.get(code) or PHRASES.get(name)
    if isinstance(template, Mapping):
        return template.get(row.get(name))  # type: ignore[arg-type]  # None finds nothing
    if template is None:
        return None
    try:
        return _FORMATTER.vformat(template, (), row)
    except KeyError:
        return None


_WAYS: dict[str, Callable[[Any], str]] = {
    "": number,
    "%": share,
    "$": money,
    "s": seconds,
}


class _Formatter(string.Formatter):
    """``{x}`` as a number, ``{x:%}`` as a share, ``{x:$}`` as money, ``{x:s}`` as seconds, ``{x:n card}`` as so many cards."""

    def get_value(self, key: int | str, _args: Any, kwargs: Mapping[str, Any]) -> Any:
        if (value := kwargs[str(key)]) is None:
            raise KeyError(key)
        return value

    def format_field(self, value: Any, format_spec: str) -> str:
        if format_spec.startswith("n "):
            return count(value, format_spec[2:])
        return _WAYS[format_spec](value)


_FORMATTER: string.Formatter = _Formatter()
