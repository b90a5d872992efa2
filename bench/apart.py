"""Work in a process of its own, whose memory holds nothing else."""

from __future__ import annotations

import multiprocessing
from typing import Any


def apart(work: Any, *arguments: Any) -> Any:
    """Run a function in a new process; return what it returns."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(work, arguments)
