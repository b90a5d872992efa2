"""The batch runtime out of core: the same rows however little memory it has, each id once, within the bounds that are asked for."""

from __future__ import annotations

import json
import random
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest

import gillnet as gn
from gillnet._kernel import Batch
from gillnet.connectors.memory import MemorySource
from gillnet.core.errors import ConfigurationError
from gillnet.core.time import SECOND
from gillnet.runtimes.batch import BatchOptions, BatchRuntime, InputCounts, parquet_events, source_events
from gillnet.runtimes.batch.repeats import RepeatedIds
from gillnet.runtimes.batch.sorting import cut_points
from gillnet.testing.clock import SimulatedClock

START = SimulatedClock().now_us()
UTC = pa.timestamp("us", "UTC")
PAYMENT = gn.Schema(id=gn.String(), ts=gn.Timestamp("us"), card=gn.String(nullable=True), amount=gn.Decimal(2))
CLICK = gn.Schema(id=gn.Integer(), ts=gn.Timestamp("us"), card=gn.String())
payments = gn.Stream("payments", schema=PAYMENT, id="id", event_time="ts")
clicks = gn.Stream("clicks", schema=CLICK, id="id", event_time="ts")
card = payments.by("card")
PIPELINE = gn.Pipeline(
    gn.Features(
        payments,
        spend=card.sum("amount", over="10s"),
        count=card.count(over="1m"),
        clicks=clicks.by("card").count(over="30s").at("card"),
        mean=gn.col("spend") / gn.col("count"),
    ),
    policy=[gn.review(gn.col("spend") > 50, reason="spends")],
)


def events(count: int, seed: int = 3) -> dict[str, pa.RecordBatch]:
    """Payments and clicks in no order of time; some ids come twice, with other values."""
    dice = random.Random(seed)
    rows = [
        (
            f"p{dice.randrange(count)}",
            START + dice.randrange(60 * SECOND),
            dice.choice("abcd") if dice.random() < 0.9 else None,
        )
        for _ in range(count)
    ]
    ids, times, cards = zip(*rows, strict=True)
    amounts = pa.array([Decimal(dice.randrange(1, 2_000)) / 100 for _ in rows], pa.decimal128(38, 2))
    clicked = pa.array([START + dice.randrange(60 * SECOND) for _ in rows], UTC)
    return {
        "payments": pa.record_batch({"id": ids, "ts": pa.array(times, UTC), "card": cards, "amount": amounts}),
        "clicks": pa.record_batch({"id": range(count), "ts": clicked, "card": dice.choices("abcd", k=count)}),
    }


def rows_of(
    given: dict[str, pa.RecordBatch],
    *,
    batch_rows: int = 10_000,
    decide: bool = False,
    bounds: Any = None,
    **options: Any,
) -> list[dict[str, Any]]:
    runtime = BatchRuntime(PIPELINE.plan, decide=decide, options=BatchOptions(**options))
    cut = {name: [b.slice(i, batch_rows) for i in range(0, b.num_rows, batch_rows)] for name, b in given.items()}
    return [row for part in runtime.run(cut, **(bounds or {})) for row in part.rows.to_pylist()]


@pytest.mark.parametrize(
    "options",
    [
        {"part_rows": 100},
        {"part_rows": 1, "batch_rows": 7},
        {"memory_bytes": 4_000, "batch_rows": 50},
        {"memory_bytes": 4_000, "batch_rows": 50, "part_rows": 30, "threads": 1},
    ],
)
def test_rows_depend_on_no_option(options, tmp_path):
    given = events(1_000)
    rows = rows_of(given)
    assert [(row["ts"], row["id"]) for row in rows] == sorted((row["ts"], row["id"]) for row in rows)
    assert len(rows) == len({row["id"] for row in rows}) == len(set(given["payments"].column("id").to_pylist()))
    assert rows_of(given, directory=tmp_path, **options) == rows
    assert list(tmp_path.iterdir()) == []


def test_of_an_id_that_comes_again_the_first_to_arrive_counts():
    given = events(400)
    table = given["payments"].to_pylist()
    first = {row["id"]: row["amount"] for row in reversed(table)}
    rows = rows_of(given, memory_bytes=4_000, batch_rows=30)
    assert {row["id"]: row["amount"] for row in rows} == first


