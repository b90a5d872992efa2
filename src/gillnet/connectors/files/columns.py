"""Lines of JSON objects as the columns of a CSV or Parquet file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, BinaryIO, Literal

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
import pyarrow.json as pa_json
import pyarrow.parquet as pa_parquet

if TYPE_CHECKING:
    from collections.abc import Sequence

_INSTANT = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{6}Z$"
_NULL = b"null"


def write_part(lines: bytes, file: BinaryIO, file_format: Literal["csv", "parquet"]) -> None:
    """Write a file of all whole lines; what a crash left of a last one is left out."""
    whole = lines[: lines.rfind(b"\n") + 1]
    if file_format == "csv":
        pa_csv.write_csv(_text_table(whole), file)
        return
    try:
        table = _typed_table(whole)
        pa_parquet.write_table(table, file, compression="zstd")
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        # A field with values of several kinds, or an object without fields, which Parquet cannot say.
        file.seek(0)
        file.truncate()
        pa_parquet.write_table(_text_table(whole), file, compression="zstd")


def _typed_table(lines: bytes) -> pa.Table:
    table = _parse(lines, None)
    if wrong := [field.name for field in table.schema if _guessed_text(field.type) != field.type]:
        # Arrow takes text that looks like a date for one; an id that does must stay what it is.
        fields = [field.with_type(_guessed_text(field.type)) for field in table.schema if field.name in wrong]
        table = _parse(lines, pa.schema(fields))
    return pa.table([_instants(column) for column in table.columns], names=table.column_names)


def _parse(lines: bytes, schema: pa.Schema | None) -> pa.Table:
    return pa_json.read_json(
        pa.BufferReader(lines),
        read_options=pa_json.ReadOptions(use_threads=False, block_size=len(lines) + 1),
        parse_options=pa_json.ParseOptions(explicit_schema=schema),
    )


def _guessed_text(dtype: pa.DataType) -> pa.DataType:
    if pa.types.is_timestamp(dtype):
        return pa.string()
    if pa.types.is_struct(dtype):
        return pa.struct([field.with_type(_guessed_text(field.type)) for field in dtype])
    if pa.types.is_list(dtype):
        return pa.list_(_guessed_text(dtype.value_type))
    return dtype


def _instants(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Turn a column into timestamps if every text in it is written as Gillnet writes one."""
    if not pa.types.is_string(column.type) or column.null_count == len(column):
        return column
    if not pc.all(pc.match_substring_regex(column, _INSTANT)).as_py():
        return column
    try:
        return column.cast(pa.timestamp("us", "UTC"))
    except pa.ArrowInvalid:  # Such as the 30th of February.
        return column


def _text_table(lines: bytes) -> pa.Table:
    """Return every field as text: texts without their quotes, and anything else as it is written in JSON."""
    decoder = msgspec.json.Decoder(dict[str, msgspec.Raw])
    records = [_record(line, decoder) for line in lines.split(b"\n")[:-1]]
    names = list(dict.fromkeys(name for record in records for name in record))
    return pa.table({name: _cells(records, name) for name in names})


def _record(line: bytes, decoder: msgspec.json.Decoder[dict[str, msgspec.Raw]]) -> dict[str, Any]:
    try:
        return decoder.decode(line)
    except msgspec.DecodeError:
        return {"value": msgspec.json.encode(line.decode(errors="replace"))}


def _cells(records: Sequence[dict[str, Any]], name: str) -> pa.Array:
    cells = [bytes(record.get(name, _NULL)) for record in records]
    return pa.array([_text(cell) for cell in cells], pa.string())


def _text(cell: bytes) -> str | None:
    if cell[:1] == b'"':
        text: str = msgspec.json.decode(cell)
        return text
    return None if cell == _NULL else cell.decode()
