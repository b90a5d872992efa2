"""``gillnet upgrade`` and ``gillnet savepoint``, with files: stop a run, change the code, go on from its state."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from command_line import OFTEN, ROCKSDB, Command

from gillnet.state import CheckpointStore

SOURCE = ("-s", "payments=data/payments.ndjson")
OPTIONS = ("--duration", "3h", "--cards", "500", "--merchants", "64", "--payments-per-day", "16000")
ADDED = """over="5m"),
    seen_5m=payments.by("card_id").count(over="5m"),
    devices_1h=payments.by("card_id").n_unique("device_id", over="1h"),
)"""


@pytest.fixture
def stopped(gillnet: Command, app_file: Path, tmp_path: Path) -> Path:
    """Leave a run's checkpoints after 1,000 payments; return its definition with two features more."""
    assert gillnet("simulate", "payments", "--to", "data", *OPTIONS).exit_code == 0
    result = gillnet(
        "run", str(app_file), *SOURCE, "--checkpoints", "ck", "--sinks", "out", "--set", "options.max_records=1000"
    )
    assert result.exit_code == 0, result.stderr
    changed = tmp_path / "changed.py"
    changed.write_text(app_file.read_text().replace('over="5m"))', ADDED))
    return changed


def decisions(directory: Path) -> dict[str, dict[str, Any]]:
    rows = [json.loads(line) for line in (directory / "decisions.ndjson").read_bytes().splitlines()]
    return {row["tx_id"]: row["features"] for row in rows}


def test_a_run_goes_on_with_another_definition(gillnet: Command, stopped: Path, tmp_path: Path) -> None:
    refused = gillnet("run", str(stopped), *SOURCE, "--checkpoints", "ck", "--sinks", "after")
    assert refused.exit_code == 1
    assert "feature 'seen_5m' added" in " ".join(refused.stderr.split())
    assert "gillnet upgrade APP --from ck" in " ".join(refused.stderr.split())
    there = sorted(path.name for path in (tmp_path / "ck").glob("checkpoint-*"))
    dry = gillnet("upgrade", str(stopped), "--from", "ck", "--dry-run", "--json")
    assert sorted(path.name for path in (tmp_path / "ck").glob("checkpoint-*")) == there
    told = json.loads(dry.stdout)
    assert list(told["warming"]) == ["devices_1h"]

    done = gillnet("upgrade", str(stopped), "--from", "ck")
    assert done.exit_code == 0, done.stderr
    lines = {line.split()[1]: line for line in done.stdout.splitlines() if line.startswith("feature")}
    assert lines["spend_5m"].split()[2:] == ["kept"]
    assert lines["seen_5m"].split()[2:] == ["added"]
    assert "added, warming until 20" in lines["devices_1h"]
    assert "devices_1h is warming since an upgrade" in gillnet("state", "list", "ck").stdout
    assert json.loads(gillnet("state", "list", "ck", "--json").stdout)["checkpoint"]["warming"] == told["warming"]

    assert gillnet("run", str(stopped), *SOURCE, "--checkpoints", "ck", "--sinks", "after").exit_code == 0
    assert gillnet("run", str(stopped), *SOURCE, "--sinks", "whole").exit_code == 0
    after, whole = decisions(tmp_path / "after"), decisions(tmp_path / "whole")
    assert len(after) == len(whole) - 1_000
    for name, features in after.items():
        assert {k: v for k, v in features.items() if k != "devices_1h"} == {
            k: v for k, v in whole[name].items() if k != "devices_1h"
        }
    assert "Nothing differs" in gillnet("upgrade", str(stopped), "--from", "ck").stdout


def test_the_keys_of_a_state_backend_come_along(
    gillnet: Command, stopped: Path, app_file: Path, tmp_path: Path
) -> None:
    begun = gillnet(
        *("run", str(app_file), *SOURCE, "--checkpoints", "kept", "--sinks", "before", *ROCKSDB, *OFTEN),
        *("--set", "options.max_records=1000"),
    )
    assert begun.exit_code == 0, begun.stderr
    assert any(file.name.endswith(".sst") for file in CheckpointStore(tmp_path / "kept").find().files)
    for place in ("ck", "kept"):
        assert gillnet("upgrade", str(stopped), "--from", place).exit_code == 0
    assert gillnet("run", str(stopped), *SOURCE, "--checkpoints", "ck", "--sinks", "memory").exit_code == 0
    went_on = gillnet("run", str(stopped), *SOURCE, "--checkpoints", "kept", "--sinks", "rocksdb", *ROCKSDB)
    assert went_on.exit_code == 0, went_on.stderr
    assert decisions(tmp_path / "rocksdb") == decisions(tmp_path / "memory")


def test_what_is_refused_says_why_and_drop_lets_it_go(gillnet: Command, stopped: Path, tmp_path: Path) -> None:
    stopped.write_text(
        stopped.read_text().replace('spend_5m=payments.by("card_id")', 'spend_5m=payments.by("merchant_id")')
    )
    refused = gillnet("upgrade", str(stopped), "--from", "ck")
    assert refused.exit_code == 1
    assert "its state is of payments.card_id" in refused.stdout
    assert "--drop spend_5m" in refused.stdout
    assert "so nothing was written" in refused.stdout
    let_go = gillnet("upgrade", str(stopped), "--from", "ck", "--drop", "spend_5m")
    assert let_go.exit_code == 0, let_go.stderr
    assert "changed, warming until" in let_go.stdout


def test_a_run_begins_from_a_savepoint(gillnet: Command, stopped: Path, app_file: Path, tmp_path: Path) -> None:
    assert gillnet("savepoint", "ck", "kept").exit_code == 0
    assert gillnet("upgrade", str(stopped), "--from", "ck").exit_code == 0
    begun = ("run", str(app_file), *SOURCE, "--from-savepoint", "kept")
    assert gillnet(*begun).exit_code == 2
    assert gillnet(*begun, "--checkpoints", "other", "--sinks", "after").exit_code == 0
    assert gillnet("run", str(app_file), *SOURCE, "--sinks", "whole").exit_code == 0
    after, whole = decisions(tmp_path / "after"), decisions(tmp_path / "whole")
    assert after == {name: whole[name] for name in after}
    assert len(after) == len(whole) - 1_000
    again = gillnet(*begun, "--checkpoints", "other", "--sinks", "again")
    assert "goes on from these, not from the savepoint" in again.stderr


def test_the_places_of_all_partitions_are_upgraded(gillnet: Command, stopped: Path, tmp_path: Path) -> None:
    """As a run with workers leaves them; where one is refused, none is written."""
    places = [tmp_path / "lanes" / f"partition-{number:05}" for number in range(2)]
    for place in places:
        shutil.copytree(tmp_path / "ck", place)
    before = [CheckpointStore(place).numbers() for place in places]
    torn = max((places[1]).glob("checkpoint-*")) / "state.bin"
    whole = torn.read_bytes()
    torn.write_bytes(whole[:-1])
    assert gillnet("upgrade", str(stopped), "--from", "lanes").exit_code == 1
    assert [CheckpointStore(place).numbers() for place in places] == before
    torn.write_bytes(whole)
    assert gillnet("upgrade", str(stopped), "--from", "lanes").exit_code == 0
    for place, numbers in zip(places, before, strict=True):
        assert CheckpointStore(place).numbers()[0] == numbers[0] + 1
        assert CheckpointStore(place).find().upgraded
