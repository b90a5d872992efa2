"""What goes to a user: lock files that bind, and a source distribution that can be built."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
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
    needed = [*project["project"]["dependencies"], *extras["kafka"], *extras["rocksdb"], *extras["xgboost"]]
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


@pytest.mark.slow
def test_the_source_distribution_has_what_a_build_needs(tmp_path: Path) -> None:
    maturin = Path(sys.executable).with_name("maturin")
    if not maturin.exists() or shutil.which("cargo") is None:
        pytest.skip("needs maturin and cargo, which `make test` brings")
    subprocess.run(
        [maturin, "sdist", "--out", tmp_path], cwd=ROOT, check=True, capture_output=True, text=True, timeout=120
    )
    (archive,) = tmp_path.glob("gillnet-*.tar.gz")
    with tarfile.open(archive) as packed:
        names = {name.partition("/")[2] for name in packed.getnames()}
    crates = {path.relative_to(ROOT).as_posix() for path in (ROOT / "crates").glob("*/src/**/*.rs")}
    sources = {path.relative_to(ROOT).as_posix() for path in (ROOT / "src").rglob("*.py")}
    assert names >= {"Cargo.toml", "Cargo.lock", "LICENSE", "README.md", "pyproject.toml", "PKG-INFO"}
    assert names >= crates
    assert names >= sources
    assert "src/gillnet/connectors/kafka-pom.xml" in names
    assert not [name for name in names if name.endswith((".so", ".pyc")) or name.startswith(("target/", ".venv"))]
