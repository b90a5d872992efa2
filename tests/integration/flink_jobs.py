"""A job for Flink that is compiled against the cluster's own jars: what a pipeline looks like to it, without one."""

from __future__ import annotations

import subprocess
import zipfile
from pathlib import Path

from gillnet.connectors.local_jvm import find_java
from gillnet.runtimes.flink import fetch_flink

SOURCE = Path(__file__).with_name("flink_job") / "CountingJob.java"


def build(directory: Path) -> Path:
    """Return the jar of the counting job."""
    javac = Path(find_java("Tests on Flink")).resolve().with_name("javac")
    classes = directory / "classes"
    command = [javac, "-d", classes, "-cp", f"{fetch_flink()}/*", SOURCE]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    jar = directory / "counting.jar"
    with zipfile.ZipFile(jar, "w") as packed:
        packed.writestr("META-INF/MANIFEST.MF", "Manifest-Version: 1.0\nMain-Class: CountingJob\n")
        for path in classes.glob("*.class"):
            packed.write(path, path.name)
    return jar


def arguments(
    name: str, *, per_s: float = 2_000, keys: int = 500, work_us: int = 0, of_ten: int = 0, fails_at: int = -1
) -> list[str]:
    """Return what the job is told: see its source."""
    return [name, str(per_s), str(keys), str(work_us), str(of_ten), str(fails_at)]
