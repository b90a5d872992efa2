"""Typed schemas of streams: the columns of a record, and what each of them may hold.

A schema is what the decoder holds every record against: a record that does not fit is *malformed*, with a reason.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from decimal import Decimal as PyDecimal
from typing import TYPE_CHECKING, Literal

from gillnet.core.errors import DefinitionError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

TimeUnit = Literal["s", "ms", "us", "rfc3339"]

#: The digits of a decimal: what a scaled int64 always holds.
_MAX_DIGITS = 18


@dataclass(frozen=True, slots=True, kw_only=True)
class DataType:
    """A column's type.

    ``nullable`` columns accept JSON ``null`` and a missing field; in others these make the record malformed.
    """

    nullable: bool = False

    @property
    def name(self) -> str:
        """The value type as plans, expressions and messages name it.

        One of ``string``, ``int64``, ``float64``, ``bool``, ``timestamp`` and ``decimal(scale)``. In Arrow: Utf8,
        Int64, Float64, Boolean, Timestamp(us, UTC) and Decimal128(38, scale).
        """
        return {"integer": "int64", "float": "float64", "boolean": "bool"}.get(type(self).__name__.lower()) or (
            type(self).__name__.lower()
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class String(DataType):
    """UTF-8 text of at most ``max_bytes`` bytes."""

    max_bytes: int = 65_536


@dataclass(frozen=True, slots=True, kw_only=True)
class Integer(DataType):
    """A signed integer of 64 bits, within ``minimum`` and ``maximum`` (both included) where they are given."""

    minimum: int | None = None
    maximum: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Float(DataType):
    """A 64-bit float, within bounds where they are given. NaN and infinities are malformed unless ``allow_nan``."""

    minimum: float | None = None
    maximum: float | None = None
    allow_nan: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Boolean(DataType):
    """``true`` or ``false``."""


@dataclass(frozen=True, slots=True)
class Timestamp(DataType):
    """An instant: an integer since 1970-01-01 UTC in ``unit``, or RFC 3339 text. Inside: int64 microseconds UTC."""

    unit: TimeUnit = "ms"


@dataclass(frozen=True, slots=True)
class Decimal(DataType):
    """An exact decimal with ``scale`` digits after the point, at most 18 digits in all; inside: a scaled int64 (I4).

    Read from a JSON number or a JSON string. A value with more digits than ``scale`` is malformed, not rounded.
    Bounds (both included) are kept as text with ``scale`` digits after the point, however they were written.

    >>> Decimal(2, minimum=0, maximum="1e3")
    Decimal(nullable=False, scale=2, minimum='0.00', maximum='1000.00')
    """

    scale: int = 2
    minimum: str | int | None = None
    maximum: str | int | None = None

    def __post_init__(self) -> None:
        for bound in ("minimum", "maximum"):
            value = getattr(self, bound)
            # A bound or scale that is wrong stays as it is: the schema refuses it, and can name the column.
            with contextlib.suppress(DefinitionError):
                if value is not None and _is_scale(self.scale):
                    scaled = scaled_integer(str(value), self.scale, what=bound)
                    object.__setattr__(self, bound, _decimal_text(scaled, self.scale))

    @property
    def name(self) -> str:
        """The type's name with its scale."""
        return f"decimal({self.scale})"


class Schema:
    """The ordered, named, typed columns of a stream.

    Parameters
    ----------
    **columns
        Column name to `DataType`, in the order of the record.

    Raises
    ------
    DefinitionError
        If there is no column, a value is not a `DataType`, or a bound contradicts its type.

    Examples
    --------
    >>> Payment = Schema(tx_id=String(), ts=Timestamp("ms"), amount=Decimal(2, minimum=0), device=String(nullable=True))
    >>> Payment["amount"].name
    'decimal(2)'
    """

    __slots__ = ("_columns",)

    def __init__(self, **columns: DataType) -> None:
        if not columns:
            raise DefinitionError("Schema(): a schema needs at least one column, such as Schema(id=String()).")
        for name, dtype in columns.items():
            _check_column(name, dtype)
        self._columns = dict(columns)

    def __getitem__(self, name: str) -> DataType:
        return self._columns[name]

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and name in self._columns

    def __iter__(self) -> Iterator[str]:
        return iter(self._columns)

    def __len__(self) -> int:
        return len(self._columns)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Schema) and list(self.items()) == list(other.items())

    def __hash__(self) -> int:
        return hash(tuple(self._columns.items()))

    def __repr__(self) -> str:
        return f"Schema({', '.join(f'{name}={dtype.name}' for name, dtype in self.items())})"

    def items(self) -> Iterator[tuple[str, DataType]]:
        """Return (name, type) pairs in the record's order."""
        return iter(self._columns.items())


def schema_to_json(schema: Schema) -> list[dict[str, object]]:
    """Write a schema as JSON values, one object a column; bounds of decimals are scaled integers.

    >>> schema_to_json(Schema(amount=Decimal(2, minimum="0.50")))
    [{'name': 'amount', 'type': 'decimal(2)', 'minimum': 50}]
    """
    return [_column_to_json(name, dtype) for name, dtype in schema.items()]


