"""Several entities in one pipeline: each event counts for its card, its user, its merchant (an integer) and for all."""

import gillnet as gn

payments = gn.Stream(
    "payments",
    schema=gn.Schema(
        id=gn.Integer(),
        ts=gn.Timestamp("s"),
        card=gn.String(),
        user=gn.String(),
        merchant=gn.Integer(),
        amount=gn.Decimal(2),
    ),
    id="id",
    event_time="ts",
)
card, user, merchant = payments.by("card"), payments.by("user"), payments.by("merchant")

pipeline = gn.Pipeline(
    gn.Features(
        payments,
        card_spend=card.sum("amount", over="1h"),
        user_cards=user.n_unique("card", over="1h"),
        user_spend=user.sum("amount", over="1h"),
        merchant_cards=merchant.n_unique("card", over="1h"),
        merchant_largest=merchant.max("amount", over="1h"),
        all_payments=payments.all().count(over="1m"),
        to_largest=gn.col("card_spend") / gn.col("merchant_largest"),
    )
)
