"""What the kernel's properties share: any aggregates, any events, plans and batches for the engine."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

import pyarrow as pa
from hypothesis import strategies as st

from gillnet._kernel import Batch, Engine, sort_events
from gillnet.operators.features import Outcome
from gillnet.plan.nodes import AggregateNode, LatestWindow, SessionWindow, SlidingWindow, TumblingWindow, Window

SECOND = 1_000_000
START = 1_700_000_000 * SECOND
ARRIVAL = START + 10**12
"""When tests read records that are all of the past: a time ahead of its arrival would not push the watermark."""
TAKEN = frozenset({Outcome.ACCEPTED, Outcome.LATE})
COLUMNS = {"i": "int64", "d": "decimal(2)", "f": "float64", "s": "string", "b": "bool"}
SCHEMA = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("ts", pa.timestamp("us", tz="UTC"), nullable=False),
        pa.field("key", pa.string()),
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
any_window = st.one_of(
    st.builds(SlidingWindow, durations, delays),
    st.builds(TumblingWindow, durations, delays),
    st.builds(SessionWindow, durations, durations, delays),
)
Row = dict[str, Any]
wheres = st.sampled_from([None, None, "b"])


@st.composite
def aggregates(
    draw: st.DrawFn,
    name: str,
    stream: str = "s",
    at: str | None = None,
    windows: st.SearchStrategy[Window] = any_window,
) -> AggregateNode:
    """Draw any aggregate over the key ``key`` of a stream."""
    kind = draw(st.sampled_from(["events", "events", "latest", "values", "values", "values", "values"]))
    common: dict[str, Any] = {"name": name, "stream": stream, "key": "key", "at": at, "where": draw(wheres)}
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
def event_lists(draw: st.DrawFn, most: int = 100, keys: Sequence[str | None] = ("a", "a", "a", "b")) -> list[Row]:
    """Draw events with distinct ids, in the order of arrival."""
    count = draw(st.integers(1, most))
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
            "key": seed.choice(keys),
            **{name: seed.choice(values) for name, values in value_sets.items()},
        }
        for number in range(count)
    ]


def _feature(node: AggregateNode) -> dict[str, Any]:
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


def stream_plan(name: str, *, id_type: str = "string", **settings: int) -> dict[str, Any]:
    """Return a stream of `COLUMNS`; ``settings`` are lateness and the like, which forbid nothing unless given."""
    fixed = [("id", id_type, False), ("ts", "timestamp", False), ("key", "string", True)]
    columns = fixed + [(column, dtype, True) for column, dtype in COLUMNS.items()]
    unbounded = {"watermark_delay_us": 0, "allowed_lateness_us": 10**15, "idle_after_us": 10**12}
    return {
        "name": name,
        "schema": [{"name": column, "type": dtype, "nullable": nullable} for column, dtype, nullable in columns],
        "id": "id",
        "event_time": "ts",
        **unbounded,
        "earliest_us": 0,
        "max_ahead_us": 10**15,
        **settings,
    }


def engine_plan(nodes: Sequence[AggregateNode], *streams: dict[str, Any], **parts: Any) -> str:
    """Return a plan for the kernel; the first stream is the root, ``s`` alone unless given."""
    known = list(streams) or [stream_plan("s")]
    features = [_feature(node) for node in nodes]
    return json.dumps({"version": 1, "root": known[0]["name"], "streams": known, "features": features, **parts})


def batch_of(events: Sequence[Mapping[str, Any]], schema: pa.Schema = SCHEMA) -> Batch:
    """Return events as the decoder would."""
    return Batch.from_pyarrow(pa.RecordBatch.from_pylist(list(events), schema=schema))


def same(left: Any, right: Any) -> bool:
    """Bit for bit, with one NaN and one zero."""
    if isinstance(left, float) and isinstance(right, float):
        return (math.isnan(left) and math.isnan(right)) or left == right
    return left == right


def evaluate(name: str, row: Mapping[str, Any]) -> Any:
    """Evaluate an input or a condition, which are column names here."""
    return row[name]


def run(engine: Engine, batches: list[list[Row]], stream: str = "s") -> list[Row]:
    """Let batches arrive, all of which are accepted, and return the rows."""
    rows: list[Row] = []
    for events in batches:
        outcomes, batch = engine.process(stream, batch_of(events), ARRIVAL)
        assert set(outcomes) <= TAKEN
        if batch is not None:
            rows.extend(with_times(batch))
    return rows


def with_times(batch: Batch) -> list[Row]:
    """Return rows as dictionaries, instants as microseconds."""
    table = batch.to_pyarrow()
    columns = {
        name: table[name].cast(pa.int64()) if pa.types.is_timestamp(table.schema.field(name).type) else table[name]
        for name in table.schema.names
    }
    names = list(columns)
    values = zip(*(column.to_pylist() for column in columns.values()), strict=True)
    return [dict(zip(names, row, strict=True)) for row in values]


def split(events: list[Row], cuts: list[int]) -> list[list[Row]]:
    """Cut into batches."""
    edges = [0, *sorted({cut % len(events) for cut in cuts}), len(events)]
    return [events[low:high] for low, high in itertools.pairwise(edges) if low < high]


def in_parts(events: dict[str, list[Row]], cuts: list[int]) -> list[tuple[list[tuple[str, Batch]], int | None]]:
    """Cut events at event times, for a batch engine; the last part has no end."""
    times = sorted({row["ts"] for rows in events.values() for row in rows})
    ends = sorted({times[cut % len(times)] for cut in cuts})
    parts, low = [], -(2**62)
    for end in [*ends, None]:
        high = 2**62 if end is None else end
        chosen = {name: [row for row in rows if low <= row["ts"] < high] for name, rows in events.items()}
        batches = [(name, sort_events(batch_of(rows), "ts", "id")) for name, rows in chosen.items() if rows]
        parts.append((batches, end))
        low = high
    return parts
