"""``gillnet run`` in a terminal: a real one (a pseudo-terminal), since a pipe gets log lines."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import signal
import struct
import subprocess
import termios
from collections.abc import Callable
from pathlib import Path

import pytest
from command_line import Command

OPTIONS = ("--duration", "3h", "--cards", "500", "--merchants", "64", "--payments-per-day", "16000")
CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
ALTERNATE_SCREEN, BACK = "\x1b[?1049h", "\x1b[?1049l"
Start = Callable[..., subprocess.Popen[bytes]]


def shown_by(start: Start, *arguments: str, stop_at: str | None = None) -> tuple[str, int]:
    """Run in a terminal of 120 by 40; return all that was written to it, and the exit code.

    ``stop_at``: send SIGTERM once this is on the screen.
    """
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 120, 0, 0))
    process = start(*arguments, stdout=theirs, stderr=theirs)
    os.close(theirs)
    shown = ""
    while block := read(ours):
        shown += block.decode(errors="replace")
        if stop_at is not None and stop_at in CONTROL.sub("", shown):
            process.send_signal(signal.SIGTERM)
            stop_at = None
    os.close(ours)
    return shown, process.wait(30)


def read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65_536)
    except OSError:  # What a terminal says when the last program that had it open is gone.
        return b""


@pytest.fixture
def payments(gillnet: Command) -> str:
    assert gillnet("simulate", "payments", "--to", "data", *OPTIONS).exit_code == 0
    return "data/payments.ndjson"


def test_a_run_has_a_screen_of_its_own_and_leaves_its_last_figures(
    start: Start, app_file: Path, payments: str, tmp_path: Path
) -> None:
    shown, code = shown_by(start, "run", str(app_file), "-s", f"payments={payments}", "--sinks", "out")
    assert code == 0
    assert ALTERNATE_SCREEN in shown
    left = CONTROL.sub("", shown.rpartition(BACK)[2])
    records = len((tmp_path / payments).read_bytes().splitlines())
    assert re.search(rf"payments {records:,} +{records:,} +0 +0 +0", left), left
    assert re.search(r"rate +[\d,]+ records/s", left)
    assert re.search(r"latency +p50 [\d.,]+ ms +p95 [\d.,]+ ms +p99 [\d.,]+ ms", left)
    assert re.search(r"decisions +allow [\d,]+ +review [\d,]+", left)


def test_sigterm_ends_it_with_what_it_has_done(start: Start, app_file: Path) -> None:
    source = "payments=simulator:payments?rate=200&duration=1d&cards=500&merchants=64"
    shown, code = shown_by(start, "run", str(app_file), "-s", source, "--sinks", "out", stop_at="records/s")
    assert code == 0
    assert BACK in shown
    assert "stopped after" in CONTROL.sub("", shown.rpartition(BACK)[2])
