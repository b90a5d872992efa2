"""Patterns of another stream as of the payment's time: failed logins and a reset; a login that nobody left (``not_within``)."""

import gillnet as gn
from gillnet import col

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
    schema=gn.Schema(id=gn.Integer(), ts=gn.Timestamp("rfc3339"), visitor=gn.String(nullable=True), event=gn.String()),
    id="id",
    event_time="ts",
    watermark_delay="5s",
)
visitor = clicks.by("visitor")
failed = gn.step("failed", where=col("event") == "login_failed")
reset = gn.step("reset", where=col("event") == "password_reset")
login = gn.step("login", where=col("event") == "login")
logout = col("event") == "logout"

pipeline = gn.Pipeline(
    gn.Features(
        payments,
        took_over=visitor.pattern(gn.seq(failed.times(2, 3).greedy(), reset), within="15m").at("user"),
        left_open=visitor.pattern(gn.seq(login, gn.not_within(logout, "5m")), within="1m", over="1h")
        .count()
        .at("user"),
        resets=clicks.all().pattern(gn.seq(reset), within="1m", over="1h").count().at("card"),
    ),
    policy=[gn.step_up(col("took_over"), reason="failed_then_reset")],
)
