"""What the properties of patterns share: any pattern, features over it, plans for the kernel."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from hypothesis import strategies as st
from kernel_engine import COLUMNS, SECOND, engine_plan

from gillnet.api.expressions import Expr, col
from gillnet.plan.expressions import Column, Node
from gillnet.plan.patterns import (
    AbsentNode,
    AlternativeNode,
    PatternNode,
    SequenceNode,
    StepNode,
    earlier_columns,
    sequence_to_json,
)
from gillnet.testing.oracle_expressions import evaluate_row

TYPES = {"id": ("string", False), "ts": ("timestamp", False), "key": ("string", True)}
TYPES |= {name: (dtype, True) for name, dtype in COLUMNS.items()}
NAMES = ("p", "q", "r", "t")
KNOWN = {**TYPES, **earlier_columns(NAMES, TYPES)}
spans = st.sampled_from([1, SECOND, 3 * SECOND, 10 * SECOND, 60 * SECOND, 1_000 * SECOND])


def evaluate(condition: Node, row: Mapping[str, Any]) -> Any:
    return evaluate_row(condition, row, KNOWN)


def earlier(place: str, column: str) -> Expr:
    return Expr(Column(f"{place}.{column}"))


@st.composite
def conditions(draw: st.DrawFn, names: tuple[str, ...]) -> Node | None:
    """Draw a condition over the event, and over what steps ``names`` took before it."""
    alone = st.sampled_from([None, None, col("b"), ~col("b"), col("i") > 1, col("s") < "m", col("d").is_null()])
    place = draw(st.sampled_from(["previous", *(f"{name}.{which}" for name in names for which in ("first", "last"))]))
    gap = col("ts").dt.epoch("us") - earlier(place, "ts").dt.epoch("us")
    of_run = st.sampled_from(
        [
            None,
            None,
            None,
            (gap < 2 * SECOND) | earlier(place, "ts").is_null(),
            (col("i") > earlier(place, "i")).fill_null(True),
            col("s") != earlier(place, "s"),
            col("d") >= earlier(place, "d"),
            (col("f") < earlier(place, "f")) | earlier(place, "b"),
        ]
    )
    parts = [part for part in (draw(alone), draw(of_run)) if part is not None]
    return (parts[0] & parts[1] if len(parts) == 2 else parts[0]).node if parts else None


@st.composite
def sequences(draw: st.DrawFn) -> SequenceNode:
    """Draw any pattern of up to four names."""
    count = draw(st.integers(1, 3))
    both = draw(st.integers(0, count))
    steps: list[StepNode] = []
    names: tuple[str, ...] = ()
    for number in range(count):
        own = NAMES[len(names) : len(names) + (2 if number == both else 1)]
        names += own
        least = draw(st.sampled_from([1, 1, 1, 2, 3]))
        last = number == count - 1
        steps.append(
            StepNode(
                alternatives=tuple(AlternativeNode(name=name, where=draw(conditions(names))) for name in own),
                least=least,
                most=draw(st.sampled_from([least, least, least + 1, None])),
                optional=not last and draw(st.integers(0, 4)) == 0,
                greedy=not last and draw(st.booleans()),
                strict=draw(st.integers(0, 3)) == 0,
                unless=tuple(
                    guard
                    for guard in [
                        draw(conditions(names[: -len(own)])) if number and draw(st.integers(0, 2)) == 0 else None
                    ]
                    if guard is not None
                ),
            )
        )
    tail = draw(conditions(names)) if draw(st.integers(0, 2)) == 0 else None
    return SequenceNode(
        steps=tuple(steps),
        within_us=draw(spans),
        absent=None if tail is None else AbsentNode(where=tail, for_us=draw(spans)),
        skip=draw(st.sampled_from(["past_last_event", "to_next", "no_skip"])),
    )


@st.composite
def features(draw: st.DrawFn, stream: str = "s", at: str | None = None) -> list[PatternNode]:
    """Draw features over one or two patterns."""
    patterns = draw(st.lists(sequences(), min_size=1, max_size=2))
    drawn = draw(
        st.lists(
            st.tuples(st.sampled_from(patterns), st.sampled_from(["bool", "int64"]), spans), min_size=1, max_size=3
        )
    )
    return [
        PatternNode(name=f"f{i}", type=dtype, stream=stream, key="key", over_us=over, pattern=pattern, at=at)
        for i, (pattern, dtype, over) in enumerate(drawn)
    ]


def plan_of(nodes: list[PatternNode], *streams: dict[str, Any], **parts: Any) -> str:
    """Return a plan for the kernel whose features are patterns."""
    plan = json.loads(engine_plan((), *streams, **parts))
    plan["features"] = [
        {
            "kind": "pattern",
            **{name: getattr(node, name) for name in ("name", "type", "stream", "key", "at", "over_us")},
            "pattern": sequence_to_json(node.pattern),
        }
        for node in nodes
    ]
    return json.dumps(plan)


def seldom() -> PatternNode:
    """Return a feature that is about two events with ``b`` within ten seconds."""
    steps = tuple(StepNode(alternatives=(AlternativeNode(name=name, where=Column("b")),)) for name in ("p", "q"))
    pattern = SequenceNode(steps=steps, within_us=10 * SECOND)
    return PatternNode(name="f", type="bool", stream="s", key="key", over_us=10 * SECOND, pattern=pattern)
