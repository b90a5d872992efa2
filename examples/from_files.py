"""Score a file, and read the decisions from a file: for a first look at data of your own, and in batch jobs.

    gillnet simulate payments --max-records 5000 --no-labels --to history
    gillnet explain examples/from_files.py
    gillnet run examples/from_files.py --source payments=history/payments.ndjson --sinks out
    head -n 3 out/decisions.ndjson

Sources may be NDJSON, CSV or Parquet, plain or compressed (.gz): the name says which, or ?format=csv does. `-` is standard
input or output. The run ends with the file, closes what is open, and leaves with exit code 0. Records that cannot be scored
are in out/payments.malformed.ndjson, .duplicate and .too_late, so that nothing is lost in silence.
"""

import datetime

import gillnet as gn
from gillnet import col

# A file of the past is read in minutes, so its own order is what arrives when. Where it is not sorted by time, let the
# watermark trail far enough behind: here by an hour.
payments = gn.Stream(
    "payments",
    schema=gn.Schema(
        tx_id=gn.String(),
        ts=gn.Timestamp("ms"),  # or "s", "us", "rfc3339"
        card_id=gn.String(),
        merchant_id=gn.String(),
        amount=gn.Decimal(2, minimum=0),
        currency=gn.String(),
        mcc=gn.String(),
    ),
    id="tx_id",
    event_time="ts",
    watermark_delay="1h",
    allowed_lateness="7d",
    earliest=datetime.datetime(2015, 1, 1, tzinfo=datetime.UTC),
)
card, merchant = payments.by("card_id"), payments.by("merchant_id")

features = gn.Features(
    payments,
    payments_1d=card.count(over="1d"),
    spend_1d=card.sum("amount", over="1d"),
    largest_30d=card.max("amount", over="30d", delay="1ms"),
    merchant_mean_7d=merchant.mean("amount", over="7d"),
    merchant_spread_7d=merchant.std("amount", over="7d"),
    mcc_before=card.last("mcc", over="30d", delay="1ms"),
    record=col("amount") > col("largest_30d"),
    other_mcc=col("mcc") != col("mcc_before"),
    merchant_z=(col("amount") - col("merchant_mean_7d")) / (col("merchant_spread_7d") + 1),
)

pipeline = gn.Pipeline(
    features,
    name="history",
    policy=[
        gn.review(col("record") & col("other_mcc") & (col("merchant_z") > 4), reason="record_amount"),
        gn.review((col("payments_1d") >= 5) & (col("spend_1d") > 3_000), reason="spend_1d_high"),
    ],
)
