"""A late click between two sessions that have closed makes them one; the one that is gone must not stay in the output."""

import gillnet as gn

clicks = gn.Stream(
    "clicks",
    schema=gn.Schema(id=gn.String(), ts=gn.Timestamp("rfc3339"), visitor=gn.String(), url=gn.String()),
    id="id",
    event_time="ts",
    watermark_delay="0s",
    allowed_lateness="1h",
)

pipeline = gn.Pipeline(gn.Sessions(clicks.by("visitor"), gap="5m", clicks=gn.count(), first_page=gn.first("url")))
