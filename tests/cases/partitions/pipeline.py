"""The watermark is the slowest partition's, assigned ones included; one that is silent for long is left out (I8)."""

import gillnet as gn

payments = gn.Stream(
    "payments",
    schema=gn.Schema(id=gn.String(), ts=gn.Timestamp("rfc3339"), card=gn.String(), amount=gn.Decimal(2)),
    id="id",
    event_time="ts",
    watermark_delay="0s",
    allowed_lateness="10m",
    idle_after="30s",
)

pipeline = gn.Pipeline(gn.Features(payments, payments_1h=payments.by("card").count(over="1h")))
