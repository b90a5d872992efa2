"""The encode operator: names, order, groups, and one text form for each type."""

import json
from datetime import UTC, datetime
from decimal import Decimal as PyDecimal

import pyarrow as pa
import pytest

from gillnet import _kernel
from gillnet.core.errors import DefinitionError
from gillnet.operators.encode import ColumnField, ConstantField, EncodeOperator, GroupField, record_keys

AT = datetime(2026, 1, 2, 3, 4, 5, 678_901, tzinfo=UTC)


def batch(**columns):
    return _kernel.Batch.from_pyarrow(pa.record_batch(columns))


def encode(fields, rows, **options):
    return [record.decode() for record in EncodeOperator(fields, **options).encode(rows)]


def test_fields_are_picked_renamed_ordered_and_grouped():
    rows = batch(a=pa.array([1, 2]), b=pa.array(["x", None]), unused=pa.array([0, 0]))
    fields = [
        ColumnField("bee", "b"),
        GroupField("in", (ColumnField("a"), ConstantField("v", [1, None]))),
        ConstantField("z", None),
    ]
    assert encode(fields, rows) == [
        '{"bee":"x","in":{"a":1,"v":[1,null]},"z":null}',
        '{"bee":null,"in":{"a":2,"v":[1,null]},"z":null}',
    ]
    assert encode(fields, rows, omit_nulls=True)[1] == '{"in":{"a":2,"v":[1,null]},"z":null}'


def test_an_object_of_which_every_field_is_omitted_is_empty():
    assert encode([GroupField("g", (ColumnField("a"),))], batch(a=pa.array([None], pa.int64())), omit_nulls=True) == [
        '{"g":{}}'
    ]
    assert encode([], batch(a=pa.array([1]))) == ["{}"]


@pytest.mark.parametrize(
    ("form", "text"),
    [
        (None, '"2026-01-02T03:04:05.678901Z"'),
        ("rfc3339", '"2026-01-02T03:04:05.678901Z"'),
        ("s", "1767323045"),
        ("ms", "1767323045678"),
        ("us", "1767323045678901"),
    ],
)
def test_timestamps_in_every_form(form, text):
    rows = batch(at=pa.array([AT], pa.timestamp("us", "UTC")))
    assert encode([ColumnField("at", timestamp=form)], rows) == [f'{{"at":{text}}}']


@pytest.mark.parametrize(
    ("array", "text"),
    [
        (pa.array([PyDecimal("-0.05")], pa.decimal128(38, 2)), "-0.05"),
        (pa.array([PyDecimal("1250.00")], pa.decimal128(38, 2)), "1250.00"),
        (pa.array([PyDecimal("7")], pa.decimal128(38, 0)), "7"),
        (pa.array([PyDecimal(f"{'9' * 32}.345678")], pa.decimal128(38, 6)), f"{'9' * 32}.345678"),
        (pa.array([float("nan")]), "null"),
        (pa.array([float("-inf")], pa.float32()), "null"),
        (pa.array([0.1], pa.float32()), "0.1"),
        (pa.array([-0.0]), "-0.0"),
        (pa.array([2**64 - 1], pa.uint64()), "18446744073709551615"),
        (pa.array([["a", None], []], pa.list_(pa.string())).slice(0, 1), '["a",null]'),
        (pa.array([{"x": 1, "y": "\u2028\x00\""}]), '{"x":1,"y":"\u2028\\u0000\\""}'),
        (pa.array(["b"]).dictionary_encode(), '"b"'),
        (pa.array([None]), "null"),
    ],
)  # fmt: skip
def test_each_type_has_one_text_form(array, text):
    [record] = encode([ColumnField("v")], batch(v=array))
    assert record == f'{{"v":{text}}}'
    json.loads(record)


def test_keys_are_the_text_itself():
    rows = batch(s=pa.array(['a"b', None, ""]), i=pa.array([1, None, -3]))
    assert record_keys(rows, "s") == [b'a"b', None, b""]
    assert record_keys(rows, "i") == [b"1", None, b"-3"]


def test_what_does_not_fit_is_named():
    with pytest.raises(DefinitionError, match="twice"):
        EncodeOperator([ColumnField("a"), ConstantField("a", 1)])
    with pytest.raises(DefinitionError, match="JSON"):
        EncodeOperator([ConstantField("a", float("nan"))])
    with pytest.raises(DefinitionError, match="nope"):
        encode([ColumnField("nope")], batch(a=pa.array([1])))
    with pytest.raises(DefinitionError, match="Binary"):
        encode([ColumnField("a")], batch(a=pa.array([b"x"])))
    with pytest.raises(DefinitionError, match="nope"):
        record_keys(batch(a=pa.array([1])), "nope")
