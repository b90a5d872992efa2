"""Features of another stream: what was done on the site in the user's name, as of the time of the payment.

    gillnet explain examples/two_streams.py
    gillnet run examples/two_streams.py --source 'payments=simulator:payments?seed=7' --source 'clicks=simulator:clicks?seed=7' \\
        --max-records 5000 --sinks out

Rows are payments. A feature of another stream says with .at(column) whose clicks it reads: those that have arrived, at or
before the payment's own time, and never a later one. Where the clicks are known to lag behind, the row says so
(feature_states: "failed_logins_1h=stale").
"""

import gillnet as gn
from gillnet import col

Payment = gn.Schema(
    tx_id=gn.String(),
    ts=gn.Timestamp("ms"),
    card_id=gn.String(),
    user_id=gn.String(),
    device_id=gn.String(nullable=True),
    amount=gn.Decimal(2, minimum=0),
)
Click = gn.Schema(
    click_id=gn.String(),
    ts=gn.Timestamp("ms"),
    user_id=gn.String(nullable=True),  # null until somebody is logged in: such clicks belong to no user
    ip=gn.String(),
    event=gn.String(),
)
payments = gn.Stream("payments", schema=Payment, id="tx_id", event_time="ts", allowed_lateness="24h")
clicks = gn.Stream("clicks", schema=Click, id="click_id", event_time="ts", allowed_lateness="1h")

card, device, account = payments.by("card_id"), payments.by("device_id"), clicks.by("user_id")

features = gn.Features(
    payments,
    card_payments_14d=card.count(over="14d"),
    device_payments_14d=device.count(over="14d"),
    new_device=col("device_payments_14d") == 1,
    failed_logins_1h=account.count(over="1h", where=col("event") == "login_failed").at("user_id"),
    password_resets_1d=account.count(over="1d", where=col("event") == "password_reset").at("user_id"),
    since_login_s=account.seconds_since_last(over="1d", where=col("event") == "login").at("user_id"),
    addresses_1d=account.n_unique("ip", over="1d").at("user_id"),
    last_event=account.last("event", over="1h").at("user_id"),
)

# A device says something new of a card that has been seen for a while; in the first hours of a run every device is new.
known_card = col("card_payments_14d") >= 3

pipeline = gn.Pipeline(
    features,
    name="account-takeover",
    policy=[
        gn.block((col("failed_logins_1h") >= 5) & (col("password_resets_1d") >= 1), reason="password_guessed"),
        gn.step_up((col("password_resets_1d") >= 1) & known_card & col("new_device"), reason="reset_and_new_device"),
        gn.review((col("failed_logins_1h") >= 3) & (col("amount") > 300), reason="failed_logins"),
    ],
)
