"""What a run is told of delivery: what does not go together is refused before anything is opened, and names the mend."""

from __future__ import annotations

import pytest

from gillnet.app import RunConfig, SinkRoutes, build_runtime
from gillnet.core.errors import ConfigurationError
from gillnet.scenarios.payments import pipeline


def configured(*, sinks=(), default_sink=None, checkpoints="place", settings=()):
    return RunConfig().changed(
        sources=["payments=simulator:payments", "clicks=simulator:clicks"],
        sinks=sinks,
        default_sink=default_sink,
        checkpoints=checkpoints,
        settings=["options.delivery=exactly-once", *settings],
    )


REFUSED = {
    "no checkpoints": (
        {"default_sink": "kafka://localhost:9/{name}", "checkpoints": None},
        r"exactly-once needs checkpoints.*give --checkpoints PLACE",
    ),
    "no sink": ({}, r"no output has a sink; give one, such as --sinks kafka://"),
    "a file": ({"sinks": ["decisions=out.ndjson"]}, r"--sink decisions=out\.ndjson: .*every output is a topic of one"),
    "a file beside topics": (
        {"default_sink": "kafka://localhost:9/{name}", "sinks": ["alerts=out.ndjson"]},
        r"--sink alerts=out\.ndjson: .*every output is a topic of one",
    ),
    "two clusters": (
        {"default_sink": "kafka://localhost:9/{name}", "sinks": ["alerts=kafka://other:9/alerts"]},
        r"--sink alerts=kafka://other:9/alerts: .*one Kafka cluster",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_exactly_once_cannot_do_is_refused_with_the_mend_before_anything_is_made(case, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    options, message = REFUSED[case]
    with pytest.raises(ConfigurationError, match=message):
        build_runtime(pipeline, configured(**options))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("options.delivery=once", r"'once' is unknown; choose at-least-once or exactly-once"),
        ("options.transactional_id=a b", r"'a b' is no name; write letters, digits"),
        ("options.transaction_interval=soon", r"soon"),
    ],
)
def test_a_wrong_option_of_delivery_is_told(setting, message):
    with pytest.raises(ConfigurationError, match=message):
        configured(settings=[setting])


def test_the_cluster_of_a_run_s_outputs_and_their_topics():
    routes = SinkRoutes(pipeline.plan, {"alerts": "kafka://b:1/warnings"}, default="kafka://b:1/{name}")
    cluster, topics = routes.cluster()
    assert cluster == "b:1"
    assert {"decisions", "warnings", "payments.malformed"} <= set(topics)
    assert "alerts" not in topics
