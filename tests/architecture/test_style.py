"""The habits that no linter checks: size of files and functions, open ends, module docstrings."""

from __future__ import annotations

import ast
import re
import warnings
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LONGEST_FILE = 600
LONG_FUNCTION = 40
#: Most functions are short; a table or a flat sequence of steps may be longer.
LONG_FUNCTIONS_SHARE = 0.05

PYTHON = [path for folder in ("src", "tests", "bench", "scripts") for path in sorted((ROOT / folder).rglob("*.py"))]
RUST = [path for path in sorted((ROOT / "crates").rglob("*.rs")) if "target" not in path.parts]


def place(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def test_files_are_short() -> None:
    lengths = {place(path): len(path.read_text(encoding="utf-8").splitlines()) for path in PYTHON + RUST}
    too_long = {name: lines for name, lines in lengths.items() if lines > LONGEST_FILE}
    assert not too_long, f"split by what each part is about; at most {LONGEST_FILE} lines: {too_long}"


def test_most_functions_are_short() -> None:
    functions = [
        (place(path), node.name, (node.end_lineno or node.lineno) - node.lineno + 1 - docstring_lines(node))
        for path in PYTHON
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    long = sorted((lines, where, name) for where, name, lines in functions if lines > LONG_FUNCTION)
    assert len(long) <= LONG_FUNCTIONS_SHARE * len(functions), f"functions over {LONG_FUNCTION} lines: {long}"


def docstring_lines(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    first = node.body[0]
    if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str):
        return (first.end_lineno or first.lineno) - first.lineno + 1
    return 0


def test_open_ends_name_their_issue() -> None:
    marker = re.compile(r"\b(TODO|FIXME|XXX|HACK)\b(?!\(#\d+\))")
    strays = [
        f"{place(path)}:{number}"
        for path in PYTHON + RUST
        if path != Path(__file__)
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if marker.search(line)
    ]
    assert not strays, f"do it, or write TODO(#issue): {strays}"


@pytest.mark.parametrize("path", [p for p in PYTHON if p.is_relative_to(ROOT / "src")], ids=place)
def test_every_module_says_what_it_is(path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # A docstring with a stray backslash is a warning of the compiler's.
        tree = ast.parse(path.read_text(encoding="utf-8"))
    assert ast.get_docstring(tree), "a module begins with its place in the flow, and what it keeps"


@pytest.mark.parametrize("path", RUST, ids=place)
def test_every_rust_module_says_what_it_is(path: Path) -> None:
    start = path.read_text(encoding="utf-8").lstrip()
    assert start.startswith(("//!", "//", "#![doc")), "a module begins with `//!`: what it is, and what it keeps"
