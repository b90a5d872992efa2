"""The oracle of row expressions: one row at a time, in plain Python, slow and obviously right.

It shares the typing with the product and nothing with the kernel: decimals are `decimal.Decimal`, nulls are None, time
is `datetime`. Property tests hold the kernel against it.
"""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime, timedelta
from decimal import ROUND_CEILING, ROUND_DOWN, ROUND_FLOOR, ROUND_HALF_EVEN, ROUND_HALF_UP, Context, Decimal
from typing import TYPE_CHECKING, Any

from gillnet.plan.expressions import Call, Case, Column, Literal, Node, exact_decimal
from gillnet.plan.typing import common_type, infer, is_decimal, literal_types, scale_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

#: Wide enough that no intermediate value of two 38-digit decimals is rounded.
_EXACT = Context(prec=120)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_INT64 = range(-(2**63), 2**63)


def evaluate_row(node: Node, row: Mapping[str, Any], columns: Mapping[str, tuple[str, bool]]) -> Any:
    """Evaluate an expression on one row.

    ``row`` and the result hold Python values: `Decimal` for decimals, None for null, int microseconds for timestamps.
    """
    if isinstance(node, Column):
        return row[node.name]
    if isinstance(node, Literal):
        return node.value
    kind = infer(node, columns, what="oracle").type
    if isinstance(node, Case):
        values = [*(value for _, value in node.branches), node.otherwise]
        chosen = next((v for condition, v in node.branches if evaluate_row(condition, row, columns)), node.otherwise)
        return _matched(values, row, columns)[values.index(chosen)]
    return _call(node, row, columns, kind)


def _call(node: Call, row: Mapping[str, Any], columns: Mapping[str, tuple[str, bool]], kind: str) -> Any:
    name, values = node.function, [evaluate_row(arg, row, columns) for arg in node.args]
    kinds = [infer(arg, columns, what="oracle").type for arg in node.args]
    if name in ("eq", "ne", "lt", "le", "gt", "ge", "is_in"):
        return _compare(name, _matched(node.args, row, columns, bounded=name == "is_in"))
    if name in ("coalesce", "fill_null", "min_horizontal", "max_horizontal", "clip_lower", "clip_upper"):
        return _choose(name, _matched(node.args, row, columns))
    if name in ("and", "or", "is_null", "is_not_null"):
        return _logic(name, values)
    if any(value is None for value in values):
        return None
    if name == "cast":
        return convert(values[0], kinds[0], values[1])
    if name in ("add", "sub", "mul", "div", "floor_div", "mod", "pow"):
        return _arithmetic(name, values, kinds, kind)
    if name == "concat_str":
        parts = [convert(v, k, "string") for v, k in zip(values[1:], kinds[1:], strict=True)]
        return str(values[0]).join(parts)
    if name in _FLOAT_MATH:
        return _FLOAT_MATH[name](convert(values[0], kinds[0], "float64"))
    return _unary(name, values, kind)


def _matched(
    nodes: Sequence[Node], row: Mapping[str, Any], columns: Mapping[str, tuple[str, bool]], *, bounded: bool = True
) -> list[Any]:
    """Bring the values to their common type; literals beside decimals are read as they are written."""
    kinds = [infer(node, columns, what="oracle").type for node in nodes]
    retyped = literal_types(nodes, kinds) or kinds
    common = common_type(retyped)
    matched: list[Any] = []
    for node, kind, new in zip(nodes, kinds, retyped, strict=True):
        value = evaluate_row(node, row, columns)
        if new != kind and isinstance(node, Literal):
            assert isinstance(node.value, str | float)
            value = exact_decimal(node.value)
        if value is not None and new != common:
            # A comparison needs no room for digits: Python compares decimals of any scale exactly.
            value = Decimal(value) if not bounded and is_decimal(common or "") else convert(value, new, str(common))
        matched.append(value)
    return matched


def _order(value: Any) -> tuple[bool, Any]:
    """Give a key under which NaN equals NaN and lies above every number."""
    nan = isinstance(value, float) and math.isnan(value)
    return nan, 0 if nan else value


def _compare(name: str, values: list[Any]) -> bool | None:
    if name == "is_in":
        return None if values[0] is None else any(_order(values[0]) == _order(value) for value in values[1:])
    if None in values:
        return None
    a, b = map(_order, values)
    return {"eq": a == b, "ne": a != b, "lt": a < b, "le": a <= b, "gt": a > b, "ge": a >= b}[name]


