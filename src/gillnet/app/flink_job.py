"""A pipeline and a run's configuration as a Flink job: what ``gillnet flink`` packages."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from gillnet.app.runs import check_streams, choose_model_scorer, with_groups
from gillnet.app.sinks import SinkRoutes
from gillnet.connectors.uri import ConnectorUri, parse_uri
from gillnet.core.errors import ConfigurationError
from gillnet.core.secrets import is_secret
from gillnet.operators.program import compile_program, shard_columns
from gillnet.plan.partitioning import partition_keys
from gillnet.serving.portable import portable_model

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gillnet.app.config import RunConfig
    from gillnet.plan.nodes import PipelinePlan

SHARDS = 32
"""Shards of a plan that can be shared out: what each is a key group of, so the greatest parallelism."""

_BATCH_RECORDS, _LINGER_MS = 1_000, 2
_TICK_MS, _WAITING_TICK_MS = 1_000, 50
_TRANSACTION_MS = 900_000
"""Kafka brokers allow no more by default. A job that is away for longer between a checkpoint and its commit loses what it wrote there."""

_STARTS = ("committed", "earliest", "latest")
# What librdkafka calls otherwise than Kafka's own client.
_JAVA_NAMES = {"sasl.mechanisms": "sasl.mechanism", "metadata.broker.list": "bootstrap.servers"}


def flink_job(
    plan: PipelinePlan, config: RunConfig, *, shards: int | None = None, prepare: bool = True
) -> dict[str, Any]:
    """Make the job of a pipeline, for `gillnet.runtimes.flink.package.package_job`.

    Parameters
    ----------
    plan
        The pipeline's plan.
    config
        Where its records come from and go to: topics of Kafka.
    shards
        Into how many shards keys are shared out, which the job's parallelism cannot exceed; it stays with the job's state. By default
        `SHARDS`, and 1 where the plan cannot be shared out.
    prepare
        Make topics that are missing.

    Raises
    ------
    ConfigurationError
        If a source or sink is no topic, a setting is a secret, or the plan cannot be shared out and is to be.
    ModelError
        If the model is missing, does not fit, or is not evaluated by the kernel.
    """
    check_streams(plan, config.sources)
    shards = _shards(plan, shards)
    scorer = choose_model_scorer(plan, config.models)
    options = config.options
    program = compile_program(
        plan,
        None if scorer is None else portable_model(scorer),
        emit=options.emit,
        detail=options.detail,
        top_reasons=options.top_reasons,
    )
    routes = SinkRoutes(plan, config.sinks, default=config.default_sink, connection=config.connection)
    cluster, _ = routes.cluster()
    if prepare:
        routes.prepare()
    kafka = _java_settings(config.kafka)
    uris = with_groups(plan, config.sources)
    topics = {name: parse_uri(uri, what="Sink").path.strip("/") for name, uri in routes.uris.items()}
    return {
        "name": plan.name,
        "program": json.loads(program),
        "sources": [_source(plan, stream.name, uris[stream.name], kafka, config.kafka) for stream in plan.streams],
        "sinks": {
            "topics": topics,
            "exactly_once": options.delivery == "exactly-once",
            "transactional_id_prefix": options.transactional_id or f"gillnet.{plan.name}",
            "kafka": {**kafka, "bootstrap.servers": cluster, "transaction.timeout.ms": str(_TRANSACTION_MS)},
        },
        "shards": shards,
        "batch_records": _BATCH_RECORDS,
        "linger_ms": _LINGER_MS,
        "tick_ms": _TICK_MS if plan.emission.kind == "on_arrival" else _WAITING_TICK_MS,
        "checkpoint_interval_ms": round(options.checkpoint_interval_s * 1_000),
    }


def _shards(plan: PipelinePlan, shards: int | None) -> int:
    can = bool(shard_columns(plan))
    if shards is None:
        return SHARDS if can else 1
    if shards > 1 and not can:
        partition_keys(plan)  # Says which features need the events of several keys.
        raise ConfigurationError(
            f"pipeline {plan.name!r} cannot be shared out among {shards} shards: some of its streams have no key. Leave --shards out."
        )
    return shards


def _source(
    plan: PipelinePlan, name: str, text: str, kafka: Mapping[str, str], settings: Mapping[str, str]
) -> dict[str, Any]:
    uri = parse_uri(text, what=f"Source of {name}")
    topic = uri.path.strip("/")
    _check_source(uri, name)
    return {
        "stream": name,
        "topic": topic,
        "start": uri.parameters.get("start", "committed"),
        "bounded": uri.parameters.get("until_end") == "true",
        "partitions": _count_partitions(uri.address, topic, settings),
        "watermark_delay_us": plan.stream(name).watermark_delay_us,
        "kafka": {**kafka, "bootstrap.servers": uri.address, "group.id": uri.parameters["group"]},
    }


def _check_source(uri: ConnectorUri, name: str) -> None:
    if uri.scheme != "kafka":
        raise ConfigurationError(
            f"--source {name}={uri.shown}: on Flink, streams come from topics of Kafka: kafka://host:9092/topic."
        )
    known = {"group", "start", "until_end"}
    if unknown := sorted(set(uri.parameters) - known):
        raise ConfigurationError(
            f"--source {name}={uri.shown}: {unknown[0]} is not read on Flink yet; leave it out, or run the pipeline embedded."
        )
    if uri.parameters.get("start", "committed") not in _STARTS:
        raise ConfigurationError(f"--source {name}={uri.shown}: start is one of {', '.join(_STARTS)}.")


def _java_settings(settings: Mapping[str, str]) -> dict[str, str]:
    for name in settings:
        if is_secret(name):
            raise ConfigurationError(
                f"kafka.{name}: a job's jar would hold the secret. Leave it out here, and give it to the cluster's JVMs in a JAAS file "
                "(-Djava.security.auth.login.config)."
            )
    return {_JAVA_NAMES.get(name, name): value for name, value in settings.items()}


def _count_partitions(servers: str, topic: str, settings: Mapping[str, str]) -> int:
    from gillnet.connectors.kafka import count_partitions

    return count_partitions(topic, bootstrap_servers=servers, settings=settings)
