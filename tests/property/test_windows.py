"""The kernel's windows against the oracle: any windows, any events, any order of arrival, any batch boundaries."""

from __future__ import annotations

import itertools
import json
import math
from decimal import Decimal
from typing import Any

import pyarrow as pa
from effort import examples
from hypothesis import given
from hypothesis import strategies as st

from gillnet._kernel import Batch, Engine
from gillnet.plan.nodes import AggregateNode, LatestWindow, SessionWindow, SlidingWindow, TumblingWindow
from gillnet.testing.oracle import Event, read

SECOND = 1_000_000
START = 1_700_000_000 * SECOND
COLUMNS = {"i": "int64", "d": "decimal(2)", "f": "float64", "s": "string", "b": "bool"}
SCHEMA = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("ts", pa.timestamp("us", tz="UTC"), nullable=False),
        pa.field("key", pa.string(), nullable=False),
        pa.field("i", pa.int64()),
        pa.field("d", pa.decimal128(38, 2)),
        pa.field("f", pa.float64()),
        pa.field("s", pa.string()),
        pa.field("b", pa.bool_()),
    ]
)
NUMERIC = ("sum", "mean", "min", "max", "variance", "std", "n_unique", "first", "last", "entropy")
RESULT = {"mean": "float64", "variance": "float64", "std": "float64", "n_unique": "int64", "entropy": "float64"}
EVENT_FUNCTIONS = ("count", "mean_gap_seconds", "std_gap_seconds", "modal_gap_share")

durations = st.sampled_from([1, SECOND, 3 * SECOND, 10 * SECOND, 60 * SECOND])
delays = st.sampled_from([0, 0, 0, 1, 2 * SECOND])
windows = st.one_of(
    st.builds(SlidingWindow, durations, delays),
    st.builds(TumblingWindow, durations, delays),
    st.builds(SessionWindow, durations, durations, delays),
)
wheres = st.sampled_from([None, None, "b"])


@st.composite
def aggregates(draw: st.DrawFn, name: str) -> AggregateNode:
    kind = draw(st.sampled_from(["events", "events", "latest", "values", "values", "values", "values"]))
    common: dict[str, Any] = {"name": name, "stream": "s", "key": "key", "where": draw(wheres)}
    if kind == "latest":
        window = LatestWindow(draw(durations), draw(delays))
        return AggregateNode(type="float64", function="seconds_since_last", window=window, **common)
    if kind == "events":
        function = draw(st.sampled_from(EVENT_FUNCTIONS))
        dtype = "int64" if function == "count" else "float64"
        return AggregateNode(type=dtype, function=function, window=draw(windows), **common)
    column = draw(st.sampled_from(["i", "d", "f", "s", "b"]))
    functions = NUMERIC if column in "idf" else ("n_unique", "first", "last", "entropy")
    function = draw(st.sampled_from(functions))
    dtype = RESULT.get(function, COLUMNS[column])
    return AggregateNode(type=dtype, function=function, window=draw(windows), input=column, **common)


amounts = st.integers(-(10**17), 10**17).map(lambda cents: Decimal(cents).scaleb(-2))
small_amounts = st.integers(0, 500).map(lambda cents: Decimal(cents).scaleb(-2))
floats = st.one_of(
    st.sampled_from([0.0, -0.0, 0.1, 0.2, 1e300, -1e300, 5e-324, 1e-310]),
    st.floats(allow_nan=False, allow_infinity=False),
)


