"""Files as sources and sinks: formats, ends of lines, bad input, pipes, and what a crash leaves."""

from __future__ import annotations

import datetime
import decimal
import gzip
import io
import json
import os
import sys
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pa_parquet
import pytest
import structlog

from gillnet.connectors.files import FileSink, FileSource
from gillnet.core.errors import ConfigurationError, SinkError, SourceError
from gillnet.core.messages import OutputRecord
from gillnet.core.schema import Boolean, Decimal, Float, Integer, Schema, String, Timestamp
from gillnet.testing.conformance import check_sink, check_source

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


def read_all(source: FileSource, *, max_records: int = 7) -> list[bytes]:
    got: list[bytes] = []
    while not source.finished:
        if batch := source.poll(max_records, 0.5):
            assert len(batch.values) <= max_records
            got += batch.values
    source.close()
    return got


def rows(source: FileSource) -> list[object]:
    return [json.loads(value) for value in read_all(source)]


# NDJSON


@pytest.mark.parametrize("suffix", [".ndjson", ".jsonl", ".ndjson.gz"])
def test_source_conforms(tmp_path: Path, suffix: str) -> None:
    def open_on(values: Sequence[bytes]) -> FileSource:
        path = tmp_path / f"in{suffix}"
        data = b"".join(value + b"\n" for value in values)
        path.write_bytes(gzip.compress(data) if suffix.endswith(".gz") else data)
        return FileSource("s", path)

    check_source(open_on)


@pytest.mark.parametrize("suffix", [".ndjson", ".ndjson.gz"])
def test_sink_conforms(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"out{suffix}"

    def read_back() -> list[OutputRecord]:
        data = gzip.decompress(path.read_bytes()) if suffix.endswith(".gz") else path.read_bytes()
        return [OutputRecord(value=value) for value in data.split(b"\n")[:-1]]

    check_sink(lambda: FileSink(path), read_back)


@pytest.mark.parametrize(
    ("data", "lines"),
    [
        (b"", []),
        (b"\n\n  \n", []),
        (b"a\nb\n", [b"a", b"b"]),
        (b"a\nno end of line", [b"a", b"no end of line"]),
        (b"a\r\n\r\nb\r\n", [b"a\r", b"b\r"]),  # JSON allows the carriage return; the bytes stay as they are.
        (b"\xff\xfe not utf-8\n", [b"\xff\xfe not utf-8"]),
    ],
)
def test_lines(tmp_path: Path, data: bytes, lines: list[bytes]) -> None:
    (tmp_path / "x.ndjson").write_bytes(data)
    assert read_all(FileSource("s", tmp_path / "x.ndjson")) == lines


def test_lines_longer_than_a_block_are_put_together(tmp_path: Path) -> None:
    values = [b"a" * 3_000_000, b"b", b"c" * 1_048_576, b"d" * 1_048_575, b"e"]
    (tmp_path / "x.ndjson").write_bytes(b"\n".join(values))
    assert read_all(FileSource("s", tmp_path / "x.ndjson")) == values


def test_a_line_above_the_limit_is_cut_and_told(tmp_path: Path) -> None:
    """I3: it comes out as a record that no decoder accepts, and what is left out is said."""
    (tmp_path / "x.ndjson").write_bytes(b'{"a":1}\n' + b'{"b":"' + b"x" * 3_000_000 + b'"}\n{"c":1}\n')
    with structlog.testing.capture_logs() as logs:
        got = read_all(FileSource("s", tmp_path / "x.ndjson", max_record_bytes=1_000))
    assert got == [b'{"a":1}', b'{"b":"' + b"x" * 994, b'{"c":1}']
    assert [(line["event"], line["kept_bytes"], line["skipped_bytes"]) for line in logs] == [
        ("line cut", 1_000, 3_000_008 - 1_000)
    ]


def test_a_batch_of_long_lines_is_bounded_in_bytes(tmp_path: Path) -> None:
    path = tmp_path / "long.ndjson"
    line = b"x" * 300_000
    path.write_bytes(b"".join(line + b"\n" for _ in range(200)))
    source = FileSource("s", path)
    sizes = []
    while batch := source.poll(4_096, 0.0):
        assert all(value == line for value in batch.values)
        sizes.append(sum(map(len, batch.values)))
    source.close()
    assert sum(sizes) == 200 * len(line)
    assert max(sizes) <= 33 << 20


def test_a_live_pipe_gives_what_has_come(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe.ndjson"
    os.mkfifo(pipe)
    write_end = os.open(pipe, os.O_RDWR)  # Both ends, so that opening does not wait.
    source = FileSource("s", pipe)
    assert source.poll(10, 0.01) is None
    os.write(write_end, b'{"n":1}\n{"n":')
    batch = source.poll(10, 0.01)
    assert batch is not None
    assert batch.values == [b'{"n":1}']
    assert source.poll(10, 0.01) is None
    os.write(write_end, b"2}\n")
    assert not source.finished
    os.close(write_end)
    assert read_all(source) == [b'{"n":2}']


def test_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b'{"n":1}\n{"n":2}\n')))
    source = FileSource("s", "-")
    assert read_all(source) == [b'{"n":1}', b'{"n":2}']
    assert not sys.stdin.buffer.closed


