"""What the process takes of its machine: memory by kind, CPU, files, and the limits that it runs under.

Linux tells nearly all of it; elsewhere what is unknown is left out. Nothing here costs more than reading a few small files of the
kernel's, and none of them walks over memory.
"""

from __future__ import annotations

import ctypes
import os
import resource
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

_PROC = Path("/proc/self")
_CGROUPS = Path("/sys/fs/cgroup")
_STATUS = {
    "VmRSS": "process_rss_bytes",
    "RssAnon": "process_anonymous_bytes",
    "VmHWM": "process_peak_bytes",
    "VmSwap": "process_swap_bytes",
    "Threads": "process_threads",
}


def process_figures() -> dict[str, float | int]:
    """Return the process's memory, CPU time and open files, by their names in the catalogue."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    figures: dict[str, float | int] = {"process_cpu_s": round(usage.ru_utime + usage.ru_stime, 3)}
    figures |= _status(_PROC)
    if "process_rss_bytes" not in figures:
        figures["process_peak_bytes"] = usage.ru_maxrss * (1 if sys.platform == "darwin" else 1_024)
    with suppress(OSError):  # Not Linux.
        figures["process_open_files"] = len(os.listdir(_PROC / "fd"))
    return figures


def loop_cpu_s() -> float | None:
    """Return the CPU time of the calling thread, in seconds; None where the system does not tell."""
    which = getattr(resource, "RUSAGE_THREAD", None)
    if which is None:
        return None
    usage = resource.getrusage(which)
    return usage.ru_utime + usage.ru_stime


def _status(process: Path) -> dict[str, float | int]:
    try:
        lines = (process / "status").read_text("ascii", "replace").splitlines()
    except OSError:
        return {}
    figures: dict[str, float | int] = {}
    for line in lines:
        name, _, value = line.partition(":")
        if name in _STATUS:
            number, *unit = value.split()
            figures[_STATUS[name]] = int(number) * (1_024 if unit == ["kB"] else 1)
    return figures


class _Mallinfo(ctypes.Structure):
    _fields_ = [
        (name, ctypes.c_size_t)
        for name in (
            *("arena", "ordblks", "smblks", "hblks", "hblkhd"),
            *("usmblks", "fsmblks", "uordblks", "fordblks", "keepcost"),
        )
    ]


def malloc_reader() -> Callable[[], dict[str, float | int]] | None:
    """Return what reads the C library's account of its heap; None where it keeps none.

    Notes
    -----
    It looks at every free block of the heap, with the heap's lock held: whoever calls it measures it, and leaves it where it is
    not cheap.
    """
    try:
        mallinfo2 = ctypes.CDLL(None).mallinfo2
    except (OSError, AttributeError):
        return None
    mallinfo2.restype = _Mallinfo

    def read() -> dict[str, float | int]:
        info = mallinfo2()
        return {"malloc_used_bytes": info.uordblks + info.hblkhd, "malloc_free_bytes": info.fordblks}

    return read


def memory_limit_bytes() -> int | None:
    """Return the least of the memory that the machine has and that the process's control group may take; None if unknown."""
    limits = [limit for limit in (_machine_bytes(), *_group_limits("memory.max", "memory.limit_in_bytes")) if limit]
    return min(limits, default=None)


def cpus() -> float:
    """Return how many CPUs the process may use: those that it may run on, or its control group's quota where that is less."""
    allowed = float(len(os.sched_getaffinity(0))) if hasattr(os, "sched_getaffinity") else float(os.cpu_count() or 1)
    for directory in _group_directories("cpu"):
        try:
            quota, period = (directory / "cpu.max").read_text().split()
        except (OSError, ValueError):
            continue
        if quota != "max":
            allowed = min(allowed, int(quota) / int(period))
    return allowed


def _machine_bytes() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError):
        return None


def _group_limits(*names: str) -> Iterator[int]:
    for directory in _group_directories("memory"):
        for name in names:
            try:
                text = (directory / name).read_text().strip()
            except OSError:
                continue
            # Version 1 writes a number that nobody has for no limit.
            if text.isdigit() and int(text) < 1 << 60:
                yield int(text)


def _group_directories(controller: str) -> list[Path]:
    """Return where the process's control group may be, of version 2 and of version 1."""
    found = [_CGROUPS, _CGROUPS / controller]
    try:
        lines = (_PROC / "cgroup").read_text().splitlines()
    except OSError:
        return []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        root = _CGROUPS if not controllers else _CGROUPS / controllers
        if not controllers or controller in controllers.split(","):
            found.append(root / path.lstrip("/"))
    return found
