"""A slow, obviously right decoder of JSON records, for the fast one to be held against.

It shares nothing with the kernel: Python's `json`, `decimal` and `datetime` do the work. It gives one record's outcome:
a row, or a reason. Where a record has several faults it tells the same one as the kernel: size, UTF-8 and grammar
first, then the first fault in the order of the record's fields, then the first missing column in the schema's order.
"""

from __future__ import annotations

import json
import math
import re
from datetime import UTC, datetime, timedelta
from decimal import Context
from decimal import Decimal as PyDecimal
from typing import TYPE_CHECKING, TypeVar

from gillnet.core.schema import Boolean, DataType, Decimal, Float, Integer, Schema, String, Timestamp, scaled_integer

if TYPE_CHECKING:
    from collections.abc import Sequence

Value = None | bool | int | float | str | PyDecimal
Row = dict[str, Value]

_T = TypeVar("_T")
_N = TypeVar("_N", int, float)
_UNIT_US = {"s": 1_000_000, "ms": 1_000, "us": 1}
_NUMBER = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?")
_RFC3339 = re.compile(
    r"(\d{4}-\d\d-\d\d)[Tt ](\d\d):(\d\d):(\d\d)(?:\.(\d{1,9}))?(?:[Zz]|([+-])(\d\d):(\d\d))", re.ASCII
)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_FIRST_US = (datetime.min.replace(tzinfo=UTC) - _EPOCH) // timedelta(microseconds=1)
_LAST_US = (datetime.max.replace(tzinfo=UTC) - _EPOCH) // timedelta(microseconds=1)


