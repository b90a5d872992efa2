"""The first rule that matches decides; every rule that matches gives its reason; a rule that is null does not match."""

import gillnet as gn

col = gn.col
payments = gn.Stream(
    "payments",
    schema=gn.Schema(
        id=gn.String(),
        ts=gn.Timestamp("rfc3339"),
        card=gn.String(),
        amount=gn.Decimal(2),
        country=gn.String(nullable=True),
    ),
    id="id",
    event_time="ts",
)
card = payments.by("card")

pipeline = gn.Pipeline(
    gn.Features(payments, spend_1h=card.sum("amount", over="1h"), payments_1h=card.count(over="1h")),
    policy=[
        gn.allow(col("card") == "test-card", reason="test_card"),
        gn.review(col("spend_1h") > 1_000, reason="spend_high"),
        gn.block(col("payments_1h") >= 3, reason="too_many"),
        gn.step_up(col("country") != "CH", reason="abroad"),
        gn.block(col("amount") >= 5_000),
    ],
)
