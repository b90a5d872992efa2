"""A run in lanes: each partition of the topics by itself, with its own state, watermark, checkpoints and transactions.

What a lane says depends on its partition alone. So lanes may be spread over any number of processes, and over another number the next
time: state moves as a whole, and the output is the same.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Protocol
from urllib.parse import quote

import structlog

from gillnet.api.pipeline import Pipeline
from gillnet.app.config import RunConfig
from gillnet.app.runs import build_runtime, check_streams, with_groups
from gillnet.connectors.uri import parse_uri, source_format
from gillnet.core.errors import ConfigurationError
from gillnet.core.formats import RecordFormat
from gillnet.core.messages import RawBatch
from gillnet.operators.decode import stream_decoder
from gillnet.plan.nodes import PipelinePlan
from gillnet.plan.partitioning import partition_keys
from gillnet.runtimes.embedded import Alert, EmbeddedRuntime
from gillnet.state import CheckpointStore
from gillnet.state.rocksdb import MEMORY

_LOOKED_AT = 200
"""Newest records of each partition that are looked at, for whether their key is what the topic is partitioned by."""


@dataclass(frozen=True, slots=True)
class Worker:
    """One of several processes: the lanes of every ``of``-th of the ``partitions``, from number ``number`` on."""

    number: int
    of: int
    partitions: int

    @classmethod
    def parse(cls, text: str) -> Worker:
        """Read ``number/of/partitions``.

        Raises
        ------
        ConfigurationError
            If it is not that.
        """
        match = re.fullmatch(r"(\d+)/(\d+)/(\d+)", text)
        if match is None or not int(match[1]) < int(match[2]):
            raise ConfigurationError(f"--worker {text}: write number/of/partitions, such as 0/2/8.")
        return cls(*map(int, match.groups()))

    def lanes(self) -> range:
        """Return the partitions that are this worker's."""
        return range(self.number, self.partitions, self.of)


def count_lanes(plan: PipelinePlan, config: RunConfig) -> int:
    """Return how many lanes a run has: the partitions of its topics.

    Raises
    ------
    PlanError
        If the plan cannot be computed partition by partition.
    ConfigurationError
        If a source is no topic, topics have different numbers of partitions, one is not partitioned by the plan's key, or the
        checkpoints are those of a run that was not in lanes.
    """
    keys = partition_keys(plan)
    check_streams(plan, config.sources)
    counts: dict[str, int] = {}
    for stream in plan.streams:
        uri = parse_uri(config.sources[stream.name], what=f"Source of {stream.name}")
        if uri.scheme != "kafka" or "partition" in uri.parameters:
            raise ConfigurationError(
                f"--source {stream.name}={uri.text}: workers share the partitions of topics; read from a topic as a whole, or leave "
                "--workers out."
            )
        newest = _newest_records(uri.address, uri.path.strip("/"), config.kafka)
        counts[stream.name] = len(newest)
        if stream.name in keys:
            form = source_format(config.sources[stream.name], settings=config.kafka)
            _check_partitioned(plan, stream.name, keys[stream.name], newest, form)
    if len(set(counts.values())) > 1:
        told = ", ".join(f"{name} {count}" for name, count in counts.items())
        raise ConfigurationError(
            f"pipeline {plan.name!r}: workers need topics with the same number of partitions, so that equal keys meet: {told}."
        )
    if config.checkpoints is not None and CheckpointStore(config.checkpoints).numbers():
        raise ConfigurationError(
            f"--checkpoints {config.checkpoints}: they are of a run without workers, whose state is not kept by partition; go on without "
            "--workers, or name an empty place."
        )
    return counts[plan.root]


def lane_config(plan: PipelinePlan, config: RunConfig, partition: int, *, beside: int = 1) -> RunConfig:
    """Return the configuration of one lane, of ``beside`` in one process, which share its memory for state."""
    sources = with_groups(plan, config.sources)
    name = config.options.transactional_id or f"gillnet.{plan.name}"
    own = f"partition-{partition:05}"
    return replace(
        config,
        sources={
            stream: f"{uri}{'&' if '?' in uri else '?'}partition={quote(str(partition))}"
            for stream, uri in sources.items()
        },
        checkpoints=None if config.checkpoints is None else f"{config.checkpoints.rstrip('/')}/{own}",
        history=None if config.history is None else config.history / own,
        state=replace(
            config.state,
            directory=None if config.state.directory is None else config.state.directory / own,
            memory=None if config.state.backend == "memory" else (config.state.memory or MEMORY) // beside,
        ),
        options=replace(config.options, transactional_id=f"{name}.{partition}"),
    )


