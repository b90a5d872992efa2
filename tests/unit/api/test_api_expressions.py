"""What users write, and the mistakes that it answers."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal

import numpy
import pytest

from gillnet.api.expressions import all_horizontal, any_horizontal, coalesce, col, lit, when
from gillnet.core.errors import DefinitionError
from gillnet.plan.expressions import Call, Column, Literal


def test_python_values_become_typed_constants() -> None:
    assert lit(1).node == Literal(1, "int64")
    assert lit(True).node == Literal(True, "bool")
    assert lit(Decimal("1.20")).node == Literal(Decimal("1.20"), "decimal(2)")
    assert lit(Decimal("12E+2")).node == Literal(Decimal("1200"), "decimal(0)")
    assert lit("x").node == Literal("x", "string")


def test_numpy_numbers_are_numbers() -> None:
    assert lit(numpy.int64(3)).node == Literal(3, "int64")
    assert lit(numpy.float64(0.5)).node == Literal(0.5, "float64")


def test_text_is_a_value_beside_an_operator_and_a_column_elsewhere_as_in_polars() -> None:
    assert (col("a") == "b").node == Call("eq", (Column("a"), Literal("b", "string")))
    assert coalesce("a", col("b")).node == Call("coalesce", (Column("a"), Column("b")))
    assert when(True).then("a").node.branches[0][1] == Column("a")


def test_conditions_join_flat() -> None:
    a, b, c = col("a"), col("b"), col("c")
    assert (a & b & c).node == all_horizontal(a, b, c).node
    assert len((a | b | c).node.args) == 3
    assert any_horizontal(a).node == Column("a")


def test_values_on_the_left_work() -> None:
    assert (1 - col("a")).node == Call("sub", (Literal(1, "int64"), Column("a")))
    assert (2 ** col("a")).node.function == "pow"
    assert (1 < col("a")).node == Call("gt", (Column("a"), Literal(1, "int64")))  # noqa: SIM300


@pytest.mark.parametrize(
    ("wrong", "part"),
    [
        (lambda: bool(col("a") > 1), "& | ~"),
        (lambda: 1 < col("a") < 3, "is_between"),
        (lambda: col("a") > 1 and col("b") > 1, "& | ~"),
        (lambda: list(col("a")), "cannot be iterated"),
        (lambda: col("a").is_in("abc"), "list of values"),
        (lambda: lit(datetime(2026, 1, 1)), "time zone"),
        (lambda: lit(Decimal("NaN")), "no decimal value"),
        (lambda: col("a") + {1}, "cannot stand in an expression"),
        (lambda: col(""), "a column's name is text"),
        (lambda: col("a").log(1), "base"),
        (lambda: col("a").log("2"), "log: the base '2' is none"),
        (lambda: col("a").log(float("nan")), "log: the base nan is none"),
        (lambda: col("a").is_in(5), "list of values, such as [5]"),
        (lambda: col("a").is_in(None), "list of values"),
        (coalesce, "at least one"),
        (lambda: col("a").is_between(1, 2, closed="open"), "closed='open'"),
    ],
)
def test_a_mistake_is_answered_with_its_mend(wrong, part: str) -> None:
    with pytest.raises(DefinitionError) as error:
        wrong()
    assert part in str(error.value)


def test_an_expression_cannot_be_a_dictionary_key() -> None:
    with pytest.raises(TypeError, match="unhashable"):
        hash(col("a"))
