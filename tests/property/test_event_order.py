"""Events at the very same time are ordered by id (I1): integers, short texts and UUIDs, each in its own order."""

from __future__ import annotations

import uuid
from typing import Any

import pyarrow as pa
from effort import examples
from hypothesis import given
from hypothesis import strategies as st
from kernel_engine import (
    ARRIVAL,
    SCHEMA,
    SECOND,
    START,
    aggregates,
    batch_of,
    engine_plan,
    evaluate,
    same,
    stream_plan,
    with_times,
)

from gillnet._kernel import Engine
from gillnet.testing.oracle import Event, read

features = st.integers(1, 5).flatmap(lambda n: st.tuples(*(aggregates(f"f{number}") for number in range(n))))
integers = st.lists(st.integers(-(2**63), 2**63 - 1), min_size=2, max_size=70, unique=True)
texts = st.lists(
    st.text(max_size=15).filter(lambda text: len(text.encode()) <= 15), min_size=2, max_size=70, unique=True
)
uuids = st.lists(st.uuids(version=None).map(lambda u: str(uuid.UUID(int=u.int, version=4))), min_size=2, unique=True)
ids = st.one_of(integers, texts, uuids)


@examples(150)
@given(nodes=features, ids=ids, at=st.lists(st.sampled_from([0, 0, 0, 1, SECOND]), min_size=1), seed=st.randoms())
def test_i1_ties_in_time_are_ordered_by_id(nodes, ids, at, seed):
    """I1: an event sees those of its own time that come before it by id, whatever the order of arrival."""
    is_number = isinstance(ids[0], int)
    schema = SCHEMA.set(0, pa.field("id", pa.int64() if is_number else pa.string(), nullable=False))
    events: list[dict[str, Any]] = [
        {
            "id": name,
            "ts": START + at[number % len(at)],
            "key": "a",
            "i": seed.randrange(5),
            "d": None,
            "f": seed.choice([0.1, 0.2, None]),
            "s": seed.choice("xyz"),
            "b": seed.choice([True, False]),
        }
        for number, name in enumerate(ids)
    ]
    engine = Engine(engine_plan(nodes, stream_plan("s", id_type="int64" if is_number else "string")))
    _, batch = engine.process("s", batch_of(events, schema), ARRIVAL)
    arrived: list[Event] = []
    for event, row in zip(events, with_times(batch), strict=True):
        own = Event(event["ts"], event["id"], event)
        arrived.append(own)
        for node in nodes:
            expected = read(node, arrived, own.time, own, evaluate)
            assert same(row[node.name], expected), (node, event, row[node.name], expected)
