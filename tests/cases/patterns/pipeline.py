"""Sequences of a key's own events: an earlier event's value, strict steps, repeats, alternatives, skip strategies, late events."""

import gillnet as gn
from gillnet import col

payments = gn.Stream(
    "payments",
    schema=gn.Schema(
        id=gn.String(),
        ts=gn.Timestamp("rfc3339"),
        card=gn.String(nullable=True),
        amount=gn.Decimal(2),
        country=gn.String(),
    ),
    id="id",
    event_time="ts",
    allowed_lateness="1h",
)
card = payments.by("card")
small = gn.step("small", where=col("amount") < 5)
large = gn.step("large", where=(col("amount") > 100) & (col("amount") > 20 * small.last("amount")))
here = gn.step("here")
there = gn.step("there", where=col("country") != here.last("country")).strict()
big = gn.step("big", where=col("amount") > 100)
first = gn.step("first", where=col("amount") < 50)
more = gn.step("more", where=col("amount") > gn.previous("amount"))
either = gn.any_of(gn.step("home", where=col("country") == "CH"), gn.step("away", where=col("amount") > 100))

pipeline = gn.Pipeline(
    gn.Features(
        payments,
        card_testing=card.pattern(gn.seq(small, large), within="1m"),
        travels=card.pattern(gn.seq(here, there), within="20m", over="1h").count(),
        rises=card.pattern(gn.seq(first, more.times(2)), within="10m", skip="to_next").count(),
        rises_on=card.pattern(gn.seq(first, more.one_or_more()), within="10m", skip="no_skip").count(),
        either=card.pattern(gn.seq(either.times(2), gn.not_between(col("amount") == 7), big), within="10m"),
    ),
    policy=[gn.block(col("card_testing"), reason="small_then_large")],
)
