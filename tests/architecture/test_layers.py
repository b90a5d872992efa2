"""The layer rule, what `import gillnet` loads, and who may read a clock or make randomness."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = ROOT / "src" / "gillnet"
MODULES = sorted(SOURCES.rglob("*.py"))

#: Clients and engines: each has one home, and a program that does not use it does not pay for it.
HEAVY = (
    "confluent_kafka",
    "pulsar",
    "rocksdict",
    "xgboost",
    "sklearn",
    "scipy",
    "pandas",
    "polars",
    "pyarrow.parquet",
    "pyarrow.dataset",
)

#: Calls that make a run depend on the machine: the time, or chance that no seed decides.
CLOCKS = {
    *(f"time.{name}" for name in ("time", "time_ns", "monotonic", "monotonic_ns", "perf_counter", "sleep")),
    *("datetime.now", "datetime.utcnow", "datetime.today", "date.today"),
}
CHANCE = ("random.", "secrets.", "uuid.uuid", "np.random.", "numpy.random.", "os.urandom")

#: What may do so outside `gillnet.core`, and why.
ALLOWED = {
    ("simulator/randomness.py", "np.random.Generator"): "every stream of numbers comes from the run's one seed",
    ("simulator/randomness.py", "np.random.SFC64"): "takes that seed",
    ("simulator/randomness.py", "np.random.SeedSequence"): "takes that seed",
}


def relative(path: Path) -> str:
    return path.relative_to(SOURCES).as_posix()


def dotted(node: ast.expr) -> str:
    """``np.random.default_rng`` as text; empty for what is no chain of names."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute) and (start := dotted(node.value)):
        return f"{start}.{node.attr}"
    return ""


def imported_names(tree: ast.AST) -> dict[str, str]:
    """What a name that was imported stands for: ``from time import monotonic as now`` gives now → time.monotonic."""
    names: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            names |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            names |= {alias.asname: alias.name for alias in node.names if alias.asname}
    return names


def reads_of_the_machine(source: str) -> list[tuple[int, str]]:
    """Line and name of each call that reads a clock or makes randomness."""
    tree = ast.parse(source)
    names = imported_names(tree)
    found = []
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call) or not (text := dotted(node.func)):
            continue
        first, _, rest = text.partition(".")
        full = ".".join(filter(None, (names.get(first, first), rest)))
        full = full.replace("datetime.datetime.", "datetime.").replace("datetime.date.", "date.")
        if full in CLOCKS or full.replace("numpy.", "np.").startswith(CHANCE):
            found.append((node.lineno, full.replace("numpy.", "np.")))
    return found


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("import time\ntime.time()", "time.time"),
        ("from time import monotonic as now\nnow()", "time.monotonic"),
        ("import datetime\ndatetime.datetime.now()", "datetime.now"),
        ("from datetime import datetime\ndatetime.now()", "datetime.now"),
        ("import numpy as np\nnp.random.default_rng()", "np.random.default_rng"),
        ("from numpy.random import default_rng\ndefault_rng()", "np.random.default_rng"),
        ("import random\nrandom.random()", "random.random"),
        ("import uuid\nuuid.uuid4()", "uuid.uuid4"),
    ],
)
def test_the_check_sees_every_way_to_write_it(source: str, name: str) -> None:
    assert reads_of_the_machine(source) == [(2, name)]


def test_only_core_reads_a_clock_or_makes_randomness() -> None:
    found = {
        (relative(path), name): line
        for path in MODULES
        if not relative(path).startswith("core/")
        for line, name in reads_of_the_machine(path.read_text(encoding="utf-8"))
    }
    strays = [f"{place}:{line} calls {name}" for (place, name), line in found.items() if (place, name) not in ALLOWED]
    assert not strays, f"inject a Clock or a seeded Generator from gillnet.core instead: {strays}"
    assert ALLOWED.keys() <= found.keys(), "an exception that nobody needs any more; take it out"


def test_the_layer_rule_holds() -> None:
    program = "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports(no_cache=True))"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_nothing_inside_takes_from_the_package_s_root_but_the_kernel() -> None:
    # The root re-exports the API, so a lower layer that imports from it would reach above itself unseen. The bundled
    # pipelines stand above the API and are written as users write theirs.
    strays = [
        f"{relative(path)}:{node.lineno} imports {alias.name}"
        for path in MODULES
        if path != SOURCES / "__init__.py" and path.parent != SOURCES / "scenarios"
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
        if (isinstance(node, ast.Import) and alias.name == "gillnet")
        or (
            isinstance(node, ast.ImportFrom)
            and node.module == "gillnet"
            and not (SOURCES / alias.name).is_dir()
            and alias.name != "_kernel"
        )
    ]
    assert not strays


def test_importing_gillnet_loads_no_client_library() -> None:
    program = "import gillnet, json, sys; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    loaded = set(json.loads(done.stdout))
    assert "gillnet" in loaded
    assert not loaded.intersection(HEAVY)
