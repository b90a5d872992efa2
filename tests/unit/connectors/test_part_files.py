"""CSV and Parquet files as sinks: what was written comes back, and a crash loses nothing that was flushed."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pa_parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gillnet.connectors.files import FileSource, PartSink
from gillnet.connectors.uri import open_sink
from gillnet.core.errors import SinkError
from gillnet.core.messages import OutputRecord
from gillnet.core.schema import Schema, String
from gillnet.testing.clock import SimulatedClock
from gillnet.testing.conformance import check_sink

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

FORMATS = pytest.mark.parametrize("kind", ["csv", "parquet"])
TEXT = Schema(id=String(), decision=String(), text=String())


def parts(path: Path) -> list[Path]:
    return sorted(path.parent.glob(f"{path.stem}-*{path.suffix}"))


def rows_of(path: Path) -> list[dict[str, Any]]:
    """The rows of all parts by the project's own source: JSON in a cell of CSV read, and fields without value left out."""
    rows = []
    for part in parts(path):
        source = FileSource("s", part, schema=TEXT)
        while not source.finished:
            if batch := source.poll(1_000, 0.0):
                rows += [cleaned(json.loads(value)) for value in batch.values]
    return rows


def cleaned(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: cleaned(inner) for name, inner in value.items() if inner is not None}
    if isinstance(value, list):
        return [cleaned(inner) for inner in value]
    if isinstance(value, str) and value[:1] in ("{", "["):
        with contextlib.suppress(ValueError):  # A text may begin as JSON does and be none.
            return cleaned(json.loads(value))
    return value


def pending(path: Path) -> list[str]:
    return sorted(found.name for found in path.parent.iterdir() if "pending" in found.name or found.suffix == ".tmp")


def decision(number: int, **more: object) -> dict[str, Any]:
    return {
        "id": f"2026-01-{number % 28 + 1:02}",  # A text that looks like a date stays a text.
        "event_time": f"2026-01-05T10:10:{number % 60:02}.{number:06}Z",
        "decision": "allow",
        "score": 0.25,
        "reasons": ["abroad", 'a "quoted", one'][: number % 3],
        "features": {"spend": number * 1.5, "last": "2026-01-05", "n": number, "first": number == 0},
        "contributions": [{"feature": "spend", "value": -0.5}],
        "late": False,
        **more,
    }


def encoded(rows: Sequence[dict[str, Any]]) -> list[bytes]:
    return [json.dumps(row, ensure_ascii=False).encode() for row in rows]


@FORMATS
def test_a_sink_conforms(tmp_path: Path, kind: str) -> None:
    """Values are compared as objects: columns keep no spaces between fields. What no part has yet lies beside."""

    def read_back() -> list[OutputRecord]:
        rows = rows_of(tmp_path / f"x.{kind}")
        for name in pending(tmp_path / f"x.{kind}"):
            rows += [json.loads(line) for line in (tmp_path / name).read_bytes().splitlines()]
        texts = [json.dumps(row, ensure_ascii=False, separators=(",", ":")).encode() for row in rows]
        return [OutputRecord(value=b' {"pad":1} ' if text == b'{"pad":1}' else text) for text in texts]

    check_sink(lambda: PartSink(tmp_path / f"x.{kind}"), read_back)


@FORMATS
def test_decisions_come_back_equal(tmp_path: Path, kind: str) -> None:
    rows = [
        decision(number, **({"watermark": "2026-01-05T10:10:00.000000Z"} if number else {})) for number in range(40)
    ]
    sink = open_sink(str(tmp_path / f"decisions.{kind}"))
    sink.write(encoded(rows))
    sink.close()
    assert rows_of(tmp_path / f"decisions.{kind}") == rows
    assert pending(tmp_path / f"decisions.{kind}") == []


