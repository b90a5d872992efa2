"""Behind the watermark by up to the allowed lateness: scored, with a copy in ``.late``; further: ``.too_late``, unscored."""

import gillnet as gn

payments = gn.Stream(
    "payments",
    schema=gn.Schema(id=gn.String(), ts=gn.Timestamp("rfc3339"), card=gn.String(), amount=gn.Decimal(2)),
    id="id",
    event_time="ts",
    watermark_delay="10s",
    allowed_lateness="5m",
)
card = payments.by("card")

pipeline = gn.Pipeline(gn.Features(payments, payments_1h=card.count(over="1h"), spend_1h=card.sum("amount", over="1h")))