class Refused(Exception):  # noqa: N818  an outcome, not an error
    """The record, or a field of it, is refused for a reason."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class _Number(str):
    """A number as it stands in the record."""

    __slots__ = ()


class _Object(list[tuple[str, object]]):
    """An object with its fields in order, twice if they are there twice."""


def decode_record(
    record: bytes,
    schema: Schema,
    *,
    id: str | None = None,  # noqa: A002
    keys: Sequence[str] = (),
    max_record_bytes: int = 1 << 20,
    max_depth: int = 64,
) -> Row | str:
    """Decode one record: its values by column, or the code of the reason why it is malformed.

    Timestamps are int microseconds UTC, decimals `decimal.Decimal` with the column's scale.
    """
    try:
        return _decode(record, schema, id, keys, max_record_bytes, max_depth)
    except Refused as refused:
        return refused.reason


def _decode(
    record: bytes, schema: Schema, id_column: str | None, keys: Sequence[str], max_bytes: int, max_depth: int
) -> Row:
    fields = _parse(record, max_bytes)
    row: Row = {}
    for name, value in fields:
        if name in row:
            raise Refused("duplicate_field")
        if name in schema:
            row[name] = _column_value(schema[name], value, is_id=name == id_column, is_key=name in keys)
        elif 1 + _depth(value) > max_depth:
            raise Refused("too_deep")
    for name, dtype in schema.items():
        if name not in row:
            if not dtype.nullable:
                raise Refused("missing_field")
            row[name] = _column_value(dtype, None, is_id=name == id_column, is_key=name in keys)
    return {name: row[name] for name in schema}


def _parse(record: bytes, max_bytes: int) -> _Object:
    if len(record) > max_bytes:
        raise Refused("too_large")
    try:
        text = record.decode()
    except UnicodeDecodeError:
        raise Refused("not_utf8") from None
    if not text.strip(" \t\r\n"):
        raise Refused("empty_record")
    try:
        parsed = json.loads(
            text, object_pairs_hook=_Object, parse_int=_Number, parse_float=_Number, parse_constant=_no_constant
        )
    except json.JSONDecodeError:
        raise Refused("not_json") from None
    if not isinstance(parsed, _Object):
        raise Refused("not_an_object")
    return parsed


def _no_constant(_: str) -> None:
    raise Refused("not_json")


def _depth(value: object) -> int:
    if isinstance(value, _Object):
        return 1 + max((_depth(inner) for _, inner in value), default=0)
    if isinstance(value, list):
        return 1 + max(map(_depth, value), default=0)
    return 0


def _column_value(dtype: DataType, value: object, *, is_id: bool, is_key: bool) -> Value:
    if value == "" and isinstance(dtype, String) and (is_id or is_key):
        if is_id or not dtype.nullable:
            raise Refused("null_id" if is_id else "empty_key")
        return None
    if value is None:
        if is_id or not dtype.nullable:
            raise Refused("null_id" if is_id else "null_key" if is_key else "null_value")
        return None
    return _typed(dtype, value)


def _typed(dtype: DataType, value: object) -> Value:
    match dtype:
        case String():
            return _text(dtype, value)
        case Integer():
            return _within(dtype, _integer(value))
        case Float():
            return _float(dtype, value)
        case Boolean():
            return _require(value, bool)
        case Timestamp(unit="rfc3339"):
            return _instant(_plain_text(value))
        case Timestamp(unit=unit):
            return _instant_within(_integer(value) * _UNIT_US[unit])
        case Decimal():
            return _decimal(dtype, value)
    raise AssertionError(dtype)


def _require(value: object, kind: type[_T]) -> _T:
    if not isinstance(value, kind):
        raise Refused("wrong_type")
    return value


def _plain_text(value: object) -> str:
    if isinstance(value, _Number):
        raise Refused("wrong_type")
    return _require(value, str)


def _text(dtype: String, value: object) -> str:
    text = _plain_text(value)
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        raise Refused("not_utf8") from None
    if size > dtype.max_bytes:
        raise Refused("too_large")
    return text


def _integer(value: object) -> int:
    text = _require(value, _Number)
    if not text.lstrip("-").isdigit():
        raise Refused("wrong_type")
    number = int(PyDecimal(text))
    if not -(2**63) <= number < 2**63:
        raise Refused("out_of_range")
    return number


def _float(dtype: Float, value: object) -> float:
    if isinstance(value, _Number):
        number = float(value)
        if math.isinf(number):
            raise Refused("not_finite")
        return _within(dtype, number)
    if value not in ("NaN", "Infinity", "-Infinity"):
        raise Refused("wrong_type")
    if not dtype.allow_nan:
        raise Refused("not_finite")
    return _within(dtype, float(str(value)))


def _within(dtype: Integer | Float, number: _N) -> _N:
    below = dtype.minimum is not None and number < dtype.minimum
    if below or (dtype.maximum is not None and number > dtype.maximum):
        raise Refused("out_of_range")
    return number


def _decimal(dtype: Decimal, value: object) -> PyDecimal:
    text = _require(value, str)
    if not _NUMBER.fullmatch(text):
        raise Refused("wrong_type")
    sign, digits, exponent = PyDecimal(text).as_tuple()
    assert isinstance(exponent, int)
    while digits and digits[-1] == 0:
        digits, exponent = digits[:-1], exponent + 1
    if digits and -exponent > dtype.scale:
        raise Refused("inexact_decimal")
    if digits and len(digits) + exponent + dtype.scale > 18:
        raise Refused("out_of_range")
    shift = exponent + dtype.scale if digits else 0
    scaled = (-1 if sign else 1) * int("".join(map(str, digits)) or "0") * 10**shift
    for bound, outside in ((dtype.minimum, int.__lt__), (dtype.maximum, int.__gt__)):
        if bound is not None and outside(scaled, scaled_integer(str(bound), dtype.scale, what="bound")):
            raise Refused("out_of_range")
    return PyDecimal(scaled).scaleb(-dtype.scale, Context(prec=40))


def _instant(text: str) -> int:
    match = _RFC3339.fullmatch(text)
    if match is None:
        raise Refused("bad_timestamp")
    date, hour, minute, second, fraction, sign, offset_hours, offset_minutes = match.groups()
    if (
        int(hour) > 23
        or int(minute) > 59
        or int(second) > 60
        or int(offset_hours or 0) > 23
        or int(offset_minutes or 0) > 59
    ):
        raise Refused("bad_timestamp")
    # `datetime` has no year 0, but 0000 and 0400 have the same calendar.
    before_year_1 = date.startswith("0000")
    try:
        day = datetime.fromisoformat(date.replace("0000", "0400", 1) if before_year_1 else date).replace(tzinfo=UTC)
    except ValueError:
        raise Refused("bad_timestamp") from None
    offset = timedelta(hours=int(offset_hours or 0), minutes=int(offset_minutes or 0)) * (-1 if sign == "-" else 1)
    of_day = timedelta(hours=int(hour), minutes=int(minute), seconds=int(second)) - offset
    if int(second) == 60 and of_day % timedelta(days=1):
        raise Refused("bad_timestamp")
    micros = int((fraction or "").ljust(6, "0")[:6])
    instant = (day - _EPOCH + of_day) // timedelta(microseconds=1) + micros
    return _instant_within(instant - 146_097 * 86_400_000_000 if before_year_1 else instant)


def _instant_within(instant: int) -> int:
    if not _FIRST_US <= instant <= _LAST_US:
        raise Refused("out_of_range")
    return instant
