"""A real Kafka broker (KRaft, one node) on loopback, for the length of a benchmark: Gillnet's own, with a server's JVM."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

from gillnet.connectors.local_kafka import SUSTAINED_LOAD, LocalKafka


def exit_on_sigterm() -> None:
    """Let SIGTERM unwind the stack like Ctrl-C does, so that no broker and no contender stays behind."""
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))


def benchmark_broker() -> LocalKafka:
    """Return a broker for a benchmark, to be started by ``with``."""
    return LocalKafka(heap_mb=1024, jvm_options=("-Xms1024m", *SUSTAINED_LOAD))


def cpu_s(broker: LocalKafka) -> float:
    """Return a running broker's CPU time so far, user and system, in seconds."""
    fields = Path(f"/proc/{broker.pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
