"""A record counts once: a second one with its id is a duplicate, whatever else it says, and changes nothing."""

import gillnet as gn

payments = gn.Stream(
    "payments",
    schema=gn.Schema(id=gn.String(), ts=gn.Timestamp("rfc3339"), card=gn.String(), amount=gn.Decimal(2)),
    id="id",
    event_time="ts",
)
card = payments.by("card")

pipeline = gn.Pipeline(gn.Features(payments, payments_1h=card.count(over="1h"), spend_1h=card.sum("amount", over="1h")))
