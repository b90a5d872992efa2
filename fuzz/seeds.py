"""Writes what the Rust fuzz targets begin with: plans, records, key states and snapshots of `tests/cases`.

``python fuzz/seeds.py FOLDER`` fills ``FOLDER/plans`` and ``FOLDER/corpus/<target>``. What an earlier run found stays: a seed's
name is its content's digest.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import patch

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tests.cases.harness import Case, case_names, load_case, run_embedded
from tests.property.snapshot_bytes import plain

from gillnet._kernel import Engine
from gillnet.operators.features import FeatureOperator
from gillnet.plan.serde import dumps

SCHEMAS = 6
"""Decoders of `fuzz/targets/decode_json.rs`."""
MOST_BYTES = 16_384
EARLIEST_US = -(2**62)
CALLS = (bytes(range(64)), bytes([0x10, 0x80, 0x81, 0x90] * 32), bytes([0xF0, 0xA5, 0x07, 0x41] * 48))


def write(folder: Path, target: str, data: bytes) -> None:
    """Write a seed, unless it is larger than what a fuzzer mutates well."""
    if len(data) <= MOST_BYTES:
        place = folder / "corpus" / target
        place.mkdir(parents=True, exist_ok=True)
        (place / hashlib.sha256(data).hexdigest()[:20]).write_bytes(data)


def snapshots(case: Case) -> list[bytes]:
    """Return the snapshots of a run that is restored at each turn of its loop."""
    taken: list[bytes] = []
    take = FeatureOperator.snapshot

    def noted(operator: FeatureOperator) -> bytes:
        taken.append(take(operator))
        return taken[-1]

    with patch.object(FeatureOperator, "snapshot", noted):
        run_embedded(case, batch_records=2, restore_every=1)
    return taken


def key_states(engine: Engine) -> Iterator[tuple[int, bytes]]:
    """Yield (entity, state) of each key of an engine."""
    for entity in range(len(engine.entity_stats())):
        for key in engine.keys(entity):
            state = engine.encode_key(entity, key, EARLIEST_US)
            if state is not None:
                yield entity, state


def seed(folder: Path) -> None:
    """Write the plans and the seeds."""
    plans = folder / "plans"
    plans.mkdir(parents=True, exist_ok=True)
    for number, name in enumerate(case_names()):
        case = load_case(name)
        plan = dumps(case.pipeline.plan)
        (plans / f"{number:03}-{name}.json").write_text(plan, encoding="utf-8")
        records = [step.value for step in case.script.steps if step.value is not None]
        for choice in range(SCHEMAS):
            write(folder, "decode_json", bytes([choice]) + b"\n".join(records))
        taken = snapshots(case)
        for snapshot in taken[:: max(1, len(taken) // 4)]:
            write(folder, "snapshot", bytes([number]) + plain(snapshot))
            for entity, state in key_states(Engine.restore(plan, snapshot)):
                write(folder, "key_state", bytes([number, entity]) + state)
        for calls in CALLS:
            write(folder, "process", bytes([number]) + calls)
    stored = json.loads((ROOT / "tests/unit/kernel/key_states.json").read_text("utf-8"))
    for state in stored.values():
        write(folder, "key_state", bytes([0, 0]) + bytes.fromhex(state))


if __name__ == "__main__":
    seed(Path(sys.argv[1]))
