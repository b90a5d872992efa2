"""Schemas: bounds have one form, and JSON gives back what was written."""

from __future__ import annotations

import pytest

from gillnet.core.errors import DefinitionError
from gillnet.core.schema import (
    Boolean,
    DataType,
    Decimal,
    Float,
    Integer,
    Schema,
    String,
    Timestamp,
    schema_from_json,
    schema_to_json,
)


@pytest.mark.parametrize(
    "dtype",
    [
        String(max_bytes=10, nullable=True),
        Integer(minimum=-5, maximum=5),
        Float(minimum=0.5, allow_nan=True),
        Boolean(nullable=True),
        Timestamp("rfc3339"),
        Decimal(2, minimum=0),
        Decimal(0, maximum=7),
        Decimal(18, minimum="-0.5", maximum="0.000000000000000001"),
        Decimal(2, minimum="-1e3", maximum=100_000, nullable=True),
    ],
)
def test_a_schema_comes_back_from_json_equal(dtype: DataType) -> None:
    schema = Schema(column=dtype)
    again = schema_from_json(schema_to_json(schema))
    assert again == schema
    assert hash(again) == hash(schema)


def test_bounds_that_mean_the_same_are_equal() -> None:
    assert Decimal(2, minimum=0, maximum=10) == Decimal(2, minimum="0.00", maximum="1e1")
    assert Decimal(2, minimum="-0") == Decimal(2, minimum=0)


@pytest.mark.parametrize(
    ("dtype", "said"),
    [
        (Decimal(2, minimum="0.001"), "does not fit decimal"),
        (Decimal(2, maximum="much"), "not a decimal number"),
        (Decimal(19, minimum=0), "scale 19 is outside 0 to 18"),
        (Decimal(2, minimum=2, maximum=1), "minimum 2.00 is above maximum 1.00"),
    ],
)
def test_a_wrong_bound_is_refused_with_the_column_s_name(dtype: Decimal, said: str) -> None:
    with pytest.raises(DefinitionError, match=said) as refusal:
        Schema(amount=dtype)
    assert "'amount'" in str(refusal.value)
