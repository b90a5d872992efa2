"""``gillnet doctor`` on the command line: what it prints, as JSON, its exit code, and what it is given."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from command_line import Command

from gillnet.cli.doctor import read_size
from gillnet.core.errors import ConfigurationError

SOURCE = ("-s", "payments=simulator:payments?duration=2h&seed=3", "--sinks", "out", "--set", "options.max_records=2500")
ILL = """\
import gillnet as gn
from gillnet.simulator import PAYMENT_SCHEMA

payments = gn.Stream("payments", schema=PAYMENT_SCHEMA, id="tx_id", event_time="ts", allowed_lateness="10m")
features = gn.Features(payments, spend=payments.by("card_id").sum("amount", over="60d"))
pipeline = gn.Pipeline(features)
"""


@pytest.fixture
def place(start: Callable[..., subprocess.Popen[bytes]], tmp_path: Path) -> str:
    """Where a run of its own process kept its checkpoints: the memory that its history tells of is that run's alone."""
    (tmp_path / "app.py").write_text(ILL)
    (tmp_path / "gillnet.toml").write_text('checkpoints = "ck"\n')
    process = start("run", "app.py", *SOURCE)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors.decode()
    return "ck"


def test_a_run_that_is_well(gillnet: Command, place: str) -> None:
    result = gillnet("doctor", place, "--limit", "1TB")
    assert result.exit_code == 0
    assert "Nothing to do" in result.stdout
    assert any(line.split()[:2] == ["payments.card_id", "windows"] for line in result.stdout.splitlines())


def test_a_run_that_is_ill_says_what_to_change_and_fails(gillnet: Command, place: str) -> None:
    full = json.loads(gillnet("doctor", place, "--json", "--limit", "1TB").stdout)["readings"]
    rss = full["memory"]["rss"]
    (cards,) = [one for one in full["operators"] if one["name"] == "payments.card_id"]
    # More than the process has now, and less than its state will take.
    needs = rss + cards["bytes"] * (cards["kept_us"] / cards["covered_us"])
    limit = f"{(1.35 * rss + needs) / 2:.0f}" if needs > 1.4 * rss else f"{needs * 0.99:.0f}"
    result = gillnet("doctor", place, "--limit", limit)
    told = json.loads(gillnet("doctor", place, "--limit", limit, "--json", "--fail-on", "never").stdout)
    rules = [finding["rule"] for finding in told["findings"]]
    assert "long_window" in rules
    assert 'set  spend: over="30d"' in result.stdout
    assert "critical" in result.stdout
    assert result.exit_code == 1
    assert gillnet("doctor", place, "--limit", limit, "--fail-on", "never").exit_code == 0


def test_a_pipeline_stands_for_the_place_that_its_configuration_names(
    gillnet: Command, place: str, tmp_path: Path
) -> None:
    by_app = gillnet("doctor", "app.py", "--limit", "1TB")
    assert by_app.exit_code == 0
    assert by_app.stdout.splitlines()[-1] == gillnet("doctor", place, "--limit", "1TB").stdout.splitlines()[-1]
    (tmp_path / "gillnet.toml").unlink()
    without = gillnet("doctor", "app.py")
    assert without.exit_code == 2
    assert "checkpoints" in without.stderr


def test_what_cannot_be_read_is_said(gillnet: Command, place: str, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    nothing = gillnet("doctor", "empty")
    assert nothing.exit_code == 1
    assert "there is none yet" in nothing.stderr
    state = max((tmp_path / "ck").glob("checkpoint-*/state.bin"))
    state.write_bytes(state.read_bytes()[:-1])
    torn = gillnet("doctor", place, "--limit", "1TB")
    assert torn.exit_code == 0
    assert "torn or was changed" in " ".join(torn.stdout.split())
    assert "as far as could be seen" in torn.stdout


@pytest.mark.parametrize(
    ("text", "bytes_"), [("2GB", 2e9), ("1.5 gb", 1.5e9), ("512MiB", 512 * 1024**2), ("4Gi", 4 * 1024**3), ("77", 77.0)]
)
def test_amounts_of_memory(text: str, bytes_: float) -> None:
    assert read_size(text) == bytes_


@pytest.mark.parametrize("text", ["", "much", "-1GB", "1e9", "2XB"])
def test_what_is_no_amount_of_memory_is_refused(text: str) -> None:
    with pytest.raises(ConfigurationError, match="--limit"):
        read_size(text)
