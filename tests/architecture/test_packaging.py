"""What goes to a user: lock files that bind, and a source distribution that builds the wheel that installs."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LOCKS = ("audit", "bench", "dev", "fuzz", "runtime")
#: Tools that look at the project from outside need nothing of it.
TOOLS = ("audit",)
#: ``name==version ; marker \`` and its hashes on the lines below.
PIN = r"^([a-z0-9._-]+)==[^ ]+(?: ;[^\\]*)? \\\n((?:    --hash=sha256:[0-9a-f]{64}(?: \\)?\n)+)"


@pytest.mark.parametrize("name", LOCKS)
def test_a_lock_file_binds_versions_with_hashes_and_names_no_index(name: str) -> None:
    text = (ROOT / "requirements" / f"{name}.lock").read_text(encoding="utf-8")
    pins = re.findall(PIN, text, re.M)
    lines = [line for line in text.splitlines() if line and not line.startswith(("#", " "))]
    assert lines
    assert len(pins) == len(lines)
    assert "://" not in text
    assert "--index" not in text


@pytest.mark.parametrize("name", LOCKS)
def test_a_lock_file_covers_what_the_project_needs(name: str) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    extras = project["project"]["optional-dependencies"]
    needed = [
        *project["project"]["dependencies"],
        *(item for extra in extras if extra != "all" for item in extras[extra]),
    ]
    wanted = [] if name in TOOLS else needed
    if name != "runtime":
        wanted += [item for item in project["dependency-groups"][name] if isinstance(item, str)]
    locked = set(re.findall(r"^([a-z0-9._-]+)==", (ROOT / "requirements" / f"{name}.lock").read_text(), re.M))
    missing = {re.split(r"[<>=\[ ]", item)[0] for item in wanted} - locked
    assert not missing, f"run `make lock`: {missing}"


def test_whatever_is_installed_is_bound_by_its_hash_or_its_lock() -> None:
    commands = [line for line in (ROOT / "Makefile").read_text(encoding="utf-8").splitlines() if line.startswith("\t")]
    locked = [line for line in commands if "-r requirements/" in line]
    assert len(locked) == len([name for name in LOCKS if name != "runtime"])
    assert all("--require-hashes" in line for line in locked)
    crates = [line for line in commands if " cargo " in f" {line} " and "fmt" not in line]
    assert crates
    assert all("--locked" in line or "$(CARGO_FLAGS)" in line for line in crates)


@pytest.fixture(scope="module")
def source_distribution(tmp_path_factory: pytest.TempPathFactory) -> Path:
    maturin = Path(sys.executable).with_name("maturin")
    if not maturin.exists() or shutil.which("cargo") is None:
        pytest.skip("needs maturin and cargo, which `make test` brings")
    out = tmp_path_factory.mktemp("sdist")
    run(maturin, "sdist", "--out", out, cwd=ROOT)
    (archive,) = out.glob("gillnet-*.tar.gz")
    return archive


def run(*command: str | Path, cwd: Path, **environment: str) -> str:
    """Run a program that sees neither the checkout's sources nor pip's choices for this user; return what it prints."""
    kept = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}
    kept["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{kept['PATH']}"
    done = subprocess.run(
        list(map(str, command)),
        cwd=cwd,
        env=kept | environment,
        check=False,
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, f"{command}: {done.stdout[-2_000:]}{done.stderr[-4_000:]}"
    return done.stdout


@pytest.mark.slow
def test_the_source_distribution_has_what_a_build_needs(source_distribution: Path) -> None:
    with tarfile.open(source_distribution) as packed:
        names = {name.partition("/")[2] for name in packed.getnames()}
    crates = {path.relative_to(ROOT).as_posix() for path in (ROOT / "crates").glob("*/src/**/*.rs")}
    crates = {name for name in crates if not name.startswith("crates/gillnet-jni/")}  # The JVM's, and in no wheel.
    sources = {path.relative_to(ROOT).as_posix() for path in (ROOT / "src").rglob("*.py")}
    assert names >= {"Cargo.toml", "Cargo.lock", "LICENSE", "README.md", "pyproject.toml", "PKG-INFO"}
    assert names >= crates
    assert names >= sources
    assert {"src/gillnet/connectors/kafka-pom.xml", "src/gillnet/runtimes/flink/pom.xml"} <= names
    assert not [name for name in names if name.endswith((".so", ".pyc")) or name.startswith(("target/", ".venv"))]


@pytest.fixture(scope="module")
def unpacked(source_distribution: Path) -> tuple[Path, Path]:
    """The source distribution, unpacked, and the target directory of the checkout, which has the dependencies compiled.

    It lies below the target directory, always in the same place, for cargo keeps what it compiles by path: elsewhere each run would
    leave another kernel behind.
    """
    told = json.loads(run("cargo", "metadata", "--format-version", "1", "--no-deps", "--locked", cwd=ROOT))
    target = Path(told["target_directory"])
    place = target / "from-sdist"
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    with tarfile.open(source_distribution) as packed:
        packed.extractall(place, filter="data")
    (sources,) = place.iterdir()
    for path in sources.rglob("*"):
        path.touch()  # Archived files are old, and cargo would take what it compiled of earlier ones for theirs.
    # It is to build and to load; what it computes is tested elsewhere, so nobody waits minutes for an optimised one.
    crates = (f"[profile.release.package.{package['name']}]\nopt-level = 0\n" for package in told["packages"])
    (place / ".cargo").mkdir()
    (place / ".cargo" / "config.toml").write_text("".join(crates), encoding="utf-8")
    return sources, target


@pytest.mark.slow
def test_the_source_distribution_builds_a_wheel_that_installs_and_runs(
    unpacked: tuple[Path, Path], tmp_path: Path
) -> None:
    sources, target = unpacked
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check")
    build = ("wheel", "--no-build-isolation", "--no-deps", "--no-index", "--wheel-dir", tmp_path, ".")
    run(*pip, *build, cwd=sources, CARGO_TARGET_DIR=str(target))
    (wheel,) = tmp_path.glob("gillnet-*.whl")

    venv = tmp_path / "venv"
    run(sys.executable, "-m", "venv", "--without-pip", venv, cwd=tmp_path)
    run(*pip, "--python", venv / "bin" / "python", "install", "--no-deps", "--no-index", wheel, cwd=tmp_path)
    (packages,) = venv.glob("lib/python*/site-packages")
    # The dependencies are those of this environment. Its own .pth files are not followed, so the checkout is out of sight.
    (packages / "dependencies.pth").write_text(f"{sysconfig.get_path('purelib')}\n", encoding="utf-8")

    version = wheel.name.split("-")[1]
    assert run(venv / "bin" / "gillnet", "version", cwd=tmp_path) == f"gillnet {version}\n"
    program = (
        "import gillnet, gillnet._kernel, json; from gillnet.operators.decode import rejection_reasons; "
        "print(json.dumps([gillnet.__file__, gillnet._kernel.__file__, len(rejection_reasons())]))"
    )
    package, kernel, reasons = json.loads(run(venv / "bin" / "python", "-c", program, cwd=tmp_path))
    assert Path(package).is_relative_to(packages)
    assert Path(kernel).is_relative_to(packages)
    assert reasons > 10
