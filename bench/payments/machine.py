"""Describe the machine and the software of a run; numbers mean nothing without them."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path

from gillnet.connectors.local_kafka import KAFKA_VERSION

_PACKAGES = ("bytewax", "confluent-kafka", "gillnet", "msgspec", "numpy", "quixstreams", "xgboost-cpu")


def describe() -> dict[str, object]:
    """Return CPU model, cores, memory, versions, and the load average, which tells whether others were at work."""
    return {
        "cpu": _proc_value("/proc/cpuinfo", "model name"),
        "cores": os.cpu_count(),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "java": _java_version(),
        "kafka": KAFKA_VERSION,
        "packages": {name: _version(name) for name in _PACKAGES},
        "load_average_1m": os.getloadavg()[0],
    }


def _proc_value(path: str, field: str) -> str:
    for line in Path(path).read_text().splitlines():
        name, _, value = line.partition(":")
        if name.strip() == field:
            return value.strip()
    return "unknown"


def _java_version() -> str:
    lines = subprocess.run(["java", "-version"], check=True, capture_output=True, text=True).stderr.splitlines()
    return next(line for line in lines if "version" in line)


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
