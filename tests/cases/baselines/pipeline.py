"""A baseline is of sessions that have closed in steps before the event's own; null until there are enough of them (I6)."""

import gillnet as gn

clicks = gn.Stream(
    "clicks",
    schema=gn.Schema(id=gn.String(), ts=gn.Timestamp("rfc3339"), visitor=gn.String()),
    id="id",
    event_time="ts",
    watermark_delay="0s",
)
sessions = gn.Sessions(
    clicks.by("visitor"),
    gap="5m",
    clicks=gn.count(),
    usual=gn.baseline("clicks", quantile=0.5, over="30m", step="10m", min_count=3),
    far=gn.col("clicks") > 3 * gn.col("usual"),
)

pipeline = gn.Pipeline(sessions, policy=[gn.review(gn.col("far"), reason="far_above_usual")])
