"""Train an XGBoost model on features that the project computes, register it, and score with it.

    gillnet simulate payments --duration 40d --cards 1000 --payments-per-day 1000 --fraud-rate 0.02 --label-maturity 10d \\
        --to history
    gillnet explain examples/own_model.py
    python examples/own_model.py history/payments.ndjson history/labels.ndjson --maturity-days 10 --models models
    gillnet models --models models
    gillnet run examples/own_model.py --models models --source payments=history/payments.ndjson --sinks out

The same definition gives the training set and the live features, computed by the same kernel, so there is nothing between the
two that could differ. A row sees no event after its own, and its label counts only if it was known at the cut-off.
"""

import argparse
from pathlib import Path

import numpy as np

import gillnet as gn
from gillnet import col

MODEL = "card-fraud"

Payment = gn.Schema(
    tx_id=gn.String(),
    ts=gn.Timestamp("ms"),
    card_id=gn.String(),
    device_id=gn.String(nullable=True),
    merchant_id=gn.String(),
    ip=gn.String(),
    country=gn.String(),
    billing_country=gn.String(),
    amount=gn.Decimal(2, minimum=0),
    status=gn.String(),
    card_present=gn.Boolean(),
)
payments = gn.Stream("payments", schema=Payment, id="tx_id", event_time="ts")
card, device, address, merchant = (payments.by(key) for key in ("card_id", "device_id", "ip", "merchant_id"))
declined = col("status") == "declined"

features = gn.Features(
    payments,
    paid=col("amount"),
    present=col("card_present"),
    hour=col("ts").dt.hour(),
    abroad=col("country") != col("billing_country"),
    spend_5m=card.sum("amount", over="5m"),
    payments_1h=card.count(over="1h"),
    payments_1d=card.count(over="1d"),
    declined_1d=card.count(over="1d", where=declined),
    merchants_1d=card.n_unique("merchant_id", over="1d"),
    since_last_s=card.seconds_since_last(over="14d"),
    usual_amount=card.mean("amount", over="14d", delay="1ms"),
    device_cards_1d=device.n_unique("card_id", over="1d"),
    device_payments_14d=device.count(over="14d"),
    address_cards_1d=address.n_unique("card_id", over="1d"),
    address_declined_1d=address.count(over="1d", where=declined),
    merchant_declined_7d=merchant.mean(declined, over="7d"),
    times_usual=col("amount") / (col("usual_amount") + 1),
)

pipeline = gn.Pipeline(
    features,
    name="own-model",
    model=f"{MODEL}@champion",
    policy=[
        gn.block(col("score") > 0.9, reason="score_very_high"),
        gn.review(col("score") > 0.5, reason="score_high"),
    ],
)


def train(payments_file: Path, labels_file: Path, maturity_days: int, models: Path) -> None:
    """Compute the features of a history, join the labels that were known, train, and make the model the champion."""
    # Needed to train only; `gillnet run` reads nothing but the definition above.
    import xgboost

    from gillnet.connectors.files import FileSource
    from gillnet.core.time import DAY
    from gillnet.lifecycle.dataset import compute_features
    from gillnet.lifecycle.evaluate import average_precision
    from gillnet.lifecycle.labels import PENDING, outcomes_as_known, read_labels
    from gillnet.serving import ModelRegistry

    model = pipeline.plan.model
    assert model is not None
    rows = compute_features(pipeline.plan, {"payments": FileSource("payments", str(payments_file))})
    label = gn.Schema(tx_id=gn.String(), fraud=gn.Boolean(), scenario=gn.String(), known_at=gn.Timestamp("ms"))
    labels = read_labels([labels_file.read_bytes().splitlines()], label)

    # Train as one could have a week ago: on payments whose outcome was known by then, fraud or not. (That a payment was
    # no fraud is known late, so the youngest are left out.) Judge by the week that followed.
    cut_off = int(rows.event_time_us.max()) - 7 * DAY
    past, later = rows.between(0, cut_off - maturity_days * DAY), rows.between(cut_off, 2**62)
    outcomes = outcomes_as_known(past.ids, labels, cut_off)
    known = outcomes != PENDING
    matrix, outcomes = past.matrix[known], outcomes[known]
    data = xgboost.DMatrix(matrix, outcomes, feature_names=list(rows.names))
    booster = xgboost.train({"objective": "binary:logistic", "max_depth": 5, "eta": 0.1, "nthread": 2}, data, 60)

    scores = booster.inplace_predict(later.matrix, validate_features=False)
    fraud = labels.positive[labels.places(later.ids)]
    metrics = {
        "rows": len(outcomes),
        "fraud": int(outcomes.sum()),
        "average_precision": round(float(average_precision(fraud, scores)), 4),
        "base_rate": round(float(fraud.mean()), 4),
    }
    usual = dict(zip(rows.names, np.nanmedian(matrix, axis=0).tolist(), strict=True))
    registry = ModelRegistry(models)
    version = registry.publish(booster, MODEL, signature=model.features, metadata={"metrics": metrics}, reference=usual)
    registry.set_alias(MODEL, "champion", version)
    print(f"{MODEL}@{version} is the champion: {metrics}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Train the model of this file's pipeline.")
    parser.add_argument("payments", type=Path)
    parser.add_argument("labels", type=Path)
    parser.add_argument("--maturity-days", type=int, default=30, help="after which no chargeback means no fraud")
    parser.add_argument("--models", type=Path, default=Path("models"))
    options = parser.parse_args()
    train(options.payments, options.labels, options.maturity_days, options.models)
