"""Patterns: four sequences of events that give fraud and bots away.

    gillnet explain examples/patterns.py
    gillnet run examples/patterns.py --source 'payments=simulator:payments?seed=7' --source 'clicks=simulator:clicks?seed=7' \\
        --max-records 5000 --sinks out

A pattern is a feature: whether a match was completed lately, or how many. The matches themselves go to out/matches.ndjson with
the events that made them, and once more with "withdrawn":true should a late event undo them. Rows are payments; the patterns
of clicks are looked up as of the payment's time.
"""

import gillnet as gn
from gillnet import col

Payment = gn.Schema(
    tx_id=gn.String(),
    ts=gn.Timestamp("ms"),
    card_id=gn.String(),
    user_id=gn.String(),
    country=gn.String(),
    amount=gn.Decimal(2, minimum=0),
)
Click = gn.Schema(
    click_id=gn.String(),
    ts=gn.Timestamp("ms"),
    user_id=gn.String(nullable=True),  # null until somebody is logged in: such clicks belong to no user
    event=gn.String(),
)
payments = gn.Stream("payments", schema=Payment, id="tx_id", event_time="ts", allowed_lateness="1h")
clicks = gn.Stream("clicks", schema=Click, id="click_id", event_time="ts", allowed_lateness="1h")
card, visitor = payments.by("card_id"), clicks.by("user_id")

# 1. A small payment tries the card, a large one follows within a minute: a condition over an earlier event of the match.
small = gn.step("small", where=col("amount") < 10)
large = gn.step("large", where=(col("amount") > 100) & (col("amount") > 10 * small.last("amount")))
card_testing = card.pattern(gn.seq(small, large), within="1m")

# 2. Failed logins, then a password reset, with no login in between. It is a pattern of clicks, looked up at the payment.
failed = gn.step("failed", where=col("event") == "login_failed")
reset = gn.step("reset", where=col("event") == "password_reset")
logged_in = col("event") == "login"
takeover = visitor.pattern(gn.seq(failed.times(2), gn.not_between(logged_in), reset), within="30m", over="2h")

# 3. Impossible travel: the card's very next payment comes from another country, too soon for anybody to get there.
here = gn.step("here")
elsewhere = gn.step("elsewhere", where=col("country") != here.last("country")).strict()
travel = card.pattern(gn.seq(here, elsewhere), within="20m")

# 4. Click, click, click, without a human pause: each less than half a second after the one before it.
gap_ms = col("ts").dt.epoch("ms") - gn.previous("ts").dt.epoch("ms")
click = gn.step("click")
quick = gn.step("quick", where=gap_ms < 500).times(4).strict()
no_pause = visitor.pattern(gn.seq(click, quick), within="10s", over="1h")

features = gn.Features(
    payments,
    card_testing=card_testing,
    took_over=takeover.at("user_id"),
    travels=travel.count(),
    no_pause=no_pause.at("user_id"),
)

pipeline = gn.Pipeline(
    features,
    name="patterns",
    policy=[
        gn.block(col("card_testing"), reason="small_then_large"),
        gn.step_up(col("took_over") & (col("amount") > 100), reason="failed_logins_then_reset"),
        gn.review(col("travels") > 0, reason="impossible_travel"),
        gn.review(col("no_pause") & (col("amount") > 300), reason="no_human_pause"),
    ],
)
