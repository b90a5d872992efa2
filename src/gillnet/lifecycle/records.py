"""The figures of measured runs, on disk: beside them always the machine that they were measured on."""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


def save_runs(path: Path, runs: Sequence[Mapping[str, Any]]) -> None:
    """Write the figures of runs with the machine's description."""
    from rich.console import Console

    path.parent.mkdir(parents=True, exist_ok=True)
    machine: dict[str, str | int | float | None] = {
        "system": platform.system(),
        "machine": platform.machine(),
        "cpus": os.cpu_count(),
    }
    machine |= {"python": platform.python_version(), "load_average_1m": round(os.getloadavg()[0], 2)}
    path.write_text(json.dumps({"machine": machine, "runs": runs}, indent=2) + "\n", "utf-8")
    Console(file=sys.stderr).print(f"written to {path}")
