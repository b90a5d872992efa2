"""The JSON decoder against a slow oracle on Python's own `json`; the encoder against what it was given."""

import json
import math
from decimal import Decimal as PyDecimal

import numpy as np
import pyarrow as pa
from effort import examples
from hypothesis import example, given
from hypothesis import strategies as st

from gillnet import _kernel
from gillnet.core.messages import RawBatch
from gillnet.core.schema import Boolean, Decimal, Float, Integer, Schema, String, Timestamp
from gillnet.operators.decode import DecodeOperator
from gillnet.operators.encode import ColumnField, EncodeOperator
from gillnet.testing.oracle_json import decode_record

SCHEMA = Schema(
    id=String(max_bytes=24),
    key=String(),
    visitor=String(nullable=True),
    note=String(nullable=True, max_bytes=8),
    count=Integer(nullable=True),
    items=Integer(minimum=-3, maximum=1000, nullable=True),
    ratio=Float(nullable=True),
    share=Float(minimum=0.0, maximum=1.0, allow_nan=True, nullable=True),
    online=Boolean(nullable=True),
    seconds=Timestamp("s", nullable=True),
    millis=Timestamp("ms", nullable=True),
    micros=Timestamp("us", nullable=True),
    at=Timestamp("rfc3339", nullable=True),
    amount=Decimal(2, minimum="-10.50", maximum=100_000, nullable=True),
    fine=Decimal(18, nullable=True),
    whole=Decimal(0, nullable=True),
)
OPTIONS = {"id": "id", "keys": ("key", "visitor"), "max_record_bytes": 4_000, "max_depth": 4}
OPERATOR = DecodeOperator(SCHEMA, **OPTIONS)


class Raw(str):
    """JSON text to write as it is."""


digits = st.text("0123456789", min_size=1, max_size=25)
numbers = st.builds(
    lambda sign, whole, fraction, exponent: Raw(sign + whole + fraction + exponent),
    st.sampled_from(["", "-"]),
    st.one_of(digits.map(lambda text: str(int(text))), st.integers(0, 2000).map(str)),
    st.one_of(st.just(""), st.just(".0"), digits.map(".".__add__)),
    st.one_of(
        st.just(""),
        st.just(""),
        st.builds("{}{}{}".format, st.sampled_from("eE"), st.sampled_from(["", "+", "-"]), st.integers(0, 400)),
    ),
)
edges = st.sampled_from(
    [
        2**63 - 1,
        2**63,
        -(2**63),
        -(2**63) - 1,
        0,
        -1,
        1,
        2**53 + 1,
        253_402_300_799,
        253_402_300_800,
        -62_135_596_800,
        -62_135_596_801,
    ]
)
instants = st.one_of(
    st.datetimes().map(lambda moment: moment.isoformat() + "Z"),
    st.builds(
        "{:04}-{:02}-{:02}{}{:02}:{:02}:{:02}{}{}".format,
        st.integers(0, 9999), st.integers(0, 13), st.integers(0, 32), st.sampled_from("Tt X"), st.integers(0, 24),
        st.integers(58, 60), st.integers(58, 61), st.sampled_from(["", ".5", ".123456789", ".1234567890", "."]),
        st.sampled_from(["Z", "z", "", "+00:00", "-23:59", "+05:30", "+24:00", "+0530"]),
    ),
)  # fmt: skip
texts = st.one_of(
    st.text(max_size=12),
    st.sampled_from(
        ["", "NaN", "Infinity", "-Infinity", "1.50", "-0.5", "1,5", " 1", "1e2", "\u0661", "\u2028", "\x7f"]
    ),
    instants,
)
scalars = st.one_of(texts, numbers, edges, st.none(), st.booleans())
nested = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)
names = st.one_of(st.sampled_from([*SCHEMA, *SCHEMA, "extra"]), st.text(max_size=4))
spaces = st.sampled_from(["", "", " ", "\n\t", "\r\n"])


def fitting(name):
    """Values of which most fit the column."""
    kind = SCHEMA[name].name
    if kind == "string":
        return st.text('ab\u00e9\n"\\', min_size=1, max_size=4)
    if kind == "bool":
        return st.booleans()
    if kind == "timestamp" and SCHEMA[name].unit == "rfc3339":
        return st.one_of(st.datetimes().map(lambda moment: moment.isoformat() + "Z"), st.none())
    if kind in ("int64", "timestamp"):
        return st.one_of(st.integers(0, 1000), st.none())
    if kind == "float64":
        return st.one_of(st.floats(0, 1), st.none())
    return (
        st.one_of(st.decimals(-10, 999, places=2).map(lambda value: Raw(f"{value:f}")), st.just(0))
        if name != "whole"
        else st.integers(-(10**18) + 1, 10**18 - 1)
    )


@st.composite
def records(draw):
    """Objects that mostly fit, with some fields left out, put twice, or spoiled."""
    fields = [(name, draw(fitting(name))) for name in SCHEMA if draw(st.integers(0, 9))]
    for _ in range(draw(st.integers(0, 2))):
        at = draw(st.integers(0, len(fields)))
        name = draw(names)
        fields = [field for field in fields if field[0] != name] if draw(st.integers(0, 4)) else fields
        fields.insert(at, (name, draw(nested)))
    if draw(st.booleans()):
        fields = draw(st.permutations(fields))
    return write(dict_pairs=fields, space=draw(spaces), ascii_only=draw(st.booleans())).encode("utf-8", "surrogatepass")


