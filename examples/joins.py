"""Pairs of two streams: each payment beside what its user clicked in the ten minutes before, and those without a click.

    gillnet explain examples/joins.py
    gillnet run examples/joins.py --source 'payments=simulator:payments?seed=7' --source 'clicks=simulator:clicks?seed=7' \\
        --max-records 5000 --sinks out

The pairs are in out/joins.clicks_before_payment.ndjson: one row for each pair, and one for a payment that nobody clicked before.
Such a row leaves once no click can come in order any more; a click that comes later withdraws it ("withdrawn":true). The
payments' own rows read the latest click as an as-of join.
"""

import gillnet as gn
from gillnet import col

Payment = gn.Schema(
    tx_id=gn.String(),
    ts=gn.Timestamp("ms"),
    card_id=gn.String(),
    user_id=gn.String(),
    amount=gn.Decimal(2, minimum=0),
)
Click = gn.Schema(
    click_id=gn.String(),
    ts=gn.Timestamp("ms"),
    user_id=gn.String(nullable=True),  # null until somebody is logged in: such clicks meet no payment
    ip=gn.String(),
    url=gn.String(),
    event=gn.String(),
)
payments = gn.Stream("payments", schema=Payment, id="tx_id", event_time="ts", allowed_lateness="1h")
clicks = gn.Stream("clicks", schema=Click, id="click_id", event_time="ts", allowed_lateness="1h")
card, account, visitor = payments.by("card_id"), payments.by("user_id"), clicks.by("user_id")

features = gn.Features(
    payments,
    spend_1h=card.sum("amount", over="1h"),
    **visitor.as_of(last_url="url", last_ip="ip", within="1h").at("user_id"),
    no_click=col("last_url").is_null(),
)
clicks_before_payment = gn.IntervalJoin(
    "clicks_before_payment",
    account,
    visitor,
    lower="-10m",
    upper="0s",
    how="left",
    where=col("clicks.event") != "view",
    select={"amount": "payments.amount", "event": "clicks.event", "url": "clicks.url"},
)

pipeline = gn.Pipeline(
    features,
    name="clicks-before-payments",
    joins=[clicks_before_payment],
    policy=[gn.review(col("no_click") & (col("amount") > 500), reason="large_without_a_click")],
)
