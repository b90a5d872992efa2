"""A session's key keeps its type: an integer in the rows, in the closed sessions, and in expressions over it."""

import gillnet as gn

clicks = gn.Stream(
    "clicks",
    schema=gn.Schema(id=gn.Integer(), ts=gn.Timestamp("rfc3339"), account=gn.Integer()),
    id="id",
    event_time="ts",
)
sessions = gn.Sessions(clicks.by("account"), gap="5m", clicks=gn.count(), is_test=gn.col("account") < 100)

pipeline = gn.Pipeline(sessions)
