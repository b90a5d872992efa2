"""What a host may do with an engine, drawn: any plan, batches of two streams, silence, and what it asks for."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from hypothesis import strategies as st
from kernel_engine import SECOND, aggregates, batch_of, engine_plan, event_lists, stream_plan, with_times

from gillnet._kernel import Batch, Engine
from gillnet.plan.expressions import Call, Column
from gillnet.plan.joins import IntervalJoinNode, JoinSide, SelectNode, join_to_json
from gillnet.plan.nodes import AggregateNode, SessionWindow

KEYS = ("a", "a", "a", "b", None)
LATENESSES = st.sampled_from([0, SECOND, 20 * SECOND, 10**15])
EMISSIONS = (
    {"kind": "on_arrival"},
    {"kind": "max_wait", "max_wait_us": 2 * SECOND},
    {"kind": "on_watermark"},
)
SESSION = SessionWindow(2 * SECOND, 6 * SECOND)
CLICKS = AggregateNode(
    name="clicks", type="int64", stream="s", key="key", function="count", window=SESSION, input=None, where=None
)
PACE = replace(CLICKS, name="pace", type="float64", function="mean_gap_seconds")
JOIN = IntervalJoinNode(
    name="j",
    left=JoinSide("s", "key"),
    right=JoinSide("o", "key"),
    lower_us=-SECOND,
    upper_us=20 * SECOND,
    how="full",
    condition=Call("gt", (Column("o.i"), Column("s.i"))),
    select=tuple(SelectNode(name, "", Column(f"o.{name}")) for name in "idfsb"),
)
JOINS = (JOIN, replace(JOIN, how="left", condition=None, max_events_per_key=3), replace(JOIN, lower_us=0, upper_us=0))
own = st.integers(1, 4).flatmap(lambda n: st.tuples(*(aggregates(f"f{i}") for i in range(n))))
lookups = st.integers(1, 2).flatmap(lambda n: st.tuples(*(aggregates(f"g{i}", stream="o", at="key") for i in range(n))))


@st.composite
def plans(draw: st.DrawFn) -> str:
    """Any windows and lookups; sessions with a baseline, or rows that wait; revisions; few events a key; an expression."""
    nodes = [*draw(own), *draw(st.one_of(st.just(()), lookups))]
    sessions = draw(st.booleans())
    settings = {"allowed_lateness_us": draw(LATENESSES), "idle_after_us": 30 * SECOND}
    streams = [stream_plan(name, watermark_delay_us=draw(st.sampled_from([0, SECOND])), **settings) for name in "so"]
    parts: dict[str, Any] = {"revisions": draw(st.booleans())}
    if draw(st.booleans()):
        parts["limits"] = {"max_events_per_key": draw(st.sampled_from([3, 20, 60]))}
    if sessions:
        nodes += [CLICKS, PACE]
        parts["sessions"] = {"key": "key", "gap_us": SESSION.gap_us, "max_length_us": SESSION.max_length_us}
    else:
        parts["emission"] = draw(st.sampled_from(EMISSIONS))
    if draw(st.booleans()):
        parts["joins"] = [join_to_json(draw(st.sampled_from(JOINS)))]
    plan = json.loads(engine_plan(nodes, *streams, **parts))
    plan["features"].append({"kind": "expression", "name": "again", "expression": {"column": nodes[0].name}})
    if sessions:
        over = {"over_us": 60 * SECOND, "step_us": draw(st.sampled_from([SECOND, 20 * SECOND]))}
        plan["features"].append(
            {"kind": "baseline", "name": "usual", "of": "clicks", "quantile": 0.5, "min_count": 1, **over}
        )
    return json.dumps(plan)


Step = tuple[str, Any]
ASKS: list[Step] = [
    ("revisions", 1),
    ("revisions", 3),
    ("revisions", 1_000),
    ("sessions", 1),
    ("sessions", 50),
    ("joined", 2),
    ("joined", 1_000),
    ("silence", 40 * SECOND),
]


@st.composite
def scripts(draw: st.DrawFn, keys: tuple[str | None, ...] = KEYS) -> list[Step]:
    """What a host does: batches of both streams from two partitions, some records twice; silence; what it asks for."""
    waiting = {name: draw(event_lists(90, keys=keys)) for name in "so"}
    waiting["o"] = [row | {"id": f"o{row['id']}"} for row in waiting["o"]]
    sizes = draw(st.lists(st.sampled_from([60, 30, 7, 2, 1]), min_size=1, max_size=5))
    asked = draw(st.lists(st.sampled_from([None, *ASKS]), min_size=1, max_size=5))
    order = draw(st.randoms(use_true_random=False))
    steps: list[Step] = []
    while streams := [name for name, rows in waiting.items() if rows]:
        name, size, ask = order.choice(streams), sizes[len(steps) % len(sizes)], asked[len(steps) % len(asked)]
        rows, waiting[name] = waiting[name][:size], waiting[name][size:]
        steps.append((name, [*rows, rows[-1]] if order.random() < 0.3 else rows))
        steps += [ask] if ask else []
    return [
        *steps,
        ("finish", "o"),
        ("revisions", 1_000),
        ("finish", "s"),
        ("sessions", 3),
        ("revisions", 1_000),
        ("joined", 9),
    ]


def told(batch: Batch | None) -> str | None:
    """Return a batch as text that tells every bit of its values, minus zero included, and its schema."""
    return None if batch is None else f"{batch.to_pyarrow().schema} {with_times(batch)!r}"


def perform(engine: Engine, step: Step, now: int, *, sizes: bool = True) -> list[Any]:
    """Do one step, and return all that comes of it and all that can be seen of the engine afterwards.

    ``sizes``: how many keys and events are in memory too.
    """
    kind, what = step
    seen: list[Any] = []
    match kind:
        case "s" | "o":
            engine.register_partition(kind, 1, now)
            outcomes, rows = engine.process(kind, batch_of(what), now, [len(row["id"]) % 2 for row in what])
            seen += [outcomes, told(rows)]
        case "revisions":
            seen.append(told(engine.revisions(what)))
        case "joined":
            joined = engine.joined(what)
            seen.append(joined and (joined[0], told(joined[1])))
        case "sessions":
            seen.append(told(engine.closed_sessions(what)))
        case "finish":
            engine.finish(what)
            seen.append(told(engine.release(now, what == "s")))
        case _:
            engine.pass_time(now)
            seen.append(told(engine.release(now, False)))
    stats = {name: value for name, value in engine.stats().items() if "bytes" not in name} if sizes else {}
    return [
        *seen,
        stats,
        engine.watermark("s"),
        engine.watermark("o"),
        engine.waiting_since(),
        engine.disturbances(),
        engine.join_counts(),
    ]
