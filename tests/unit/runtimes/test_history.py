"""The history of a run: what is committed is in it, a torn file harms nobody, and a replay gives the rows that went out (I6)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.unit.runtimes.driving import PAYMENT, START_MS, drive, payment, payments_stream

import gillnet as gn
from gillnet.core.errors import ConfigurationError
from gillnet.operators.features import FeatureOperator
from gillnet.runtimes.batch import replay
from gillnet.runtimes.embedded import ScoringStage
from gillnet.stores.history import History, HistoryWriter, history_files, micro_batches
from gillnet.testing.clock import SimulatedClock
from gillnet.testing.scripted import Abort, Aborted, Pause, Record, ScriptedSource

CLICK = gn.Schema(id=gn.String(), ts=gn.Timestamp("ms"), card=gn.String())
stream = payments_stream()
clicks = gn.Stream("clicks", schema=CLICK, id="id", event_time="ts", allowed_lateness="1m")
card = stream.by("card")
FEATURES = gn.Features(
    stream,
    spend=card.sum("amount", over="5m"),
    since=card.seconds_since_last(),
    clicks=clicks.by("card").count(over="1m").at("card"),
)
POLICY = [gn.block(gn.col("spend") > 3, reason="spends")]
SCRIPT = [
    *[Record(payment(number, at_s=number % 5 * 20), partition=number % 2) for number in range(20)],
    Pause(),
    b"{",
    Record(payment(3), partition=1),
    Pause(120.0),
    *[Record(payment(number, at_s=number), partition=0) for number in range(40, 60)],
    Pause(40.0),
    Record(payment(70, at_s=-4_000), partition=1),
    *[Record(payment(number, at_s=number * 3), partition=1) for number in range(71, 90)],
]


def click(number: int, at_s: float) -> bytes:
    return json.dumps({"id": f"k{number}", "ts": START_MS + round(at_s * 1_000), "card": f"c{number % 7}"}).encode()


CLICKS: list[Any] = [*[click(number, number) for number in range(30)], Pause(130.0), click(40, 45), click(41, -500)]


def run_live(directory: Path, *, run: int = 1, script: list[Any] = SCRIPT, **options: Any) -> Any:
    clock = SimulatedClock()
    pipeline = gn.Pipeline(FEATURES, policy=POLICY, **options.pop("pipeline", {}))
    return drive(
        script,
        plan=pipeline,
        clock=clock,
        others={"clicks": ScriptedSource("clicks", CLICKS, clock=clock)},
        history=HistoryWriter(directory, run=run, joined_files=options.pop("joined_files", 3)),
        emit="all",
        top_reasons=0,
        **options,
    )


def encoded(rows: Iterator[pa.RecordBatch], pipeline: gn.Pipeline) -> list[bytes]:
    """Write rows as the live run does."""
    plan = pipeline.plan
    stage = ScoringStage(plan, FeatureOperator(plan), None)
    return [v for batch in rows for v in stage.encode(stage.score(gn._kernel.Batch.from_pyarrow(batch)).batch)[0]]


@pytest.mark.parametrize("options", [{}, {"max_batch_records": 3}, {"commit_interval_s": 0.0, "overlap": False}])
@pytest.mark.parametrize("emission", [{}, {"emission": "on_watermark"}])
def test_i6_a_replay_gives_the_rows_that_the_live_run_emitted(tmp_path, options, emission):
    """Bit for bit, with arrival time, watermark, lateness and states: late and duplicate records, two streams, silences."""
    live = run_live(tmp_path, pipeline=emission, **options).run()
    assert live.counts.late > 0
    assert live.counts.duplicate == live.counts.too_late == 1
    emitted = live.outs["decisions"].values
    assert len(emitted) == live.counts.scored
    pipeline = gn.Pipeline(FEATURES, policy=POLICY, **emission)
    replayed = encoded(replay(pipeline.plan, History(tmp_path)), pipeline)
    assert replayed == emitted


def test_every_run_of_a_history_begins_with_an_empty_state(tmp_path):
    first = run_live(tmp_path, run=1).run().outs["decisions"].values
    second = run_live(tmp_path, run=2).run().outs["decisions"].values
    assert [run.number for run in History(tmp_path).runs()] == [1, 2]
    pipeline = gn.Pipeline(FEATURES, policy=POLICY)
    assert encoded(replay(pipeline.plan, History(tmp_path)), pipeline) == first + second


def test_what_is_committed_is_in_the_history_after_a_crash(tmp_path):
    script = [*[payment(n) for n in range(10)], Pause(30.0), payment(10), Pause(), Abort(), payment(11)]
    drive_ = run_live(tmp_path, script=script, commit_interval_s=5.0)
    (tmp_path / "payments").mkdir()
    (tmp_path / "payments" / "part-000000000007-000000000007.tmp").write_bytes(b"PAR1 torn")
    with pytest.raises(Aborted):
        drive_.run()
    committed = drive_.source.committed_records
    assert committed >= 10
    known = [row["id"] for path in History(tmp_path).files("payments") for row in pq.read_table(path).to_pylist()]
    assert known[:committed] == [f"p{number}" for number in range(committed)]
    assert list(tmp_path.rglob("*.tmp")) == []


def test_an_accepted_event_has_its_columns_and_its_place(tmp_path):
    run_live(tmp_path).run()
    path = History(tmp_path).files("payments")[0]
    file = pq.ParquetFile(path)
    assert file.metadata.row_group(0).column(0).compression == "ZSTD"
    assert file.schema_arrow.names == [*PAYMENT, "__arrival_time", "__partition", "__offset", "__batch"]
    assert [str(file.schema_arrow.field(name).type) for name in ("__arrival_time", "__partition", "__offset")] == [
        "timestamp[us, tz=UTC]",
        "int32",
        "int64",
    ]
    row = pq.read_table(path).to_pylist()[1]
    assert (row["id"], row["__partition"], row["__offset"]) == ("p1", 1, None)


def written(directory: Path, commits: int, **limits: int) -> HistoryWriter:
    writer = HistoryWriter(directory, run=1, **limits)
    for number in range(commits):
        events = pa.record_batch({"id": [f"e{number}"]})
        writer.append(
            "s", events, {"__arrival_time": number, "__partition": [0], "__offset": [number], "__batch": number}
        )
        writer.commit()
    return writer


def ids(directory: Path) -> list[str]:
    return [i for path in history_files(directory / "s") for i in pq.read_table(path).column("id").to_pylist()]


def test_small_files_are_joined_as_they_come(tmp_path):
    writer = written(tmp_path, 10, joined_files=4)
    assert [path.name for path in history_files(tmp_path / "s")] == [
        "part-000000000000-000000000003.parquet",
        "part-000000000004-000000000007.parquet",
        "part-000000000008-000000000008.parquet",
        "part-000000000009-000000000009.parquet",
    ]
    writer.close()
    assert len(list((tmp_path / "s").iterdir())) == 3
    assert ids(tmp_path) == [f"e{number}" for number in range(10)]


def test_a_crash_between_joining_and_removing_doubles_nothing(tmp_path):
    written(tmp_path, 3)
    single = {path: path.read_bytes() for path in history_files(tmp_path / "s")}
    written(tmp_path / "other", 3).close()
    (joined,) = history_files(tmp_path / "other" / "s")
    joined.rename(tmp_path / "s" / joined.name)
    assert all(path.exists() for path in single)
    assert ids(tmp_path) == ["e0", "e1", "e2"]


def test_micro_batches_come_in_the_order_of_the_run_across_files_and_streams(tmp_path):
    writer = HistoryWriter(tmp_path, run=1, joined_files=100)
    for number, (stream_name, count) in enumerate([("a", 2), ("b", 1), ("a", 3), ("a", 1), ("b", 2)]):
        events = pa.record_batch({"n": list(range(count))})
        places = {"__arrival_time": 5, "__partition": [0] * count, "__offset": [None] * count, "__batch": number}
        writer.append(stream_name, events, places)
        writer.commit()
    (run,) = History(tmp_path).runs()
    assert [(name, events.num_rows) for name, events in micro_batches(run)] == [
        ("a", 2),
        ("b", 1),
        ("a", 3),
        ("a", 1),
        ("b", 2),
    ]


def test_no_history_is_told_with_the_way_to_write_one(tmp_path):
    with pytest.raises(ConfigurationError, match="gillnet run --history"):
        History(tmp_path)
