"""Row expressions as users write them, with the names and operators of Polars.

An `Expr` only builds plan nodes: types are checked when a feature or a rule binds it to columns, and the kernel
evaluates it. As in Polars, text given to ``then``, ``otherwise``, ``coalesce``, ``concat_str``, ``is_between`` and the
horizontal functions names a column, and text beside an operator is a value; `lit` makes a value anywhere.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from numbers import Integral, Real
from typing import Literal, NoReturn

from gillnet.core.errors import DefinitionError
from gillnet.plan.expressions import Call, Case, Column, Node, decimal_scale
from gillnet.plan.expressions import Literal as LiteralNode
from gillnet.plan.format import format_expression

Value = str | int | float | bool | Decimal | datetime | None

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Expr:
    """A row expression. Make one with `col`, `lit` or `when`, and combine it with operators and methods.

    Examples
    --------
    >>> from gillnet.api.expressions import col
    >>> (col("spend_5m") / (col("payments_1h") + 1) > 100) & ~col("country").is_in(["CH"])
    <Expr (col("spend_5m") / (col("payments_1h") + 1) > 100) & ~col("country").is_in(["CH"])>
    """

    node: Node

    def __repr__(self) -> str:
        return f"<Expr {format_expression(self.node)}>"

    # An expression has no equality of its own (`==` builds one), hence no hash.
    __hash__ = None  # type: ignore[assignment]

    def __bool__(self) -> NoReturn:
        raise DefinitionError(
            f"{format_expression(self.node)} has no truth value before rows are there. Combine conditions with & | ~"
            " instead of and, or, not (each side in parentheses), choose with when(…), and write a < x < b as"
            " x.is_between(a, b)."
        )

    def __iter__(self) -> NoReturn:
        raise DefinitionError(f"{format_expression(self.node)} is one value a row and cannot be iterated.")

    def __add__(self, other: Expr | Value) -> Expr:
        return _call("add", self, other)

    def __radd__(self, other: Value) -> Expr:
        return _call("add", other, self)

    def __sub__(self, other: Expr | Value) -> Expr:
        return _call("sub", self, other)

    def __rsub__(self, other: Value) -> Expr:
        return _call("sub", other, self)

    def __mul__(self, other: Expr | Value) -> Expr:
        return _call("mul", self, other)

    def __rmul__(self, other: Value) -> Expr:
        return _call("mul", other, self)

    def __truediv__(self, other: Expr | Value) -> Expr:
        return _call("div", self, other)

    def __rtruediv__(self, other: Value) -> Expr:
        return _call("div", other, self)

    def __floordiv__(self, other: Expr | Value) -> Expr:
        return _call("floor_div", self, other)

    def __rfloordiv__(self, other: Value) -> Expr:
        return _call("floor_div", other, self)

    def __mod__(self, other: Expr | Value) -> Expr:
        return _call("mod", self, other)

    def __rmod__(self, other: Value) -> Expr:
        return _call("mod", other, self)

    def __pow__(self, other: Expr | Value) -> Expr:
        return _call("pow", self, other)

    def __rpow__(self, other: Value) -> Expr:
        return _call("pow", other, self)

    def __neg__(self) -> Expr:
        return _call("neg", self)

    def __eq__(self, other: object) -> Expr:  # type: ignore[override]
        return _call("eq", self, other)

    def __ne__(self, other: object) -> Expr:  # type: ignore[override]
        return _call("ne", self, other)

    def __lt__(self, other: Expr | Value) -> Expr:
        return _call("lt", self, other)

    def __le__(self, other: Expr | Value) -> Expr:
        return _call("le", self, other)

    def __gt__(self, other: Expr | Value) -> Expr:
        return _call("gt", self, other)

    def __ge__(self, other: Expr | Value) -> Expr:
        return _call("ge", self, other)

    def __and__(self, other: Expr | Value) -> Expr:
        return _connect("and", (self, other))

    def __rand__(self, other: Value) -> Expr:
        return _connect("and", (other, self))

    def __or__(self, other: Expr | Value) -> Expr:
        return _connect("or", (self, other))

    def __ror__(self, other: Value) -> Expr:
        return _connect("or", (other, self))

    def __invert__(self) -> Expr:
        return _call("not", self)

    def is_null(self) -> Expr:
        """Whether the value is null."""
        return _call("is_null", self)

    def is_not_null(self) -> Expr:
        """Whether the value is not null."""
        return _call("is_not_null", self)

    def is_nan(self) -> Expr:
        """Whether the value is NaN; null stays null."""
        return _call("is_nan", self)

    def fill_null(self, value: Expr | Value) -> Expr:
        """Take ``value`` where this is null."""
        return _call("fill_null", self, value)

    def is_in(self, values: Iterable[Value]) -> Expr:
        """Whether the value is one of constants; null stays null."""
        if isinstance(values, str | Expr) or not isinstance(values, Iterable):
            raise DefinitionError(f"is_in takes a list of values, such as [{values!r}].")
        return _call("is_in", self, *values)

    def is_between(
        self,
        lower_bound: Expr | Value,
        upper_bound: Expr | Value,
        closed: Literal["both", "left", "right", "none"] = "both",
    ) -> Expr:
        """Whether the value lies between two bounds, which ``closed`` includes or not. Text names a column."""
        if closed not in ("both", "left", "right", "none"):
            raise DefinitionError(f"is_between: closed={closed!r} is unknown; use 'both', 'left', 'right' or 'none'.")
        above = _call("ge" if closed in ("both", "left") else "gt", self, _column_or_value(lower_bound))
        below = _call("le" if closed in ("both", "right") else "lt", self, _column_or_value(upper_bound))
        return above & below

    def abs(self) -> Expr:
        """Return the magnitude."""
        return _call("abs", self)

    def log(self, base: float | None = None) -> Expr:
        """Return the logarithm: natural, or to a base. NaN below 0."""
        natural = _call("log", self)
        if base is None or base == math.e:
            return natural
        if not isinstance(base, int | float) or not 0 < base < math.inf or base == 1:
            raise DefinitionError(f"log: the base {base!r} is none; give one above 0 other than 1.")
        return natural / math.log(base)

    def log1p(self) -> Expr:
        """Return the natural logarithm of 1 + x, exact for small x."""
        return _call("log1p", self)

    def exp(self) -> Expr:
        """Return e to the power of x."""
        return _call("exp", self)

    def sqrt(self) -> Expr:
        """Return the square root; NaN below 0."""
        return _call("sqrt", self)

    def floor(self) -> Expr:
        """Return the whole number at or below, in the same type."""
        return _call("floor", self)

    def ceil(self) -> Expr:
        """Return the whole number at or above, in the same type."""
        return _call("ceil", self)

    def round(self, decimals: int = 0) -> Expr:
        """Round to 0 to 18 digits after the point, halves to the even neighbour, in the same type."""
        return _call("round", self, decimals)

    def clip(self, lower_bound: Expr | Value = None, upper_bound: Expr | Value = None) -> Expr:
        """Bring the value within bounds; a bound that is None or null does not clip."""
        clipped = self if lower_bound is None else _call("clip_lower", self, lower_bound)
        return clipped if upper_bound is None else _call("clip_upper", clipped, upper_bound)

    def cast(self, dtype: str) -> Expr:
        """Convert to a value type, such as ``float64`` or ``decimal(2)``; null where there is no such value."""
        return _call("cast", self, dtype)

    @property
    def str(self) -> StringFunctions:
        """The functions of strings."""
        return StringFunctions(self)

    @property
    def dt(self) -> TimeFunctions:
        """The functions of timestamps, in UTC."""
        return TimeFunctions(self)


@dataclass(frozen=True, slots=True)
class StringFunctions:
    """The functions of strings, as ``col("url").str``. Characters are Unicode scalar values."""

    _expr: Expr

    def len_bytes(self) -> Expr:
        """Return the length in bytes of UTF-8."""
        return _call("len_bytes", self._expr)

    def len_chars(self) -> Expr:
        """Return the length in characters."""
        return _call("len_chars", self._expr)

    def to_lowercase(self) -> Expr:
        """Return the text in lower case."""
        return _call("to_lowercase", self._expr)

    def to_uppercase(self) -> Expr:
        """Return the text in upper case."""
        return _call("to_uppercase", self._expr)

    def contains(self, literal: str) -> Expr:
        """Whether the text holds this very text; it is no pattern."""
        return _call("contains", self._expr, literal)

    def starts_with(self, prefix: str) -> Expr:
        """Whether the text begins with this text."""
        return _call("starts_with", self._expr, prefix)

    def ends_with(self, suffix: str) -> Expr:
        """Whether the text ends with this text."""
        return _call("ends_with", self._expr, suffix)

    def slice(self, offset: int, length: int | None = None) -> Expr:
        """Return characters from an offset, which counts from the end if negative."""
        return _call("slice", self._expr, offset, *([] if length is None else [length]))

    def head(self, n: int) -> Expr:
        """Return the first ``n`` characters."""
        return self.slice(0, n)

    def tail(self, n: int) -> Expr:
        """Return the last ``n`` characters."""
        return self.slice(-n, n) if n else self.slice(0, 0)


@dataclass(frozen=True, slots=True)
class TimeFunctions:
    """The functions of timestamps, as ``col("ts").dt``, in UTC."""

    _expr: Expr

    def year(self) -> Expr:
        """Return the year."""
        return _call("year", self._expr)

    def month(self) -> Expr:
        """Return the month, 1 to 12."""
        return _call("month", self._expr)

    def day(self) -> Expr:
        """Return the day of the month, 1 to 31."""
        return _call("day", self._expr)

    def weekday(self) -> Expr:
        """Return the day of the week: Monday is 1, Sunday 7."""
        return _call("weekday", self._expr)

    def hour(self) -> Expr:
        """Return the hour, 0 to 23."""
        return _call("hour", self._expr)

    def minute(self) -> Expr:
        """Return the minute, 0 to 59."""
        return _call("minute", self._expr)

    def second(self) -> Expr:
        """Return the second, 0 to 59."""
        return _call("second", self._expr)

    def epoch(self, time_unit: Literal["s", "ms", "us"] = "us") -> Expr:
        """Return whole units since 1970-01-01 UTC, rounded down."""
        return _call("epoch", self._expr, time_unit)


@dataclass(frozen=True, slots=True)
class When:
    """A condition that waits for its value: ``when(condition).then(value)``."""

    _branches: tuple[tuple[Node, Node], ...]
    _condition: Node

    def then(self, value: Expr | Value) -> Then:
        """Give the value where the condition is true. Text names a column."""
        branches = (*self._branches, (self._condition, _column_or_value(value).node))
        return Then(Case(branches, LiteralNode(None, "null")))


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Then(Expr):
    """A case; null where no condition is true, unless `otherwise` says more."""

    __hash__ = None

    def when(self, condition: Expr | bool) -> When:
        """Add a condition, asked where none before it is true."""
        assert isinstance(self.node, Case)
        return When(self.node.branches, _into(condition).node)

    def otherwise(self, value: Expr | Value) -> Expr:
        """Give the value where no condition is true. Text names a column."""
        assert isinstance(self.node, Case)
        return Expr(Case(self.node.branches, _column_or_value(value).node))


def col(name: str) -> Expr:
    """Refer to a column of the stream, or to a feature that was defined before."""
    if not isinstance(name, str) or not name:
        raise DefinitionError(f"col({name!r}): a column's name is text, such as col('amount').")
    return Expr(Column(name))


def lit(value: Value) -> Expr:
    """Make a constant.

    int is int64, float is float64, `Decimal` is a decimal with the digits that it is written with, and a datetime with
    a time zone is a timestamp. Next to a decimal column, a float or text constant is the exact decimal that it is
    written as.
    """
    return Expr(_literal(value))


def when(condition: Expr | bool) -> When:
    """Start a case: ``when(condition).then(value).otherwise(value)``."""
    return When((), _into(condition).node)


def coalesce(*exprs: Expr | Value) -> Expr:
    """Return the first value that is not null. Text names a column."""
    return _call("coalesce", *_several("coalesce", exprs))


def min_horizontal(*exprs: Expr | Value) -> Expr:
    """Return the least of the values in a row, nulls and NaN left out. Text names a column."""
    return _call("min_horizontal", *_several("min_horizontal", exprs))


def max_horizontal(*exprs: Expr | Value) -> Expr:
    """Return the largest of the values in a row, nulls and NaN left out. Text names a column."""
    return _call("max_horizontal", *_several("max_horizontal", exprs))


def concat_str(*exprs: Expr | Value, separator: str = "") -> Expr:
    """Join values as text; null where one is null. Text names a column; use `lit` for text itself."""
    return _call("concat_str", separator, *_several("concat_str", exprs))


def all_horizontal(*exprs: Expr | Value) -> Expr:
    """Whether every condition holds, as ``&``. Text names a column."""
    return _connect("and", _several("all_horizontal", exprs))


def any_horizontal(*exprs: Expr | Value) -> Expr:
    """Whether a condition holds, as ``|``. Text names a column."""
    return _connect("or", _several("any_horizontal", exprs))


def _several(function: str, exprs: tuple[object, ...]) -> list[Expr]:
    if not exprs:
        raise DefinitionError(f"{function}() needs at least one argument, such as {function}(col('amount')).")
    return [_column_or_value(expr) for expr in exprs]


def _call(function: str, *args: object) -> Expr:
    return Expr(Call(function, tuple(_into(arg).node for arg in args)))


def _connect(function: str, conditions: Iterable[object]) -> Expr:
    """Join conditions in one flat call, so that a long chain of ``|`` does not nest."""
    nodes: list[Node] = []
    for condition in conditions:
        node = _into(condition).node
        nodes.extend(node.args if isinstance(node, Call) and node.function == function else (node,))
    return Expr(Call(function, tuple(nodes)) if len(nodes) > 1 else nodes[0])


def _into(value: object) -> Expr:
    return value if isinstance(value, Expr) else Expr(_literal(value))


def _column_or_value(value: object) -> Expr:
    return col(value) if isinstance(value, str) else _into(value)


def _literal(value: object) -> LiteralNode:
    match value:
        case None:
            return LiteralNode(None, "null")
        case bool() | str():
            return LiteralNode(value, type(value).__name__.replace("str", "string"))
        case datetime():
            if value.tzinfo is None:
                raise DefinitionError(f"{value!r} has no time zone; write datetime(…, tzinfo=timezone.utc).")
            return LiteralNode((value - _EPOCH) // timedelta(microseconds=1), "timestamp")
        case Decimal():
            if not value.is_finite():
                raise DefinitionError(f"{value!r} is no decimal value; use a float for NaN and the infinities.")
            plain = Decimal(format(value, "f"))
            return LiteralNode(plain, f"decimal({decimal_scale(plain)})")
        case Integral():
            return LiteralNode(int(value), "int64")
        case Real():
            return LiteralNode(float(value), "float64")
    raise DefinitionError(
        f"{value!r} cannot stand in an expression; use col(name), text, a number, a bool, a Decimal or a datetime."
    )