def _choose(name: str, values: list[Any]) -> Any:
    known = [value for value in values if value is not None]
    if name in ("coalesce", "fill_null"):
        return known[0] if known else None
    if name in ("clip_lower", "clip_upper"):
        value, bound = values
        if value is None or bound is None:
            return value
        return bound if (value < bound if name == "clip_lower" else value > bound) else value
    numbers = [value for value in known if not _order(value)[0]]
    if not numbers:
        return known[0] if known else None
    return min(numbers) if name == "min_horizontal" else max(numbers)


def _logic(name: str, values: list[Any]) -> bool | None:
    if name == "is_null":
        return values[0] is None
    if name == "is_not_null":
        return values[0] is not None
    decisive = name == "or"
    if decisive in [value for value in values if value is not None]:
        return decisive
    return None if None in values else not decisive


def _arithmetic(name: str, values: list[Any], kinds: list[str], kind: str) -> Any:
    common = "float64" if name in ("div", "pow") else common_type(kinds)
    if common == "float64":
        return _float_arithmetic(name, *(convert(v, k, "float64") for v, k in zip(values, kinds, strict=True)))
    a, b = map(Decimal, values)
    if name in ("floor_div", "mod") and b == 0:
        return None
    if name in ("add", "sub", "floor_div", "mod") and None in (_fit(a, str(common)), _fit(b, str(common))):
        return None
    quotient = _floor_quotient(a, b) if name in ("floor_div", "mod") else Decimal(0)
    result = {
        "add": lambda: _EXACT.add(a, b),
        "sub": lambda: _EXACT.subtract(a, b),
        "mul": lambda: _EXACT.multiply(a, b),
        "floor_div": lambda: quotient,
        "mod": lambda: _EXACT.subtract(a, _EXACT.multiply(quotient, b)),
    }[name]()
    return _fit(result, kind)


