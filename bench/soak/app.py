"""The pipeline that is soaked: most kinds of state, with times so short that all of it is full and expires within the warm-up."""

import gillnet as gn
from gillnet import col

Payment = gn.Schema(
    id=gn.String(),
    ts=gn.Timestamp("ms"),
    card=gn.String(),
    user=gn.String(),
    amount=gn.Decimal(2, minimum=0),
    status=gn.String(),
)
payments = gn.Stream("payments", schema=Payment, id="id", event_time="ts", watermark_delay="2s", allowed_lateness="30s")
card, user = payments.by("card"), payments.by("user")
declined = gn.step("declined", where=col("status") == "declined")

pipeline = gn.Pipeline(
    gn.Features(
        payments,
        spend_1m=card.sum("amount", over="1m"),
        payments_30s=card.count(over="30s"),
        largest_1m=card.max("amount", over="1m"),
        cards_1m=user.n_unique("card", over="1m"),
        since_last_s=user.seconds_since_last(over="1m"),
        tried=card.pattern(gn.seq(declined.times(3)), within="20s"),
    ),
    name="soak",
    policy=[gn.block(col("tried")), gn.review(col("spend_1m") > 4_000)],
)
