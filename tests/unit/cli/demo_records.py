"""Records of a small pipeline of payments and clicks, and what a run says of them, for the tests of the demo's stories."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import gillnet as gn
from gillnet import col
from gillnet.runtimes.embedded import Alert

NOON_MS = 1_767_614_400_000
NOON = datetime.fromtimestamp(NOON_MS / 1_000, UTC)

payments = gn.Stream(
    "payments",
    schema=gn.Schema(
        tx_id=gn.String(), ts=gn.Timestamp("ms"), card_id=gn.String(), user_id=gn.String(), amount=gn.Decimal(2)
    ),
    id="tx_id",
    event_time="ts",
)
clicks = gn.Stream(
    "clicks",
    schema=gn.Schema(click_id=gn.String(), ts=gn.Timestamp("ms"), user_id=gn.String(nullable=True), event=gn.String()),
    id="click_id",
    event_time="ts",
)
card, user = payments.by("card_id"), clicks.by("user_id")
failed = gn.step("failed_login", where=col("event") == "login_failed")
reset = gn.step("password_reset", where=col("event") == "password_reset")
PLAN = gn.Pipeline(
    gn.Features(
        payments,
        spent=card.sum("amount", over="1h"),
        card_1h=card.count(over="1h"),
        card_before=card.count(over="1d", delay="2h"),
        clicked=user.count(over="10m").at("user_id"),
        failures=user.count(over="1h", where=col("event").is_in(["login_failed", "locked"])).at("user_id"),
        logins=user.count(over="1h", where=col("event") == "login").at("user_id"),
        odd=user.count(over="1h", where=col("event") != "view").at("user_id"),
        quick=col("card_1h") + col("failures"),
        dear=col("amount") > 100,
        account_reset=user.pattern(gn.seq(failed.one_or_more(), reset), within="15m", over="2h").at("user_id"),
    ),
    name="small",
).plan


def payment(name: str = "p", *, at_s: float = 0, amount: float = 20.0, card_id: str = "c", user_id: str = "u") -> bytes:
    """A payment, so many seconds after noon."""
    row = {"tx_id": name, "ts": ms(at_s), "card_id": card_id, "user_id": user_id, "amount": amount}
    return encoded(row)


def click(name: str = "k", *, at_s: float = 0, user_id: str = "u", event: str = "login") -> bytes:
    """A click, so many seconds after noon."""
    return encoded({"click_id": name, "ts": ms(at_s), "user_id": user_id, "event": event})


def revision(
    name: str = "p",
    *,
    at_s: float = 0,
    cause: tuple[str, str] = ("clicks", "late"),
    old: dict[str, Any],
    new: dict[str, Any],
    decisions: tuple[str, str] = ("allow", "allow"),
    scores: tuple[float, float] = (0.1, 0.2),
) -> bytes:
    """What goes to ``decisions.revisions`` of a payment, so many seconds after noon."""
    sides = [
        {"decision": decision, "score": score, "features": features}
        for decision, score, features in zip(decisions, scores, (old, new), strict=True)
    ]
    row = {
        "tx_id": name,
        "event_time": text(at_s),
        "revision": 1,
        "cause": dict(zip(("stream", "id"), cause, strict=True)),
    }
    return encoded(
        row
        | {"flipped": decisions[0] != decisions[1], "changed": sorted({*old, *new}), "old": sides[0], "new": sides[1]}
    )


def match(
    *names: str,
    key: str = "u",
    end_s: float = 0,
    revision: int = 0,
    withdrawn: bool = False,
    pattern: str = "account_reset",
) -> bytes:
    """What goes to ``matches``: failed logins a second apart, and a reset at the end."""
    steps = ["failed_login"] * (len(names) - 1) + ["password_reset"]
    times = [end_s - len(names) + 1 + place for place in range(len(names))]
    row = {"pattern": pattern, "key": key, "first": names[0], "last": names[-1], "revision": revision}
    if withdrawn:
        return encoded(row | {"withdrawn": True})
    events = [
        {"step": step, "id": name, "event_time": text(at_s)}
        for step, name, at_s in zip(steps, names, times, strict=True)
    ]
    return encoded(row | {"withdrawn": False, "start": text(times[0]), "end": text(end_s), "events": events})


def alert(
    name: str,
    decision: str = "block",
    *,
    at_s: float = 0,
    user_id: str = "u",
    reset: bool = True,
    amount: float = 99.68,
) -> Alert:
    """A flagged payment, so many seconds after noon."""
    row = {"ts": instant(at_s), "user_id": user_id, "amount": amount, "account_reset": reset}
    return Alert(id=name, key="c", decision=decision, score=0.9, reasons=(), row=row)


@dataclass
class Feed:
    """What was given while live."""

    payments: list[bytes] = field(default_factory=list)
    clicks: list[bytes] = field(default_factory=list)
    live: bool = True

    def values(self, stream: str) -> list[bytes]:
        """The records of a stream."""
        return {"payments": self.payments, "clicks": self.clicks}[stream]


def ms(at_s: float) -> int:
    """Milliseconds of event time."""
    return NOON_MS + round(at_s * 1_000)


def instant(at_s: float) -> datetime:
    """So many seconds after noon."""
    return NOON + timedelta(seconds=at_s)


def text(at_s: float) -> str:
    """Event time as rows write it."""
    return instant(at_s).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def encoded(record: dict[str, Any]) -> bytes:
    """Return a record as the simulator and the sinks write it."""
    return json.dumps(record, separators=(",", ":")).encode()