class Watch(Protocol):
    """What a display collects of a lane."""

    def on_alerts(self, alerts: list[Alert]) -> None:
        """Take alerts."""
        ...

    def on_turn(self) -> None:
        """Look at the lane after a turn of its loop."""
        ...


class Lanes:
    """The lanes of one worker.

    Parameters
    ----------
    pipeline, config
        What to run, as for `gillnet.app.build_runtime`.
    partitions
        Those of this worker.
    watch
        Gives what is told of a lane's alerts and turns, on the lane's thread.

    Raises
    ------
    ConfigurationError, ModelError, SourceError, SinkError
        As `gillnet.app.build_runtime`; the lanes that were built by then are closed.

    Attributes
    ----------
    runtimes
        One for each lane, by partition.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        config: RunConfig,
        partitions: range,
        *,
        watch: Callable[[int], Watch] | None = None,
    ) -> None:
        self.runtimes: dict[int, EmbeddedRuntime] = {}
        self._failure: BaseException | None = None
        with ExitStack() as undo:
            for partition in partitions:
                lane = lane_config(pipeline.plan, config, partition, beside=len(partitions))
                told = None if watch is None else watch(partition)
                runtime = build_runtime(
                    pipeline,
                    lane,
                    lane=partition,
                    on_alerts=None if told is None else told.on_alerts,
                    on_turn=None if told is None else told.on_turn,
                )
                undo.callback(runtime.close)
                self.runtimes[partition] = runtime
            undo.pop_all()

    def run(self, stop: threading.Event) -> None:
        """Run every lane on a thread of its own until all have ended or ``stop`` is set; a lane that fails stops the others.

        Raises
        ------
        GillnetError
            The first failure.
        """
        threads = [
            threading.Thread(target=self._run, args=(partition, runtime, stop), name=f"gillnet-lane-{partition}")
            for partition, runtime in self.runtimes.items()
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            while thread.is_alive():
                thread.join(0.2)  # In pieces, so that a signal's handler runs.
        if self._failure is not None:
            raise self._failure

    def _run(self, partition: int, runtime: EmbeddedRuntime, stop: threading.Event) -> None:
        structlog.contextvars.bind_contextvars(lane=partition)
        try:
            runtime.run(stop)
        except BaseException as failure:  # handed to the caller, whatever it is
            self._failure = self._failure or failure
            stop.set()


def _check_partitioned(
    plan: PipelinePlan, stream: str, column: str, newest: Mapping[int, list[bytes]], form: RecordFormat | None
) -> None:
    """Look whether a key is in two partitions."""
    seen: dict[object, int] = {}
    for partition, key in _keys(plan, stream, column, newest, form):
        before = seen.setdefault(key, partition)
        if before != partition:
            raise ConfigurationError(
                f"Source of {stream}: {column}={key!r} is in the partitions {before} and {partition}, so the topic is not partitioned by "
                f"{column}, as workers need. Write it with {column} as the record's key, or leave --workers out."
            )


def _keys(
    plan: PipelinePlan, stream: str, column: str, newest: Mapping[int, list[bytes]], form: RecordFormat | None
) -> Iterator[tuple[int, object]]:
    decoder = stream_decoder(plan, stream)
    for partition, values in newest.items():
        raw = RawBatch(
            stream=stream, values=values, partitions=[partition] * len(values), arrival_time_us=0, format=form
        )
        for key in decoder.decode(raw).batch.column(column).to_pylist():
            if key is not None:
                yield partition, key


def _newest_records(servers: str, topic: str, settings: Mapping[str, str]) -> dict[int, list[bytes]]:
    from gillnet.connectors.kafka import newest_records

    return newest_records(topic, bootstrap_servers=servers, most=_LOOKED_AT, settings=settings)
