"""Packages: a pipeline as the jar of a Flink job, with everything in it that the job needs.

The jar is Gillnet's host (``java/``: operators, the kernel's library, Kafka's connector) and the job's own ``gillnet/job.json``. It
goes to any Flink of its version: ``flink run``, the REST API, or the Kubernetes operator's ``jarURI``.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gillnet.core.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Mapping

ENTRY_CLASS = "gillnet.flink.Job"
HOST_JAR = "gillnet-flink.jar"
_JOB = "gillnet/job.json"
_PLACES = (Path(__file__).parent / HOST_JAR, Path(__file__).parents[4] / "java" / "target" / HOST_JAR)


def find_host_jar() -> Path:
    """Return the path of Gillnet's jar for Flink: ``GILLNET_FLINK_JAR``, the one in the package, or the one that ``make java`` built.

    Raises
    ------
    ConfigurationError
        If there is none.
    """
    named = os.environ.get("GILLNET_FLINK_JAR")
    for place in (Path(named),) if named else _PLACES:
        if place.is_file():
            return place
    raise ConfigurationError(
        f"Flink: Gillnet's jar was not found{f' at {named}' if named else ''}. Build it with `make java` (Java 17, Maven, Rust), "
        "or name one in GILLNET_FLINK_JAR."
    )


def package_job(job: Mapping[str, Any], path: Path, *, host: Path | None = None) -> Path:
    """Write the jar of a job, at once: whoever reads the path sees the old file or the new one.

    Parameters
    ----------
    job
        What `gillnet.app.flink_job.flink_job` made.
    path
        The jar to write.
    host
        Gillnet's jar; by default `find_host_jar`.

    Raises
    ------
    ConfigurationError
        If there is no host, or the jar cannot be written.
    """
    host = host or find_host_jar()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=".package-") as work:
            made = Path(work) / path.name
            shutil.copyfile(host, made)
            with zipfile.ZipFile(made, "a", zipfile.ZIP_DEFLATED) as jar:
                jar.writestr(_JOB, json.dumps(job))
            made.replace(path)
    except OSError as error:
        raise ConfigurationError(f"The job's jar {path} cannot be written: {error}.") from error
    return path
