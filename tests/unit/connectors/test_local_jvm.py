"""Processes that leave nothing behind, however the one that started them ends."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

from gillnet.connectors.local_jvm import GuardedProcess, free_port
from gillnet.core.time import SystemClock

PROGRAM = """
import os, signal, sys
from pathlib import Path
from gillnet.connectors.local_jvm import GuardedProcess
place = Path(sys.argv[1])
print(GuardedProcess(["sleep", "600"], log_path=place / "log", directory=place).pid, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_process_ends_with_the_one_that_started_it_even_if_that_is_killed(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(tmp_path)], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    process = Path("/proc") / done.stdout.strip()
    clock = SystemClock()
    deadline_s = clock.monotonic_s() + 30.0
    while process.exists() and "\nState:\tZ" not in (process / "status").read_text():
        assert clock.monotonic_s() < deadline_s, "it outlived its owner"
        clock.sleep(0.05)


def test_a_process_that_is_ended_is_gone_and_its_log_is_kept(tmp_path: Path) -> None:
    command = ["/bin/sh", "-c", "echo $WORD; exec sleep 600"]
    log = tmp_path / "log"
    process = GuardedProcess(command, log_path=log, directory=tmp_path, environment={"WORD": "begun"})
    clock = SystemClock()
    deadline_s = clock.monotonic_s() + 30.0
    while process.log_tail == "(empty)":
        assert clock.monotonic_s() < deadline_s
        clock.sleep(0.02)
    assert process.pid is not None
    process.send(signal.SIGSTOP)  # A paused one is ended all the same.
    process.end(signal.SIGTERM)
    assert process.pid is None
    assert process.log_tail == "begun"
    process.send(signal.SIGTERM)
    process.end(signal.SIGTERM)


def test_a_free_port_is_one_that_nobody_listens_on() -> None:
    assert 1_024 <= free_port() < 65_536
