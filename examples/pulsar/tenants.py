"""One definition, two tenants of one Pulsar cluster: each with its own topics, token, model, policy, state and quota.

    gillnet explain examples/pulsar/tenants.py
    python examples/pulsar/tenants.py --models examples/pulsar/models-a --usual-amount 500
    python examples/pulsar/tenants.py --models examples/pulsar/models-b --usual-amount 50
    TENANT=team-a PULSAR_TOKEN=... gillnet run examples/pulsar/tenants.py --config examples/pulsar/team-a.toml
    TENANT=team-b PULSAR_TOKEN=... gillnet run examples/pulsar/tenants.py --config examples/pulsar/team-b.toml

The broker holds the tenants apart: a token of one may neither read nor write the other's namespace, and the namespace's backlog quota
bounds what a tenant that is not read may fill. Gillnet holds apart what it keeps: each configuration names a registry of models and a
place of checkpoints of its own. What they share is the definition of the features.
"""

import argparse
import os
from pathlib import Path

import numpy as np

import gillnet as gn
from gillnet import col

MODEL = "tenant-risk"

payments = gn.Stream(
    "payments",
    schema=gn.Schema(
        id=gn.String(), ts=gn.Timestamp("ms"), card=gn.String(), amount=gn.Decimal(2, minimum=0), status=gn.String()
    ),
    id="id",
    event_time="ts",
    allowed_lateness="24h",
)
card = payments.by("card")
features = gn.Features(
    payments,
    paid=col("amount"),
    spend_1h=card.sum("amount", over="1h"),
    declined_1h=card.count(over="1h", where=col("status") == "declined"),
)

POLICIES = {
    "team-a": [gn.block(col("score") > 0.5, reason="score_high")],
    "team-b": [
        gn.review(col("score") > 0.5, reason="score_high"),
        gn.block(col("declined_1h") >= 3, reason="declined"),
    ],
}
pipeline = gn.Pipeline(
    features, name="tenants", model=f"{MODEL}@champion", policy=POLICIES[os.environ.get("TENANT", "team-a")]
)


def publish(models: Path, usual_amount: float) -> None:
    """Train a small model in which payments above what is usual are a risk, and make it the registry's champion."""
    # Needed to train only; `gillnet run` reads nothing but the definition above.
    import xgboost

    from gillnet.serving import ModelRegistry

    model = pipeline.plan.model
    assert model is not None
    paid = np.linspace(0, 2 * usual_amount, 400)
    matrix = np.column_stack([paid, paid, np.zeros_like(paid)])
    data = xgboost.DMatrix(matrix, paid > usual_amount, feature_names=["paid", "spend_1h", "declined_1h"])
    booster = xgboost.train({"objective": "binary:logistic", "max_depth": 2, "nthread": 1}, data, 20)
    registry = ModelRegistry(models)
    version = registry.publish(booster, MODEL, signature=model.features, metadata={"usual_amount": usual_amount})
    registry.set_alias(MODEL, "champion", version)
    print(f"{MODEL}@{version} is the champion of {models}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Publish a tenant's model.")
    parser.add_argument("--models", type=Path, required=True)
    parser.add_argument("--usual-amount", type=float, default=500.0)
    options = parser.parse_args()
    publish(options.models, options.usual_amount)
