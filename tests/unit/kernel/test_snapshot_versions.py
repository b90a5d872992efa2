"""Whole snapshots as earlier builds wrote them: each is restored and goes on as it was meant, and can be moved to another plan (I5)."""

from __future__ import annotations

import base64
import json
import zlib
from pathlib import Path
from typing import Any

import pytest
from kernel_engine import ARRIVAL, SECOND, START, Row, batch_of, with_times
from snapshot_bytes import parts_of

from gillnet._kernel import Engine

STORED: dict[str, dict[str, Any]] = json.loads((Path(__file__).parent / "snapshots.json").read_text())
"""By the build that wrote it: the plan, the snapshot (base64 of zlib), and what must come next. A new form of a part adds an entry and
leaves the others: the state is of `BEFORE`, and `AFTER` comes next."""


def events(*times: int) -> list[Row]:
    return [
        {"id": f"e{at}", "ts": START + at * SECOND, "key": "a", "i": at, "d": None, "f": 0.5, "s": f"t{at}", "b": True}
        for at in times
    ]


BEFORE, AFTER = events(1, 5, 9, 14), events(3, 20)


def written(plan: str) -> bytes:
    """Return the snapshot of this build, with nothing that waits to leave."""
    engine = Engine(plan)
    for name, rows in (("o", BEFORE[:2]), ("s", BEFORE)):
        engine.process(name, batch_of(rows), ARRIVAL)
    while engine.joined(1_000) is not None:
        pass
    while engine.closed_sessions(1_000) is not None:
        pass
    return engine.snapshot()


def stored(build: str) -> tuple[str, bytes]:
    entry = STORED[build]
    return json.dumps(entry["plan"]), zlib.decompress(base64.b64decode(entry["snapshot"]))


def what_comes(engine: Engine) -> str:
    _, rows = engine.process("s", batch_of(AFTER), ARRIVAL)
    revised, joined, closed = engine.revisions(1_000), engine.joined(1_000), engine.closed_sessions(1_000)
    assert rows is not None
    assert revised is not None
    assert joined is not None
    told = [with_times(rows), with_times(revised), with_times(joined[1]), closed and with_times(closed)]
    return repr(told)


@pytest.mark.parametrize("build", STORED)
def test_what_an_earlier_build_wrote_goes_on(build):
    plan, snapshot = stored(build)
    assert what_comes(Engine.restore(plan, snapshot)) == STORED[build]["next"]
    upgraded, told = Engine.restore(plan, snapshot).upgraded(plan, plan)
    assert all(complete for _, complete, _ in told)
    assert what_comes(upgraded) == STORED[build]["next"]


def test_the_last_stored_snapshot_is_of_this_build_s_form():
    plan, snapshot = stored(list(STORED)[-1])
    assert parts_of(written(plan)) == parts_of(snapshot)
