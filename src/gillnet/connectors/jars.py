"""Servers for one machine come as jars, which Maven fetches once into the user's cache.

What a server needs is said by a small pom of its own, whose property ``<name>.version`` is the version.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import structlog

from gillnet.core.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from importlib.resources.abc import Traversable

_log = structlog.get_logger("gillnet.jars")


def fetch_jars(pom: Traversable, *, name: str, version: str, title: str, megabytes: int) -> Path:
    """Return the directory of a server's jars, which Maven fetches once into the user's cache.

    Processes that come at the same time wait for one another, and a fetch that breaks off leaves nothing behind.

    Parameters
    ----------
    pom
        Says what is needed; ``${<name>.version}`` in it is the version.
    name, version
        Name the directory in the cache.
    title
        What a user knows the server by, for the log and errors.
    megabytes
        How much there is to fetch, for the log.

    Raises
    ------
    ConfigurationError
        If Maven is missing or cannot fetch.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "gillnet"
    home = cache / f"{name}-{version}"
    libs = home / "libs"
    if libs.is_dir():
        return libs
    cache.mkdir(parents=True, exist_ok=True)
    with _locked(cache / f"{name}-{version}.lock"):
        if not libs.is_dir():
            _log.info(f"fetching {title}, this once", version=version, megabytes=megabytes)
            with tempfile.TemporaryDirectory(dir=cache, prefix=f"{name}-fetch-") as work:
                _run_maven(Path(work), pom.read_bytes(), f"-D{name}.version={version}", f"{title} {version}")
                home.mkdir(exist_ok=True)
                (Path(work) / "libs").rename(libs)
    return libs


def _run_maven(work: Path, pom: bytes, version: str, title: str) -> None:
    mvn = shutil.which("mvn")
    if mvn is None:
        raise ConfigurationError(
            f"{title}: Maven was not found; it is needed once, to fetch the server: install it "
            "(Debian, Ubuntu: `apt install maven`), or use a server that runs already."
        )
    (work / "pom.xml").write_bytes(pom)
    command = [mvn, "-q", "-B", "-f", str(work / "pom.xml"), version, "dependency:copy-dependencies"]
    command += ["-DincludeScope=runtime", f"-DoutputDirectory={work / 'libs'}"]
    done = subprocess.run(  # noqa: S603
        command,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        told = " ".join((done.stdout + done.stderr).split())[-600:]
        raise ConfigurationError(f"{title}: Maven could not fetch it; is its repository reachable? It says: {told}")


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
