"""Another stream's features as of the payment's time: clicks at that time count, later ones do not; ``stale`` is told."""

import gillnet as gn

payments = gn.Stream(
    "payments",
    schema=gn.Schema(
        id=gn.String(),
        ts=gn.Timestamp("rfc3339"),
        card=gn.String(),
        user=gn.String(nullable=True),
        amount=gn.Decimal(2),
    ),
    id="id",
    event_time="ts",
)
clicks = gn.Stream(
    "clicks",
    schema=gn.Schema(id=gn.String(), ts=gn.Timestamp("rfc3339"), visitor=gn.String(nullable=True), event=gn.String()),
    id="id",
    event_time="ts",
    watermark_delay="5s",
)
card, visitor = payments.by("card"), clicks.by("visitor")

pipeline = gn.Pipeline(
    gn.Features(
        payments,
        clicks_10m=visitor.count(over="10m").at("user"),
        failed_10m=visitor.count(over="10m", where=gn.col("event") == "login_failed").at("user"),
        since_click_s=visitor.seconds_since_last(over="1h").at("user"),
        last_event=visitor.last("event", over="1h").at("user"),
        clicks_of_session=visitor.count(over=gn.session("5m")).at("user"),
        payments_1h=card.count(over="1h"),
    )
)