def test_rows_in_bounds_are_those_of_the_whole():
    given = events(500)
    low, high = START + 20 * SECOND, START + 40 * SECOND
    whole = [row for row in rows_of(given) if low <= row["ts"].timestamp() * 1_000_000 < high]
    assert len(whole) > 50
    assert rows_of(given, bounds={"from_us": low, "to_us": high}) == whole


JOINED = gn.Pipeline(
    gn.Features(payments, count=card.count(over="1m")),
    joins=[
        gn.IntervalJoin(
            "clicked",
            card,
            clicks.by("card"),
            lower="-2s",
            upper="1s",
            how="full",
            select={"amount": "payments.amount"},
        ),
        gn.IntervalJoin("after", card, clicks.by("card"), lower="0s", upper="300ms"),
    ],
)


def joined_of(
    given: dict[str, pa.RecordBatch], *, bounds: Any = None, **options: Any
) -> dict[str, list[dict[str, Any]]]:
    """Return the rows of each join, in the order of their text."""
    runtime = BatchRuntime(JOINED.plan, options=BatchOptions(**options))
    found: dict[str, list[dict[str, Any]]] = {join.name: [] for join in JOINED.plan.joins}
    for part in runtime.run({name: [batch] for name, batch in given.items()}, **(bounds or {})):
        assert not (part.joined and part.rows.num_rows)
        for name, rows in part.joined.items():
            found[name] += rows.to_pylist()
    return {name: sorted(rows, key=repr) for name, rows in found.items()}


@pytest.mark.parametrize("options", [{"part_rows": 40}, {"memory_bytes": 4_000, "part_rows": 150, "threads": 3}])
def test_rows_of_joins_depend_on_no_option(options, tmp_path):
    given = events(600)
    whole = joined_of(given, threads=1)
    assert len(whole["clicked"]) > len(whole["after"]) > 100
    assert joined_of(given, directory=tmp_path, **options) == whole


def test_rows_of_joins_in_bounds_are_those_of_the_whole():
    given = events(600)
    low, high = (START + seconds * SECOND for seconds in (20, 40))

    def times(row: dict[str, Any]) -> list[float]:
        both = (row["__left_time"], row["__right_time"])
        return [time.timestamp() * 1_000_000 for time in both if time is not None]

    wanted = {name: [row for row in rows if max(times(row)) >= low] for name, rows in joined_of(given).items()}
    assert joined_of(given, bounds={"from_us": low}, part_rows=90) == wanted
    bounded = joined_of(given, bounds={"from_us": low, "to_us": high})["after"]
    assert bounded == [row for row in wanted["after"] if max(times(row)) < high]
    assert len(bounded) > 50


def test_joins_may_be_left_out():
    runtime = BatchRuntime(JOINED.plan, joins=False)
    parts = list(runtime.run({name: [batch] for name, batch in events(50).items()}))
    assert sum(part.rows.num_rows for part in parts) > 10
    assert not any(part.joined for part in parts)


SMALL, LARGE, CLICKED = (
    gn.step("small", where=gn.col("amount") < 8),
    gn.step("large", where=gn.col("amount") > 12),
    gn.step("clicked"),
)
FOUND = gn.Pipeline(
    gn.Features(
        payments,
        tested=card.pattern(gn.seq(SMALL, LARGE), within="10s", skip="to_next"),
        quiet=card.pattern(gn.seq(LARGE, gn.not_within(gn.col("amount") > 15, "1s")), within="5s", skip="no_skip"),
        busy=clicks.by("card").pattern(gn.seq(CLICKED.times(3)), within="2s", skip="to_next").count().at("card"),
    )
)


def matches_of(given: dict[str, pa.RecordBatch], *, bounds: Any = None, **options: Any) -> list[dict[str, Any]]:
    """Return the matches, in the order of their text."""
    runtime = BatchRuntime(FOUND.plan, options=BatchOptions(**options))
    found: list[dict[str, Any]] = []
    for part in runtime.run({name: [batch] for name, batch in given.items()}, **(bounds or {})):
        assert Batch.from_pyarrow(part.rows).num_rows == part.rows.num_rows
        if part.matches is not None:
            assert part.rows.num_rows == 0
            found += part.matches.to_pylist()
    return sorted(found, key=repr)


