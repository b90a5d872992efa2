"""A nullable key that is null or empty: the row is scored, that entity's features are null, and nothing is kept for it."""

import gillnet as gn

payments = gn.Stream(
    "payments",
    schema=gn.Schema(
        id=gn.String(),
        ts=gn.Timestamp("rfc3339"),
        card=gn.String(),
        device=gn.String(nullable=True),
        amount=gn.Decimal(2),
    ),
    id="id",
    event_time="ts",
)
card, device = payments.by("card"), payments.by("device")

pipeline = gn.Pipeline(
    gn.Features(
        payments,
        card_payments=card.count(over="1h"),
        card_devices=card.n_unique("device", over="1h"),
        device_payments=device.count(over="1h"),
        device_spend=device.sum("amount", over="1h"),
        new_device=gn.col("device_payments") == 1,
    ),
    policy=[
        gn.review(gn.col("device").is_null(), reason="no_device"),
        gn.review(gn.col("new_device"), reason="new_device"),
    ],
)
