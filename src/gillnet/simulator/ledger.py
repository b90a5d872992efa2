"""The ledger of payments: honest and fraudulent ones together, numbered in the order of event time, window by window.

It is what the payment stream, its labels and the click stream are derived from. Each walks a ledger of its own, since
walking is cheap and nothing then has to be kept.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from gillnet.simulator.randomness import Purpose, Rows, generator
from gillnet.simulator.schemas import PAYMENT_ROW

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gillnet.simulator.config import SimulationConfig
    from gillnet.simulator.fraud import FraudCampaigns
    from gillnet.simulator.payments import HonestPayments


class Window(NamedTuple):
    """A span of event time, in milliseconds; ``end_ms`` is exclusive."""

    number: int
    start_ms: int
    end_ms: int


def windows(config: SimulationConfig) -> Iterator[Window]:
    """Divide a simulation's event time into windows."""
    step = config.window_us // 1_000
    start, end = config.start_us // 1_000, config.end_us // 1_000
    for number, begin in enumerate(range(start, end, step)):
        yield Window(number, begin, min(begin + step, end))


def ripen(pending: Rows, before: int, field: str = "ts_ms") -> tuple[Rows, Rows]:
    """Split rows into those before an instant, sorted by it (ties stay in place), and the rest."""
    ripe = pending[field] < before
    done = pending[ripe]
    return done[np.argsort(done[field], kind="stable")], pending[~ripe]


def payment_windows(
    config: SimulationConfig, honest: HonestPayments, fraud: FraudCampaigns
) -> Iterator[tuple[Window, Rows]]:
    """Walk all payments, in the order of event time, with ascending ``sequence`` from 0.

    Notes
    -----
    Holds one window, and of the campaigns under way the payments to come: some days of fraud.
    """
    pending, issued = np.zeros(0, PAYMENT_ROW), 0
    for window in windows(config):
        rng = generator(config.seed, Purpose.PAYMENTS, window.number)
        usual = honest.window(rng, window.start_ms, window.end_ms)
        plan = fraud.plan(window.number, window.start_ms, window.end_ms)
        unusual = fraud.carry_out(plan, window.number, honest)
        rows, pending = ripen(np.concatenate([pending, usual, unusual]), window.end_ms)
        rows["sequence"] = np.arange(issued, issued + len(rows))
        issued += len(rows)
        yield window, rows
