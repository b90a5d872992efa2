"""Holds what a demo flagged against what the simulator knows: who the villains were.

Judged are the live records only. While the windows fill, decisions rest on half a history.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import msgspec

from gillnet.runtimes.embedded import Alert
from gillnet.simulator import PaymentLabel, Simulation, VisitorLabel

MIN_BOT_CLICKS = 5
"""Bots that had made fewer clicks when the demo ended are not held against it."""

Record = TypeVar("Record", bound=msgspec.Struct)


class _Payment(msgspec.Struct):
    tx_id: str
    amount: float


class _Click(msgspec.Struct):
    click_id: str
    visitor_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What both verdicts say: how many were judged, flagged, villains, and both.

    Attributes
    ----------
    kinds
        By kind of villain: how many were caught, and how many there were.
    villains
        The kind of each villain among the judged, by id.
    """

    judged: int
    flagged: int
    guilty: int
    caught: int
    kinds: Mapping[str, tuple[int, int]]
    villains: Mapping[str, str]

    @property
    def precision(self) -> float | None:
        """Share of the flagged that were villains."""
        return self.caught / self.flagged if self.flagged else None

    @property
    def recall(self) -> float | None:
        """Share of the villains that were flagged."""
        return self.caught / self.guilty if self.guilty else None


@dataclass(frozen=True, slots=True, kw_only=True)
class PaymentsVerdict(Verdict):
    """Fraud caught among the payments; money in the payments' units.

    Attributes
    ----------
    money_stopped
        What fraud would have taken, by the decision that stopped it.
    """

    money_fraud: float
    money_stopped: Mapping[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class BotsVerdict(Verdict):
    """Bots caught among the visitors.

    Attributes
    ----------
    clicks_before
        Clicks that each caught bot had made when it was flagged, that one included; ascending.
    clicks_of_caught
        All clicks of the caught bots.
    """

    clicks_before: tuple[int, ...]
    clicks_of_caught: int


def judge_payments(simulation: Simulation, values: Sequence[bytes], alerts: Mapping[str, Alert]) -> PaymentsVerdict:
    """Judge the decisions of a run.

    Parameters
    ----------
    simulation
        What was run.
    values
        The payments to judge, as they were read.
    alerts
        By ``tx_id``: every payment that was not simply allowed.
    """
    read = {payment.tx_id: payment.amount for payment in _records(values, _Payment)}
    # A malformed record that can be read here has no label.
    labels = {
        label.tx_id: label
        for chunk in simulation.labels()
        for label in _records(chunk.values, PaymentLabel)
        if label.tx_id in read
    }
    judged = {tx_id: read[tx_id] for tx_id in labels}
    villains = {tx_id: label.scenario for tx_id, label in labels.items() if label.fraud}
    flagged = [tx_id for tx_id in alerts if tx_id in judged]
    caught = [tx_id for tx_id in flagged if tx_id in villains]
    stopped: dict[str, float] = {}
    for tx_id in caught:
        decision = alerts[tx_id].decision
        stopped[decision] = stopped.get(decision, 0.0) + judged[tx_id]
    return PaymentsVerdict(
        judged=len(judged),
        flagged=len(flagged),
        guilty=len(villains),
        caught=len(caught),
        kinds=_by_kind(villains, caught),
        villains=villains,
        money_fraud=sum(judged[tx_id] for tx_id in villains),
        money_stopped=stopped,
    )


def judge_bots(
    simulation: Simulation, values: Sequence[bytes], alerts: Mapping[str, Alert], *, since_us: int
) -> BotsVerdict:
    """Judge the flagged sessions of a run.

    Parameters
    ----------
    simulation
        What was run.
    values
        The clicks to judge by, as they were read.
    alerts
        By ``visitor_id``: the first alert of each.
    since_us
        Visitors whose first click was before this event time are not judged: part of their clicks is not among ``values``.
    """
    known = _visitors(simulation, since_us)
    clicks, before = _count_clicks(values, known, alerts)
    villains = {name: known[name].kind for name, count in clicks.items() if known[name].bot and count >= MIN_BOT_CLICKS}
    caught = [name for name in villains if name in before]
    flagged = [name for name in before if name in villains or not known[name].bot]
    return BotsVerdict(
        judged=sum(1 for name in clicks if name in villains or not known[name].bot),
        flagged=len(flagged),
        guilty=len(villains),
        caught=len(caught),
        kinds=_by_kind(villains, caught),
        villains=villains,
        clicks_before=tuple(sorted(before[name] for name in caught)),
        clicks_of_caught=sum(clicks[name] for name in caught),
    )


def _visitors(simulation: Simulation, since_us: int) -> dict[str, VisitorLabel]:
    """Return the labels of those whose first click is at or after ``since_us``."""
    decode = msgspec.json.Decoder(VisitorLabel).decode
    return {
        label.visitor_id: label
        for chunk in simulation.visitor_labels()
        for first_us, label in zip(chunk.event_time_us.tolist(), map(decode, chunk.values), strict=True)
        if first_us >= since_us
    }


def _count_clicks(
    values: Sequence[bytes], known: Mapping[str, VisitorLabel], alerts: Mapping[str, Alert]
) -> tuple[Counter[str], dict[str, int]]:
    """Count the clicks of each known visitor, in all and up to the one that its first alert names."""
    clicks: Counter[str] = Counter()
    before: dict[str, int] = {}
    seen: set[str] = set()
    for click in _records(values, _Click):
        name = click.visitor_id
        if name not in known or click.click_id in seen:
            continue
        seen.add(click.click_id)
        clicks[name] += 1
        if name in alerts and alerts[name].id == click.click_id:
            before[name] = clicks[name]
    return clicks, before


def _by_kind(villains: Mapping[str, str], caught: Sequence[str]) -> dict[str, tuple[int, int]]:
    present, found = Counter(villains.values()), Counter(villains[name] for name in caught)
    return {kind: (found[kind], count) for kind, count in present.most_common()}


def _records(values: Sequence[bytes], kind: type[Record]) -> Iterator[Record]:
    """Decode the well-formed records."""
    decode = msgspec.json.Decoder(kind).decode
    for value in values:
        try:
            yield decode(value)
        except (msgspec.DecodeError, UnicodeDecodeError):
            continue
