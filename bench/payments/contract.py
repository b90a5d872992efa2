"""What every contender must do, and how it says what it took.

A contender is a process of its own. It reads ``--input`` as consumer group ``--group`` from the beginning, writes one
record per payment to ``--output``, keyed by card, and exits with 0 after ``--events`` payments are scored, flushed and
acknowledged. It prints two lines of JSON on standard output: ``{"ready": true}`` when it can take records (or is about
to ask for them), and at the end the measurements of `Meter.finish`. Everything else goes to standard error.

Features (float32, in the order of `FEATURES`), per card, at payment *t*, windows (t - W, t], this payment included:

- ``amount``: this payment's amount; ``hour``: the hour of day of its event time, UTC;
- ``spend_5m``: sum of amounts; ``payments_1h``: number of payments; ``declined_1h``: number of declined ones;
- ``max_1h``: largest amount; ``mean_1d``: mean amount;
- ``since_last_s``: seconds since the card's previous payment, NaN for its first one.

Output: ``{"tx_id": "p00000000001", "score": 0.123, "decision": "allow"}``; the score must read back as the model's
float32.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Sequence

FEATURES = ("amount", "hour", "spend_5m", "payments_1h", "declined_1h", "max_1h", "mean_1d", "since_last_s")

MINUTE_MS = 60_000
HOUR_MS = 60 * MINUTE_MS
DAY_MS = 24 * HOUR_MS

REVIEW_ABOVE = 0.5
BLOCK_ABOVE = 0.9

Mode = Literal["throughput", "latency"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One run of one contender, as given on its command line.

    ``mode`` is what to tune for: ``throughput`` when the topic is full from the start, ``latency`` when payments come
    in at a fixed rate and each answer should leave at once.
    """

    bootstrap: str
    input: str
    output: str
    group: str
    model: Path
    mode: Mode
    events: int

    def arguments(self) -> list[str]:
        """Write the command-line arguments that `parse_job` reads."""
        return [text for name, value in asdict(self).items() for text in (f"--{name}", str(value))]


def parse_job(arguments: Sequence[str] | None = None) -> Job:
    """Read a job from the command line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--bootstrap", required=True, help="host:port of the broker")
    parser.add_argument("--input", required=True, help="topic with payments")
    parser.add_argument("--output", required=True, help="topic for scores")
    parser.add_argument("--group", required=True, help="consumer group")
    parser.add_argument("--model", required=True, type=Path, help="XGBoost model, UBJ")
    parser.add_argument("--mode", choices=["throughput", "latency"], required=True)
    parser.add_argument("--events", required=True, type=int, help="number of payments, after which to flush and exit")
    return Job(**vars(parser.parse_args(arguments)))


def decide(score: float) -> str:
    """Turn a score into the decision."""
    if score > BLOCK_ABOVE:
        return "block"
    return "review" if score > REVIEW_ABOVE else "allow"


def announce_ready() -> None:
    """Tell the harness that this process is started and asks for records."""
    print(json.dumps({"ready": True}), flush=True)


class Meter:
    """Measures a contender from its first record to its last flush; the CPU time is that of the whole process."""

    __slots__ = ("_cpu_start", "_rss_start_bytes", "_wall_start", "batches")

    def __init__(self) -> None:
        self._wall_start: float | None = None
        self._cpu_start = (0.0, 0.0)
        self._rss_start_bytes = 0
        self.batches = 0

    def start(self) -> None:
        """Note the first record; later calls do nothing."""
        if self._wall_start is None:
            self._rss_start_bytes = _memory_bytes("VmRSS")
            self._cpu_start = _cpu_s()
            self._wall_start = time.monotonic()

    def finish(self, events: int) -> None:
        """Print the measurements; call after the last flush was acknowledged."""
        if self._wall_start is None:
            sys.exit("No record was read; does the input topic exist?")
        wall_s = time.monotonic() - self._wall_start
        user_s, system_s = _cpu_s()
        measured = {
            "events": events,
            "wall_s": wall_s,
            "cpu_user_s": user_s - self._cpu_start[0],
            "cpu_system_s": system_s - self._cpu_start[1],
            "rss_start_bytes": self._rss_start_bytes,
            "rss_peak_bytes": _memory_bytes("VmHWM"),
            "batches": self.batches,
        }
        print(json.dumps(measured), flush=True)


def _cpu_s() -> tuple[float, float]:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime, usage.ru_stime


def _memory_bytes(field: str) -> int:
    # Not ru_maxrss: across fork and exec that one starts from the parent's peak.
    status = Path("/proc/self/status").read_text()
    return int(status.split(f"{field}:")[1].split(maxsplit=1)[0]) * 1024
