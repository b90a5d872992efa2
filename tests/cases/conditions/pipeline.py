"""``where`` keeps the events for which a condition is true: not those for which it is false, nor null."""

import gillnet as gn

col = gn.col
payments = gn.Stream(
    "payments",
    schema=gn.Schema(
        id=gn.String(),
        ts=gn.Timestamp("rfc3339"),
        card=gn.String(),
        amount=gn.Decimal(2),
        status=gn.String(nullable=True),
    ),
    id="id",
    event_time="ts",
)
card = payments.by("card")
declined = col("status") == "declined"

pipeline = gn.Pipeline(
    gn.Features(
        payments,
        declined_1h=card.count(over="1h", where=declined),
        not_declined_1h=card.count(over="1h", where=~declined),
        unknown_1h=card.count(over="1h", where=col("status").is_null()),
        large_declined=card.sum("amount", over="1h", where=declined & (col("amount") >= 100)),
        last_declined=card.last("amount", over="1h", where=declined),
        since_declined_s=card.seconds_since_last(over="1h", where=declined),
        declined_share=card.mean(declined, over="1h"),
    )
)