@pytest.mark.parametrize("options", [{"part_rows": 40}, {"memory_bytes": 4_000, "part_rows": 150, "threads": 3}])
def test_matches_depend_on_no_option(options, tmp_path):
    given = events(600)
    whole = matches_of(given, threads=1)
    assert {match["pattern"] for match in whole} == {"tested", "quiet", "busy"}
    assert len(whole) > 300
    assert matches_of(given, directory=tmp_path, **options) == whole


def test_matches_in_bounds_are_those_of_the_whole():
    given = events(600)
    low, high = (START + seconds * SECOND for seconds in (20, 40))
    wanted = [match for match in matches_of(given) if match["end"].timestamp() * SECOND >= low]
    assert matches_of(given, bounds={"from_us": low}, part_rows=90) == wanted
    # What must be absent after a match is not looked for beyond the end.
    cut = [match for match in wanted if match["end"].timestamp() * SECOND < high and match["pattern"] != "quiet"]
    bounded = matches_of(given, bounds={"from_us": low, "to_us": high})
    assert [match for match in bounded if match["pattern"] != "quiet"] == cut
    assert len(cut) > 50


def test_matches_may_be_left_out():
    runtime = BatchRuntime(FOUND.plan, matches=False)
    parts = list(runtime.run({name: [batch] for name, batch in events(600).items()}))
    assert any(row["tested"] for part in parts for row in part.rows.to_pylist())
    assert all(part.matches is None for part in parts)


def test_decisions_on_demand():
    rows = rows_of(events(300), decide=True)
    assert {row["decision"] for row in rows} == {"allow", "review"}
    assert all((row["decision"] == "review") == (row["spend"] is not None and row["spend"] > 50) for row in rows)


def test_events_without_a_column_of_the_schema_are_refused():
    given = events(10)
    given["payments"] = given["payments"].drop_columns(["amount"])
    with pytest.raises(ConfigurationError, match="no column 'amount'"):
        rows_of(given)
    with pytest.raises(ConfigurationError, match="its streams are clicks, payments"):
        rows_of({"payments": given["payments"]})


def test_records_of_a_source_are_held_against_the_schema_and_their_times():
    clock = SimulatedClock()
    good = {"id": "a", "ts": START, "card": "x", "amount": "1.00"}
    absurd = [good | {"id": "b", "ts": START + 7_200 * SECOND}, good | {"id": "c", "ts": 5}, good | {"amount": "x"}]
    source = MemorySource("payments", [json.dumps(row).encode() for row in [good, *absurd]], clock=clock)
    counts = InputCounts()
    found = [row["id"] for batch in source_events(PIPELINE.plan, source, counts=counts) for row in batch.to_pylist()]
    assert (found, counts.read, counts.malformed) == (["a"], 4, 3)


def test_parquet_goes_in_as_it_is(tmp_path):
    import pyarrow.parquet as pq

    given = events(200)
    pq.write_table(pa.Table.from_batches([given["payments"]]), tmp_path / "p.parquet")
    runtime = BatchRuntime(PIPELINE.plan)
    inputs = {"payments": parquet_events([tmp_path / "p.parquet"]), "clicks": [given["clicks"]]}
    assert [row for part in runtime.run(inputs) for row in part.rows.to_pylist()] == rows_of(given)
    assert runtime.repeated == {"payments": 200 - len(set(given["payments"].column("id").to_pylist())), "clicks": 0}


@pytest.mark.parametrize("buffered", [10, 100, 10_000])
def test_repeated_ids_are_found_with_any_memory(tmp_path, buffered):
    dice = random.Random(buffered)
    ids = [dice.choice(["", "long" * 8]) + str(dice.randrange(700)) for _ in range(1_000)]
    seen = RepeatedIds(tmp_path, "s", buffered=buffered)
    for low in range(0, 1_000, 37):
        seen.add(gn._kernel.Batch.from_pyarrow(pa.record_batch({"id": ids[low : low + 37]})), "id", low)
    expected = [place for place, text in enumerate(ids) if text in ids[:place]]
    assert seen.repeated().tolist() == expected
    assert list(tmp_path.iterdir()) == []


def test_parts_are_cut_at_event_times_and_never_inside_one():
    assert cut_points([(0, 10), (5, 10), (5, 10), (5, 10), (9, 10), (12, 10)], 20) == [5, 9]
    assert cut_points([], 20) == []
