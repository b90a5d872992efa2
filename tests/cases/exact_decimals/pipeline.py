"""Money is exact (I4): sums of decimals have every digit, and sums of floats do not depend on the order of arrival."""

import gillnet as gn

payments = gn.Stream(
    "payments",
    schema=gn.Schema(
        id=gn.String(),
        ts=gn.Timestamp("rfc3339"),
        card=gn.String(),
        amount=gn.Decimal(2),
        rate=gn.Decimal(6),
        fee=gn.Float(),
    ),
    id="id",
    event_time="ts",
)
card = payments.by("card")

pipeline = gn.Pipeline(
    gn.Features(
        payments,
        spend=card.sum("amount", over="1h"),
        mean=card.mean("amount", over="1h"),
        smallest=card.min("amount", over="1h"),
        spread=card.std("amount", over="1h"),
        fees=card.sum("fee", over="1h"),
        in_euro=gn.col("amount") * gn.col("rate"),
        euro_spend=card.sum(gn.col("amount") * gn.col("rate"), over="1h"),
        above=gn.col("spend") > 0.3,
        exactly=gn.col("spend") == 0.3,
    )
)
