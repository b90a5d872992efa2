"""A sliding window holds (t - 5m, t]: what happened exactly five minutes ago is out, the event itself is in (I1)."""

import gillnet as gn

payments = gn.Stream(
    "payments",
    schema=gn.Schema(id=gn.String(), ts=gn.Timestamp("rfc3339"), card=gn.String(), amount=gn.Decimal(2)),
    id="id",
    event_time="ts",
)
card = payments.by("card")

pipeline = gn.Pipeline(gn.Features(payments, payments_5m=card.count(over="5m"), spend_5m=card.sum("amount", over="5m")))
