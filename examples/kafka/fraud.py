"""Payments from Kafka to Kafka, as a service runs them: brokers, SASL and TLS in gillnet.toml, passwords in the environment.

    gillnet explain examples/kafka/fraud.py
    KAFKA_PASSWORD=... gillnet run examples/kafka/fraud.py --config examples/kafka/gillnet.toml

To try it without a cluster, start a real broker on this machine, fill its topic, and leave security out:

    gillnet kafka --port 9092
    gillnet simulate payments --to 'kafka://localhost:9092/{name}' --rate 500
    gillnet run examples/kafka/fraud.py --source payments=kafka://localhost:9092/payments --sinks 'kafka://localhost:9092/{name}'

Delivery is at-least-once: offsets are committed after the decisions of what was read are flushed. SIGTERM finishes what was
read, flushes and commits. State is in memory and is built up again from the topic by a restart with ?start=earliest.
"""

import gillnet as gn
from gillnet import col

payments = gn.Stream(
    "payments",
    schema=gn.Schema(
        tx_id=gn.String(),
        ts=gn.Timestamp("ms"),
        card_id=gn.String(),
        merchant_id=gn.String(),
        ip=gn.String(),
        amount=gn.Decimal(2, minimum=0),
        status=gn.String(),
    ),
    id="tx_id",
    event_time="ts",
    # Each partition has its own watermark, and the slowest holds the stream's; a partition that is silent for this long is
    # left out.
    watermark_delay="10s",
    idle_after="1m",
    allowed_lateness="24h",
)
card, address = payments.by("card_id"), payments.by("ip")
declined = col("status") == "declined"

features = gn.Features(
    payments,
    spend_5m=card.sum("amount", over="5m"),
    payments_1h=card.count(over="1h"),
    declined_1h=card.count(over="1h", where=declined),
    address_cards_1d=address.n_unique("card_id", over="1d"),
    address_declined_1h=address.count(over="1h", where=declined),
)

pipeline = gn.Pipeline(
    features,
    name="fraud",
    policy=[
        gn.block((col("address_cards_1d") >= 5) & (col("address_declined_1h") >= 5), reason="address_tries_cards"),
        gn.review(col("spend_5m") > 2_000, reason="spend_5m_high"),
    ],
)
