"""The kernel's windows against the oracle: any windows, any events, any order of arrival, any batch boundaries."""

from __future__ import annotations

from effort import examples
from hypothesis import given
from hypothesis import strategies as st
from kernel_engine import aggregates, engine_plan, evaluate, event_lists, run, same, split

from gillnet._kernel import Engine
from gillnet.testing.oracle import Event, read


@examples(150)
@given(
    nodes=st.integers(1, 6).flatmap(lambda n: st.tuples(*(aggregates(f"f{number}") for number in range(n)))),
    events=event_lists(),
    cuts=st.lists(st.integers(0, 1_000), max_size=4),
)
def test_i1_every_reading_equals_the_oracle_over_what_has_arrived(nodes, events, cuts):
    rows = run(Engine(engine_plan(nodes)), split(events, cuts))
    arrived: dict[str, list[Event]] = {}
    for event, row in zip(events, rows, strict=True):
        own = Event(event["ts"], event["id"], event)
        arrived.setdefault(event["key"], []).append(own)
        for node in nodes:
            expected = read(node, arrived[event["key"]], event["ts"], own, evaluate)
            assert same(row[node.name], expected), (node, event["id"], row[node.name], expected)
