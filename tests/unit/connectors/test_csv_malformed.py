"""What a malformed row of CSV leaves: its own text, byte for byte, whatever its cells became on the way."""

from __future__ import annotations

import gzip
import io
from typing import TYPE_CHECKING

import pyarrow.csv as pa_csv
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gillnet.connectors.files import FileSource, csv_records
from gillnet.core.schema import Decimal, Schema, String
from gillnet.operators.decode import DecodeOperator, malformed_records

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

SCHEMA = Schema(id=String(), amount=Decimal(2), note=String(nullable=True))
HEADER = b"id,amount,note\n"
GOOD = b"g,1.50,fine\n"

# Each is one record that the decoder refuses, without its line end.
MALFORMED = {
    "a number with a unit, and spaces": b"1,  12.5x,abc",
    "a number with too many places": b'2,1.505,"quoted, with a comma"',
    "quotes that say nothing": b'"3","x","plain"',
    "doubled quotes": b'4,x,"say ""hi"""',
    "a line break in a cell": b'5,x,"two\nlines"',
    "a Windows line break in a cell": b'6,x,"two\r\nlines\r\n"',
    "a blank line in a cell": b'7,x,"\n\n"',
    "a quote inside a plain cell": b'8,x,5" disk',
    "text after the closing quote": b'9,x,"a"b"c',
    "no UTF-8": b"10,1.50,\xff\xfe",
    "no id": b",1.50,",
    "too many cells": b'11,1.50,"a\nb",more',
    "too few cells": b"12",
    "too many cells, no UTF-8": b"13,1.50,\xff,more",
    "letters beyond ASCII": "14,x,é漢🎣".encode(),
    "cells that JSON would escape": b'15,x,\\ \t "',
}


def malformed_of(path: Path, *, max_records: int = 5) -> tuple[list[bytes], int]:
    """Return the values of the malformed output, and the number of good rows."""
    decoder, source = DecodeOperator(SCHEMA, keys=("id",)), FileSource("s", path, schema=SCHEMA)
    kept, good = [], 0
    while not source.finished:
        if batch := source.poll(max_records, 0.0):
            decoded = decoder.decode(batch)
            kept += [record.value for record in malformed_records(batch, decoded.malformed)]
            good += decoded.batch.num_rows
    return kept, good


@pytest.mark.parametrize("end", [b"\n", b"\r\n"], ids=["unix", "windows"])
@pytest.mark.parametrize("record", MALFORMED.values(), ids=MALFORMED)
def test_a_malformed_row_keeps_its_text(tmp_path: Path, record: bytes, end: bytes) -> None:
    rows = [GOOD[:-1], record, b"", GOOD[:-1], GOOD[:-1], b"", record]
    (tmp_path / "x.csv").write_bytes(end.join([HEADER[:-1], *rows]))
    assert malformed_of(tmp_path / "x.csv") == ([record, record], 3)


@pytest.mark.parametrize("block_bytes", [7, 60, 1 << 20])
@pytest.mark.parametrize("suffix", [".csv", ".csv.gz"])
def test_all_in_one_file_whatever_the_blocks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str, block_bytes: int
) -> None:
    monkeypatch.setattr(csv_records, "BLOCK_BYTES", block_bytes)
    data = b"\xef\xbb\xbf" + HEADER + b"".join(GOOD + record + b"\n" for record in MALFORMED.values())
    (tmp_path / f"x{suffix}").write_bytes(gzip.compress(data) if suffix.endswith(".gz") else data)
    assert malformed_of(tmp_path / f"x{suffix}") == (list(MALFORMED.values()), len(MALFORMED))


def test_a_run_that_goes_on_behind_some_rows_gives_the_right_texts(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_bytes(HEADER + b"".join(b"%d,x%d,\n" % (n, n) for n in range(100)))
    source = FileSource("s", tmp_path / "x.csv", schema=SCHEMA)
    source.start_at({0: 40})
    batch = source.replay([(0, 40, 50)], 0)
    assert [batch.original(index) for index in (9, 0)] == [b"49,x49,", b"40,x40,"]


def test_a_record_without_end_is_an_error_that_shows_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(csv_records, "BLOCK_BYTES", 10)
    monkeypatch.setattr(csv_records, "LONGEST_RECORD_BYTES", 1_000)
    blocks = csv_records.read_blocks(io.BytesIO(b"a,b\n" + b'1,"never closed' + b"x" * 2_000), "p.csv")
    with pytest.raises(csv_records.SourceError, match=r"p\.csv: a record is longer .*never closed.*quote not closed"):
        list(blocks)


PIECES = st.lists(st.sampled_from([b'"', b'""', b",", b"\n", b"\r\n", b"\r", b"a", b"bc", b" "]), max_size=30)


def arrows_rows(text: bytes) -> list[tuple[bytes, ...]]:
    """The records as Arrow reads them, as rows of cells of whatever width, by giving each width its turn."""
    rows: dict[int, tuple[bytes, ...]] = {}
    for width in range(1, 35):
        others: list[int] = []

        def skip(row: pa_csv.InvalidRow, others: list[int] = others) -> str:
            others.append(row.number)
            return "skip"

        names = [str(n) for n in range(width)]
        table = pa_csv.read_csv(
            io.BytesIO(text),
            read_options=pa_csv.ReadOptions(use_threads=False, column_names=names, block_size=10_000),
            parse_options=pa_csv.ParseOptions(newlines_in_values=True, invalid_row_handler=skip),
            convert_options=pa_csv.ConvertOptions(
                column_types=dict.fromkeys(names, "binary"), strings_can_be_null=False
            ),
        )
        total = table.num_rows + len(others)
        numbers = [number for number in range(1, total + 1) if number not in others]
        rows |= dict(zip(numbers, zip(*(column.to_pylist() for column in table.columns), strict=True), strict=True))
    return [rows[number] for number in sorted(rows)]


@given(pieces=PIECES, block_bytes=st.integers(1, 12))
def test_records_end_where_arrow_ends_them(pieces: Sequence[bytes], block_bytes: int) -> None:
    text = b"".join(pieces)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(csv_records, "BLOCK_BYTES", block_bytes)
        blocks = list(csv_records.read_blocks(io.BytesIO(text), "x"))
    assert b"".join(blocks) == text
    records = [record for block in blocks for record in csv_records.split_records(block)]
    whole = arrows_rows(text) if text else []
    assert [row for record in records for row in arrows_rows(record)] == whole
    assert len(records) == len(whole)
