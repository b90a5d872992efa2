"""Tumbling windows stand on the calendar, in UTC: a day's figures start anew at midnight, an hour's at the full hour."""

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
        payments_today=card.count(over=gn.tumbling("1d")),
        spend_today=card.sum("amount", over=gn.tumbling("1d")),
        payments_this_hour=card.count(over=gn.tumbling("1h")),
        first_today=card.first("amount", over=gn.tumbling("1d")),
    )
)
