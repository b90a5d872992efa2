"""All rules over one run's readings, and their findings in the order in which to act."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from gillnet.lifecycle.doctor import checkpoint_rules, flink_rules, load_rules, memory_rules, progress_rules
from gillnet.lifecycle.doctor.findings import Finding
from gillnet.lifecycle.doctor.readings import Readings

Rule = Callable[[Readings], Iterator[Finding]]

RULES: tuple[Rule, ...] = (
    *memory_rules.RULES,
    *progress_rules.RULES,
    *checkpoint_rules.RULES,
    *load_rules.RULES,
)


ON_FLINK: tuple[Rule, ...] = (progress_rules.watermark_held, progress_rules.no_watermark, *flink_rules.RULES)
"""On Flink the others do not apply: they tell of the embedded run's process, and advise its settings."""


def diagnose(readings: Readings) -> list[Finding]:
    """Return what is the matter: the worst first; of equals the symptom before its causes, and those by their effect."""
    rules = RULES if readings.flink is None else ON_FLINK
    found = [finding for rule in rules for finding in rule(readings)]
    return sorted(found, key=lambda finding: finding.order)
