"""The types of row expressions: found at definition time, against the columns at hand.

`infer` follows the table of `gillnet.plan.functions`. Every refusal names the place, prints the expression, and says
how to mend it.
"""

from __future__ import annotations

import difflib
from decimal import Decimal
from typing import TYPE_CHECKING, NamedTuple, NoReturn

from gillnet.core.errors import DefinitionError
from gillnet.plan.expressions import (
    MAX_DEPTH,
    Call,
    Case,
    Column,
    Literal,
    Node,
    decimal_scale,
    depth_of,
    exact_decimal,
)
from gillnet.plan.format import format_expression
from gillnet.plan.functions import CASTS, FUNCTIONS, TOTAL_CASTS, Function

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

_NUMBERS = ("int64", "float64")
_INT64 = range(-(2**63), 2**63)
_MAX_SCALE = 38


class ValueType(NamedTuple):
    """What an expression gives: a value type such as ``decimal(2)``, and whether it can be null."""

    type: str
    nullable: bool


def infer(node: Node, columns: Mapping[str, tuple[str, bool]], *, what: str) -> ValueType:
    """Find an expression's type.

    Parameters
    ----------
    node
        The expression.
    columns
        Name to (value type, nullable) of every column and earlier feature that it may read.
    what
        The place that error messages name, such as ``feature 'burst'``.

    Raises
    ------
    DefinitionError
        If a column is unknown, or a function is given a type that it does not take. The message prints the expression
        and says how to mend it.
    """
    if depth_of(node) > MAX_DEPTH:
        raise DefinitionError(
            f"{what}: the expression nests deeper than {MAX_DEPTH} levels; make a part of it a feature of its own."
        )
    return _Typing(columns, what).type_of(node)


def is_decimal(kind: str) -> bool:
    """Tell whether a value type is a decimal of any scale."""
    return kind.startswith("decimal(")


def scale_of(kind: str) -> int | None:
    """Return the digits after the point of an exact number type; None for all others."""
    return int(kind[8:-1]) if is_decimal(kind) else {"int64": 0}.get(kind)


def is_number(kind: str) -> bool:
    """Tell whether a value type is a number."""
    return kind in _NUMBERS or is_decimal(kind)


def common_type(kinds: Iterable[str]) -> str | None:
    """Return the type that can hold all, or None: a float wins over exact numbers, a larger scale over a smaller."""
    common = "null"
    for kind in kinds:
        if kind in (common, "null"):
            continue
        if common == "null":
            common = kind
        elif not (is_number(kind) and is_number(common)):
            return None
        elif "float64" in (kind, common):
            common = "float64"
        else:
            common = f"decimal({max(scale_of(kind) or 0, scale_of(common) or 0)})"
    return common


def literal_types(nodes: Sequence[Node], kinds: Sequence[str]) -> list[str] | None:
    """Retype float and text literals beside decimals as the exact decimals that they are written as.

    Returns None where text stands beside a decimal and is no number. Beside a float column literals stay floats.
    """
    decimals = any(map(is_decimal, kinds))
    floats = any(k == "float64" and not isinstance(n, Literal) for n, k in zip(nodes, kinds, strict=True))
    if not decimals or floats:
        return list(kinds)
    retyped: list[str] = []
    for node, kind in zip(nodes, kinds, strict=True):
        exact = exact_decimal(node.value) if isinstance(node, Literal) and isinstance(node.value, str | float) else None
        if exact is None and kind == "string" and isinstance(node, Literal):
            return None
        retyped.append(kind if exact is None else f"decimal({decimal_scale(exact)})")
    return retyped


