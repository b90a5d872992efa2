"""Write golden files anew: ``python -m tests.cases.regenerate <name> …``, or ``--all``.

The oracle writes them (`tests.cases.reference`), never the product; where a mode of the product comes to something else,
the difference is shown, the file is written all the same, and its test fails until product or oracle is mended.
"""

from __future__ import annotations

import argparse
import difflib
import sys
from collections.abc import Sequence

from tests.cases.harness import MODES, Case, case_names, load_case
from tests.cases.reference import expected


def regenerate(name: str) -> list[str]:
    """Write one golden file, and return the modes that disagree with it."""
    case = load_case(name)
    lines = expected(case).lines()
    case.golden.write_text("".join(f"{line}\n" for line in lines), "utf-8")
    return [mode for mode in MODES if _differs(case, mode, lines)]


def _differs(case: Case, mode: str, lines: list[str]) -> bool:
    found = MODES[mode](case).lines()
    for line in difflib.unified_diff(lines, found, f"{case.name}: oracle", f"{case.name}: {mode}", lineterm="", n=0):
        _say(line)
    return found != lines


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Return 1 if a mode disagrees with the oracle."""
    parser = argparse.ArgumentParser(prog="python -m tests.cases.regenerate", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="name", help="folders of tests/cases")
    parser.add_argument("--all", action="store_true", help="every case")
    options = parser.parse_args(arguments)
    names = case_names() if options.all else options.names
    if unknown := sorted(set(names) - set(case_names())) or (not names and ["(none given)"]):
        parser.error(f"no such case: {', '.join(unknown)}; there are {', '.join(case_names())}")
    wrong = {name: modes for name in names if (modes := regenerate(name))}
    for name in names:
        _say(f"{name}: {'differs in ' + ', '.join(wrong[name]) if name in wrong else 'written, every mode agrees'}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
