"""The examples in the documents run: a block of ``python`` is executed, one with ``>>>`` is held to what it shows.

The blocks of a document share their names, in order. A block that can't run says why, on the line before it:
``<!-- not run: needs a model of your own -->``.
"""

from __future__ import annotations

import doctest
import os
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(r"^(?P<why><!-- not run: .+ -->\n)?```python\n(?P<code>.*?)^```", re.M | re.S)
DOCUMENTS = [
    path
    for path in [*sorted(ROOT.glob("*.md")), *sorted(ROOT.glob("docs/**/*.md"))]
    if BLOCK.search(path.read_text(encoding="utf-8"))
]


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_the_examples_of_a_document_run(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    text = path.read_text(encoding="utf-8")
    names: dict[str, object] = {"__name__": path.stem}
    for block in BLOCK.finditer(text):
        code, line = block["code"], text.count("\n", 0, block.start("code"))
        if block["why"]:
            continue
        if ">>>" in code:
            parsed = doctest.DocTestParser().get_doctest(code, names, path.name, str(path), line)
            runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS)
            told: list[str] = []
            assert not runner.run(parsed, out=told.append, clear_globs=False).failed, "".join(told)
            names |= parsed.globs
        else:
            # Padded, so that a traceback names the document's own line.
            exec(compile("\n" * line + code, os.fspath(path), "exec"), names)