@FORMATS
def test_parts_come_by_size_and_each_has_its_own_columns(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"d.{kind}"
    sink = PartSink(path, part_bytes=1_000)
    rows = [decision(number, **({"more": number} if number > 5 else {})) for number in range(10)]
    for row in encoded(rows):
        sink.write([row])
    sink.close()
    assert len(parts(path)) > 2
    assert rows_of(path) == rows


@FORMATS
def test_parts_come_by_age_at_a_flush(tmp_path: Path, kind: str) -> None:
    clock = SimulatedClock()
    sink = PartSink(tmp_path / f"d.{kind}", clock=clock, part_s=60.0)
    sink.write(encoded([decision(1)]))
    sink.flush()
    assert parts(tmp_path / f"d.{kind}") == []
    clock.sleep(61.0)
    sink.flush()
    sink.write(encoded([decision(2)]))
    sink.flush()
    sink.close()
    assert rows_of(tmp_path / f"d.{kind}") == [decision(1), decision(2)]
    assert len(parts(tmp_path / f"d.{kind}")) == 2


@FORMATS
def test_a_part_that_cannot_be_made_is_told_and_its_rows_stay(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"d.{kind}"
    sink = PartSink(path)
    sink.write(encoded([decision(1)]))
    (tmp_path / f"d-000001.{kind}.tmp").mkdir()
    with pytest.raises(SinkError, match="its parts cannot be written: Is a directory"):
        sink.close()
    (tmp_path / f"d-000001.{kind}.tmp").rmdir()
    PartSink(path).close()
    assert rows_of(path) == [decision(1)]


CRASH = """
import os, signal, sys
from gillnet.connectors.files import PartSink
sink = PartSink(sys.argv[1], part_bytes=int(sys.argv[2]))
for number in range(20):
    sink.write([b'{"id":"%d","n":%d}' % (number, number)])
    if number == 14:
        sink.flush()
os.kill(os.getpid(), signal.SIGKILL)
"""


@FORMATS
@pytest.mark.parametrize("part_bytes", [100, 1 << 20])
def test_a_crash_loses_nothing_that_was_flushed(tmp_path: Path, kind: str, part_bytes: int) -> None:
    path = tmp_path / f"d.{kind}"
    done = subprocess.run([sys.executable, "-c", CRASH, str(path), str(part_bytes)], check=False, timeout=60)
    assert done.returncode == -signal.SIGKILL
    for found in tmp_path.glob("*.pending.ndjson"):
        with found.open("ab") as file:
            file.write(b'{"id":"torn')
    sink = PartSink(path)
    sink.write([b'{"id":"next","n":99}'])
    sink.close()
    *before, last = [row["n"] for row in rows_of(path)]
    assert before == list(range(len(before)))
    assert len(before) >= 15
    assert last == 99
    assert pending(path) == []


@FORMATS
def test_a_crash_while_a_part_is_made_repeats_and_loses_nothing(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"d.{kind}"
    sink = PartSink(path)
    sink.write(encoded([decision(1)]))
    sink.close()
    # As it stands before the rename, and after it.
    (tmp_path / "d-000001.pending.ndjson").write_bytes(encoded([decision(1)])[0] + b"\n")
    (tmp_path / "d-000002.pending.ndjson").write_bytes(encoded([decision(2)])[0] + b"\n")
    (tmp_path / f"d-000002.{kind}.tmp").write_bytes(b"half")
    PartSink(path).close()
    assert rows_of(path) == [decision(1), decision(2)]
    assert pending(path) == []


@FORMATS
def test_overwrite_removes_the_parts_of_its_name_only(tmp_path: Path, kind: str) -> None:
    for name in ("d", "d-more"):
        sink = PartSink(tmp_path / f"{name}.{kind}")
        sink.write(encoded([decision(1)]))
        sink.close()
    PartSink(tmp_path / f"d.{kind}", mode="overwrite").close()
    assert parts(tmp_path / f"d.{kind}") == parts(tmp_path / f"d-more.{kind}")
    assert rows_of(tmp_path / f"d-more.{kind}") == [decision(1)]


@FORMATS
def test_side_outputs_keep_key_headers_and_bytes(tmp_path: Path, kind: str) -> None:
    sink = PartSink(tmp_path / f"m.{kind}")
    sink.write_records([OutputRecord(value=b"1,x", key=b"k", headers=[("gillnet.reason", b"wrong_type")])])
    sink.write_records([OutputRecord(value=b"\xff")])
    sink.close()
    assert rows_of(tmp_path / f"m.{kind}") == [
        {"key": "k", "headers": [["gillnet.reason", "wrong_type"]], "value": "1,x"},
        {"headers": [], "value": {"base64": "/w=="}},
    ]


def test_parquet_has_types_and_csv_has_digits(tmp_path: Path) -> None:
    row = b'{"id":"a","at":"2026-01-05T10:10:00.000001Z","amount":10.10,"n":1,"features":{"x":1.5},"reasons":["r"]}'
    for kind in ("csv", "parquet"):
        sink = PartSink(tmp_path / f"d.{kind}")
        sink.write([row])
        sink.close()
    assert pa_parquet.read_schema(tmp_path / "d-000001.parquet").equals(
        pa.schema(
            {
                "id": pa.string(),
                "at": pa.timestamp("us", "UTC"),
                "amount": pa.float64(),
                "n": pa.int64(),
                "features": pa.struct({"x": pa.float64()}),
                "reasons": pa.list_(pa.field("element", pa.string())),
            }
        )
    )
    assert b'"10.10"' in (tmp_path / "d-000001.csv").read_bytes()


def test_a_place_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    with pytest.raises(SinkError, match=r"x\.csv: its parts cannot be written: No such file.*Check the directory"):
        PartSink(tmp_path / "missing" / "x.csv")


TEXTS = st.text(max_size=5)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from("xy"), inner),
    max_leaves=3,
)


@FORMATS
@given(rows=st.lists(st.fixed_dictionaries({}, optional={"a": VALUES, "b": VALUES}), max_size=4))
def test_no_object_is_too_odd_for_a_part(kind: str, rows: list[dict[str, Any]], tmp_path_factory: Any) -> None:
    path = tmp_path_factory.mktemp("odd") / f"d.{kind}"
    sink = PartSink(path)
    sink.write(encoded([{"id": f"r{number}", **row} for number, row in enumerate(rows)]))
    sink.close()
    assert [row["id"] for row in rows_of(path)] == [f"r{number}" for number in range(len(rows))]
    assert pending(path) == []
