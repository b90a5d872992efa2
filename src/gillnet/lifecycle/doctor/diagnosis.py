"""All rules over one run's readings, and their findings in the order in which to act."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from gillnet.lifecycle.doctor import checkpoint_rules, load_rules, memory_rules, progress_rules
from gillnet.lifecycle.doctor.findings import Finding
from gillnet.lifecycle.doctor.readings import Readings

Rule = Callable[[Readings], Iterator[Finding]]

RULES: tuple[Rule, ...] = (
    *memory_rules.RULES,
    *progress_rules.RULES,
    *checkpoint_rules.RULES,
    *load_rules.RULES,
)


def diagnose(readings: Readings) -> list[Finding]:
    """Return what is the matter: the worst first; of equals the symptom before its causes, and those by their effect."""
    found = [finding for rule in RULES for finding in rule(readings)]
    return sorted(found, key=lambda finding: finding.order)
