"""What tests of the command line share."""

from __future__ import annotations

from collections.abc import Callable

from click.testing import Result

APP = """\
import gillnet as gn
from gillnet import col
from gillnet.simulator import PAYMENT_SCHEMA

payments = gn.Stream("payments", schema=PAYMENT_SCHEMA, id="tx_id", event_time="ts")
features = gn.Features(payments, spend_5m=payments.by("card_id").sum("amount", over="5m"))
pipeline = gn.Pipeline(features, policy=[gn.review(col("spend_5m") > 500, reason="much_spent")])
"""
"""A pipeline of one stream, without a model."""

ROCKSDB = ("--state-backend", "rocksdb", "--state-memory", "64MB")
OFTEN = ("--set", "options.checkpoint_interval=1ms", "--set", "options.max_batch_records=20")
"""A checkpoint after nearly every batch, so that keys are handed over before the last one."""

Command = Callable[..., Result]


class StepClock:
    """A clock that moves only when somebody sleeps."""

    def __init__(self) -> None:
        self._s = 1_000.0

    def now_us(self) -> int:
        return 1_800_000_000_000_000 + int(self._s * 1e6)

    def monotonic_s(self) -> float:
        return self._s

    def sleep(self, seconds: float) -> None:
        self._s += seconds
