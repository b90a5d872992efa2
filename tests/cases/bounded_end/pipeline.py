"""A bounded stream that has ended has no more to come: what is looked up in it is not stale any more."""

import gillnet as gn

payments = gn.Stream(
    "payments",
    schema=gn.Schema(
        id=gn.String(),
        ts=gn.Timestamp("rfc3339"),
        card=gn.String(),
        user=gn.String(nullable=True),
        amount=gn.Decimal(2),
    ),
    id="id",
    event_time="ts",
)
clicks = gn.Stream(
    "clicks",
    schema=gn.Schema(id=gn.String(), ts=gn.Timestamp("rfc3339"), visitor=gn.String(nullable=True), event=gn.String()),
    id="id",
    event_time="ts",
    watermark_delay="5s",
)
card, visitor = payments.by("card"), clicks.by("visitor")

pipeline = gn.Pipeline(
    gn.Features(
        payments, clicks_1h=visitor.count(over="1h").at("user"), last_event=visitor.last("event", over="1h").at("user")
    )
)
