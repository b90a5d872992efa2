"""``gillnet state`` on a checkpoint that a run left: against what the run's own input says, read-only, and in words."""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from command_line import OFTEN, ROCKSDB, Command

from gillnet.state import CheckpointStore

DAY_US = 86_400_000_000
OPTIONS = ("--duration", "3h", "--cards", "500", "--merchants", "64", "--payments-per-day", "16000")


BACKENDS = {"memory": (), "rocksdb": (*ROCKSDB, *OFTEN)}


@pytest.fixture(params=BACKENDS)
def payments(gillnet: Command, app_file: Path, tmp_path: Path, request: pytest.FixtureRequest) -> list[dict[str, Any]]:
    """Run the pipeline over simulated payments, stopped before their end; return those that it read."""
    assert gillnet("simulate", "payments", "--to", "data", *OPTIONS).exit_code == 0
    source = ("-s", "payments=data/payments.ndjson", "--checkpoints", "ck", "--sinks", "out")
    result = gillnet("run", str(app_file), *source, "--set", "options.max_records=1000", *BACKENDS[request.param])
    assert result.exit_code == 0, result.stderr
    files = [file.name for file in CheckpointStore(tmp_path / "ck").find().files]
    assert any(name.endswith(".sst") for name in files) == (request.param == "rocksdb")
    lines = (tmp_path / "data" / "payments.ndjson").read_bytes().splitlines()[:1000]
    return [json.loads(line) for line in lines]


def time_us(payment: dict[str, Any]) -> int:
    stamp = payment["ts"]
    return stamp * 1_000 if isinstance(stamp, int) else round(datetime.fromisoformat(stamp).timestamp() * 1_000_000)


def operator(told: dict[str, Any], name: str, kind: str = "windows") -> dict[str, Any]:
    (found,) = [one for one in told["operators"] if (one["name"], one["kind"]) == (name, kind)]
    return found


@pytest.mark.parametrize("command", ["list", "get", "export"])
def test_help_says_what_a_command_does(gillnet: Command, command: str) -> None:
    assert any(line.split()[:1] == ["state"] for line in gillnet("--help").stdout.splitlines())
    overview, own = gillnet("state", "--help").stdout, gillnet("state", command, "--help").stdout
    assert any(line.split()[:1] == [command] and len(line.split()) > 3 for line in overview.splitlines())
    options = [line for line in own.splitlines() if line.startswith("  -")]
    assert options
    assert all(re.search(r"\S  +[\w.].*", line) for line in options), "an option without a word on it"


def test_list_tells_what_the_run_read(gillnet: Command, payments: list[dict[str, Any]]) -> None:
    told = json.loads(gillnet("state", "list", "ck", "--json", "--top", "1000").stdout)
    by_card = Counter(payment["card_id"] for payment in payments)
    cards = operator(told, "payments.card_id")
    assert (cards["keys"], cards["events"]) == (len(by_card), 1000)
    assert {key["key"]: key["events"] for key in cards["largest"]} == by_card
    times = [time_us(payment) for payment in payments]
    assert (cards["oldest_us"], cards["newest_us"]) == (min(times), max(times))
    # Five minutes of window; the watermark is 5 s behind, and a day of lateness before that.
    horizon = max(times) - 5_000_000 - DAY_US - 300_000_000
    for span, cut in cards["expiring"].items():
        assert cut["events"] == sum(time < horizon + int(span) for time in times)
    ids = operator(told, "payments", "ids")
    assert ids["events"] == 1000
    assert operator(told, "payments", "revisable rows")["events"] == 1000
    (feature,) = told["features"]
    assert (feature["feature"], feature["operator"], feature["window"]) == ("spend_5m", "payments.card_id", "5m")


def test_list_says_it_in_words(gillnet: Command, payments: list[dict[str, Any]]) -> None:
    page = gillnet("state", "list", "ck").stdout
    line = next(line for line in page.splitlines() if line.split()[:2] == ["payments.card_id", "windows"])
    assert "1,000" in line
    assert "5m window + 1d lateness" in line
    assert any(line.split()[:3] == ["spend_5m", "payments.card_id", "5m"] for line in page.splitlines())
    (busiest, count), *_ = Counter(payment["card_id"] for payment in payments).most_common()
    assert any(line.split()[:3] == [busiest, "payments.card_id", str(count)] for line in page.splitlines())


