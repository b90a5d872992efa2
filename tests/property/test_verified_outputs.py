"""I2: every output of a live run, after its last revisions, equals the batch answer, wherever the run stopped."""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from effort import examples
from hypothesis import given
from hypothesis import strategies as st

import gillnet as gn
from gillnet.app import RunConfig
from gillnet.app.finished import FinishedRun
from gillnet.app.sinks import SinkRoutes
from gillnet.connectors.memory import MemorySource
from gillnet.lifecycle.consistency import Consistency
from gillnet.lifecycle.verify import verify
from gillnet.plan.nodes import PipelinePlan
from gillnet.runtimes.batch import BatchOptions
from gillnet.runtimes.embedded import EmbeddedRuntime, Outputs, RuntimeOptions
from gillnet.stores.history import HistoryWriter
from gillnet.testing.clock import SimulatedClock

START_US = SimulatedClock().now_us() - 10**9
EVENT = gn.Schema(
    id=gn.Integer(), ts=gn.Timestamp("us"), key=gn.String(nullable=True), kind=gn.String(), amount=gn.Float()
)
payments, clicks = (gn.Stream(name, schema=EVENT, id="id", event_time="ts") for name in ("payments", "clicks"))


def of_kind(name: str) -> gn.Step:
    return gn.step(name, where=gn.col("kind") == name)


def patterns(skip: Any) -> gn.Pipeline:
    """Patterns of the rows' own stream and of another, some of which wait for a time without a certain event."""
    own, other = payments.by("key"), clicks.by("key")
    pair = gn.seq(of_kind("a"), gn.not_between(gn.col("kind") == "c"), of_kind("b"))
    repeated = gn.seq(of_kind("a").one_or_more(), of_kind("b"))
    quiet = gn.seq(of_kind("a"), of_kind("b").optional(), of_kind("c"), gn.not_within(gn.col("kind") == "b", "2s"))
    return gn.Pipeline(
        gn.Features(
            payments,
            pair=own.pattern(pair, within="5s", skip=skip),
            repeated=own.pattern(repeated, within="10s", skip=skip).count(),
            quiet=own.pattern(quiet, within="5s", over="20s", skip=skip),
            unseen=other.pattern(quiet, within="3s", skip=skip).at("key"),
            seen=other.pattern(pair, within="3s", skip=skip).count().at("key"),
        )
    )


def sessions(longest: str) -> gn.Pipeline:
    figures = {"n": gn.count(), "mean": gn.mean("amount"), "last": gn.last("kind"), "kinds": gn.n_unique("kind")}
    twice = gn.col("n") * 2
    return gn.Pipeline(gn.Sessions(payments.by("key"), gap="2s", max_length=longest, **figures, twice=twice))


def joins() -> gn.Pipeline:
    """Joins whose events come out without a partner too."""
    sides = payments.by("key"), clicks.by("key")
    select = {"amount": "payments.amount", "kind": "clicks.kind"}
    return gn.Pipeline(
        gn.Features(payments, n=payments.by("key").count(over="2s")),
        joins=[
            gn.IntervalJoin("before", *sides, lower="-2s", upper="0s", how="left", select=select),
            gn.IntervalJoin("around", *sides, lower="-1s", upper="3s", how="full", select=select),
        ],
    )


PIPELINES = [
    joins().plan,
    *(patterns(skip).plan for skip in ("past_last_event", "to_next", "no_skip")),
    *(sessions(longest).plan for longest in ("4s", "1d")),
]


@dataclass(frozen=True)
class Arrivals:
    """A stream's records in the order of arrival, and the partition of each."""

    values: list[bytes]
    partitions: list[int]


@st.composite
def arrivals(draw: st.DrawFn) -> Arrivals:
    """Draw events of a few keys, close together, some of which come late."""
    count = draw(st.integers(1, 40))
    step = draw(st.sampled_from([200_000, 1_000_000]))
    rng = draw(st.randoms(use_true_random=False))
    late = draw(st.sampled_from([(0,), (0, 0, 0, 4), (0, 3, 9)]))
    events = [
        {
            "id": number,
            "ts": START_US + rng.randrange(0, count) * step,
            "key": rng.choice(["x", "x", "y", None]),
            "kind": rng.choice("aabc"),
            "amount": rng.choice([0.1, 0.2, 1e9, 3.0]),
        }
        for number in range(count)
    ]
    events.sort(key=lambda event: event["ts"] + rng.choice(late) * 1_000_000)
    partitions = [rng.randrange(2) for _ in events]
    return Arrivals([json.dumps(event).encode() for event in events], partitions)


def run_and_verify(
    plan: PipelinePlan, arriving: dict[str, Arrivals], runtime: RuntimeOptions, batch: BatchOptions
) -> Consistency:
    clock = SimulatedClock()
    with tempfile.TemporaryDirectory() as directory:
        config = RunConfig(history=Path(directory, "history"), default_sink=str(Path(directory, "out")))
        Path(directory, "out").mkdir()
        sources = {
            stream.name: MemorySource(
                stream.name,
                arriving[stream.name].values,
                partitions=arriving[stream.name].partitions,
                clock=clock,
            )
            for stream in plan.streams
        }
        EmbeddedRuntime(
            plan,
            sources=sources,
            outputs=Outputs(SinkRoutes(plan, {}, default=config.default_sink).open),
            options=runtime,
            clock=clock,
            history=HistoryWriter(Path(directory, "history"), run=1),
        ).run()
        return verify(FinishedRun(plan, config), None, flagged_only=False, options=batch)


@examples(150)
@given(
    plan=st.sampled_from(PIPELINES),
    of_payments=arrivals(),
    of_clicks=arrivals(),
    lateness_us=st.sampled_from([0, 2_000_000, 10**12]),
    delay_us=st.sampled_from([0, 1_000_000]),
    batch_records=st.sampled_from([1, 3, 1_000]),
    most=st.one_of(st.none(), st.none(), st.integers(1, 40)),
    part_rows=st.sampled_from([1, 7, 1_000]),
    threads=st.sampled_from([1, 2]),
)
def test_i2_every_output_comes_to_the_batch_answer_wherever_the_run_stopped(
    plan, of_payments, of_clicks, lateness_us, delay_us, batch_records, most, part_rows, threads
):
    """I2, I5: any order of arrival, lateness, micro-batches and parts; what was open when the run stopped is counted."""
    streams = tuple(
        replace(stream, allowed_lateness_us=lateness_us, watermark_delay_us=delay_us) for stream in plan.streams
    )
    result = run_and_verify(
        replace(plan, streams=streams),
        {"payments": of_payments, "clicks": of_clicks},
        RuntimeOptions(emit="all", max_batch_records=batch_records, max_records=most, revision_interval_s=0.0),
        BatchOptions(part_rows=part_rows, threads=threads),
    )
    assert result.agrees, result
    joined = {f"joins.{join.name}" for join in plan.joins}
    assert result.outputs.keys() == (joined or {"sessions" if plan.sessions else "matches"})
    for output in result.outputs.values():
        assert (output.first, output.largest) == (None, None)
        if most is None or most > len(of_payments.values):
            # Every stream came to its end, so nothing was open.
            assert output.undecided == 0
