"""The kernel takes any data without a panic: extreme times, integers, decimals and floats, against the oracle."""

from __future__ import annotations

import itertools
import math
from decimal import Decimal

import pytest
from kernel_engine import SECOND, START, TAKEN, batch_of, engine_plan, evaluate, run, same, stream_plan

from gillnet._kernel import Engine
from gillnet.plan.nodes import (
    AggregateNode,
    LatestWindow,
    SessionWindow,
    SlidingWindow,
    TumblingWindow,
    Window,
)
from gillnet.testing.oracle import Event, read

YEAR_1 = -62_135_596_800 * SECOND
YEAR_9999 = 253_402_300_799 * SECOND
FURTHEST = 2**60
WIDE: tuple[Window, ...] = (
    SlidingWindow(2**60, 2**60),
    TumblingWindow(2**60, 2**60),
    SessionWindow(2**60, 2**60, 2**60),
    SessionWindow(2**60, 2**60),
    SlidingWindow(1),
)
BIG = [2**63 - 1, -(2**63), -(2**63), 2**63 - 1, 0, 1]
DECIMALS = [Decimal(10**36).scaleb(-2), Decimal(-(10**17)).scaleb(-2), Decimal(10**18 - 1).scaleb(-2)]
FLOATS = [math.inf, -math.inf, math.nan, -math.nan, 1.7976931348623157e308, -1.7976931348623157e308, 5e-324, -0.0]
FUNCTIONS = ("sum", "mean", "min", "max", "variance", "std", "n_unique", "first", "last", "entropy")


def node(function: str, window: Window, column: str | None = None) -> AggregateNode:
    dtype = {"i": "int64", "d": "decimal(2)", "f": "float64", None: "float64"}[column]
    dtype = {"count": "int64", "n_unique": "int64"}.get(function, dtype)
    dtype = "float64" if function in ("mean", "variance", "std", "entropy") else dtype
    return AggregateNode(name="out", type=dtype, stream="s", key="key", function=function, input=column, window=window)


def unbounded_engine(nodes: list[AggregateNode]) -> Engine:
    settings = {
        "earliest_us": -(2**63),
        "max_ahead_us": FURTHEST,
        "allowed_lateness_us": FURTHEST,
        "watermark_delay_us": FURTHEST,
    }
    return Engine(engine_plan(nodes, stream_plan("s", **settings)))


@pytest.mark.parametrize("window", [*WIDE, LatestWindow(2**60, 2**60), LatestWindow(2**60)])
def test_extreme_times_are_read_exactly_or_refused(window):
    """Years 1 and 9999, the ends of what the kernel takes, and beyond; also behind one another."""
    gaps = ["count", "mean_gap_seconds", "std_gap_seconds", "modal_gap_share"]
    functions = ["seconds_since_last"] if isinstance(window, LatestWindow) else gaps
    times = [-FURTHEST, YEAR_9999, YEAR_1, 0, FURTHEST, START, YEAR_9999, 2**63 - 1, -(2**63), FURTHEST + 1]
    times += [-FURTHEST - 1, *range(60)]
    for function in functions:
        aggregate = node(function, window)
        engine, arrived = unbounded_engine([aggregate]), []
        for number, time in enumerate(times):
            event = {"id": f"e{number}", "ts": time, "key": "a"}
            outcomes, rows = engine.process("s", batch_of([event]), 0)
            assert (outcomes[0] in TAKEN) == (abs(time) <= FURTHEST)
            if outcomes[0] in TAKEN:
                own = Event(time, event["id"], event)
                arrived.append(own)
                got = rows.column("out").to_pylist()[0]
                assert same(got, read(aggregate, arrived, time, own, evaluate)), (function, time)


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize(("column", "values"), [("i", BIG), ("f", FLOATS)], ids=["integers", "floats"])
@pytest.mark.parametrize("repeats", [1, 20], ids=["small key", "large key"])
def test_extreme_numbers_are_exact_or_the_nearest(function, column, values, repeats):
    """Sums of integers beyond int64 stay at its end; everything else is the exact value, rounded once."""
    aggregate = node(function, SlidingWindow(10), column)
    engine, arrived = Engine(engine_plan([aggregate])), []
    for number, value in enumerate(itertools.chain.from_iterable([values] * repeats)):
        event = {"id": f"e{number:04d}", "ts": START + number, "key": "a", column: value}
        (row,) = run(engine, [[event]])
        own = Event(event["ts"], event["id"], event)
        arrived.append(own)
        expected = read(aggregate, arrived, own.time, own, evaluate)
        if function == "sum" and column == "i":
            expected = max(-(2**63), min(2**63 - 1, expected))
        assert same(row["out"], expected), (number, value, row["out"], expected)


@pytest.mark.parametrize("function", FUNCTIONS)
def test_decimals_beyond_the_columns_digits_do_not_stop_the_stream(function):
    engine = Engine(engine_plan([node(function, SlidingWindow(SECOND), "d")]))
    events = [{"id": f"e{n}", "ts": START + n, "key": "a", "d": value} for n, value in enumerate(DECIMALS)]
    assert len(run(engine, [events])) == len(events)


@pytest.mark.parametrize(
    ("window", "place"),
    [
        (SlidingWindow(0), "window"),
        (TumblingWindow(-1), "window"),
        (SlidingWindow(1, -1), "delay"),
        (SessionWindow(0, 1), "gap"),
        (SessionWindow(1, 0), "max length"),
        (SlidingWindow(2**60 + 1), "window"),
    ],
)
def test_a_window_that_cannot_be_computed_is_refused(window, place):
    with pytest.raises(ValueError, match=f"feature 'out': {place} of -?\\d+ is not within"):
        Engine(engine_plan([node("count", window)]))
