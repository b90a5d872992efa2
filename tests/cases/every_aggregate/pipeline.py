"""Every aggregate over a sliding window, and what it says of one event, of two, and where there is nothing to count."""

import gillnet as gn

col = gn.col
payments = gn.Stream(
    "payments",
    schema=gn.Schema(
        id=gn.String(),
        ts=gn.Timestamp("rfc3339"),
        card=gn.String(),
        x=gn.Float(nullable=True),
        city=gn.String(nullable=True),
    ),
    id="id",
    event_time="ts",
)
card = payments.by("card")

pipeline = gn.Pipeline(
    gn.Features(
        payments,
        count=card.count(over="10m"),
        sum=card.sum("x", over="10m"),
        mean=card.mean("x", over="10m"),
        min=card.min("x", over="10m"),
        max=card.max("x", over="10m"),
        variance=card.variance("x", over="10m"),
        std=card.std("x", over="10m"),
        n_unique=card.n_unique("city", over="10m"),
        first=card.first("city", over="10m"),
        last=card.last("city", over="10m"),
        entropy=card.entropy("city", over="10m"),
        seconds_since_last=card.seconds_since_last(over="10m"),
        mean_gap_seconds=card.mean_gap_seconds(over="10m"),
        std_gap_seconds=card.std_gap_seconds(over="10m"),
        modal_gap_share=card.modal_gap_share(over="10m"),
        newest_ts=card.max("ts", over="10m", delay="1us"),
        cities_of_session=card.n_unique("city", over=gn.session("3m")),
    )
)
