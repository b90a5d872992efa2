"""What a benchmark must reach, held against what it measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A figure, and the limit that it may not fall short of or go beyond.

    Attributes
    ----------
    at_least, at_most
        One of them is given.
    """

    name: str
    value: float
    at_least: float | None = None
    at_most: float | None = None

    @property
    def reached(self) -> bool:
        """Whether the figure is on the right side of its limit; not a number is on neither."""
        low = self.at_least is None or self.value >= self.at_least
        high = self.at_most is None or self.value <= self.at_most
        return low and high and self.value == self.value

    def __str__(self) -> str:
        limit = f"{self.at_least:g} or more" if self.at_least is not None else f"{self.at_most:g} or less"
        return f"{'reached' if self.reached else 'MISSED ':<8} {self.name}: {self.value:.4g} (target: {limit})"


def tell(targets: Sequence[Target]) -> None:
    """Print every target; exit with 1 if one is missed.

    Raises
    ------
    SystemExit
        If a target is missed.
    """
    print()
    for target in targets:
        print(target)
    missed = [target.name for target in targets if not target.reached]
    if missed:
        raise SystemExit(f"Missed: {', '.join(missed)}. On a machine that does other things, measure again.")
