"""A window with ``delay`` ends that long before the event: what is known of then, and never the event itself."""

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
        usual=card.mean("amount", over="1h", delay="1us"),
        payments_before=card.count(over="10m", delay="10m"),
        last_before=card.last("amount", over="1h", delay="1us"),
        spend_yesterday=card.sum("amount", over=gn.tumbling("1d"), delay="1d"),
        session_before=card.count(over=gn.session("5m"), delay="2m"),
        since_s=card.seconds_since_last(over="1h", delay="5m"),
    )
)
