"""A click that comes late joins its session and changes it, also when the session had closed; the last revision counts."""

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
    clicks.by("visitor"), gap="5m", clicks=gn.count(), pages=gn.n_unique("url"), last_page=gn.last("url")
)

pipeline = gn.Pipeline(sessions)
