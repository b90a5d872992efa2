"""``gillnet verify`` on the rows of joins: a small run of payments and clicks, some of which are late or too late."""

from __future__ import annotations

import json
import re
from operator import itemgetter
from pathlib import Path
from typing import Any

import pytest
from command_line import Command

APP = """
import gillnet as gn
from gillnet import col

payments = gn.Stream(
    "payments",
    schema=gn.Schema(
        tx_id=gn.String(), ts=gn.Timestamp("ms"), card_id=gn.String(), user_id=gn.String(), amount=gn.Decimal(2)
    ),
    id="tx_id", event_time="ts", allowed_lateness="20m",
)
clicks = gn.Stream(
    "clicks",
    schema=gn.Schema(click_id=gn.String(), ts=gn.Timestamp("ms"), user_id=gn.String(nullable=True), event=gn.String()),
    id="click_id", event_time="ts", allowed_lateness="20m",
)
user, visitor = payments.by("user_id"), clicks.by("user_id")
select = {"amount": "payments.amount", "event": "clicks.event"}
pipeline = gn.Pipeline(
    gn.Features(payments, payments_1d=payments.by("card_id").count(over="1d")),
    joins=[
        gn.IntervalJoin("clicked", user, visitor, lower="-5s", upper="0s", how="left", select=select),
        gn.IntervalJoin("around", user, visitor, lower="-5s", upper="5s", how="full", where=col("payments.amount") > 9),
    ],
)
"""
SOURCES = ("--source", "payments=payments.ndjson", "--source", "clicks=clicks.ndjson")
VERIFY = ("verify", "app.py", "--history", "history", "--sinks", "out")
BATCHES = "options.max_batch_records=10"
"""So small that a late click comes after the row that says that it is missing."""
START_MS = 1_767_571_200_000


def write_data(directory: Path) -> None:
    """A payment every 10 s, its click 3 s before; some of either alone, every seventh click late, some of them too late."""
    placed = []
    for number in range(400):
        at, user = START_MS + number * 10_000, f"u{number % 20}"
        amount = f"{number % 40}.50"
        payment = {"tx_id": f"p{number:03}", "ts": at, "card_id": "c", "user_id": user, "amount": amount}
        click = {"click_id": f"k{number:03}", "ts": at - 3_000, "user_id": user, "event": "login"}
        if number % 5:
            placed.append(("payments", number, payment))
        if number % 11:
            delay = 0 if number % 7 else 200 if number % 4 == 1 else 50
            placed.append(("clicks", number + delay, click))
    for stream in ("payments", "clicks"):
        write(
            directory / f"{stream}.ndjson",
            [row for name, _, row in sorted(placed, key=itemgetter(1)) if name == stream],
        )


@pytest.fixture
def ended(gillnet: Command, tmp_path: Path) -> Path:
    """A run that has ended: its data, history and outputs in the directory."""
    (tmp_path / "app.py").write_text(APP, encoding="utf-8")
    write_data(tmp_path)
    arguments = ("--sinks", "out", "--history", "history", "--plain", "--set", BATCHES)
    result = gillnet("run", "app.py", *SOURCES, *arguments)
    assert result.exit_code == 0, result.output
    return tmp_path


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def write(path: Path, records: list[dict[str, Any]]) -> None:
    path.write_bytes(b"".join(json.dumps(row, separators=(",", ":")).encode() + b"\n" for row in records))


def a_pair(lines: list[bytes]) -> tuple[int, dict[str, Any]]:
    """Return where the first row of two events is, and the row."""
    found = ((place, json.loads(line)) for place, line in enumerate(lines))
    return next((place, row) for place, row in found if "left_id" in row and "right_id" in row)


