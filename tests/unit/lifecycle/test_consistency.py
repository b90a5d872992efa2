"""A run's rows against the complete answer: equal to the byte, and every way in which they may not be."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from typing import Any

import pytest

import gillnet as gn
from gillnet._kernel import Batch
from gillnet.connectors.memory import MemorySink, MemorySource
from gillnet.core.errors import SourceError
from gillnet.core.messages import RawBatch
from gillnet.lifecycle.consistency import Consistency, RowComparer
from gillnet.operators.decode import stream_decoder
from gillnet.operators.features import FeatureOperator
from gillnet.runtimes.embedded import EmbeddedRuntime, Outputs, RuntimeOptions
from gillnet.runtimes.embedded.revisions import REVISIONS
from gillnet.testing.clock import SimulatedClock

NOW_US = SimulatedClock().now_us()
PAYMENT = gn.Schema(id=gn.Integer(), ts=gn.Timestamp("us"), card=gn.String(), amount=gn.Decimal(2))
payments = gn.Stream("payments", schema=PAYMENT, id="id", event_time="ts", max_ahead="1d")
card = payments.by("card")
pipeline = gn.Pipeline(
    gn.Features(
        payments, spend=card.sum("amount", over="5m"), mean=card.mean("amount", over="5m"), n=card.count(over="1h")
    ),
    policy=[gn.block(gn.col("spend") > 900, reason="much")],
)


def records(count: int, seed: int) -> list[bytes]:
    rng = random.Random(seed)
    events = [
        {
            "id": number,
            "ts": NOW_US + number * 20_000_000,
            "card": f"c{rng.randrange(3)}",
            "amount": f"{rng.randrange(1, 99999) / 100}",
        }
        for number in range(count)
    ]
    events.sort(key=lambda event: event["ts"] + rng.choice([0, 0, 0, 300_000_000]))
    return [json.dumps(event).encode() for event in events]


def live(values: list[bytes]) -> dict[str, MemorySink]:
    sinks: dict[str, MemorySink] = {}
    EmbeddedRuntime(
        pipeline.plan,
        sources={"payments": MemorySource("payments", values, clock=SimulatedClock())},
        outputs=Outputs(lambda name: sinks.setdefault(name, MemorySink())),
        options=RuntimeOptions(revision_interval_s=0.0, max_batch_records=7),
        clock=SimulatedClock(),
    ).run()
    return sinks


def complete(values: list[bytes]) -> Iterator[Batch]:
    """Return the answer of an engine to which everything comes in order."""
    ordered = sorted(values, key=lambda value: json.loads(value)["ts"])
    raw = RawBatch(stream="payments", values=ordered, partitions=[0] * len(ordered), arrival_time_us=NOW_US)
    decoded = stream_decoder(pipeline.plan, "payments").decode(raw)
    rows = FeatureOperator(pipeline.plan).process("payments", decoded.batch, NOW_US).rows
    assert rows is not None
    yield rows


def records_of(sinks: dict[str, MemorySink]) -> list[tuple[str, bytes]]:
    return [(name, value) for name in ("decisions", REVISIONS) if name in sinks for value in sinks[name].values]


def compare(outputs: list[tuple[str, bytes]], values: list[bytes]) -> Consistency:
    return RowComparer(pipeline.plan, None).compare(lambda: outputs, complete(values))


@pytest.mark.parametrize("seed", range(5))
def test_a_run_out_of_order_is_equal_after_its_last_revisions(seed: int) -> None:
    values = records(200, seed)
    outputs = records_of(live(values))
    result = compare(outputs, values)
    assert (result.rows, result.equal, result.share, result.differences) == (200, 200, 1.0, [])
    assert result.revised > 10


def test_without_its_revisions_it_is_not() -> None:
    values = records(200, 1)
    decisions = [record for record in records_of(live(values)) if record[0] == "decisions"]
    result = compare(decisions, values)
    assert (result.rows, result.missing, result.extra, result.revised) == (200, 0, 0, 0)
    assert 10 < result.differing == 200 - result.equal == len(result.differences)
    assert all(difference.names for difference in result.differences)


def test_one_changed_digit_is_found_and_its_history_shown() -> None:
    values = records(200, 2)
    outputs = records_of(live(values))
    place = next(i for i, (name, _) in enumerate(outputs) if name == REVISIONS)
    revision = json.loads(outputs[place][1])
    row_id = revision["id"]
    last = max(i for i, (name, value) in enumerate(outputs) if json.loads(value)["id"] == row_id)
    changed = json.loads(outputs[last][1])
    changed["new"]["features"]["mean"] += 0.5
    changed["new"]["decision"] = "review"
    outputs[last] = (REVISIONS, json.dumps(changed, separators=(",", ":")).encode())
    result = compare(outputs, values)
    assert (result.equal, result.differing) == (199, 1)
    [difference] = result.differences
    assert (difference.id, difference.flipped) == (str(row_id), True)
    assert {"mean", "decision"} <= set(difference.names)
    assert [step.get("revision", 0) for step in difference.history] == list(range(changed["revision"] + 1))
    assert result.largest == (str(row_id), "mean", pytest.approx(0.5))


def test_rows_that_one_side_does_not_have_are_told_apart() -> None:
    values = records(50, 3)
    outputs = records_of(live(values))
    gone = json.loads(values[10])["id"]
    fewer = [(name, value) for name, value in outputs if json.loads(value)["id"] != gone]
    result = compare(fewer, values)
    assert (result.rows, result.equal, result.missing, result.extra) == (50, 49, 1, 0)
    assert (result.differences[0].id, result.differences[0].emitted) == (str(gone), None)
    in_order = sorted(values, key=lambda value: json.loads(value)["ts"])
    result = compare(records_of(live(in_order)), in_order[:-1])
    assert (result.rows, result.equal, result.missing, result.extra) == (50, 49, 0, 1)
    assert result.differences[0].expected is None


@pytest.mark.parametrize(
    ("record", "says"),
    [
        (b"{", "no row of pipeline"),
        (b'{"id":1,"decision":"allow"}', "options.detail=audit"),
        (b'{"features":{},"decision":"allow","reasons":[]}', "whole rows"),
        (b'{"id":1,"event_time":"2026","features":{},"reasons":[]}', "'decision'"),
    ],
)
def test_what_is_no_row_is_refused_with_the_mend(record: bytes, says: str) -> None:
    with pytest.raises(SourceError, match=says):
        compare([("decisions", record)], records(1, 1))


def test_baselines_and_what_rests_on_them_are_left_out() -> None:
    figures: dict[str, Any] = {
        "clicks": gn.count(),
        "usual": gn.baseline("clicks"),
        "far": gn.col("clicks") > gn.col("usual"),
    }
    sessions = gn.Sessions(card, gap="30m", **figures, twice=gn.col("clicks") * 2, never=~gn.col("far"))
    assert RowComparer(gn.Pipeline(sessions).plan, None).left_out == ("usual", "far", "never")
