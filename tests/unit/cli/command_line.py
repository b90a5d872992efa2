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

Command = Callable[..., Result]