def _column_to_json(name: str, dtype: DataType) -> dict[str, object]:
    column: dict[str, object] = {"name": name, "type": dtype.name}
    if dtype.nullable:
        column["nullable"] = True
    if isinstance(dtype, Timestamp):
        column["unit"] = dtype.unit
    if isinstance(dtype, String):
        column["max_bytes"] = dtype.max_bytes
    if isinstance(dtype, Float) and dtype.allow_nan:
        column["allow_nan"] = True
    for bound in ("minimum", "maximum"):
        value = getattr(dtype, bound, None)
        if value is not None and isinstance(dtype, Decimal):
            value = scaled_integer(str(value), dtype.scale, what=name)
        if value is not None:
            column[bound] = value
    return column


def schema_from_json(columns: list[dict[str, object]]) -> Schema:
    """Read what `schema_to_json` wrote."""
    return Schema(**{str(column["name"]): _column_from_json(column) for column in columns})


def _column_from_json(column: dict[str, object]) -> DataType:
    kind, options = str(column["type"]), {k: v for k, v in column.items() if k not in ("name", "type")}
    if kind.startswith("decimal("):
        scale = int(kind[8:-1])
        for bound in ("minimum", "maximum"):
            if bound in options:
                options[bound] = _decimal_text(int(str(options[bound])), scale)
        return Decimal(scale, **options)  # type: ignore[arg-type]
    types: dict[str, Callable[..., DataType]] = {
        "string": String,
        "int64": Integer,
        "float64": Float,
        "bool": Boolean,
        "timestamp": Timestamp,
    }
    return types[kind](**options)


def _check_column(name: str, dtype: object) -> None:
    if not isinstance(dtype, DataType):
        raise DefinitionError(
            f"Schema column {name!r}: {dtype!r} is not a type; "
            "write one such as gillnet.String() or gillnet.Decimal(2)."
        )
    if not name:
        raise DefinitionError("Schema column '': a column needs a name; give the field's in the record.")
    if name.startswith("__"):
        raise DefinitionError(
            f"Schema column {name!r}: names that start with '__' are kept for Gillnet; choose another."
        )
    if isinstance(dtype, Timestamp) and dtype.unit not in ("s", "ms", "us", "rfc3339"):
        raise DefinitionError(
            f"Schema column {name!r}: unit {dtype.unit!r} is unknown; use 's', 'ms', 'us' or 'rfc3339'."
        )
    if not isinstance(dtype.nullable, bool):
        raise DefinitionError(f"Schema column {name!r}: nullable={dtype.nullable!r}; write True or False.")
    if isinstance(dtype, String) and not (_is_whole(dtype.max_bytes) and dtype.max_bytes > 0):
        raise DefinitionError(f"Schema column {name!r}: max_bytes={dtype.max_bytes!r} must be a whole number above 0.")
    if isinstance(dtype, Decimal) and not _is_scale(dtype.scale):
        raise DefinitionError(
            f"Schema column {name!r}: scale {dtype.scale!r} is outside 0 to {_MAX_DIGITS}; "
            "it is the number of digits after the point, such as Decimal(2)."
        )
    _check_bounds(name, dtype)


def _check_bounds(name: str, dtype: DataType) -> None:
    bounds = {bound: getattr(dtype, bound, None) for bound in ("minimum", "maximum")}
    for bound, value in bounds.items():
        if value is None:
            continue
        if isinstance(dtype, Decimal):
            scaled_integer(str(value), dtype.scale, what=f"Schema column {name!r}: {bound}")
        elif isinstance(dtype, Integer) and not (_is_whole(value) and -(2**63) <= value < 2**63):
            raise DefinitionError(f"Schema column {name!r}: {bound}={value!r} is no 64-bit integer; write one.")
        elif isinstance(dtype, Float) and (not isinstance(value, int | float) or value != value):  # noqa: PLR0124 - NaN
            raise DefinitionError(
                f"Schema column {name!r}: {bound}={value!r} is no number; write one, or leave it out."
            )
    minimum, maximum = bounds["minimum"], bounds["maximum"]
    if minimum is not None and maximum is not None and PyDecimal(str(minimum)) > PyDecimal(str(maximum)):
        raise DefinitionError(f"Schema column {name!r}: minimum {minimum} is above maximum {maximum}; swap them.")


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_scale(value: object) -> bool:
    return _is_whole(value) and 0 <= value <= _MAX_DIGITS  # type: ignore[operator]


def scaled_integer(text: str, scale: int, *, what: str) -> int:
    """Convert decimal text to an integer scaled by ``10**scale``, exactly.

    Raises
    ------
    DefinitionError
        If the text is no decimal, has more than ``scale`` digits after the point, or does not fit in 18 digits.
    """
    try:
        value = PyDecimal(text).scaleb(scale)
        whole = value.to_integral_exact()
    except ArithmeticError as error:
        raise DefinitionError(f"{what}: {text!r} is not a decimal number; write one such as '0.01'.") from error
    if whole != value or abs(whole) >= 10**_MAX_DIGITS:
        raise DefinitionError(
            f"{what}: {text!r} does not fit decimal({scale}); give at most {scale} digits after the point and "
            f"{_MAX_DIGITS} in all, or a larger scale."
        )
    return int(whole)


def _decimal_text(scaled: int, scale: int) -> str:
    return f"{PyDecimal(scaled).scaleb(-scale):f}"
