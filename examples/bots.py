"""Sessions of a website's visitors, and the unusually busy ones flagged while they run.

    gillnet explain examples/bots.py
    gillnet run examples/bots.py --source 'clicks=simulator:clicks?seed=7' --max-records 20000 --sinks out

Every click is a row with its session's figures so far, so a bot is flagged at the click that gives it away; only flagged
rows are written (--set options.emit=all for all), and one alert for each session and decision. When a session has ended, its
last figures go to out/sessions.ndjson. `gillnet run bots` is the whole scenario, with a sequential score and baselines.
"""

import gillnet as gn
from gillnet import col

Click = gn.Schema(
    click_id=gn.String(),
    ts=gn.Timestamp("ms"),
    visitor_id=gn.String(),
    url=gn.String(),
    status_code=gn.Integer(minimum=100, maximum=599),
    user_agent=gn.String(),
    event=gn.String(),
)
clicks = gn.Stream("clicks", schema=Click, id="click_id", event_time="ts", allowed_lateness="1h")

sessions = gn.Sessions(
    clicks.by("visitor_id"),
    gap="30m",  # a session ends when the visitor is silent for longer
    max_length="6h",  # and is cut here, so that its state is bounded
    clicks=gn.count(),
    pages=gn.n_unique("url"),
    errors=gn.count(where=col("status_code") >= 400),
    failed_logins=gn.count(where=col("event") == "login_failed"),
    mean_gap_s=gn.mean_gap_seconds(),
    std_gap_s=gn.std_gap_seconds(),
    regular=gn.modal_gap_share(),
    agents=gn.n_unique("user_agent"),
    # Expressions over the session's figures; the closed session has them too.
    per_minute=60 / (col("mean_gap_s") + 0.1),
    gap_variation=col("std_gap_s") / col("mean_gap_s"),
    # What the population itself did lately: the 99 % quantile of closed sessions, null until there are 200 of them.
    usual_clicks=gn.baseline("clicks", quantile=0.99, over="24h", step="10m", min_count=200),
)

pipeline = gn.Pipeline(
    sessions,
    name="busy-sessions",
    policy=[
        gn.block((col("failed_logins") >= 12) & (col("failed_logins") * 3 > col("clicks")), reason="tries_passwords"),
        gn.block((col("clicks") >= 20) & (col("gap_variation") < 0.1), reason="clicks_like_a_clock"),
        gn.step_up((col("clicks") >= 40) & (col("per_minute") > 60), reason="too_fast"),
        gn.review((col("clicks") >= 30) & (col("clicks") > 3 * col("usual_clicks")), reason="far_above_usual"),
    ],
)
