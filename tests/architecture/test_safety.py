"""What may not stand in the sources at all, since it would let bytes from outside become code, or a shell see them."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = [path for folder in ("src", "scripts") for path in sorted((ROOT / folder).rglob("*.py"))]

#: Modules that run what they read.
FORBIDDEN_MODULES = {
    "cloudpickle", "code", "copyreg", "dbm", "dill", "imp", "joblib", "jsonpickle", "marshal", "pickle", "shelve", "telnetlib", "yaml",
}  # fmt: skip
#: Calls that run a text, or read arrays and models in forms that are pickled.
FORBIDDEN_CALLS = {"eval", "exec", "compile", "__import__"}
FORBIDDEN_METHODS = {
    ("os", "system"),
    ("os", "popen"),
    ("tempfile", "mktemp"),
    ("ctypes", "CDLL"),
    ("pd", "read_pickle"),
}

ALLOWED = {
    # A user's own file is loaded as the module that it is: that is what `gillnet run app.py` is for.
    ("src/gillnet/app/loading.py", "exec_module"),
    ("src/gillnet/app/loading.py", "importlib.import_module(...)"),
    # The C library that the process runs on already, asked for the size of its heap.
    ("src/gillnet/observability/process.py", "ctypes.CDLL(...)"),
}


def place(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def findings(tree: ast.AST) -> list[tuple[int, str]]:
    """Return (line, what) of everything that is forbidden."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name.partition(".")[0] for alias in node.names]
            found += [(node.lineno, f"import {name}") for name in names if name in FORBIDDEN_MODULES]
        elif isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] in FORBIDDEN_MODULES:
            found.append((node.lineno, f"from {node.module}"))
        elif isinstance(node, ast.Call):
            found += [(node.lineno, what) for what in forbidden_in(node)]
    return found


def forbidden_in(call: ast.Call) -> list[str]:
    found = []
    if isinstance(call.func, ast.Name) and call.func.id in FORBIDDEN_CALLS:
        found.append(f"{call.func.id}(...)")
    if isinstance(call.func, ast.Attribute):
        name = call.func.attr
        owner = call.func.value.id if isinstance(call.func.value, ast.Name) else ""
        if (owner, name) in FORBIDDEN_METHODS or name in ("exec_module", "import_module", "eval", "run_path"):
            found.append(name if name == "exec_module" else f"{owner}.{name}(...)")
    for argument in call.keywords:
        given = argument.value.value if isinstance(argument.value, ast.Constant) else None
        if (argument.arg, given) in (("shell", True), ("allow_pickle", True)):
            found.append(f"{argument.arg}=True")
        if argument.arg == "verify" and given is False:
            found.append("verify=False")
    return found


@pytest.mark.parametrize("path", SOURCES, ids=place)
def test_nothing_that_was_read_becomes_code(path: Path) -> None:
    found = findings(ast.parse(path.read_text(encoding="utf-8")))
    wrong = [f"{place(path)}:{line}: {what}" for line, what in found if (place(path), what) not in ALLOWED]
    assert not wrong, f"state, records and settings are data, in a form of their own: {wrong}"


@pytest.mark.parametrize(
    "text",
    [
        "import pickle",
        "from pickle import loads",
        "import yaml",
        "import marshal, os",
        "eval(x)",
        "exec(x)",
        "numpy.load(path, allow_pickle=True)",
        "subprocess.run(x, shell=True)",
        "os.system(x)",
        "tempfile.mktemp()",
    ],
)
def test_what_is_forbidden_is_found(text: str) -> None:
    assert findings(ast.parse(text))


def test_what_is_allowed_is_still_there() -> None:
    found = {(place(path), what) for path in SOURCES for _, what in findings(ast.parse(path.read_text("utf-8")))}
    assert found == ALLOWED
