"""Write golden files anew: ``python -m tests.cases.regenerate <name> …``, or ``--all``.

The oracle writes them (`tests.cases.reference`), never the product; where a mode of the product comes to something else,
the difference is shown, the file is written all the same, and its test fails until product or oracle is mended.
"""

from __future__ import annotations

import argparse
import difflib
import sys
from collections.abc import Callable, Sequence

from tests.cases.harness import FINAL_MODES, LIMITS, MODES, Case, case_names, load_case
from tests.cases.outcome import Outcome
from tests.cases.reference import expected, expected_final


def regenerate(name: str) -> list[str]:
    """Write a case's golden files, and return the modes that disagree with them."""
    case = load_case(name)
    live, final = expected(case).lines(), expected_final(case).lines()
    case.golden.write_text("".join(f"{line}\n" for line in live), "utf-8")
    case.golden_final.write_text("".join(f"{line}\n" for line in final), "utf-8")
    limited = {limit.mode for limit in LIMITS if limit.case == name}
    wrong = [mode for mode, run in MODES.items() if mode not in limited and _differs(case, mode, run, live)]
    return wrong + [mode for mode, run in FINAL_MODES.items() if _differs(case, mode, run, final)]


def _differs(case: Case, mode: str, run: Callable[[Case], Outcome], lines: list[str]) -> bool:
    found = run(case).lines()
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
