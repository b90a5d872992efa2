"""How far a run had come when it stopped, and what of its sessions and matches it could therefore not say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

import gillnet as gn
from gillnet._kernel import Batch
from gillnet.app import RunConfig
from gillnet.app.finished import FinishedRun
from gillnet.lifecycle.comparers import MatchComparer, SessionComparer
from gillnet.lifecycle.output_consistency import OutputConsistency
from gillnet.operators.progress import END_OF_TIME_US
from gillnet.stores.history import HistoryWriter

EVENT = gn.Schema(id=gn.Integer(), ts=gn.Timestamp("us"), user=gn.String())
clicks = gn.Stream("clicks", schema=EVENT, id="id", event_time="ts")
SESSIONS = gn.Pipeline(gn.Sessions(clicks.by("user"), gap="10s", n=gn.count())).plan
QUIET = gn.seq(gn.step("one"), gn.not_within(gn.col("id") < 0, "10s"))
PAIR = gn.seq(gn.step("one"), gn.step("two"))
MATCHES = gn.Pipeline(
    gn.Features(
        clicks,
        quiet=clicks.by("user").pattern(QUIET, within="1m"),
        pair=clicks.by("user").pattern(PAIR, within="1m"),
    )
).plan
SECOND = 1_000_000


def at(second: int) -> str:
    return f"1970-01-01T00:{second // 60:02}:{second % 60:02}.000000Z"


def session(user: str, start: int, end: int, **more: Any) -> bytes:
    row = {"user": user, "session_start": at(start), "session_end": at(end), "revision": 0}
    return json.dumps({**row, "features": {"n": 2}, **more}, separators=(",", ":")).encode()


def closed(*sessions: tuple[str, int, int]) -> Batch:
    """Return sessions as the batch twin gives them."""
    users, starts, ends = zip(*sessions, strict=True)
    instant = pa.timestamp("us", "UTC")
    times = {
        name: pa.array([second * SECOND for second in seconds], instant)
        for name, seconds in (("session_start", starts), ("session_end", ends))
    }
    counts = {"revision": pa.array([0] * len(users), pa.uint64()), "replaced_by": pa.nulls(len(users), instant)}
    return Batch.from_pyarrow(pa.record_batch({"user": users, **times, **counts, "n": [2] * len(users)}))


def compare_sessions(records: list[bytes], passed: int | None, *expected: tuple[str, int, int]) -> OutputConsistency:
    comparer = SessionComparer(SESSIONS, lambda: records, None if passed is None else passed * SECOND)
    comparer.expect(closed(*expected))
    return comparer.result()


def figures(result: OutputConsistency) -> tuple[int, ...]:
    return result.rows, result.equal, result.missing, result.extra, result.undecided


@pytest.mark.parametrize(("passed", "expected"), [(40, (1, 1, 0, 0, 1)), (41, (2, 1, 1, 0, 0)), (30, (0, 0, 0, 0, 2))])
def test_a_session_is_open_until_the_watermark_is_more_than_a_gap_behind_its_end(passed, expected):
    assert figures(compare_sessions([session("a", 5, 20)], passed, ("a", 5, 20), ("b", 25, 30))) == expected


def test_what_an_open_session_holds_now_could_not_be_taken_back_yet():
    """A late click bridged a session that was out to one that is open: the row that takes it back comes when that one closes."""
    said = [session("a", 5, 20), session("b", 5, 20)]
    result = compare_sessions(said, 40, ("a", 0, 35))
    assert figures(result) == (1, 0, 0, 1, 1)
    assert result.first is not None
    assert result.first.identity == {"user": "b", "session_start": at(5)}


def test_where_it_is_not_known_how_far_a_run_had_come_its_last_session_tells():
    said = [session("a", 5, 20), session("b", 25, 30), session("b", 25, 50, revision=1, replaced_by=at(20))]
    result = compare_sessions(said[:2], None, ("a", 5, 20), ("c", 29, 30), ("b", 25, 30), ("a", 31, 31))
    assert figures(result) == (3, 2, 1, 0, 1)
    assert figures(compare_sessions([], None, ("a", 5, 20))) == (0, 0, 0, 0, 1)
    assert figures(compare_sessions([said[0], said[2]], None, ("a", 5, 20), ("c", 29, 30))) == (1, 1, 0, 0, 1)


def match(pattern: str, end: int) -> dict[str, Any]:
    return {
        "pattern": pattern,
        "key": "a",
        "first": "1",
        "last": str(end),
        "revision": 0,
        "withdrawn": False,
        "end": end,
    }


def found(*matches: dict[str, Any]) -> Batch:
    instant = pa.timestamp("us", "UTC")
    event = pa.struct([("step", pa.string()), ("id", pa.string()), ("event_time", instant)])
    rows = [{**row, "start": 0, "end": row["end"] * SECOND, "events": []} for row in matches]
    types = {
        "start": instant,
        "end": instant,
        "revision": pa.uint64(),
        "withdrawn": pa.bool_(),
        "events": pa.list_(event),
    }
    names = ("pattern", "key", "first", "last", "revision", "withdrawn", "start", "end", "events")
    schema = pa.schema([(name, types.get(name, pa.string())) for name in names])
    return Batch.from_pyarrow(pa.RecordBatch.from_pylist(rows, schema=schema))


def match_record(row: dict[str, Any]) -> bytes:
    known = {name: value for name, value in row.items() if name != "end"}
    said = {**known, "start": at(0), "end": at(row["end"]), "events": []}
    return json.dumps(said, separators=(",", ":")).encode()


@pytest.mark.parametrize(
    ("passed", "expected"), [(40, (3, 2, 1, 0, 1)), (41, (4, 2, 2, 0, 0)), (None, (3, 2, 1, 0, 1))]
)
def test_a_match_waits_only_where_something_must_be_absent_after_it(passed, expected):
    records = [match_record(match("quiet", 20)), match_record(match("pair", 25))]
    marks = {"clicks": None if passed is None else passed * SECOND}
    comparer = MatchComparer(MATCHES, lambda: records, marks)
    comparer.expect(found(match("quiet", 20), match("quiet", 30), match("pair", 25), match("pair", 90)))
    result = comparer.result()
    assert figures(result) == expected
    assert result.first is not None
    assert result.first.identity["pattern"] == "pair"


def finished(directory: Path, **sources: str) -> FinishedRun:
    sinks = {"decisions": str(directory / "out.ndjson")}
    history = None if sources else directory
    return FinishedRun(SESSIONS, RunConfig(sources=sources, sinks=sinks, history=history))


@pytest.mark.parametrize(
    ("source", "mark"),
    [
        ("clicks.ndjson", END_OF_TIME_US),
        ("kafka://localhost/clicks?until_end=true", END_OF_TIME_US),
        ("kafka://localhost/clicks", None),
    ],
)
def test_a_source_that_comes_to_an_end_has_passed_all_time(tmp_path, source, mark):
    assert finished(tmp_path, clicks=source).watermarks() == {"clicks": mark}


def keep(directory: Path, run: int, *marks: int | None, ended: bool = False) -> None:
    """Write a history, each commit of which knows a watermark."""
    writer = HistoryWriter(directory, run=run)
    for number, mark in enumerate(marks):
        if number == 0:
            places = {"__arrival_time": 0, "__partition": [0], "__offset": [0], "__batch": 0}
            instants = pa.array([run], pa.timestamp("us", "UTC"))
            writer.append("clicks", pa.record_batch({"id": [run], "ts": instants, "user": ["a"]}), places)
        if mark is not None:
            writer.passed("clicks", mark)
        writer.commit()
    if ended:
        writer.end("clicks", 1)
    writer.close()


def test_a_history_says_how_far_its_last_run_had_come(tmp_path):
    keep(tmp_path, 1, 5)
    assert finished(tmp_path).watermarks() == {"clicks": 5}
    keep(tmp_path, 2, 3, 7, 9)
    assert finished(tmp_path).watermarks() == {"clicks": 9}
    keep(tmp_path, 3, 4)
    assert finished(tmp_path).watermarks() == {"clicks": 9}
    keep(tmp_path, 4, 4, ended=True)
    assert finished(tmp_path).watermarks() == {"clicks": END_OF_TIME_US}
    keep(tmp_path, 5, 8)
    assert finished(tmp_path).watermarks() == {"clicks": 8}
    keep(tmp_path, 6, None)
    assert finished(tmp_path).watermarks() == {"clicks": None}


def test_a_watermark_that_moves_without_events_is_in_the_history_too(tmp_path):
    keep(tmp_path, 1, 5, 5, 8)
    assert len(list((tmp_path / "clicks").iterdir())) == 1
    assert finished(tmp_path).watermarks() == {"clicks": 8}
    assert sum(batch.num_rows for batch in finished(tmp_path).events()["clicks"]) == 1