def test_get_shows_a_key_s_events_and_what_reads_them(gillnet: Command, payments: list[dict[str, Any]]) -> None:
    card = Counter(payment["card_id"] for payment in payments).most_common(1)[0][0]
    own = sorted((payment for payment in payments if payment["card_id"] == card), key=time_us)
    newest_us = max(map(time_us, payments))
    told = json.loads(gillnet("state", "get", "ck", card, "--json").stdout)
    (held,) = told["held"]
    assert [event["id"] for event in held["events"]] == [payment["tx_id"] for payment in own]
    read = [payment for payment in own if time_us(payment) > newest_us - 300_000_000]
    assert [event["read_by"] for event in held["events"]] == ["" for _ in own[: len(own) - len(read)]] + [
        "spend_5m"
    ] * len(read)
    spent = sum(round(float(payment["amount"]) * 100) for payment in read)
    assert round(float(held["features"]["spend_5m"] or 0) * 100) == spent
    page = gillnet("state", "get", "ck", card, "--entity", "card_id", "--events", "2").stdout
    assert f"{len(own) - 2} older events" in page
    assert own[-1]["tx_id"] in page
    at = datetime.fromtimestamp(time_us(own[0]) / 1e6).astimezone().isoformat()
    earlier = json.loads(gillnet("state", "get", "ck", card, "--at", at, "--json").stdout)["held"][0]
    assert float(earlier["features"]["spend_5m"]) == float(own[0]["amount"])


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("get", "ck", "nobody"), "holds nothing of the key 'nobody'"),
        (("get", "ck", "c1", "--entity", "shop"), "no such entity; there are payments.card_id"),
        (("get", "ck", "c1", "--at", "noon"), "write a time such as"),
        (("list", "ck", "--checkpoint", "77"), "no complete checkpoint 77"),
        (("list", "nowhere"), "no complete one"),
    ],
)
def test_what_is_not_there_is_said(
    gillnet: Command, payments: list[dict[str, Any]], arguments: tuple[str, ...], says: str
) -> None:
    result = gillnet("state", *arguments)
    assert result.exit_code != 0
    assert says in " ".join(result.stderr.split())


def test_export_writes_keys_and_events_that_only_the_user_may_read(
    gillnet: Command, payments: list[dict[str, Any]], tmp_path: Path
) -> None:
    assert gillnet("state", "export", "ck", "keys.parquet").exit_code == 0
    keys = pq.read_table(tmp_path / "keys.parquet")
    by_card = Counter(payment["card_id"] for payment in payments)
    assert dict(zip(keys["key"].to_pylist(), keys["events"].to_pylist(), strict=True)) == by_card
    newest = keys["newest"].cast("int64").to_pylist()
    expires = keys["expires"].cast("int64").to_pylist()
    assert {late - time for time, late in zip(newest, expires, strict=True)} == {DAY_US + 300_000_000}
    result = gillnet("state", "export", "ck", "all")
    assert "1,000 rows" in result.stdout
    events = pq.read_table(tmp_path / "all" / "events.windows.payments.card_id.parquet")
    assert sorted(events["id"].to_pylist()) == sorted(payment["tx_id"] for payment in payments)
    amounts = {payment["tx_id"]: round(float(payment["amount"]) * 100) for payment in payments}
    assert {
        name: round(float(amount) * 100)
        for name, amount in zip(events["id"].to_pylist(), events["amount"].to_pylist(), strict=True)
    } == amounts
    for path in (tmp_path / "keys.parquet", *(tmp_path / "all").iterdir()):
        assert path.stat().st_mode & 0o077 == 0


def test_looking_changes_nothing(gillnet: Command, payments: list[dict[str, Any]], tmp_path: Path) -> None:
    def everything() -> dict[str, bytes]:
        return {str(path): path.read_bytes() for path in (tmp_path / "ck").rglob("*") if path.is_file()}

    before = everything()
    inodes = {path: os.stat(path).st_mtime_ns for path in before}
    for command in (("list",), ("get",), ("export",)):
        extra = {"get": (payments[0]["card_id"],), "export": ("out.parquet",)}.get(command[0], ())
        assert gillnet("state", *command, "ck", *extra).exit_code == 0
    assert gillnet("doctor", "ck", "--fail-on", "never").exit_code == 0
    assert everything() == before
    assert {path: os.stat(path).st_mtime_ns for path in before} == inodes


def test_a_checkpoint_without_a_plan_needs_the_definition(
    gillnet: Command, payments: list[dict[str, Any]], app_file: Path, tmp_path: Path
) -> None:
    """Manifests of the version before had no plan."""
    import hashlib

    for path in (tmp_path / "ck").glob("checkpoint-*/manifest.json"):
        body = json.loads(json.loads(path.read_text())["checkpoint"])
        del body["plan"]
        text = json.dumps(body, sort_keys=True, separators=(",", ":"))
        path.write_text(json.dumps({"sha256": hashlib.sha256(text.encode()).hexdigest(), "checkpoint": text}))
    result = gillnet("state", "list", "ck")
    assert result.exit_code == 1
    assert "--app" in result.stderr
    assert gillnet("state", "list", "ck", "--app", str(app_file)).exit_code == 0
    kept = CheckpointStore(tmp_path / "ck").find().files
    backend = ROCKSDB if any(file.name.endswith(".sst") for file in kept) else ()
    source = ("-s", "payments=data/payments.ndjson", "--checkpoints", "ck")
    assert gillnet("run", str(app_file), *source, *backend).exit_code == 0
