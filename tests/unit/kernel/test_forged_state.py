"""Snapshots whose checksum fits and whose contents lie: refused or restored, and never a panic or memory that nobody has.

The checksum finds what was torn; whoever can write a checkpoint can write its checksum too. `make fuzz` looks further.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from snapshot_bytes import HEADER, plain, sealed
from tests.cases.harness import load_case, run_embedded

from gillnet._kernel import Engine
from gillnet.operators.features import FeatureOperator
from gillnet.plan.serde import dumps

LIES = [(1 << 34).to_bytes(8, "little"), b"\xff" * 8, b"\xff" * 7 + b"\x7f", (1 << 20).to_bytes(8, "little"), bytes(8)]
CASES = ("sessions_extended", "interval_join", "patterns", "out_of_order", "lookup_late")


def forged(snapshot: bytes) -> Iterator[bytes]:
    for at in range(HEADER, len(snapshot) - 8, max(4, len(snapshot) // 100)):
        for lie in LIES:
            yield sealed(snapshot[:at] + lie + snapshot[at + 8 :])
    for end in range(HEADER, len(snapshot), max(1, len(snapshot) // 50)):
        yield sealed(snapshot[:end])


@pytest.mark.parametrize("name", CASES)
def test_a_snapshot_that_lies_is_an_error_or_an_engine_that_goes_on(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    case = load_case(name)
    taken: list[bytes] = []
    take = FeatureOperator.snapshot

    def noted(operator: FeatureOperator) -> bytes:
        taken.append(take(operator))
        return taken[-1]

    monkeypatch.setattr(FeatureOperator, "snapshot", noted)
    run_embedded(case, batch_records=2, restore_every=1)
    largest = max(map(plain, taken), key=len)
    assert sealed(largest) == largest
    plan = dumps(case.pipeline.plan)
    refused = 0
    for snapshot in forged(largest):
        try:
            engine = Engine.restore(plan, snapshot)
        except ValueError:  # A panic is no Exception, and ends the test.
            refused += 1
            continue
        engine.snapshot()
    assert refused > 100
