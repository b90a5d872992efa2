"""Gillnet catches fraud and bots on live event streams.

Define streams, features, a model and a policy once; run them embedded, on Flink, on Spark or as batch, with the same
answer.
"""

from gillnet.api.aggregates import session, sliding, tumbling
from gillnet.api.aggregates.functions import (
    count,
    entropy,
    first,
    last,
    max,  # noqa: A004 - read as gillnet.max
    mean,
    mean_gap_seconds,
    min,  # noqa: A004 - read as gillnet.min
    modal_gap_share,
    n_unique,
    seconds_since_last,
    std,
    std_gap_seconds,
    sum,  # noqa: A004 - read as gillnet.sum
    variance,
)
from gillnet.api.expressions import Expr, coalesce, col, concat_str, lit, max_horizontal, min_horizontal, when
from gillnet.api.features import Baseline, Features, Sessions, baseline
from gillnet.api.joins import IntervalJoin
from gillnet.api.patterns import Pattern, Step, any_of, not_between, not_within, previous, seq, step
from gillnet.api.pipeline import Pipeline, Rule, allow, block, review, step_up
from gillnet.api.stream import Entity, Stream
from gillnet.core.errors import GillnetError
from gillnet.core.schema import Boolean, Decimal, Float, Integer, Schema, String, Timestamp

__all__ = [
    "Baseline",
    "Boolean",
    "Decimal",
    "Entity",
    "Expr",
    "Features",
    "Float",
    "GillnetError",
    "Integer",
    "IntervalJoin",
    "Pattern",
    "Pipeline",
    "Rule",
    "Schema",
    "Sessions",
    "Step",
    "Stream",
    "String",
    "Timestamp",
    "allow",
    "any_of",
    "baseline",
    "block",
    "coalesce",
    "col",
    "concat_str",
    "count",
    "entropy",
    "first",
    "last",
    "lit",
    "max",
    "max_horizontal",
    "mean",
    "mean_gap_seconds",
    "min",
    "min_horizontal",
    "modal_gap_share",
    "n_unique",
    "not_between",
    "not_within",
    "previous",
    "review",
    "seconds_since_last",
    "seq",
    "session",
    "sliding",
    "std",
    "std_gap_seconds",
    "step",
    "step_up",
    "sum",
    "tumbling",
    "variance",
    "when",
]
