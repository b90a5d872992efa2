"""Event times before the earliest, or far ahead of their arrival, are malformed and do not push the watermark."""

import datetime

import gillnet as gn

payments = gn.Stream(
    "payments",
    schema=gn.Schema(id=gn.String(), ts=gn.Timestamp("ms"), card=gn.String()),
    id="id",
    event_time="ts",
    watermark_delay="0s",
    allowed_lateness="1m",
    earliest=datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC),
    max_ahead="10m",
)

pipeline = gn.Pipeline(gn.Features(payments, payments_1h=payments.by("card").count(over="1h")))
