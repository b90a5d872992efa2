"""Events of one microsecond are ordered by their id, whatever order they arrive in (I1)."""

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
        payments_1h=card.count(over="1h"),
        spend_1h=card.sum("amount", over="1h"),
        first_amount=card.first("amount", over="1h"),
        last_amount=card.last("amount", over="1h"),
        since_last_s=card.seconds_since_last(over="1h"),
    )
)
