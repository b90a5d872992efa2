"""Payments beside the clicks of ten minutes before: exact bounds, a null key, duplicates, a late match that withdraws a row.

The clicks are of no use to the payments' own rows: the stream is there for the joins alone.
"""

import gillnet as gn
from gillnet import col

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
    watermark_delay="1s",
    allowed_lateness="1h",
)
clicks = gn.Stream(
    "clicks",
    schema=gn.Schema(
        number=gn.Integer(), ts=gn.Timestamp("rfc3339"), visitor=gn.String(nullable=True), url=gn.String(nullable=True)
    ),
    id="number",
    event_time="ts",
    watermark_delay="2s",
    allowed_lateness="30m",
)
user, visitor = payments.by("user"), clicks.by("visitor")
select = {"amount": "payments.amount", "url": "clicks.url", "at": "clicks.ts"}

pipeline = gn.Pipeline(
    gn.Features(payments, payments_1h=payments.by("card").count(over="1h")),
    joins=[
        gn.IntervalJoin("clicked", user, visitor, lower="-10m", upper="0s", how="left", select=select),
        gn.IntervalJoin("large", user, visitor, lower="-10m", upper="0s", where=col("payments.amount") > 100),
        gn.IntervalJoin("around", user, visitor, lower="-1s", upper="1s", how="full"),
        gn.IntervalJoin("paid", visitor, user, lower="0s", upper="10m", how="right", where=col("clicks.url") == "/pay"),
    ],
)
