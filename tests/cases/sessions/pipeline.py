"""A session ends after a silence of more than its gap, and is cut where it would last its longest."""

import gillnet as gn

clicks = gn.Stream(
    "clicks",
    schema=gn.Schema(id=gn.String(), ts=gn.Timestamp("rfc3339"), visitor=gn.String(), url=gn.String()),
    id="id",
    event_time="ts",
    watermark_delay="0s",
    allowed_lateness="1h",
)

sessions = gn.Sessions(
    clicks.by("visitor"),
    gap="5m",
    max_length="12m",
    clicks=gn.count(),
    pages=gn.n_unique("url"),
    first_page=gn.first("url"),
    pace=gn.mean_gap_seconds(),
    page_ratio=gn.col("pages") / gn.col("clicks"),
)

pipeline = gn.Pipeline(sessions, policy=[gn.review(gn.col("clicks") >= 4, reason="many_clicks")])