class _Typing:
    """One typing run: the columns at hand, and the place for messages."""

    def __init__(self, columns: Mapping[str, tuple[str, bool]], what: str) -> None:
        self.columns = columns
        self.what = what

    def type_of(self, node: Node) -> ValueType:
        match node:
            case Column(name):
                return self._column(name)
            case Literal():
                return self._literal(node)
            case Case():
                return self._case(node)
            case Call(name, args):
                function = FUNCTIONS.get(name)
                if function is None:
                    self._refuse(node, f"there is no function {name!r}")
                return self._call(node, function, [self.type_of(arg) for arg in args])

    def _column(self, name: str) -> ValueType:
        if name in self.columns:
            return ValueType(*self.columns[name])
        close = difflib.get_close_matches(name, self.columns, n=1)
        hint = f" Did you mean col({close[0]!r})?" if close else ""
        names = ", ".join(self.columns) or "none"
        raise DefinitionError(
            f"{self.what}: there is no column or earlier feature {name!r}.{hint} There are: {names}."
            f" (For the text itself, write lit({name!r}).)"
        )

    def _literal(self, node: Literal) -> ValueType:
        value, kind = node.value, node.type
        if value is None:
            return ValueType(kind, True)
        if kind in ("int64", "timestamp") and not (isinstance(value, int) and value in _INT64):
            self._refuse(node, f"{value} does not fit 64 bits; write Decimal({str(value)!r}) or a float")
        if is_decimal(kind):
            digits = value.as_tuple().digits if isinstance(value, Decimal) else ()
            if not isinstance(value, Decimal) or not value.is_finite() or len(digits) > _MAX_SCALE:
                self._refuse(node, "a decimal literal is finite and has at most 38 digits")
        return ValueType(kind, False)

    def _case(self, node: Case) -> ValueType:
        for condition, _ in node.branches:
            kind = self.type_of(condition).type
            if kind != "bool":
                self._refuse(
                    node, f"when(…) takes a condition, but {format_expression(condition)} is {kind}", "compare it"
                )
        values = [*(value for _, value in node.branches), node.otherwise]
        found = [self.type_of(value) for value in values]
        common = self._common(node, values, [each.type for each in found])
        if common == "null":
            self._refuse(
                node, "every branch is None, so that the result has no type", "cast one, as lit(None).cast('int64')"
            )
        return ValueType(common, any(each.nullable for each in found) or self._may_lose(values, found, common))

    def _call(self, node: Call, function: Function, found: list[ValueType]) -> ValueType:
        parameters = self._parameters(node, function, len(found))
        for position, (arg, value, parameter) in enumerate(zip(node.args, found, parameters, strict=True)):
            self._check(node, function, position, arg, value.type, parameter)
        kinds = [value.type for value in found]
        matched = [i for i, parameter in enumerate(parameters) if parameter.split()[-1] in ("match", "order", "scalar")]
        common = None
        if matched:
            common = self._common(node, [node.args[i] for i in matched], [kinds[i] for i in matched])
            self._check_common(node, function, parameters[0], common)
        elif function.result in ("common", "product", "quotient"):
            common = common_type(kinds)
        result = self._result(node, function, kinds, common)
        return ValueType(result, self._nullable(node, function, found, result))

    def _parameters(self, node: Call, function: Function, count: int) -> list[str]:
        parameters = [p for p in function.parameters if not p.endswith(("*", "?"))]
        for parameter in function.parameters:
            if parameter.endswith("?") and count > len(parameters):
                parameters.append(parameter[:-1])
            elif parameter.endswith("*"):
                parameters += [parameter[:-1]] * (count - len(parameters))
        least = sum(not p.endswith(("?", "*")) for p in function.parameters) or 1
        if len(parameters) != count or count < least:
            self._refuse(node, f"{function.name} does not take {count} arguments")
        return parameters

    def _check(self, node: Call, function: Function, position: int, arg: Node, kind: str, parameter: str) -> None:
        *constant, wanted = parameter.split()
        if constant and not isinstance(arg, Literal):
            self._refuse(
                node, f"{_name(function)} takes a constant where {format_expression(arg)} stands", "write a value"
            )
        if constant and isinstance(arg, Literal):
            self._check_constant(node, function, arg, wanted)
        if kind == "null" and wanted in ("match", "order") and function.name not in ("coalesce", "fill_null"):
            self._refuse(node, "a comparison with None is null for every row", "use .is_null() or .is_not_null()")
        if wanted == "number" and not is_number(kind):
            self._refuse_argument(node, function, arg, kind, "numbers", _number_mend(function, position, kind))
        if wanted in ("string", "bool", "timestamp") and kind != wanted:
            mend = {"bool": "compare it, or use .is_not_null()", "string": "cast it with .cast('string')"}.get(
                wanted, ""
            )
            self._refuse_argument(node, function, arg, kind, wanted, mend)
        if wanted == "text" and kind != "string" and "string" not in CASTS[_kind(kind)]:
            self._refuse_argument(
                node, function, arg, kind, "text", "convert it first, as .round(2).cast('decimal(2)')"
            )

    def _check_constant(self, node: Call, function: Function, arg: Literal, wanted: str) -> None:
        value = arg.value
        if value is None:
            self._refuse(node, f"{_name(function)} does not take None here", "use .is_null() beside it")
        if function.name == "cast":
            return
        if wanted == "unit" and value not in ("s", "ms", "us"):
            self._refuse(node, f"epoch takes 's', 'ms' or 'us', not {value!r}")
        if wanted in ("int64", "string") and arg.type != wanted:
            self._refuse(node, f"{_name(function)} takes {wanted} here, not {value!r}")
        if function.name == "round" and isinstance(value, int) and not 0 <= value <= 18:
            self._refuse(node, f"round takes 0 to 18 digits, not {value}")
        if function.name == "slice" and arg is not node.args[1] and isinstance(value, int) and value < 0:
            self._refuse(node, "slice takes a length of 0 or more")

    def _check_common(self, node: Call, function: Function, parameter: str, common: str) -> None:
        if common == "null":
            self._refuse(node, "every argument is None, so that the result has no type")
        if parameter.startswith("order") and common == "bool":
            self._refuse(
                node, f"{_name(function)} does not order bool", "use the condition itself, or ~ for its opposite"
            )
        if parameter.startswith("scalar") and common in ("bool", "string"):
            self._refuse(node, f"{_name(function)} takes numbers or timestamps, not {common}")

    def _common(self, node: Node, args: Sequence[Node], kinds: Sequence[str]) -> str:
        retyped = literal_types(args, kinds)
        common = common_type(retyped) if retyped is not None else None
        if common is None:
            sides = ", ".join(f"{format_expression(a)} is {k}" for a, k in zip(args, kinds, strict=True))
            self._refuse(node, f"the types do not match: {sides}", _match_mend(kinds))
        return common

    def _result(self, node: Call, function: Function, kinds: list[str], common: str | None) -> str:
        match function.result:
            case "first":
                return kinds[0]
            case "target":
                return self._cast_target(node, kinds[0])
            case "common" | "quotient" | "product" if common is not None:
                decimal = is_decimal(common)
                if decimal and function.result == "quotient":
                    return "int64"
                return self._product(node, kinds) if decimal and function.result == "product" else common
        return function.result

    def _product(self, node: Call, kinds: list[str]) -> str:
        scale = sum(scale_of(kind) or 0 for kind in kinds)
        if scale > _MAX_SCALE:
            self._refuse(node, f"the product has {scale} digits after the point, above 38", "cast one side to float64")
        return f"decimal({scale})"

    def _cast_target(self, node: Call, source: str) -> str:
        target = node.args[1].value if isinstance(node.args[1], Literal) else None
        kind = _kind(str(target))
        known = kind in CASTS and kind != "null"
        if kind == "decimal":
            digits = str(target)[8:-1]
            known = str(target).endswith(")") and digits.isdecimal() and int(digits) <= _MAX_SCALE
        if not known:
            self._refuse(
                node, f"{target!r} is no type", "use string, int64, float64, bool, timestamp or decimal(scale)"
            )
        if kind not in CASTS[_kind(source)]:
            targets = ", ".join(CASTS[_kind(source)])
            self._refuse(node, f"there is no cast from {source} to {target}", f"{source} casts to {targets}")
        return str(target)

    def _nullable(self, node: Call, function: Function, found: list[ValueType], result: str) -> bool:
        inputs = [value.nullable for value in found]
        lossy = self._may_lose(node.args, found, result if function.result == "common" else "")
        match function.nulls:
            case "never":
                return False
            case "all":
                return all(inputs) or lossy
            case "first":
                return inputs[0] or lossy
            case "may":
                return any(inputs) or not _is_total(function, found[0].type, result)
        return any(inputs)

    def _may_lose(self, args: Sequence[Node], found: Sequence[ValueType], common: str) -> bool:
        """Tell whether a conversion to the common type can give null: a decimal of 38 digits has no room to grow."""
        return is_decimal(common) and any(
            each.type != common and not isinstance(arg, Literal) for arg, each in zip(args, found, strict=True)
        )

    def _refuse_argument(
        self, node: Call, function: Function, arg: Node, kind: str, wanted: str, mend: str
    ) -> NoReturn:
        self._refuse(node, f"{_name(function)} takes {wanted}, but {format_expression(arg)} is {kind}", mend)

    def _refuse(self, node: Node, problem: str, mend: str = "") -> NoReturn:
        end = f"; {mend}." if mend else "."
        raise DefinitionError(f"{self.what}: in {format_expression(node)}, {problem}{end}")


