"""The table of the functions that row expressions may call: the one source for their types and their meaning.

The kernel implements exactly these names; a test compares the two lists, and property tests hold the kernel against
Polars and against the oracle in `gillnet.testing`.

A signature is the parameters and the result, in these words: ``number`` (int64, float64, decimal), ``match`` (any
type, but one common type for all such parameters), ``order`` (as ``match``, of an ordered type), ``scalar`` (as
``order``, but no string), ``text`` (what casts to string), ``any``, a value type, or ``literal`` and a type where a
constant must stand. A trailing ``*`` repeats the parameter, ``?`` makes it optional. The result is a value type,
``first`` (the first argument's), ``common`` (the type in which all parameters meet), ``product``, ``quotient`` or
``target``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

#: Where a result is null. ``propagate``: where an argument is. ``may``: there, and where the exact result does not
#: exist or fit. ``never``. ``all``: where every argument is. ``first``: where the first argument is. ``kleene``: where
#: the known arguments do not decide.
Nulls = Literal["propagate", "may", "never", "all", "first", "kleene"]


@dataclass(frozen=True, slots=True)
class Function:
    """One function: its name in plans, how it is written, its signature, and what it does."""

    name: str
    form: str
    parameters: tuple[str, ...]
    result: str
    nulls: Nulls
    doc: str

    @property
    def operator(self) -> str | None:
        """The infix operator that users write, if it is one."""
        return self.form if "{" not in self.form else None


def _function(name: str, form: str, signature: str, nulls: Nulls, doc: str) -> Function:
    parameters, result = signature.split(" -> ")
    return Function(name, form, tuple(parameters.split(", ")), result, nulls, doc)


_TABLE = (
    # Arithmetic. Integers and decimals are exact: a result that does not fit is null, never wrapped.
    _function("add", "+", "number, number -> common", "may", "Sum; decimals in the larger scale."),
    _function("sub", "-", "number, number -> common", "may", "Difference; decimals in the larger scale."),
    _function("mul", "*", "number, number -> product", "may", "Product; the scales of decimals add up."),
    _function("div", "/", "number, number -> float64", "propagate", "Quotient of floats; x/0 is infinite or NaN."),
    _function("floor_div", "//", "number, number -> quotient", "may", "Quotient rounded down; null by an exact 0."),
    _function(
        "mod", "%", "number, number -> common", "may", "Rest of `//`, with the divisor's sign; null by an exact 0."
    ),
    _function("pow", "**", "number, number -> float64", "propagate", "Power of floats."),
    _function("neg", "-{0}", "number -> first", "may", "Negation."),
    _function("abs", "{0}.abs()", "number -> first", "may", "Magnitude."),
    _function("floor", "{0}.floor()", "number -> first", "may", "The whole number at or below."),
    _function("ceil", "{0}.ceil()", "number -> first", "may", "The whole number at or above."),
    _function("round", "{0}.round({1})", "number, literal int64 -> first", "may", "Round to digits, halves to even."),
    _function("sqrt", "{0}.sqrt()", "number -> float64", "propagate", "Square root; NaN below 0."),
    _function("exp", "{0}.exp()", "number -> float64", "propagate", "Exponential."),
    _function("log", "{0}.log()", "number -> float64", "propagate", "Natural logarithm; NaN below 0."),
    _function("log1p", "{0}.log1p()", "number -> float64", "propagate", "Natural logarithm of 1 + x."),
    _function("clip_lower", "{0}.clip({1}, None)", "scalar, scalar -> common", "first", "At least the bound."),
    _function("clip_upper", "{0}.clip(None, {1})", "scalar, scalar -> common", "first", "At most the bound."),
    _function("min_horizontal", "min_horizontal({*})", "scalar* -> common", "all", "Least; nulls and NaN are skipped."),
    _function(
        "max_horizontal", "max_horizontal({*})", "scalar* -> common", "all", "Largest; nulls and NaN are skipped."
    ),
    # Comparison. NaN equals NaN and lies above every number. Exact numbers are compared exactly.
    _function("eq", "==", "match, match -> bool", "propagate", "Equal."),
    _function("ne", "!=", "match, match -> bool", "propagate", "Not equal."),
    _function("lt", "<", "order, order -> bool", "propagate", "Less."),
    _function("le", "<=", "order, order -> bool", "propagate", "Less or equal."),
    _function("gt", ">", "order, order -> bool", "propagate", "Greater."),
    _function("ge", ">=", "order, order -> bool", "propagate", "Greater or equal."),
    _function("is_in", "{0}.is_in([{1*}])", "order, literal order* -> bool", "first", "One of the literals."),
    _function("is_nan", "{0}.is_nan()", "number -> bool", "propagate", "NaN, which is not null."),
    # Logic, by Kleene: false & null is false, true | null is true.
    _function("and", "&", "bool, bool* -> bool", "kleene", "Every condition holds."),
    _function("or", "|", "bool, bool* -> bool", "kleene", "A condition holds."),
    _function("not", "~{0}", "bool -> bool", "propagate", "The condition does not hold."),
    _function("is_null", "{0}.is_null()", "any -> bool", "never", "Null."),
    _function("is_not_null", "{0}.is_not_null()", "any -> bool", "never", "Not null."),
    _function(
        "fill_null", "{0}.fill_null({1})", "match, match -> common", "all", "The second where the first is null."
    ),
    _function("coalesce", "coalesce({*})", "match* -> common", "all", "The first that is not null."),
    _function(
        "cast", "{0}.cast({1})", "any, literal type -> target", "may", "Convert; null where there is no such value."
    ),
    # Strings. Characters are Unicode scalar values.
    _function("len_bytes", "{0}.str.len_bytes()", "string -> int64", "propagate", "Length in bytes of UTF-8."),
    _function("len_chars", "{0}.str.len_chars()", "string -> int64", "propagate", "Length in characters."),
    _function("to_lowercase", "{0}.str.to_lowercase()", "string -> string", "propagate", "In lower case."),
    _function("to_uppercase", "{0}.str.to_uppercase()", "string -> string", "propagate", "In upper case."),
    _function(
        "contains", "{0}.str.contains({1})", "string, literal string -> bool", "propagate", "Holds the very text."
    ),
    _function("starts_with", "{0}.str.starts_with({1})", "string, literal string -> bool", "propagate", "Begins so."),
    _function("ends_with", "{0}.str.ends_with({1})", "string, literal string -> bool", "propagate", "Ends so."),
    _function(
        "slice",
        "{0}.str.slice({1*})",
        "string, literal int64, literal int64? -> string",
        "propagate",
        "Characters from an offset, which counts from the end if negative.",
    ),
    _function(
        "concat_str",
        "concat_str({1*}, separator={0})",
        "literal string, text* -> string",
        "propagate",
        "Joined text; integers, decimals and bools are converted.",
    ),
    # Time, in UTC.
    _function("year", "{0}.dt.year()", "timestamp -> int64", "propagate", "Year."),
    _function("month", "{0}.dt.month()", "timestamp -> int64", "propagate", "Month, 1 to 12."),
    _function("day", "{0}.dt.day()", "timestamp -> int64", "propagate", "Day of the month, 1 to 31."),
    _function("weekday", "{0}.dt.weekday()", "timestamp -> int64", "propagate", "Monday is 1, Sunday 7."),
    _function("hour", "{0}.dt.hour()", "timestamp -> int64", "propagate", "Hour, 0 to 23."),
    _function("minute", "{0}.dt.minute()", "timestamp -> int64", "propagate", "Minute, 0 to 59."),
    _function("second", "{0}.dt.second()", "timestamp -> int64", "propagate", "Second, 0 to 59."),
    _function(
        "epoch",
        "{0}.dt.epoch({1})",
        "timestamp, literal unit -> int64",
        "propagate",
        "Whole units (s, ms, us) since 1970-01-01 UTC, rounded down.",
    ),
)

#: Every function by the name that it has in plans.
FUNCTIONS: dict[str, Function] = {function.name: function for function in _TABLE}

#: The casts that exist, by the kind of the source type. A decimal of any scale is the kind ``decimal``.
CASTS: dict[str, tuple[str, ...]] = {
    "null": ("string", "int64", "float64", "bool", "timestamp", "decimal"),
    "string": ("string", "int64", "float64", "decimal"),
    "int64": ("int64", "float64", "decimal", "string", "timestamp"),
    "float64": ("float64", "int64", "decimal"),
    "bool": ("bool", "int64", "float64", "string"),
    "timestamp": ("timestamp", "int64"),
    "decimal": ("decimal", "int64", "float64", "string"),
}

#: Casts that never fail on a value; all others may give null.
TOTAL_CASTS = {("int64", "float64"), ("int64", "timestamp"), ("timestamp", "int64"), ("decimal", "float64")} | {
    (source, "string") for source in ("int64", "bool", "decimal")
}
