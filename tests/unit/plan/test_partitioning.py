"""What can be computed partition by partition is, by one key a stream; what cannot is refused by the names of those that need more."""

from __future__ import annotations

import pytest

import gillnet as gn
from gillnet.core.errors import PlanError
from gillnet.plan.partitioning import partition_keys

SCHEMA = gn.Schema(id=gn.String(), ts=gn.Timestamp("ms"), card=gn.String(), user=gn.String(), amount=gn.Float())
payments, clicks = (gn.Stream(name, schema=SCHEMA, id="id", event_time="ts") for name in ("payments", "clicks"))


def features(**named):
    return gn.Pipeline(gn.Features(payments, **named)).plan


def joined(left, right):
    join = gn.IntervalJoin("near", payments.by(left), clicks.by(right), lower="-1s", upper="1s")
    return gn.Pipeline(gn.Features(payments, n=payments.by("card").count(over="1h")), joins=[join]).plan


def test_one_key_a_stream():
    plan = features(
        n=payments.by("card").count(over="1h"),
        spend=payments.by("card").sum("amount", over="5m"),
        seen=clicks.by("user").count(over="1h").at("card"),
        double=gn.col("n") * 2,
    )
    assert partition_keys(plan) == {"payments": "card", "clicks": "user"}
    assert partition_keys(joined("card", "user")) == {"payments": "card", "clicks": "user"}
    sessions = gn.Pipeline(gn.Sessions(payments.by("user"), gap="10m", n=gn.count())).plan
    assert partition_keys(sessions) == {"payments": "user"}


REFUSED = {
    "two keys of one stream": (
        lambda: features(a=payments.by("card").count(over="1h"), b=payments.by("user").count(over="1h")),
        r"feature 'a' needs the events of 'payments' by card, and feature 'b' by user",
    ),
    "a look-up by another key": (
        lambda: features(a=payments.by("card").count(over="1h"), b=clicks.by("user").count(over="1h").at("user")),
        r"feature 'a' needs the events of 'payments' by card, and feature 'b' by user",
    ),
    "a join by another key": (
        lambda: joined("user", "user"),
        r"feature 'n' needs the events of 'payments' by card, and join 'near' by user",
    ),
    "a pattern by another key": (
        lambda: features(
            a=payments.by("card").count(over="1h"),
            b=payments.by("user").pattern(gn.seq(gn.step("x"), gn.step("y")), within="1m"),
        ),
        r"feature 'a' .* by card, and feature 'b' by user",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_needs_more_than_a_partition_is_refused_by_name(case):
    make, message = REFUSED[case]
    with pytest.raises(PlanError, match=message):
        partition_keys(make())


def test_what_is_over_all_keys_is_refused():
    from gillnet.scenarios.bots import pipeline

    with pytest.raises(PlanError, match=r"the baseline '\w+' is over all keys of 'clicks'"):
        partition_keys(pipeline.plan)
