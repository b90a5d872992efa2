"""``gillnet run --workers N``: the same command in several processes, each with its share of the partitions."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Sequence

import structlog
import typer

from gillnet.cli.signals import stop_on_signals
from gillnet.core.time import SystemClock

_log = structlog.get_logger("gillnet.run")
_LOOK_EVERY_S = 0.2


def run_workers(workers: int, partitions: int) -> None:
    """Start the workers and wait for them; a signal is passed on, and when one fails the others are stopped.

    Raises
    ------
    typer.Exit
        With code 1, if a worker failed; its own error is on standard error.
    """
    used = min(workers, partitions)
    if used < workers:
        _log.warning(
            "fewer workers than asked for, since a partition is not shared", workers=used, partitions=partitions
        )
    clock = SystemClock()
    arguments = _without_workers(sys.argv[1:])
    command = [sys.executable, "-m", "gillnet.cli.main", *arguments]
    with stop_on_signals() as stop:
        shares = [f"{number}/{used}/{partitions}" for number in range(used)]
        processes = [subprocess.Popen([*command, "--worker", share]) for share in shares]  # noqa: S603  this very command
        _log.info("workers started", workers=used, partitions=partitions, processes=[p.pid for p in processes])
        told, failed = False, list[subprocess.Popen[bytes]]()
        while any(process.poll() is None for process in processes):
            failed = failed or [process for process in processes if process.poll() not in (None, 0)]
            if (stop.is_set() or failed) and not told:
                told = True
                _stop(processes)
            clock.sleep(_LOOK_EVERY_S)
        stopped = stop.is_set()
    # One that was stopped while it was still starting has no handler yet, and had read nothing.
    fine = (0, -signal.SIGTERM) if stopped else (0,)
    if any(process.returncode not in fine for process in processes):
        _log.error("a worker failed, so all were stopped", exit_codes=[process.returncode for process in processes])
        raise typer.Exit(1)


def _stop(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    for process in processes:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)


def _without_workers(arguments: Sequence[str]) -> list[str]:
    """Return the command line without ``--workers N``."""
    kept, skip = [], False
    for argument in arguments:
        if skip:
            skip = False
        elif argument == "--workers":
            skip = True
        elif not argument.startswith("--workers="):
            kept.append(argument)
    return kept
