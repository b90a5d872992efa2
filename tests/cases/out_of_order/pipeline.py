"""A row is computed over what has arrived by then, and a late arrival is put in its place in event time."""

import gillnet as gn

payments = gn.Stream(
    "payments",
    schema=gn.Schema(id=gn.String(), ts=gn.Timestamp("rfc3339"), card=gn.String(), amount=gn.Decimal(2)),
    id="id",
    event_time="ts",
)
card = payments.by("card")

pipeline = gn.Pipeline(
    gn.Features(
        payments,
        payments_5m=card.count(over="5m"),
        spend_5m=card.sum("amount", over="5m"),
        largest_1h=card.max("amount", over="1h"),
        last_amount=card.last("amount", over="1h"),
        since_last_s=card.seconds_since_last(),
    )
)
