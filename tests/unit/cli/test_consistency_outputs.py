"""``gillnet verify`` on sessions and matches: planted differences, and what a run that stopped could not know."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from command_line import Command

STREAM = """
import gillnet as gn
from gillnet import col

clicks = gn.Stream(
    "clicks",
    schema=gn.Schema(id=gn.String(), ts=gn.Timestamp("ms"), user=gn.String(), event=gn.String(), took=gn.Float()),
    id="id", event_time="ts", allowed_lateness="20m",
)
user = clicks.by("user")
"""
APPS = {
    "sessions": """
pipeline = gn.Pipeline(
    gn.Sessions(user, gap="1m", n=gn.count(), spent=gn.sum("took"), last=gn.last("event"))
)
""",
    "matches": """
login, page, logout = (gn.step(name, where=col("event") == name) for name in ("login", "page", "logout"))
pipeline = gn.Pipeline(
    gn.Features(
        clicks,
        reads=user.pattern(gn.seq(login, page, logout), within="5m").count(),
        left_open=user.pattern(gn.seq(login, gn.not_within(col("event") == "logout", "3m")), within="1m"),
    )
)
""",
}
OUTPUTS = list(APPS)
VERIFY = ("verify", "app.py", "--history", "history", "--sinks", "out")
RUN = ("run", "app.py", "--source", "clicks=clicks.ndjson", "--history", "history", "--sinks", "out", "--plain")
START_MS = 1_767_571_200_000
Plant = Callable[[list[dict[str, Any]]], list[dict[str, Any]]]


def write_data(directory: Path) -> None:
    """Clicks of some visitors, one in eight of them minutes late."""
    rng = random.Random(7)
    events = [
        {
            "id": f"k{number:03}",
            "ts": START_MS + number * 9_000,
            "user": f"u{rng.randrange(5)}",
            "event": rng.choice(["login", "page", "page", "logout"]),
            "took": rng.randrange(1, 9) / 2,
        }
        for number in range(300)
    ]
    events.sort(key=lambda event: event["ts"] + (200_000 if rng.randrange(8) == 0 else 0))
    write(directory / "clicks.ndjson", events)


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def write(path: Path, records: list[dict[str, Any]]) -> None:
    path.write_bytes(b"".join(json.dumps(row, separators=(",", ":")).encode() + b"\n" for row in records))


@pytest.fixture(params=OUTPUTS)
def output(request: pytest.FixtureRequest, gillnet: Command, tmp_path: Path) -> str:
    """A run that has ended, and the name of its output beside the rows."""
    name: str = request.param
    (tmp_path / "app.py").write_text(STREAM + APPS[name], encoding="utf-8")
    write_data(tmp_path)
    result = gillnet(*RUN, "--set", "options.max_batch_records=10", "--set", "options.emit=all")
    assert result.exit_code == 0, result.output
    return name


def identity(row: dict[str, Any]) -> tuple[Any, ...]:
    if "session_start" in row:
        return row["user"], row["session_start"]
    return tuple(row[name] for name in ("pattern", "key", "first", "last"))


def standing(records: list[dict[str, Any]]) -> dict[tuple[Any, ...], dict[str, Any]]:
    """Return what whoever reads the output keeps."""
    kept: dict[tuple[Any, ...], dict[str, Any]] = {}
    for row in records:
        kept[identity(row)] = row
        if row.get("withdrawn") or "replaced_by" in row:
            del kept[identity(row)]
    return kept


def alone(records: list[dict[str, Any]]) -> dict[str, Any]:
    """Return a row that stands and was said once."""
    said = [identity(row) for row in records]
    return next(row for place, row in standing(records).items() if said.count(place) == 1)


def title(row: dict[str, Any]) -> str:
    return (
        "{} from {}".format(*identity(row)) if "session_start" in row else "{} of {}, {} to {}".format(*identity(row))
    )


def told(gillnet: Command, output: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(gillnet(*VERIFY, "--json").stdout)[output]
    return found


@pytest.mark.parametrize("read", [VERIFY[2:4], RUN[2:4]], ids=["history", "source"])
def test_i2_an_output_that_was_revised_and_taken_back_equals_the_batch_answer(
    gillnet: Command, tmp_path: Path, output: str, read: tuple[str, ...]
) -> None:
    """I2: the last revision of each, less what was taken back, is compared, and all of it is equal."""
    result = gillnet("verify", "app.py", *read, "--sinks", "out")
    assert result.exit_code == 0, result.output
    records = rows(tmp_path / f"out/{output}.ndjson")
    kept, withdrawn = standing(records), sum(bool(r.get("withdrawn") or "replaced_by" in r) for r in records)
    assert withdrawn > 5
    assert sum(row["revision"] > 0 for row in kept.values()) > 0
    found = told(gillnet, output)
    assert (found["rows"], found["equal"], found["share"], found["undecided"]) == (len(kept), len(kept), 1.0, 0)
    assert (found["first"], found["largest"]) == (None, None)
    assert re.search(rf"^ *{output} +{len(kept):,} rows +100 % *$", result.stdout, re.MULTILINE), result.stdout


def test_a_changed_row_of_an_output_is_found_with_its_history(gillnet: Command, tmp_path: Path, output: str) -> None:
    path = tmp_path / f"out/{output}.ndjson"
    records = rows(path)
    row = alone(records)
    if output == "sessions":
        row["features"]["spent"] += 4.5
    else:
        row["events"] = [*row["events"], {**row["events"][-1], "id": "invented"}]
    write(path, records)
    found = told(gillnet, output)
    assert (found["differing"], found["missing"], found["extra"]) == (1, 0, 0)
    assert found["equal"] == found["rows"] - 1
    name, by = ("spent", 4.5) if output == "sessions" else ("events", 1)
    assert (found["largest"]["name"], found["largest"]["difference"]) == (name, by)
    assert (found["first"]["names"], found["first"]["history"]) == ([name], [row])
    result = gillnet(*VERIFY)
    assert result.exit_code == 1
    assert f"largest difference of {output}: {name} of {title(row)}, by {by}" in result.stdout
    assert f"first differing row of {output}: {title(row)}\n  revision 0 went out: " in result.stdout
    assert ", 1 differing" in result.stdout
    assert "\n  batch answer: " in result.stdout


def test_a_lost_row_of_an_output_is_missing(gillnet: Command, tmp_path: Path, output: str) -> None:
    path = tmp_path / f"out/{output}.ndjson"
    records = rows(path)
    lost = alone(records)
    write(path, [row for row in records if row is not lost])
    found = told(gillnet, output)
    assert (found["differing"], found["missing"], found["extra"]) == (0, 1, 0)
    assert (found["first"]["emitted"], found["first"]["history"]) == (None, [])
    assert found["first"]["expected"] == {n: v for n, v in lost.items() if n not in ("revision", "withdrawn")}
    result = gillnet(*VERIFY)
    assert result.exit_code == 1
    assert (
        f"first differing row of {output}: {title(lost)}\n  the run never wrote it\n  batch answer: " in result.stdout
    )


def test_a_row_that_should_have_been_taken_back_is_extra(gillnet: Command, tmp_path: Path, output: str) -> None:
    path = tmp_path / f"out/{output}.ndjson"
    records = rows(path)
    kept = [row for row in records if not row.get("withdrawn") and "replaced_by" not in row]
    write(path, kept)
    extra = len(standing(kept)) - len(standing(records))
    found = told(gillnet, output)
    assert extra > 5
    assert (found["differing"], found["missing"], found["extra"], found["withdrawn"]) == (0, 0, extra, 0)
    assert found["first"]["expected"] is None
    result = gillnet(*VERIFY)
    assert result.exit_code == 1
    assert f", {extra} extra" in result.stdout
    assert "\n  the batch answer does not have it" in result.stdout


def test_the_history_of_a_row_tells_that_it_was_taken_back(gillnet: Command, tmp_path: Path, output: str) -> None:
    path = tmp_path / f"out/{output}.ndjson"
    records = rows(path)
    lost = alone(records)
    gone = {"replaced_by": "2026-01-05T00:00:00.000000Z"} if output == "sessions" else {"withdrawn": True}
    write(path, [*records, {**lost, **gone, "revision": 1}])
    found = told(gillnet, output)
    assert (found["missing"], [step["revision"] for step in found["first"]["history"]]) == (1, [0, 1])
    said = "revision 1 was replaced by the session of 2026" if output == "sessions" else "revision 1 was withdrawn"
    assert f"  {said}" in gillnet(*VERIFY).stdout


def test_what_is_no_row_of_an_output_is_refused(gillnet: Command, tmp_path: Path, output: str) -> None:
    (tmp_path / f"out/{output}.ndjson").write_bytes(b'{"id":"k"}\n')
    result = gillnet(*VERIFY)
    assert result.exit_code != 0
    what = {"sessions": "session", "matches": "match"}[output]
    assert f"{output}: a record is no {what}" in " ".join(result.output.split())


def test_an_output_that_went_nowhere_is_named_and_not_compared(gillnet: Command, output: str) -> None:
    arguments = ("--history", "history", "--sink", "decisions=out/decisions.ndjson")
    result = gillnet("verify", "app.py", *arguments)
    assert result.exit_code == 0, result.output
    assert re.search(rf"^ *{output} +- +went nowhere: not compared", result.stdout, re.MULTILINE)
    found = json.loads(gillnet("verify", "app.py", *arguments, "--json").stdout)
    assert (found[output], found["unwritten"]) == (None, [output])


@pytest.mark.parametrize("output", OUTPUTS)
def test_what_was_open_when_a_run_stopped_is_counted_and_left_out(
    gillnet: Command, tmp_path: Path, output: str
) -> None:
    """Of a run that ended, the same rows would be missing."""
    (tmp_path / "app.py").write_text(STREAM + APPS[output], encoding="utf-8")
    write_data(tmp_path)
    settings = ("--max-records", "150", "--set", "options.max_batch_records=10", "--set", "options.emit=all")
    assert gillnet(*RUN, *settings).exit_code == 0
    result = gillnet(*VERIFY)
    assert result.exit_code == 0, result.output
    found = told(gillnet, output)
    assert found["equal"] == found["rows"] > 10
    assert 0 < found["undecided"] < 10
    word = {"sessions": "open", "matches": "waiting"}[output]
    assert f"100 %, {found['undecided']} {word} at the end: left out" in result.stdout
    lost = list(standing(rows(tmp_path / f"out/{output}.ndjson")).values())[-1]
    kept = [row for row in rows(tmp_path / f"out/{output}.ndjson") if identity(row) != identity(lost)]
    write(tmp_path / f"out/{output}.ndjson", kept)
    assert (told(gillnet, output)["missing"], told(gillnet, output)["undecided"]) == (1, found["undecided"])
