"""Holds what a demo flagged against what the simulator knows: who the villains were."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TypeVar

import msgspec

from gillnet.runtimes.embedded import Alert
from gillnet.simulator import PaymentLabel, Simulation, VisitorLabel
from gillnet.simulator.streams import StreamName

MIN_BOT_CLICKS = 5
"""Bots that had made fewer clicks when the demo ended are not held against it."""

_BATCH = 8_192
Record = TypeVar("Record", bound=msgspec.Struct)


class _Payment(msgspec.Struct):
    tx_id: str
    amount: float


class _Click(msgspec.Struct):
    click_id: str
    visitor_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PaymentsVerdict:
    """Fraud caught among the payments after the warm-up; money in the payments' units."""

    payments: int
    flagged: int
    fraud: int
    caught: int
    money_fraud: float
    money_stopped: float

    @property
    def precision(self) -> float | None:
        """Share of the flagged payments that were fraud."""
        return self.caught / self.flagged if self.flagged else None

    @property
    def recall(self) -> float | None:
        """Share of the fraud that was flagged."""
        return self.caught / self.fraud if self.fraud else None


@dataclass(frozen=True, slots=True, kw_only=True)
class BotsVerdict:
    """Bots caught among the visitors who came after the warm-up; ``clicks_before`` is of each caught bot, ascending."""

    visitors: int
    flagged: int
    bots: int
    caught: int
    kinds: Mapping[str, tuple[int, int]]
    clicks_before: tuple[int, ...]

    @property
    def precision(self) -> float | None:
        """Share of the flagged visitors that were bots."""
        return self.caught / self.flagged if self.flagged else None

    @property
    def recall(self) -> float | None:
        """Share of the bots that were flagged."""
        return self.caught / self.bots if self.bots else None


def judge_payments(simulation: Simulation, flagged: Mapping[str, str], *, warm: int, read: int) -> PaymentsVerdict:
    """Judge the decisions of a run.

    Parameters
    ----------
    simulation
        What was run.
    flagged
        Decision by ``tx_id``, of all that were not allowed.
    warm, read
        The payments to judge: from the ``warm``-th to the ``read``-th in the order of arrival.
    """
    judged = {payment.tx_id: payment.amount for payment in _records(simulation, "payments", _Payment, warm, read)}
    frauds = {
        label.tx_id for label in _records(simulation, "labels", PaymentLabel) if label.fraud and label.tx_id in judged
    }
    reported = [tx_id for tx_id in flagged if tx_id in judged]
    caught = [tx_id for tx_id in reported if tx_id in frauds]
    return PaymentsVerdict(
        payments=len(judged),
        flagged=len(reported),
        fraud=len(frauds),
        caught=len(caught),
        money_fraud=sum(judged[tx_id] for tx_id in frauds),
        money_stopped=sum(judged[tx_id] for tx_id in caught),
    )


def judge_bots(simulation: Simulation, alerts: Mapping[str, Alert], *, warm: int, read: int) -> BotsVerdict:
    """Judge the flagged sessions of a run; ``alerts`` is the first of each ``visitor_id``. See `judge_payments`."""
    clicks: Counter[str] = Counter()
    before: dict[str, int] = {}
    early = {click.visitor_id for click in _records(simulation, "clicks", _Click, 0, warm)}
    seen: set[str] = set()
    for click in _records(simulation, "clicks", _Click, warm, read):
        if click.visitor_id in early or click.click_id in seen:
            continue
        seen.add(click.click_id)
        clicks[click.visitor_id] += 1
        alert = alerts.get(click.visitor_id)
        if alert is not None and alert.id == click.click_id:
            before.setdefault(click.visitor_id, clicks[click.visitor_id])
    labels = {label.visitor_id: label for label in _records(simulation, "visitor_labels", VisitorLabel)}
    bots = {name for name, count in clicks.items() if count >= MIN_BOT_CLICKS and name in labels and labels[name].bot}
    caught = bots & before.keys()
    flagged = [name for name in before if name in bots or not (name in labels and labels[name].bot)]
    present, found = (Counter(labels[name].kind for name in names) for names in (bots, caught))
    return BotsVerdict(
        visitors=len(clicks),
        flagged=len(flagged),
        bots=len(bots),
        caught=len(caught),
        kinds={kind: (found[kind], present[kind]) for kind in sorted(present)},
        clicks_before=tuple(sorted(before[name] for name in caught)),
    )


def _records(
    simulation: Simulation, stream: StreamName, kind: type[Record], begin: int = 0, end: int | None = None
) -> Iterator[Record]:
    """Read a stream's well-formed records, from the ``begin``-th to the ``end``-th of all."""
    decode = msgspec.json.Decoder(kind).decode
    place = 0
    for chunk in simulation.stream(stream, chunk_records=_BATCH):
        if end is not None and place >= end:
            return
        stop = len(chunk.values) if end is None else min(len(chunk.values), end - place)
        for value in chunk.values[max(0, begin - place) : stop]:
            try:
                yield decode(value)
            except (msgspec.DecodeError, UnicodeDecodeError):
                continue
        place += len(chunk.values)
