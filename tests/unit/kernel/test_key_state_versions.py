"""State bytes as released versions wrote them: each is read as it was meant, or refused by its version (I5)."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path

import pytest
from kernel_engine import SECOND, START, engine_plan, run, stream_plan

from gillnet._kernel import Engine
from gillnet.plan.nodes import AggregateNode, LatestWindow, SessionWindow, SlidingWindow

STORED: dict[str, str] = json.loads((Path(__file__).parent / "key_states.json").read_text())
"""State of `engine` in hexadecimal, by version; a new version adds a line and leaves the others."""
CURRENT = "2"


def engine() -> Engine:
    common = {"stream": "s", "key": "key"}
    minute = SlidingWindow(60 * SECOND)
    nodes = [
        AggregateNode(name="total", type="decimal(2)", function="sum", input="d", window=minute, **common),
        AggregateNode(name="kinds", type="int64", function="n_unique", input="s", where="b", window=minute, **common),
        AggregateNode(name="mean", type="float64", function="mean", input="f", window=minute, **common),
        AggregateNode(
            name="since", type="float64", function="seconds_since_last", window=LatestWindow(600 * SECOND), **common
        ),
        AggregateNode(
            name="clicks", type="int64", function="count", window=SessionWindow(30 * SECOND, 3600 * SECOND), **common
        ),
    ]
    return Engine(engine_plan(nodes, stream_plan("s", allowed_lateness_us=60 * SECOND)))


EVENTS = [
    {"id": "first", "ts": START, "key": "a", "d": Decimal("1.00"), "f": 0.1, "s": "x", "b": True},
    {
        "id": "b8a3",
        "ts": START + 20 * SECOND,
        "key": "a",
        "d": Decimal("-2.50"),
        "f": None,
        "s": "a longer text, ü",
        "b": True,
    },
    {"id": "c", "ts": START + 20 * SECOND, "key": "a", "d": None, "f": 0.2, "s": None, "b": None},
]


def written() -> bytes:
    source = engine()
    run(source, [EVENTS])
    state = source.encode_key(0, "a", START + SECOND)
    assert state is not None
    return state


def test_state_is_written_as_the_current_version_says():
    assert written().hex() == STORED[CURRENT]


def test_stored_state_goes_on_as_it_would_have():
    restored = engine()
    restored.decode_key(0, "a", bytes.fromhex(STORED[CURRENT]))
    (row,) = run(
        restored,
        [[{"id": "d", "ts": START + 45 * SECOND, "key": "a", "d": Decimal("0.25"), "f": 0.3, "s": "y", "b": True}]],
    )
    assert {name: row[name] for name in ("total", "kinds", "mean", "since", "clicks")} == {
        "total": Decimal("-2.25"),
        "kinds": 2,
        "mean": 0.25,
        "since": 25.0,
        "clicks": 3,
    }


@pytest.mark.parametrize("version", [0, 1, 3, 255])
def test_another_version_is_refused_by_its_number(version):
    state = bytearray(written())
    state[2] = version
    with pytest.raises(ValueError, match=rf"entity 's\.key' has version {version}, this build reads version {CURRENT}"):
        engine().decode_key(0, "a", bytes(state))
