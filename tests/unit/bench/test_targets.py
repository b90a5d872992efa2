"""A benchmark that misses a target says so with its exit code."""

from __future__ import annotations

import math

import pytest
from bench.targets import Target, tell


@pytest.mark.parametrize(
    ("target", "reached"),
    [
        (Target(name="ratio", value=2.5, at_least=2.5), True),
        (Target(name="ratio", value=2.49, at_least=2.5), False),
        (Target(name="p99", value=10.0, at_most=10.0), True),
        (Target(name="p99", value=10.01, at_most=10.0), False),
        (Target(name="p99", value=math.nan, at_most=10.0), False),
        (Target(name="ratio", value=math.nan, at_least=1.0), False),
    ],
)
def test_a_target_is_reached_on_the_right_side_of_its_limit(target: Target, reached: bool) -> None:
    assert target.reached == reached
    assert str(target).startswith("reached" if reached else "MISSED")


def test_all_are_told_and_one_that_is_missed_ends_the_benchmark(capsys: pytest.CaptureFixture[str]) -> None:
    good, bad = Target(name="CPU", value=4.5, at_most=9), Target(name="p99", value=12, at_most=10)
    tell([good])
    with pytest.raises(SystemExit, match=r"Missed: p99\."):
        tell([bad, good])
    assert capsys.readouterr().out.split("\n")[-3:] == [str(bad), str(good), ""]
