"""Row expressions as plan nodes: four frozen records, their JSON, and nothing that computes.

What users write (`gillnet.api.expressions`) builds these; `gillnet.plan.typing` types them against columns, the kernel
compiles their JSON, and `format_expression` prints them. They keep no type of their own: the same expression may be
bound to different streams.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from gillnet.core.errors import PlanError
from gillnet.plan.functions import FUNCTIONS

if TYPE_CHECKING:
    from collections.abc import Iterator

#: The Python value of a literal; timestamps are integers, microseconds since 1970-01-01 UTC.
LiteralValue = str | int | float | bool | Decimal | None

#: Levels that an expression may nest. JSON readers stop at 128 levels; a node takes two, and the plan is around it.
MAX_DEPTH = 48


@dataclass(frozen=True, slots=True)
class Column:
    """The value of a column, or of a feature that was defined before."""

    name: str


@dataclass(frozen=True, slots=True)
class Literal:
    """A constant. ``type`` is a value type, or ``null`` where the value is None and its neighbours decide."""

    value: LiteralValue
    type: str


@dataclass(frozen=True, slots=True)
class Call:
    """A function of `FUNCTIONS`, applied."""

    function: str
    args: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Case:
    """The value of the first branch whose condition is true; a null condition counts as false."""

    branches: tuple[tuple[Node, Node], ...]
    otherwise: Node


Node = Column | Literal | Call | Case


def children(node: Node) -> tuple[Node, ...]:
    """Return the nodes right below, in the order in which they are written."""
    if isinstance(node, Call):
        return node.args
    if isinstance(node, Case):
        return (*(part for branch in node.branches for part in branch), node.otherwise)
    return ()


def walk(node: Node) -> Iterator[Node]:
    """Yield the node and all nodes below it."""
    yield node
    for child in children(node):
        yield from walk(child)


def columns_of(node: Node) -> frozenset[str]:
    """Return the names of all columns that an expression reads."""
    return frozenset(part.name for part in walk(node) if isinstance(part, Column))


def depth_of(node: Node) -> int:
    """Return the number of levels; 1 for a column or a literal."""
    return 1 + max(map(depth_of, children(node)), default=0)


def expression_to_json(node: Node) -> dict[str, Any]:
    """Write an expression as JSON values. Its version is that of the plan around it.

    Floats and decimals are written as text: readers of JSON differ in a float's last bit, and JSON has no NaN.

    >>> expression_to_json(Call("gt", (Column("score"), Literal(0.97, "float64"))))
    {'call': 'gt', 'args': [{'column': 'score'}, {'literal': '0.97', 'type': 'float64'}]}
    """
    match node:
        case Column(name):
            return {"column": name}
        case Literal(value, kind):
            return {"literal": _literal_to_json(value), "type": kind}
        case Call(function, args):
            return {"call": function, "args": [expression_to_json(arg) for arg in args]}
        case Case(branches, otherwise):
            return {
                "case": [[expression_to_json(part) for part in branch] for branch in branches],
                "otherwise": expression_to_json(otherwise),
            }


def _literal_to_json(value: LiteralValue) -> str | int | None:
    if isinstance(value, float):
        return repr(value)
    return format(value, "f") if isinstance(value, Decimal) else value


def expression_from_json(json: object) -> Node:
    """Read what `expression_to_json` wrote.

    Raises
    ------
    PlanError
        If a node or a function is unknown, a literal does not have its type, or the nesting is too deep.
    """
    return _from_json(json, 1)


def _from_json(json: object, level: int) -> Node:
    if level > MAX_DEPTH:
        raise PlanError(f"The plan has an expression that nests deeper than {MAX_DEPTH} levels.")
    match json:
        case {"column": str(name)}:
            return Column(name)
        case {"literal": value, "type": str(kind)}:
            return Literal(_literal_from_json(value, kind), kind)
        case {"call": str(function), "args": list(args)}:
            if function not in FUNCTIONS:
                raise PlanError(
                    f"The plan calls the function {function!r}, which this version of Gillnet does not know."
                )
            return Call(function, tuple(_from_json(arg, level + 1) for arg in args))
        case {"case": [*branches], "otherwise": otherwise} if branches:
            return Case(
                tuple(_branch_from_json(branch, level) for branch in branches), _from_json(otherwise, level + 1)
            )
    raise PlanError(f"The plan has an expression node that this version of Gillnet does not know: {json!r:.200}.")


def _branch_from_json(branch: object, level: int) -> tuple[Node, Node]:
    match branch:
        case [condition, value]:
            return _from_json(condition, level + 1), _from_json(value, level + 1)
    raise PlanError(f"The plan has a case with a branch that is not [condition, value]: {branch!r:.200}.")


def _literal_from_json(value: object, kind: str) -> LiteralValue:
    if value is None:
        return None
    try:
        match kind, value:
            case "float64", str(text):
                return float(text)
            case "string", str(text):
                return text
            case "bool", bool(flag):
                return flag
            case (("int64" | "timestamp"), int(number)) if not isinstance(value, bool):
                return number
            case _, str(text) if kind.startswith("decimal("):
                return Decimal(text)
    except (ValueError, ArithmeticError):
        pass
    raise PlanError(f"The plan has a literal {value!r:.100} that is not of type {kind}.")


def exact_decimal(value: str | float) -> Decimal | None:
    """Read a float or text literal as the exact decimal that it is written as, or None where it is none.

    A float counts up to 18 digits on either side of the point, text up to 38: next to a decimal column ``0.97`` then
    means 97 hundredths and not the nearest binary fraction.
    """
    try:
        number = Decimal(repr(value) if isinstance(value, float) else value)
    except ArithmeticError:
        return None
    plain = isinstance(value, float) or ("e" not in value.lower() and "_" not in value and value.strip() == value)
    if not number.is_finite() or not plain:
        return None
    limit = 18 if isinstance(value, float) else 38
    # Not `normalize()`, which rounds to the context's 28 digits.
    sign, digits, exponent = number.as_tuple()
    assert isinstance(exponent, int)
    while exponent < 0 and digits[-1] == 0:
        digits, exponent = (digits[:-1] or (0,)), exponent + 1
    if -exponent > limit or len(digits) + max(exponent, 0) > 38 or (number and number.adjusted() >= limit):
        return None
    number = Decimal((sign if number else 0, digits, exponent))
    return number if exponent <= 0 else Decimal(int(number))


def decimal_scale(value: Decimal) -> int:
    """Return the digits after the point of a finite decimal."""
    exponent = value.as_tuple().exponent
    return max(0, -exponent) if isinstance(exponent, int) else 0
