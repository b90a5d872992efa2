"""Every reason for which a record is malformed: its bytes go to ``payments.malformed``, and the stream goes on (I3)."""

import gillnet as gn

Payment = gn.Schema(
    id=gn.String(),
    ts=gn.Timestamp("rfc3339"),
    card=gn.String(),
    amount=gn.Decimal(2, minimum=0),
    risk=gn.Float(nullable=True),
    items=gn.Integer(nullable=True, maximum=1_000),
    note=gn.String(nullable=True, max_bytes=8),
)
payments = gn.Stream("payments", schema=Payment, id="id", event_time="ts")

pipeline = gn.Pipeline(gn.Features(payments, payments_1h=payments.by("card").count(over="1h")))