def _floor_quotient(a: Decimal, b: Decimal) -> Decimal:
    scale = max(0, *(-int(x.as_tuple().exponent) for x in (a, b)))
    whole = [int(x.scaleb(scale, _EXACT)) for x in (a, b)]
    return Decimal(whole[0] // whole[1])


def _float_arithmetic(name: str, a: float, b: float) -> float:
    if name == "pow":
        return _power(a, b)
    if name in ("div", "floor_div", "mod"):
        quotient = _divide(a, b)
        floor = math.floor(quotient) if math.isfinite(quotient) else quotient
        # A whole float of 2**53 and more is its own floor; `float()` of a smaller integer is exact.
        floor = math.copysign(float(floor), quotient) if floor == 0 else float(floor)
        return {"div": quotient, "floor_div": floor, "mod": a - b * floor}[name]
    return {"add": a + b, "sub": a - b, "mul": a * b}[name]


def _divide(a: float, b: float) -> float:
    if b != 0:
        return a / b
    return math.nan if a == 0 or math.isnan(a) else math.copysign(math.inf, a) * math.copysign(1, b)


def _power(a: float, b: float) -> float:
    try:
        return math.pow(a, b)
    except OverflowError:
        return -math.inf if a < 0 and b % 2 == 1 else math.inf
    except ValueError:
        if a == 0:
            return math.copysign(math.inf, a) if b % 2 == 1 else math.inf
        return math.nan


def _log(x: float) -> float:
    return -math.inf if x == 0 else math.nan if x < 0 else math.log(x)


def _log1p(x: float) -> float:
    return -math.inf if x == -1 else math.nan if x < -1 else math.log1p(x)


def _exp(x: float) -> float:
    try:
        return math.exp(x)
    except OverflowError:
        return math.inf


_FLOAT_MATH: dict[str, Callable[[float], Any]] = {
    "sqrt": lambda x: math.nan if x < 0 else math.sqrt(x),
    "exp": _exp,
    "log": _log,
    "log1p": _log1p,
    "is_nan": math.isnan,
}


def _unary(name: str, values: list[Any], kind: str) -> Any:
    value = values[0]
    if isinstance(value, bool):
        return not value
    if isinstance(value, str):
        return _text(name, values)
    if name in ("neg", "abs"):
        if isinstance(value, float):
            return -value if name == "neg" else math.fabs(value)
        return _fit(Decimal(value).copy_negate() if name == "neg" else Decimal(value).copy_abs(), kind)
    if name in ("floor", "ceil", "round"):
        digits = values[1] if name == "round" else 0
        rounding = {"floor": ROUND_FLOOR, "ceil": ROUND_CEILING, "round": ROUND_HALF_EVEN}[name]
        if isinstance(value, float):
            return _round_float(value, digits, rounding)
        exact = Decimal(value)
        if -int(exact.as_tuple().exponent) <= digits:
            return value
        return _fit(exact.quantize(Decimal(1).scaleb(-digits), rounding, _EXACT), kind)
    return _time(name, *values)


def _round_float(value: float, digits: int, rounding: str) -> float:
    scaled = value * float(10**digits)
    if not math.isfinite(scaled):
        return value
    whole = float(Decimal(scaled).to_integral_value(rounding))
    return math.copysign(whole, value) / float(10**digits)


def _text(name: str, values: list[Any]) -> Any:
    text: str = values[0]
    if name == "slice":
        start = values[1] + (len(text) if values[1] < 0 else 0)
        end = len(text) if len(values) < 3 else start + values[2]
        return "".join(c for i, c in enumerate(text) if start <= i < end)
    functions: dict[str, Callable[[], Any]] = {
        "len_bytes": lambda: len(text.encode()),
        "len_chars": lambda: len(text),
        "to_lowercase": text.lower,
        "to_uppercase": text.upper,
        "contains": lambda: values[1] in text,
        "starts_with": lambda: text.startswith(values[1]),
        "ends_with": lambda: text.endswith(values[1]),
    }
    return functions[name]()


def _time(name: str, us: int, unit: str = "us") -> int:
    if name == "epoch":
        return us // {"us": 1, "ms": 1_000, "s": 1_000_000}[unit]
    instant = _EPOCH + timedelta(microseconds=us)
    return instant.isoweekday() if name == "weekday" else int(getattr(instant, name))


def _fit(value: Decimal, kind: str) -> Any:
    """Hold an exact result in an integer or decimal type, or give None where it does not fit."""
    if kind == "int64":
        return int(value) if int(value) in _INT64 else None
    scale = scale_of(kind) or 0
    rounded = value.quantize(Decimal(1).scaleb(-scale), ROUND_HALF_EVEN, _EXACT)
    # A scaled integer has no negative zero; the sum of zeros of both signs is positive.
    return _EXACT.add(rounded, 0) if abs(int(rounded.scaleb(scale, _EXACT))) < 10**38 else None


def convert(value: Any, source: str, target: str) -> Any:
    """Cast one value that is not None."""
    if source == target:
        return value
    if source == "string":
        return _parse(value, target)
    if target == "string":
        return str(value).lower() if source == "bool" else format(value, "f") if source != "int64" else str(value)
    if target == "float64":
        return float(value)
    if target == "timestamp" or source in ("timestamp", "bool"):
        return int(value)
    if source == "float64":
        return _from_float(value, target)
    if target == "int64":
        return _fit(Decimal(value).to_integral_value(ROUND_DOWN, _EXACT), "int64")
    return _fit(Decimal(value), target)


def _from_float(value: float, target: str) -> Any:
    if not math.isfinite(value):
        return None
    if target == "int64":
        return _fit(Decimal(math.trunc(value)), target)
    scale = scale_of(target) or 0
    scaled = value * float(10**scale)
    if not math.isfinite(scaled) or abs(scaled) >= 1e38:
        return None
    return _fit(Decimal(scaled).to_integral_value(ROUND_HALF_UP).scaleb(-scale, _EXACT), target)


def _parse(text: str, target: str) -> Any:
    number = r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)"
    if target == "int64":
        return _fit(Decimal(text), target) if re.fullmatch(r"[+-]?[0-9]+", text) else None
    if target == "float64":
        pattern = rf"{number}([eE][+-]?[0-9]+)?|[+-]?(?i:inf|infinity|nan)"
        return float(text) if re.fullmatch(pattern, text) else None
    if not re.fullmatch(number, text):
        return None
    exact, scale = exact_decimal(text), scale_of(target) or 0
    return _fit(exact, target) if exact is not None and -int(exact.as_tuple().exponent) <= scale else None
