"""The demo's verdict, held against labels that are counted by hand."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest

from gillnet.cli.demo_verdict import MIN_BOT_CLICKS, judge_bots, judge_payments
from gillnet.runtimes.embedded import Alert


def simulation(**streams: list[tuple[int, dict[str, object]]]) -> SimpleNamespace:
    """Labels only, as (event time, record)."""

    def chunks(records: list[tuple[int, dict[str, object]]]) -> object:
        times = np.array([time for time, _ in records], np.int64)
        chunk = SimpleNamespace(values=[json.dumps(record).encode() for _, record in records], event_time_us=times)
        return lambda: iter([chunk])

    return SimpleNamespace(**{name: chunks(records) for name, records in streams.items()})


def alert(event: str, decision: str = "block") -> Alert:
    return Alert(id=event, key=None, decision=decision, score=None, reasons=(), row={})


def label(tx_id: str, scenario: str = "legitimate") -> tuple[int, dict[str, object]]:
    return 0, {"tx_id": tx_id, "fraud": scenario != "legitimate", "scenario": scenario, "known_at": 0}


def payment(tx_id: str, amount: float) -> bytes:
    return json.dumps({"tx_id": tx_id, "amount": amount}).encode()


def test_payments() -> None:
    labels = [label("a"), label("b", "card_testing"), label("c", "card_testing"), label("d", "quiet_fraud"), label("e")]
    values = [
        payment("a", 1),
        payment("b", 10),
        payment("b", 10),
        payment("c", 20),
        payment("d", 40),
        b"{",
        payment("m", 9),
    ]
    alerts = {"a": alert("a"), "b": alert("b"), "c": alert("c", "review"), "e": alert("e")}
    verdict = judge_payments(simulation(labels=labels), values, alerts)  # type: ignore[arg-type]
    assert (verdict.judged, verdict.flagged, verdict.guilty, verdict.caught) == (4, 3, 3, 2)
    assert (verdict.precision, verdict.recall) == (pytest.approx(2 / 3), pytest.approx(2 / 3))
    assert verdict.kinds == {"card_testing": (2, 2), "quiet_fraud": (0, 1)}
    assert (verdict.money_fraud, verdict.money_stopped) == (70, {"block": 10, "review": 20})


def visitor(name: str, kind: str, first_us: int = 100) -> tuple[int, dict[str, object]]:
    bot = kind != "human"
    return first_us, {"visitor_id": name, "bot": bot, "kind": kind, "level": 1 if bot else None}


def clicks(name: str, count: int) -> list[bytes]:
    return [json.dumps({"click_id": f"{name}{n}", "visitor_id": name}).encode() for n in range(count)]


def test_bots() -> None:
    labels = [
        visitor("bot", "scraper"), visitor("missed", "scraper"), visitor("brief", "scraper"),
        visitor("early", "scraper", first_us=99), visitor("person", "human"), visitor("other", "human"),
    ]  # fmt: skip
    values = [
        *clicks("bot", 10),
        *clicks("bot", 2),
        *clicks("missed", MIN_BOT_CLICKS),
        *clicks("brief", MIN_BOT_CLICKS - 1),
    ]
    values += [*clicks("early", 20), *clicks("person", 8), *clicks("other", 3), b"not a click"]
    alerts = {"bot": alert("bot3"), "early": alert("early1"), "person": alert("person7"), "brief": alert("brief2")}
    verdict = judge_bots(simulation(visitor_labels=labels), values, alerts, since_us=100)  # type: ignore[arg-type]
    assert (verdict.judged, verdict.flagged, verdict.guilty, verdict.caught) == (4, 2, 2, 1)
    assert verdict.kinds == {"scraper": (1, 2)}
    assert verdict.villains == {"bot": "scraper", "missed": "scraper"}
    assert (verdict.clicks_before, verdict.clicks_of_caught) == ((4,), 10)


def test_nobody_to_judge_is_no_division_by_zero() -> None:
    empty = judge_payments(simulation(labels=[]), [], {})  # type: ignore[arg-type]
    assert (empty.precision, empty.recall, empty.money_fraud) == (None, None, 0)