def test_standard_output(monkeypatch: pytest.MonkeyPatch) -> None:
    out = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(out))
    sink = FileSink("-")
    sink.write([b"a", b"b"], [b"k", None])
    sink.close()
    assert out.getvalue() == b"a\nb\n"


# CSV and Parquet

PAYMENT = Schema(
    id=String(),
    ts=Timestamp("ms"),
    amount=Decimal(2),
    score=Float(nullable=True),
    ok=Boolean(),
    n=Integer(),
    note=String(nullable=True),
)
CSV = (
    "id,ts,amount,score,ok,n,note\n"
    '00123,1700000000000,10.10,0.5,true,7,"say ""hi"", \\o/"\n'
    '4,1700000000001,5,,false,-3,"two\nlines\tand é漢🎣"\n'
    'x,1700000000002,1e2,.5,maybe,007,""\n'
)


@pytest.mark.parametrize("name", ["p.csv", "p.csv.gz"])
def test_csv_cells_follow_the_schema(tmp_path: Path, name: str) -> None:
    data = CSV.encode()
    (tmp_path / name).write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    first, second, third = read_all(FileSource("s", tmp_path / name, schema=PAYMENT))
    assert b'"id":"00123"' in first
    assert b'"amount":10.10' in first  # The digits as they stand: decimals are exact (I4).
    assert json.loads(first)["note"] == 'say "hi", \\o/'
    assert json.loads(second) == {
        "id": "4",
        "ts": 1700000000001,
        "amount": 5,
        "score": None,
        "ok": False,
        "n": -3,
        "note": "two\nlines\tand é漢🎣",
    }
    # What is no JSON number stands as text, so that the decoder can say what is wrong with it.
    assert json.loads(third) == {
        "id": "x",
        "ts": 1700000000002,
        "amount": 100.0,
        "score": ".5",
        "ok": "maybe",
        "n": "007",
        "note": "",
    }


