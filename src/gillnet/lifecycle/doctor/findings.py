"""What a rule finds: how bad it is, the figures that led to it, and what to change."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from gillnet.core.time import DAY, HOUR, MINUTE, SECOND

Severity = Literal["critical", "warning", "notice"]
SEVERITIES: tuple[Severity, ...] = ("critical", "warning", "notice")
"""From the worst on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """Something that a rule found.

    Attributes
    ----------
    rule
        The rule's name, for machines.
    title
        One sentence: what is the matter, and where.
    figures
        What led to it, by name with the unit last.
    advice
        What to do, the most effective first.
    settings
        What to write, as it is written in a definition or in ``gillnet.toml``.
    effect
        What share of the trouble it accounts for, 0 to 1: decides the order among findings that are as bad.
    symptom
        Whether it tells what is the matter rather than why: such are told first.
    """

    rule: str
    severity: Severity
    title: str
    figures: dict[str, Any] = field(default_factory=dict)
    advice: tuple[str, ...] = ()
    settings: tuple[str, ...] = ()
    effect: float = 0.0
    symptom: bool = False

    @property
    def order(self) -> tuple[int, bool, float]:
        """Where it comes among the others."""
        return SEVERITIES.index(self.severity), not self.symptom, -self.effect


def size(value: float) -> str:
    """Write bytes in the unit that fits.

    >>> size(1_530_000)
    '1.5 MB'
    """
    for unit in ("B", "kB", "MB", "GB"):
        if abs(value) < 999.5:
            return f"{value:.0f} {unit}" if unit == "B" or abs(value) >= 99.95 else f"{value:.1f} {unit}"
        value /= 1_000
    return f"{value:,.1f} TB"


def lasting(value_us: float) -> str:
    """Write a time in the unit that fits.

    >>> lasting(5_400_000_000)
    '1.5 h'
    """
    for unit_us, unit in ((DAY, "days"), (HOUR, "h"), (MINUTE, "min")):
        if value_us >= (2 * unit_us if unit == "days" else unit_us):
            amount = value_us / unit_us
            return f"{amount:.0f} {unit}" if amount >= 9.95 or amount == round(amount) else f"{amount:.1f} {unit}"
    return f"{value_us / SECOND:.0f} s"


def share(value: float) -> str:
    """Write a share as a percentage."""
    return f"{value:.0%}" if value >= 0.1 else f"{value:.1%}"
