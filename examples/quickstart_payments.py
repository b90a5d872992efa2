"""Rolling features and a policy for card payments: the smallest pipeline that is of use, and it needs no model.

    gillnet explain examples/quickstart_payments.py
    gillnet run examples/quickstart_payments.py --source 'payments=simulator:payments?seed=7' --max-records 10000 --sinks out

The second command scores simulated payments and writes out/decisions.ndjson, out/alerts.ndjson and, for records that are
not scored, out/payments.malformed.ndjson and its like. Put your own stream in their place: a file, or a Kafka topic.
"""

import gillnet as gn
from gillnet import col

# Every record is held against the schema; fields that it does not name are skipped. Money is Decimal, never Float.
Payment = gn.Schema(
    tx_id=gn.String(),
    ts=gn.Timestamp("ms"),
    card_id=gn.String(),
    device_id=gn.String(nullable=True),
    merchant_id=gn.String(),
    country=gn.String(),
    billing_country=gn.String(),
    amount=gn.Decimal(2, minimum=0),
    status=gn.String(),
)
payments = gn.Stream(
    "payments", schema=Payment, id="tx_id", event_time="ts", watermark_delay="5s", allowed_lateness="24h"
)

card, device = payments.by("card_id"), payments.by("device_id")
declined = col("status") == "declined"

features = gn.Features(
    payments,
    spend_5m=card.sum("amount", over="5m"),
    payments_5m=card.count(over="5m"),
    declined_1h=card.count(over="1h", where=declined),
    merchants_1h=card.n_unique("merchant_id", over="1h"),
    spend_today=card.sum("amount", over=gn.tumbling("1d")),
    since_last_s=card.seconds_since_last(over="14d"),
    # What was usual before this payment: a delay of a millisecond leaves the payment itself out.
    usual_amount=card.mean("amount", over="14d", delay="1ms"),
    device_cards_1d=device.n_unique("card_id", over="1d"),
    # Row expressions stand on columns and on other features.
    abroad=col("country") != col("billing_country"),
    times_usual=col("amount") / (col("usual_amount") + 1),
)

pipeline = gn.Pipeline(
    features,
    name="quickstart",
    # The first rule that matches decides; every rule that matches gives its reason; otherwise the payment is allowed.
    policy=[
        gn.block((col("device_cards_1d") >= 8) & (col("declined_1h") >= 3), reason="device_tries_cards"),
        gn.block(col("spend_5m") > 5_000, reason="spend_5m_very_high"),
        gn.step_up(col("abroad") & (col("times_usual") > 8), reason="unusual_abroad"),
        gn.review((col("spend_5m") > 1_500) & (col("payments_5m") >= 3), reason="spend_5m_high"),
        gn.review((col("merchants_1h") >= 6) & (col("times_usual") > 3), reason="many_merchants"),
    ],
)
