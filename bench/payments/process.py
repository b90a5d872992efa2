"""Run a contender as a process of its own and read what it reports."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, Queue
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bench.payments.contract import Job

LOGS = Path("bench/results/local")


@dataclass(frozen=True, slots=True, kw_only=True)
class Contender:
    """One of those that are compared.

    Attributes
    ----------
    command
        Program and first arguments; those of `bench.payments.contract.Job` are appended.
    slow
        Whether it runs on fewer payments: rates are per payment, and nobody wants to wait for it.
    """

    name: str
    command: tuple[str, ...]
    slow: bool = False


def python_contender(name: str, *, slow: bool = False) -> Contender:
    """Return the contender whose program is ``bench/payments/contenders/<name>.py``."""
    return Contender(name=name, command=(sys.executable, "-m", f"bench.payments.contenders.{name}"), slow=slow)


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """What a contender reports at its end; see `bench.payments.contract.Meter`."""

    events: int
    wall_s: float
    cpu_user_s: float
    cpu_system_s: float
    rss_start_bytes: int
    rss_peak_bytes: int
    batches: int

    @property
    def events_per_s(self) -> float:
        """Payments a second from the first record to the last flush."""
        return self.events / self.wall_s

    @property
    def cpu_us_per_event(self) -> float:
        """CPU microseconds of the client process a payment."""
        return (self.cpu_user_s + self.cpu_system_s) / self.events * 1e6


class Running:
    """A started contender."""

    def __init__(self, contender: Contender, job: Job) -> None:
        LOGS.mkdir(parents=True, exist_ok=True)
        self._log = LOGS / f"{contender.name}-{job.mode}.log"
        self._name = contender.name
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [*contender.command, *job.arguments()], stdout=subprocess.PIPE, stderr=log, text=True
            )
        self._lines: Queue[dict[str, object]] = Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def wait_ready(self, timeout_s: float) -> None:
        """Return when the contender says that it takes records."""
        try:
            line = self._lines.get(timeout=timeout_s)
        except Empty:
            raise self._failure(f"was not ready after {timeout_s:.0f} s") from None
        if line.get("ready") is not True:
            raise self._failure("ended before it was ready")

    def wait_done(self, timeout_s: float) -> Measurement | None:
        """Return what it measured, or None if it is still at work after the timeout."""
        try:
            status = self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return None
        self._reader.join()
        lines = list(self._lines.queue)
        if status != 0 or len(lines) < 2 or "wall_s" not in lines[-2]:
            raise self._failure(f"ended with exit code {status} and without its measurements")
        return Measurement(**lines[-2])

    def stop(self) -> None:
        """End the process if it is still there, and release its pipe."""
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        self._reader.join()
        if self._process.stdout is not None:
            self._process.stdout.close()

    def _read(self) -> None:
        for line in self._process.stdout or ():
            if line.startswith("{"):
                self._lines.put(json.loads(line))
        self._lines.put({"ready": False})  # So that a reader does not wait for a process that is gone.

    def _failure(self, what: str) -> RuntimeError:
        self.stop()
        tail = self._log.read_text(encoding="utf-8", errors="replace")[-2_000:]
        return RuntimeError(f"Contender {self._name} {what}. Its log ({self._log}) ends:\n{tail}")


def run(contender: Contender, job: Job, timeout_s: float) -> Measurement:
    """Run a contender to its end."""
    running = Running(contender, job)
    try:
        running.wait_ready(timeout_s)
        measured = running.wait_done(timeout_s)
    finally:
        running.stop()
    if measured is None:
        raise RuntimeError(f"Contender {contender.name} was not done after {timeout_s:.0f} s.")
    if measured.events != job.events:
        raise RuntimeError(f"Contender {contender.name} scored {measured.events} payments instead of {job.events}.")
    return measured
