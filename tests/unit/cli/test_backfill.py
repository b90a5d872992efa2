"""``gillnet backfill``: the past as the live run saw it and as it is in the end, with labels as known at a cut-off (I6)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from command_line import Command

LATE = """\
import gillnet as gn

schema = gn.Schema(tx_id=gn.String(), ts=gn.Timestamp("ms"), card_id=gn.String(), amount=gn.Decimal(2))
payments = gn.Stream("payments", schema=schema, id="tx_id", event_time="ts")
features = gn.Features(payments, n=payments.by("card_id").count(over="1h"), spend=payments.by("card_id").sum("amount", over="1h"))
pipeline = gn.Pipeline(features, policy=[gn.review(gn.col("n") > 3, reason="busy")])
"""
START_MS = 1_767_571_200_000
HOUR_MS = 3_600_000


def payment(number: int, minute: int) -> dict[str, Any]:
    return {"tx_id": f"t{number}", "ts": START_MS + minute * 60_000, "card_id": f"c{number % 2}", "amount": "2.50"}


# t4 and t5 come behind those that they count for.
PAYMENTS = [
    payment(0, 0),
    payment(1, 1),
    payment(2, 50),
    payment(3, 51),
    payment(4, 20),
    payment(5, 21),
    payment(2, 50),
]


def write(path: Path, records: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records), "utf-8")
    return path


def rows(directory: Path) -> list[dict[str, Any]]:
    found = [row for path in sorted(directory.glob("rows-*.parquet")) for row in pq.read_table(path).to_pylist()]
    assert list(directory.glob("*.tmp")) == []
    return found


@pytest.fixture
def late(tmp_path: Path) -> Path:
    path = tmp_path / "late.py"
    path.write_text(LATE, encoding="utf-8")
    return path


@pytest.fixture
def lived(tmp_path: Path, late: Path, gillnet: Command) -> Path:
    """The history of a run over `PAYMENTS`; its decisions are in ``decisions.ndjson``."""
    source = write(tmp_path / "payments.ndjson", PAYMENTS)
    sinks = ("--sink", "decisions=decisions.ndjson")
    done = gillnet("run", str(late), "-s", f"payments={source}", "--history", "history", *sinks, "--plain")
    assert done.exit_code == 0, done.output
    return tmp_path / "history"


def test_i6_as_known_then_is_what_the_live_run_wrote_and_as_corrected_what_it_came_to(late, lived, gillnet):
    then = gillnet("backfill", str(late), "--history", str(lived), "--mode", "as-known-then", "--out", "then")
    assert then.exit_code == 0, then.output
    assert "6 rows in 1 files of then" in then.stdout
    wrote = [json.loads(line) for line in Path("decisions.ndjson").read_bytes().splitlines()]
    assert [(row["tx_id"], row["n"], float(row["spend"])) for row in rows(Path("then"))] == [
        (row["tx_id"], row["features"]["n"], row["features"]["spend"]) for row in wrote
    ]
    corrected = gillnet("backfill", str(late), "--history", str(lived), "--out", "corrected")
    assert corrected.exit_code == 0, corrected.output
    assert [(row["tx_id"], row["n"]) for row in rows(Path("corrected"))] == [
        ("t0", 1), ("t1", 1), ("t4", 2), ("t5", 2), ("t2", 3), ("t3", 3),
    ]  # fmt: skip


def test_the_same_rows_come_from_a_history_and_from_the_records(tmp_path, late, lived, gillnet):
    for name, source in (("records", tmp_path / "payments.ndjson"), ("history", lived)):
        done = gillnet("backfill", str(late), "-s", f"payments={source}", "--out", f"from-{name}", "--scores")
        assert done.exit_code == 0, done.output
    columns = ("tx_id", "n", "spend", "decision", "reasons")
    read = [[{name: row[name] for name in columns} for row in rows(Path(f"from-{n}"))] for n in ("records", "history")]
    assert read[0] == read[1]
    assert len(read[0]) == 6


def test_bounds_are_of_event_time(late, lived, gillnet):
    done = gillnet(
        *(
            "backfill",
            str(late),
            "--history",
            str(lived),
            "--from",
            "2026-01-05T00:20:00Z",
            "--to",
            "2026-01-05T00:51:00",
        ),
        *("--out", "some", "--format", "ndjson"),
    )
    assert done.exit_code == 0, done.output
    found = [json.loads(line) for line in Path("some/rows-00000.ndjson").read_bytes().splitlines()]
    assert [(row["tx_id"], row["n"]) for row in found] == [("t4", 2), ("t5", 2), ("t2", 3)]


@pytest.mark.parametrize("mode", ["as-known-then", "as-corrected"])
def test_i6_labels_count_from_when_they_were_known_and_young_rows_are_pending(tmp_path, late, lived, gillnet, mode):
    labels = [
        {"tx_id": "t0", "fraud": True, "scenario": "card_testing", "known_at": START_MS + HOUR_MS},
        {"tx_id": "t1", "fraud": False, "scenario": "legitimate", "known_at": START_MS + HOUR_MS},
        {"tx_id": "t2", "fraud": True, "scenario": None, "known_at": START_MS + 2 * HOUR_MS},
        {"tx_id": "t3", "fraud": True, "scenario": None, "known_at": START_MS + HOUR_MS},
        {"tx_id": "t4", "fraud": False, "scenario": "legitimate", "known_at": START_MS + 9 * HOUR_MS},
    ]
    file = write(tmp_path / "labels.ndjson", labels)
    done = gillnet(
        *("backfill", str(late), "--history", str(lived), "--mode", mode, "--labels", str(file), "--out", "labelled"),
        *("--known-at", "2026-01-05T02:00:00", "--maturity", "70m"),
    )
    assert done.exit_code == 0, done.output
    assert "6 rows: 2 fraud, 1 good, 3 pending" in done.stdout
    found = {row["tx_id"]: (row["label"], row["label_kind"]) for row in rows(Path("labelled"))}
    assert found == {
        "t0": (True, "card_testing"),
        "t1": (False, "legitimate"),
        "t2": (True, None),
        "t3": (None, None),  # Fraud, and known; but too young for a good one to be known.
        "t4": (None, None),  # Known later.
        "t5": (None, None),  # Never known.
    }
    assert pq.read_schema(Path("labelled/rows-00000.parquet")).field("label").type == pa.bool_()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ((), "has no events: give --source payments=payments.parquet, or --history"),
        (("--history", "nowhere"), "there is no history"),
        (("-s", "payments=."), "there is no history of 'payments'"),
        (("--mode", "as-known-then", "-s", "payments=p.ndjson"), "give --history, and no --source"),
        (("--from", "yesterday"), "--from 'yesterday' is no time"),
        (("--labels", "l.ndjson"), "--labels needs --known-at"),
    ],
)
def test_what_is_missing_is_told(late, gillnet, arguments, told):
    done = gillnet("backfill", str(late), "--out", "out", *arguments)
    assert done.exit_code == 2
    assert told in " ".join(done.output.split())


def test_rows_are_not_mixed_with_earlier_ones(late, lived, gillnet):
    arguments = ("backfill", str(late), "--history", str(lived), "--out", "out")
    assert gillnet(*arguments).exit_code == 0
    again = gillnet(*arguments)
    assert again.exit_code == 2
    assert "is there already" in again.output
