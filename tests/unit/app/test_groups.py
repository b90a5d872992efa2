"""Each topic of a run is read by a consumer group or subscription of its own."""

from __future__ import annotations

import pytest

from gillnet.app.runs import with_groups
from gillnet.core.errors import ConfigurationError
from gillnet.scenarios.payments import pipeline

PLAN = pipeline.plan


def test_a_stream_without_a_group_gets_one_by_pipeline_and_stream() -> None:
    given = {"payments": "kafka://b:9092/p", "clicks": "kafka://b:9092/c?start=latest"}
    assert with_groups(PLAN, given) == {
        "payments": "kafka://b:9092/p?group=gillnet.payments.payments",
        "clicks": "kafka://b:9092/c?start=latest&group=gillnet.payments.clicks",
    }


def test_a_given_group_and_other_sources_stay_as_they_are() -> None:
    given = {"payments": "kafka://b:9092/p?group=fraud", "clicks": "clicks.ndjson"}
    assert with_groups(PLAN, given) == given


@pytest.mark.parametrize(
    "clicks",
    ["kafka://b:9092/c?group=fraud", "kafka://b:9092/p?group=fraud", "kafka://b:9092/c?group=fraud&start=latest"],
)
def test_two_streams_in_one_group_are_refused(clicks: str) -> None:
    with pytest.raises(
        ConfigurationError, match=r"payments and clicks: .* group 'fraud'.* such as \?group=fraud\.clicks"
    ):
        with_groups(PLAN, {"payments": "kafka://b:9092/p?group=fraud", "clicks": clicks})


def test_a_pulsar_topic_gets_a_subscription_which_is_the_topic_s() -> None:
    given = {"payments": "pulsar://b:6650/t/n/p", "clicks": "pulsar+ssl://b:6651/t/n/c?type=exclusive"}
    assert with_groups(PLAN, given) == {
        "payments": "pulsar://b:6650/t/n/p?subscription=gillnet.payments.payments",
        "clicks": "pulsar+ssl://b:6651/t/n/c?type=exclusive&subscription=gillnet.payments.clicks",
    }
    apart = {"payments": "pulsar://b:6650/t/n/p?subscription=s", "clicks": "pulsar://b:6650/t/n/c?subscription=s"}
    assert with_groups(PLAN, apart) == apart
    with pytest.raises(ConfigurationError, match=r"as the subscription 's'.* such as \?subscription=s\.clicks"):
        with_groups(PLAN, dict.fromkeys(("payments", "clicks"), "pulsar://b:6650/t/n/p?subscription=s"))


def test_the_same_group_at_other_brokers_is_another_group() -> None:
    given = {"payments": "kafka://b:9092/p?group=fraud", "clicks": "kafka://other:9092/c?group=fraud"}
    assert with_groups(PLAN, given) == given