def _kind(value_type: str) -> str:
    return "decimal" if is_decimal(value_type) else value_type


def _name(function: Function) -> str:
    return f"`{function.operator}`" if function.operator else function.name


def _is_total(function: Function, source: str, result: str) -> bool:
    """Tell whether a function that may give null never does so for this type."""
    if function.name == "cast":
        return (
            source == result or (_kind(source), _kind(result)) in TOTAL_CASTS or (source == "bool" and result != "null")
        )
    if result == "float64":
        return True
    if is_decimal(result):
        return function.name in ("neg", "abs")
    return function.name in ("floor", "ceil", "round")


def _number_mend(function: Function, position: int, kind: str) -> str:
    if kind == "timestamp":
        return "use .dt.epoch('s') for seconds since 1970"
    if kind == "string":
        return (
            "use concat_str(…) to join text" if function.name == "add" else f"cast argument {position + 1} to a number"
        )
    return "cast it with .cast('int64')" if kind == "bool" else ""


def _match_mend(kinds: Sequence[str]) -> str:
    if "timestamp" in kinds:
        return "compare a timestamp with a datetime that has a time zone, or use .dt.epoch('s')"
    if "bool" in kinds and any(map(is_number, kinds)):
        return "use the condition itself, or cast it with .cast('int64')"
    return "write a value of the same type, or convert one side with .cast(…)"
