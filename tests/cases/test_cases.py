"""Every case in every mode: rows, sessions, side outputs and counts, to the byte, and held against the oracle.

``python -m tests.cases.regenerate <name>`` writes a golden file anew.
"""

from __future__ import annotations

import pytest
from tests.cases.harness import FINAL_MODES, HERE, LIMITS, MODES, case_names, load_case
from tests.cases.reference import expected, expected_final

from gillnet.core.errors import StateError

CASES = case_names()


def _runs() -> list[object]:
    limits = {(limit.mode, limit.case): limit for limit in LIMITS}
    runs = []
    for name in CASES:
        for mode in MODES:
            limit = limits.get((mode, name))
            why = f"{limit.kind}: {limit.reason}" if limit else ""
            marks = (
                [pytest.mark.xfail(strict=True, raises=(AssertionError, NotImplementedError, StateError), reason=why)]
                if limit
                else []
            )
            runs.append(pytest.param(name, mode, id=f"{name}-{mode}", marks=marks))
    return runs


@pytest.mark.parametrize(("name", "mode"), _runs())
def test_a_case_comes_to_its_golden_outcome(name: str, mode: str) -> None:
    case = load_case(name)
    assert MODES[mode](case).lines() == case.golden.read_text("utf-8").splitlines()


@pytest.mark.parametrize("name", CASES)
def test_a_golden_outcome_is_the_oracles(name: str) -> None:
    case = load_case(name)
    assert case.golden.read_text("utf-8").splitlines() == expected(case).lines()


@pytest.mark.parametrize("mode", FINAL_MODES)
@pytest.mark.parametrize("name", CASES)
def test_i2_a_case_comes_to_its_final_answer(name: str, mode: str) -> None:
    case = load_case(name)
    assert FINAL_MODES[mode](case).lines() == case.golden_final.read_text("utf-8").splitlines()


@pytest.mark.parametrize("name", CASES)
def test_a_final_answer_is_the_oracles(name: str) -> None:
    case = load_case(name)
    assert case.golden_final.read_text("utf-8").splitlines() == expected_final(case).lines()


def test_limits_name_cases_and_modes_that_exist() -> None:
    assert [limit for limit in LIMITS if limit.case not in CASES or limit.mode not in MODES] == []


def test_every_folder_is_a_whole_case() -> None:
    folders = [path for path in HERE.iterdir() if path.is_dir() and path.name != "__pycache__"]
    whole = {"pipeline.py", "input.ndjson", "expected.ndjson", "final.ndjson"}
    assert {
        folder.name for folder in folders if {path.name for path in folder.iterdir() if path.is_file()} != whole
    } == set()