def test_csv_without_schema_takes_numbers_for_numbers(tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_text("id,n\nabc,1\n00123,2.50\n")
    assert rows(FileSource("s", tmp_path / "p.csv")) == [{"id": "abc", "n": 1}, {"id": "00123", "n": 2.5}]


def test_csv_rows_of_the_wrong_width_come_out_as_they_are(tmp_path: Path) -> None:
    """I3: a row that is no record is a malformed record, not a gap and not the end."""
    (tmp_path / "p.csv").write_bytes(b"a,b\n1,2\n1,2,3\n4\n5,6\n7,\xff\xfe\n")
    got = read_all(FileSource("s", tmp_path / "p.csv"))
    assert sorted(got) == sorted([b'{"a":1,"b":2}', b'{"a":5,"b":6}', b'{"a":7,"b":"\xff\xfe"}', b"1,2,3", b"4"])


def test_parquet_types(tmp_path: Path) -> None:
    at = datetime.datetime(2026, 3, 1, 12, 30, 15, 123000, tzinfo=datetime.UTC)
    table = pa.table(
        {
            "id": pa.array(["a", 'q"uote', None]).dictionary_encode(),
            "ts": pa.array([at, at, None], pa.timestamp("us", "UTC")),
            "at": pa.array([at, at, None], pa.timestamp("ms", "UTC")),
            "amount": pa.array([decimal.Decimal("10.10"), decimal.Decimal("-0.01"), None], pa.decimal128(12, 2)),
            "score": [0.1, 1e300, None],
            "ok": [True, False, None],
            "n": pa.array([2**63 - 1, -5, None], pa.int64()),
            "tags": [["x", "y"], [], None],
        }
    )
    pa_parquet.write_table(table, tmp_path / "p.parquet")
    schema = Schema(id=String(), ts=Timestamp("ms"), amount=Decimal(2))
    first, second, third = read_all(FileSource("s", tmp_path / "p.parquet", schema=schema))
    assert json.loads(first) == {
        "id": "a",
        "ts": int(at.timestamp() * 1_000),
        "at": "2026-03-01T12:30:15.123Z",
        "amount": 10.1,
        "score": 0.1,
        "ok": True,
        "n": 2**63 - 1,
        "tags": ["x", "y"],
    }
    assert b'"amount":-0.01' in second
    assert json.loads(second)["score"] == 1e300
    assert json.loads(second)["id"] == 'q"uote'
    assert set(json.loads(third).values()) == {None}


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_tables_conform(tmp_path: Path, kind: str) -> None:
    count = 20_000  # Several blocks and batches.
    table = pa.table({"n": list(range(count)), "s": [f"text {n}" for n in range(count)]})
    path = tmp_path / f"t.{kind}"
    if kind == "csv":
        path.write_text("n,s\n" + "".join(f"{n},text {n}\n" for n in range(count)))
    else:
        pa_parquet.write_table(table, path)
    got = read_all(FileSource("s", path), max_records=999)
    assert [json.loads(value) for value in got] == table.to_pylist()


def test_csv_headers(tmp_path: Path) -> None:
    (tmp_path / "empty.csv").write_bytes(b"")
    assert read_all(FileSource("s", tmp_path / "empty.csv")) == []
    (tmp_path / "bare.csv").write_bytes(b"a,b\n")
    assert read_all(FileSource("s", tmp_path / "bare.csv")) == []
    (tmp_path / "marked.csv").write_bytes(b'\xef\xbb\xbfa,"b c"\n1,2\n')
    assert rows(FileSource("s", tmp_path / "marked.csv")) == [{"a": 1, "b c": 2}]
    (tmp_path / "twice.csv").write_bytes(b"a,a\n1,2\n")
    with pytest.raises(SourceError, match="names the column 'a' twice"):
        FileSource("s", tmp_path / "twice.csv")
    (tmp_path / "latin.csv").write_bytes(b"a,\xe9\n1,2\n")
    with pytest.raises(SourceError, match="header line is not UTF-8"):
        FileSource("s", tmp_path / "latin.csv")


# Wrong configuration, and what a crash leaves


def test_errors_name_the_file_and_the_mend(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"missing\.ndjson: the file cannot be opened: No such file.*Check the path"):
        FileSource("s", tmp_path / "missing.ndjson")
    with pytest.raises(SourceError, match=r"missing\.parquet"):
        FileSource("s", tmp_path / "missing.parquet")
    (tmp_path / "torn.parquet").write_bytes(b"PAR1 no parquet at all")
    with pytest.raises(SourceError, match=r"torn\.parquet: the file cannot be read.*Check the path and the format"):
        FileSource("s", tmp_path / "torn.parquet")
    (tmp_path / "torn.ndjson.gz").write_bytes(gzip.compress(b'{"n":1}\n' * 100)[:-10])
    with pytest.raises(SourceError, match=r"torn\.ndjson\.gz: reading failed"):
        read_all(FileSource("s", tmp_path / "torn.ndjson.gz"))
    with pytest.raises(ConfigurationError, match=r"suffix tells no format; use \.ndjson"):
        FileSource("s", tmp_path / "x.xlsx")
    with pytest.raises(SinkError, match="cannot be opened for writing"):
        FileSink(tmp_path / "no-such-directory" / "x.ndjson")


def test_a_torn_last_line_is_ended_before_the_next_one(tmp_path: Path) -> None:
    path = tmp_path / "x.ndjson"
    path.write_bytes(b'{"n":1}\n{"n":')
    sink = FileSink(path)
    sink.write([b'{"n":2}'])
    sink.close()
    assert path.read_bytes() == b'{"n":1}\n{"n":\n{"n":2}\n'


def test_overwrite_begins_anew(tmp_path: Path) -> None:
    path = tmp_path / "x.ndjson"
    path.write_bytes(b"old\n")
    sink = FileSink(path, mode="overwrite")
    sink.write([b"new"])
    sink.close()
    assert path.read_bytes() == b"new\n"


def test_side_outputs_keep_bytes_key_and_headers(tmp_path: Path) -> None:
    sink = FileSink(tmp_path / "x.ndjson")
    sink.write_records([OutputRecord(value=b"\xff\n{", key=b"k", headers=[("reason", b"not json"), ("none", None)])])
    sink.close()
    assert json.loads((tmp_path / "x.ndjson").read_text()) == {
        "key": "k",
        "headers": [["reason", "not json"], ["none", None]],
        "value": {"base64": "/wp7"},
    }
