"""What only a process of its own shows: pipes, signals, and that nothing else goes to standard output."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

Start = Callable[..., subprocess.Popen[bytes]]
TIMEOUT_S = 120


def wait_for(what: Callable[[], bool], process: subprocess.Popen[bytes]) -> None:
    deadline_s = time.monotonic() + TIMEOUT_S
    while not what():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline_s
        time.sleep(0.05)


def test_simulate_pipes_into_run(start: Start, app_file: Path) -> None:
    writer = start("simulate", "payments", "--to", "-", "--duration", "1h", "--duplicate-share", "0.01")
    reader = start("run", str(app_file), "--source", "payments=-", "--sink", "decisions=-", stdin=writer.stdout)
    assert writer.stdout is not None
    writer.stdout.close()  # The reader has it now.
    decisions, told = reader.communicate(timeout=TIMEOUT_S)
    assert (writer.wait(TIMEOUT_S), reader.returncode) == (0, 0), told
    rows = [json.loads(line) for line in decisions.splitlines()]
    assert len({row["tx_id"] for row in rows}) == len(rows) > 100
    assert f"scored={len(rows)}".encode() in told.splitlines()[-1]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_finishes_flushes_and_exits_0(start: Start, app_file: Path, tmp_path: Path, number: int) -> None:
    output = tmp_path / "decisions.ndjson"
    source = "payments=simulator:payments?rate=500&duration=7d"
    process = start("run", str(app_file), "-s", source, "--sink", f"decisions={output}", "--log", "json")
    wait_for(lambda: output.exists() and output.stat().st_size > 0, process)
    process.send_signal(number)
    _, told = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == 0
    last = json.loads(told.splitlines()[-1])
    assert last["event"] == "finished"
    rows = [json.loads(line) for line in output.read_bytes().splitlines()]
    assert f"scored={len(rows)} " in last["payments"]


def test_a_reader_that_goes_away_ends_the_writer_quietly(start: Start) -> None:
    writer = start("simulate", "payments", "--to", "-", "--duration", "3d")
    assert writer.stdout is not None
    assert writer.stdout.readline().startswith(b'{"tx_id"')
    writer.stdout.close()
    writer.stdout = None
    _, told = writer.communicate(timeout=TIMEOUT_S)
    assert b"Traceback" not in told
    assert writer.returncode not in (0, None)


@pytest.mark.slow
def test_a_demo_without_a_terminal_is_plain_text(start: Start) -> None:
    process = start("demo", "--seconds", "4")
    shown, told = process.communicate(timeout=TIMEOUT_S)
    assert (process.returncode, told) == (0, b"")
    text = shown.decode()
    assert "\x1b" not in text
    assert "scenario 1 of 2: bot sessions, flagged while they run" in text
    assert "scenario 2 of 2: card payments, scored in flight" in text
    for part in ("1 · bot sessions", "2 · card payments"):
        summary = text.partition(f"\n{part}")[2]
        assert all(word in summary for word in ("accounts", "latency", "judged", "precision", "recall"))
    assert "gillnet explain payments" in text
    assert all(line == line.rstrip() for line in text.splitlines())
    assert len(text.splitlines()) < 100


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_demo_stops_early_with_what_it_has(start: Start, number: int) -> None:
    process = start("demo", "--seconds", "60")
    assert process.stdout is not None
    for line in process.stdout:
        if b"now live" in line:
            break
    time.sleep(1.0)
    process.send_signal(number)
    shown, told = process.communicate(timeout=TIMEOUT_S)
    assert (process.returncode, told) == (0, b"")
    assert "stopped early" in shown.decode()
    assert "1 · bot sessions" in shown.decode()
    assert "2 · card payments" not in shown.decode()
