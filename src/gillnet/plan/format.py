"""Expressions as their user would write them: for `gillnet explain` and for error messages."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

from gillnet.plan.expressions import Call, Case, Column, Literal, Node
from gillnet.plan.functions import FUNCTIONS, Function

#: How tightly Python binds an operator; a method call and an atom bind tightest.
_PRECEDENCE = {
    "|": 1,
    "&": 2,
    **dict.fromkeys(("==", "!=", "<", "<=", ">", ">="), 0),
    "+": 3,
    "-": 3,
    **dict.fromkeys(("*", "/", "//", "%"), 4),
    "**": 6,
}
_UNARY = 5
_ATOM = 9
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def format_expression(node: Node) -> str:
    """Write an expression as a user would, in Python.

    >>> from gillnet.plan.expressions import Call, Column, Literal
    >>> total = Call("add", (Column("spend"), Literal(1, "int64")))
    >>> format_expression(Call("gt", (Call("log", (total,)), Literal(2.5, "float64"))))
    '(col("spend") + 1).log() > 2.5'
    """
    return _written(node)[0]


def _written(node: Node) -> tuple[str, int]:
    """Return the text and how tightly its outermost operator binds."""
    match node:
        case Column(name):
            return f"col({_quoted(name)})", _ATOM
        case Literal():
            text = _literal(node)
            return text, _UNARY if text.startswith("-") else _ATOM
        case Case(branches, otherwise):
            text = "".join(
                f"{'.' if i else ''}when({_operand(condition)}).then({_choice(value)})"
                for i, (condition, value) in enumerate(branches)
            )
            return f"{text}.otherwise({_choice(otherwise)})", _ATOM
        case Call(name, args):
            function = FUNCTIONS.get(name)
            if function is None:  # It prints all the same: the error that refuses it wants to show it.
                return f"{name}({', '.join(format_expression(arg) for arg in args)})", _ATOM
            return _infix(function.operator, args) if function.operator else _method(function, args)


def _infix(operator: str, args: tuple[Node, ...]) -> tuple[str, int]:
    strength = _PRECEDENCE[operator]
    # Comparisons chain in Python and `**` leans right, so that neither may stand bare on the left of its own kind.
    left_strength = strength + 1 if strength in (0, 6) else strength
    parts = [_parenthesised(args[0], left_strength), *(_parenthesised(arg, strength + 1) for arg in args[1:])]
    # Python turns a comparison round where a plain value is on its left, and computes two plain values itself.
    if isinstance(args[0], Literal) and (strength == 0 or all(isinstance(arg, Literal) for arg in args)):
        parts[0] = f"lit({parts[0]})"
    return f" {operator} ".join(parts), strength


def _method(function: Function, args: tuple[Node, ...]) -> tuple[str, int]:
    form = function.form
    receiver = _receiver(args[0]) if form.startswith("{0}.") else None

    def fill(match: re.Match[str]) -> str:
        which = match.group(1)
        if which == "0" and receiver is not None:
            return receiver
        if which.endswith("*"):
            write = _operand if receiver is not None else _choice
            return ", ".join(write(arg) for arg in args[int(which[:-1] or 0) :])
        return _operand(args[int(which)])

    if not form.startswith(("-", "~")):
        return re.sub(r"\{(\d?\*|\d)\}", fill, form), _ATOM
    return form[0] + _receiver(args[0], _UNARY + 1), _UNARY


def _receiver(node: Node, strength: int = _ATOM) -> str:
    if isinstance(node, Literal):
        return f"lit({_literal(node)})"
    return _parenthesised(node, strength)


def _parenthesised(node: Node, strength: int) -> str:
    text, binds = _written(node)
    return text if binds >= strength else f"({text})"


def _operand(node: Node) -> str:
    return _written(node)[0]


def _choice(node: Node) -> str:
    """Write what stands where text would name a column, as in Polars: in `then`, `otherwise` and `coalesce`."""
    return f"lit({_literal(node)})" if isinstance(node, Literal) and node.type == "string" else _operand(node)


def _literal(node: Literal) -> str:
    value = node.value
    if value is None:
        return "None"
    if node.type == "string":
        return _quoted(str(value))
    if node.type == "timestamp":
        return f'datetime.fromisoformat("{(_EPOCH + timedelta(microseconds=int(value))).isoformat()}")'
    if node.type.startswith("decimal("):
        return f'Decimal("{value:f}")'
    return f"{value:_}" if node.type == "int64" and abs(int(value)) >= 10_000 else repr(value)


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"' if text.isprintable() else repr(text)