def write(value=None, *, dict_pairs=None, space="", ascii_only=True):
    options = {"space": space, "ascii_only": ascii_only}
    if isinstance(value, Raw):
        return str(value)
    if isinstance(value, dict):
        dict_pairs = list(value.items())
    if dict_pairs is not None:
        inner = f"{space},{space}".join(
            f"{json.dumps(k, ensure_ascii=ascii_only)}{space}:{space}{write(v, **options)}" for k, v in dict_pairs
        )
        return f"{space}{{{space}{inner}{space}}}{space}"
    if isinstance(value, list):
        return f"[{f'{space},{space}'.join(write(item, **options) for item in value)}]"
    return json.dumps(value, ensure_ascii=ascii_only)


def comparable(value):
    # The sign of a zero and a NaN's equality to itself are what `==` does not see.
    return (type(value), str(value)) if isinstance(value, float) else value


def hold_against_oracle(values):
    decoded = OPERATOR.decode(RawBatch(stream="s", values=values, partitions=[0] * len(values), arrival_time_us=0))
    table = decoded.batch.to_pyarrow()
    for name in SCHEMA:
        if SCHEMA[name].name == "timestamp":
            index = table.schema.get_field_index(name)
            table = table.set_column(index, name, table.column(index).cast(pa.int64()))
    rows = iter(table.to_pylist())
    faults = {record.index: record for record in decoded.malformed}
    kept = [index for index in range(len(values)) if index not in faults]
    assert (decoded.rows.to_pylist() if decoded.rows is not None else list(range(len(values)))) == kept
    for index, value in enumerate(values):
        expected = decode_record(value, SCHEMA, **OPTIONS)
        got = faults[index].reason if index in faults else {k: comparable(v) for k, v in next(rows).items()}
        expected = expected if isinstance(expected, str) else {k: comparable(v) for k, v in expected.items()}
        assert got == expected, (value, faults.get(index))


@given(st.lists(records(), max_size=5))
@examples(600)
def test_records_decode_as_the_oracle_says(values):
    hold_against_oracle(values)


@given(
    records(),
    st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255), st.sampled_from("sdix")), min_size=1, max_size=3),
)
@examples(600)
@example(b'{"id":"a","key":"k","note":"\\ud83d"}', [])
@example(b'{"id":"a","key":"k","amount":"\\u0031"}', [])
@example(b'{"id":"a","key":"k","x":"\\ud83d","x":1}', [])
def test_mutated_bytes_decode_as_the_oracle_says(record, edits):
    spoiled = bytearray(record)
    for place, byte, edit in edits:
        at = place % (len(spoiled) + 1)
        match edit:
            case "s":
                spoiled[at : at + 1] = bytes([byte])
            case "d":
                del spoiled[at : at + 1]
            case "i":
                spoiled[at:at] = b'"\\{}[],:.-e0n \x00'[byte % 15 :][:1]
            case _:
                del spoiled[at:]
    hold_against_oracle([record, bytes(spoiled), record])


@given(st.binary(max_size=40))
@examples(300)
def test_any_bytes_decode_as_the_oracle_says(record):
    hold_against_oracle([record])


plain_text = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
columns = {
    "text": (pa.string(), plain_text),
    "large_text": (pa.large_string(), plain_text),
    "dictionary": (pa.dictionary(pa.int32(), pa.string()), st.sampled_from(["approved", "declined"])),
    "int8": (pa.int8(), st.integers(-128, 127)),
    "int64": (pa.int64(), st.integers(-(2**63), 2**63 - 1)),
    "uint64": (pa.uint64(), st.integers(0, 2**64 - 1)),
    "float64": (pa.float64(), st.floats()),
    "float32": (pa.float32(), st.floats(width=32)),
    "bool": (pa.bool_(), st.booleans()),
    "decimal": (pa.decimal128(38, 2), st.integers(-(10**27), 10**27).map(lambda n: PyDecimal(n).scaleb(-2))),
    "reasons": (pa.list_(pa.string()), st.lists(st.none() | plain_text, max_size=3)),
    "struct": (
        pa.struct({"a": pa.int32(), "b": pa.float64()}),
        st.fixed_dictionaries({"a": st.none() | st.integers(0, 9), "b": st.floats()}),
    ),
}
encodable_rows = st.lists(
    st.fixed_dictionaries({name: st.none() | kind[1] for name, kind in columns.items()}), max_size=4
)


@given(encodable_rows, st.integers(0, 3))
@examples(200)
def test_what_is_encoded_reads_back_as_what_was_given(rows, skip):
    schema = pa.schema([(name, kind[0]) for name, kind in columns.items()])
    batch = pa.RecordBatch.from_pylist(rows, schema=schema).slice(skip)
    encoded = EncodeOperator([ColumnField(name) for name in columns]).encode(_kernel.Batch.from_pyarrow(batch))
    assert len(encoded) == batch.num_rows
    for record, row in zip(encoded, rows[skip:], strict=True):
        assert b"\n" not in record
        read = json.loads(record)
        exact = json.loads(record, parse_float=str)
        if row["decimal"] is not None:
            assert exact["decimal"] == f"{row['decimal']:.2f}"
        for name in columns:
            if name == "float32" and read[name] is not None:
                # The shortest text of a 32-bit float names that float, not its 64-bit neighbour.
                assert np.float32(read[name]) == np.float32(row[name])
            elif name != "decimal":
                assert read[name] == finite(row[name], name), name


def finite(value, name):
    if isinstance(value, dict):
        return {key: finite(inner, name) for key, inner in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value
