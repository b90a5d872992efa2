"""A late click right behind a session that has closed makes it longer, while the watermark is still within the gap."""

import gillnet as gn

clicks = gn.Stream(
    "clicks",
    schema=gn.Schema(id=gn.String(), ts=gn.Timestamp("rfc3339"), visitor=gn.String(), url=gn.String()),
    id="id",
    event_time="ts",
    watermark_delay="0s",
    allowed_lateness="1h",
)

pipeline = gn.Pipeline(gn.Sessions(clicks.by("visitor"), gap="5m", clicks=gn.count(), last_page=gn.last("url")))