@st.composite
def event_lists(draw: st.DrawFn) -> list[dict[str, Any]]:
    count = draw(st.integers(1, 100))
    ids = draw(st.permutations([f"e{number:04d}" for number in range(count)]))
    spread = draw(st.sampled_from([5, 60, 1_000]))
    step = draw(st.sampled_from([1, 100_000, SECOND]))
    times = draw(st.lists(st.integers(0, spread), min_size=count, max_size=count))
    seed = draw(st.randoms(use_true_random=False))
    value_sets = {
        "i": draw(
            st.lists(st.one_of(st.none(), st.integers(-(2**40), 2**40), st.integers(0, 3)), min_size=3, max_size=8)
        ),
        "d": draw(st.lists(st.one_of(st.none(), amounts, small_amounts), min_size=3, max_size=8)),
        "f": draw(st.lists(st.one_of(st.none(), floats), min_size=3, max_size=8)),
        "s": draw(st.lists(st.one_of(st.none(), st.text(max_size=3)), min_size=3, max_size=8)),
        "b": [None, True, True, False],
    }
    in_order = draw(st.booleans())
    if in_order:
        times.sort()
    return [
        {
            "id": ids[number],
            "ts": START + times[number] * step,
            "key": seed.choice(["a", "a", "a", "b"]),
            **{name: seed.choice(values) for name, values in value_sets.items()},
        }
        for number in range(count)
    ]


def _lateral(node: AggregateNode) -> dict[str, Any]:
    kinds = {
        "SlidingWindow": "sliding",
        "TumblingWindow": "tumbling",
        "SessionWindow": "session",
        "LatestWindow": "latest",
    }
    window = {"kind": kinds[type(node.window).__name__]}
    window |= {name: getattr(node.window, name) for name in node.window.__slots__}
    return {
        "kind": "aggregate",
        "name": node.name,
        "type": node.type,
        "stream": node.stream,
        "key": node.key,
        "at": node.at,
        "function": node.function,
        "input": node.input and {"column": node.input},
        "where": node.where and {"column": node.where},
        "window": window,
    }


def engine_plan(nodes: list[AggregateNode], lateness_us: int = 10**15, root: str = "s") -> str:
    stream = {
        "name": "s",
        "schema": [
            {"name": "id", "type": "string"},
            {"name": "ts", "type": "timestamp"},
            {"name": "key", "type": "string"},
        ]
        + [{"name": name, "type": dtype, "nullable": True} for name, dtype in COLUMNS.items()],
        "id": "id",
        "event_time": "ts",
        "watermark_delay_us": 0,
        "allowed_lateness_us": lateness_us,
        "idle_after_us": 10**12,
        "earliest_us": 0,
        "max_ahead_us": 10**15,
    }
    other = {**stream, "name": "r"}
    streams = [stream] if root == "s" else [other, stream]
    return json.dumps({"version": 1, "root": root, "streams": streams, "features": [_lateral(node) for node in nodes]})


def batch_of(events: list[dict[str, Any]]) -> Batch:
    return Batch.from_pyarrow(pa.RecordBatch.from_pylist(events, schema=SCHEMA))


def same(left: Any, right: Any) -> bool:
    """Bit for bit, with one NaN and one zero."""
    if isinstance(left, float) and isinstance(right, float):
        return (math.isnan(left) and math.isnan(right)) or left == right
    return left == right


def evaluate(name: str, row: dict[str, Any]) -> Any:
    return row[name]


def run(engine: Engine, batches: list[list[dict[str, Any]]]) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for events in batches:
        outcomes, batch = engine.process("s", batch_of(events), START)
        assert set(outcomes) <= {0}
        rows.extend(batch.to_pyarrow().to_pylist())
    return rows


def split(events: list[dict[str, Any]], cuts: list[int]) -> list[list[dict[str, Any]]]:
    edges = [0, *sorted({cut % len(events) for cut in cuts}), len(events)]
    return [events[low:high] for low, high in itertools.pairwise(edges) if low < high]


@examples(150)
@given(
    nodes=st.integers(1, 6).flatmap(lambda n: st.tuples(*(aggregates(f"f{number}") for number in range(n)))),
    events=event_lists(),
    cuts=st.lists(st.integers(0, 1_000), max_size=4),
)
def test_i1_every_reading_equals_the_oracle_over_what_has_arrived(nodes, events, cuts):
    rows = run(Engine(engine_plan(list(nodes))), split(events, cuts))
    arrived: dict[str, list[Event]] = {}
    for event, row in zip(events, rows, strict=True):
        own = Event(event["ts"], event["id"], event)
        arrived.setdefault(event["key"], []).append(own)
        for node in nodes:
            expected = read(node, arrived[event["key"]], event["ts"], own, evaluate)
            assert same(row[node.name], expected), (node, event["id"], row[node.name], expected)
