"""A late record of a stream that is looked up is kept, counted and copied to its ``.late``, as one of the root stream."""

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
        payments,
        clicks_1h=visitor.count(over="1h").at("user"),
        payments_1h=card.count(over="1h"),
    )
)