@pytest.mark.parametrize("read", [("--history", "history"), SOURCES], ids=["history", "sources"])
def test_i2_the_rows_of_every_join_are_verified(gillnet: Command, ended: Path, read: tuple[str, ...]) -> None:
    """I2: pairs, events without a partner and those that a late match took back come to the batch answer."""
    result = gillnet("verify", "app.py", *read, "--sinks", "out")
    assert result.exit_code == 0, result.output
    assert len(rows(ended / "out/clicks.too_late.ndjson")) > 5
    told = json.loads(gillnet("verify", "app.py", *read, "--sinks", "out", "--json").stdout)
    assert list(told["joins"]) == ["joins.clicked", "joins.around"]
    for name, join in told["joins"].items():
        written = rows(ended / f"out/{name}.ndjson")
        withdrawn = sum(row.get("withdrawn", False) for row in written)
        kept = len(written) - 2 * withdrawn
        assert withdrawn > 10
        assert (join["rows"], join["equal"], join["share"], join["withdrawn"]) == (kept, kept, 1.0, withdrawn)
        assert join["first"] is None
        assert re.search(rf"^ *{name} +{kept:,} rows +100 % *$", result.stdout, re.MULTILINE), result.stdout


def test_a_changed_row_of_a_join_is_found_with_its_history(gillnet: Command, ended: Path) -> None:
    path = ended / "out/joins.clicked.ndjson"
    lines = path.read_bytes().splitlines()
    place, pair = a_pair(lines)
    lines[place] = lines[place].replace(b'"login"', b'"logout"')
    path.write_bytes(b"\n".join(lines) + b"\n")
    result = gillnet(*VERIFY)
    assert result.exit_code == 1
    assert re.search(r"joins\.clicked +[\d,]+ rows +99\.\d+ %, 1 differing", result.stdout), result.stdout
    assert f"first differing row of joins.clicked: {pair['left_id']} with {pair['right_id']}" in result.stdout
    assert re.search(rf"revision 0 went out: key={pair['key']}, .*event=logout", result.stdout), result.stdout
    assert re.search(rf"batch answer: key={pair['key']}, .*event=login", result.stdout), result.stdout
    assert re.search(r"joins\.around +[\d,]+ rows +100 %", result.stdout), result.stdout


def test_lost_and_invented_rows_of_a_join_are_told_apart(gillnet: Command, ended: Path) -> None:
    path = ended / "out/joins.clicked.ndjson"
    lines = path.read_bytes().splitlines()
    place, lost = a_pair(lines)
    lines[place] = lines[place].replace(lost["right_id"].encode(), b"invented")
    path.write_bytes(b"\n".join(lines) + b"\n")
    join = json.loads(gillnet(*VERIFY, "--json").stdout)["joins"]["joins.clicked"]
    assert (join["missing"], join["extra"], join["differing"]) == (1, 1, 0)
    assert join["equal"] == join["rows"] - 2
    first = join["first"]
    assert (first["left_id"], first["right_id"], first["history"]) == (lost["left_id"], lost["right_id"], [])
    assert first["expected"] == {name: value for name, value in lost.items() if name != "revision"}
    assert "the run never wrote it" in gillnet(*VERIFY).stdout


def test_a_row_that_should_have_been_withdrawn_is_extra(gillnet: Command, ended: Path) -> None:
    path = ended / "out/joins.clicked.ndjson"
    lines = path.read_bytes().splitlines()
    path.write_bytes(b"\n".join(line for line in lines if b'"withdrawn"' not in line) + b"\n")
    result = gillnet(*VERIFY)
    assert result.exit_code == 1
    assert f", {sum(b'withdrawn' in line for line in lines)} extra" in result.stdout
    assert "with nothing\n  revision 0 went out: " in result.stdout
    assert "the batch answer does not have it" in result.stdout


def test_what_is_no_row_of_a_join_is_refused(gillnet: Command, ended: Path) -> None:
    (ended / "out/joins.around.ndjson").write_bytes(b'{"tx_id":"t"}\n')
    result = gillnet(*VERIFY)
    assert result.exit_code != 0
    assert "joins.around: a record is no row of a join" in " ".join(result.output.split())
