"""Values as short text."""

from __future__ import annotations

from typing import Any


def number(value: Any) -> str:
    """Write a value short: thousands apart, three digits where it is small."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    try:
        amount = float(value)
    except (TypeError, ValueError):
        return str(value)
    if abs(amount) >= 100:
        return f"{amount:,.0f}"
    return f"{amount:.1f}" if abs(amount) >= 10 else f"{amount:.3g}"


def money(value: Any) -> str:
    """Write an amount with its hundredths."""
    return "-" if value is None else f"{float(value):,.2f}"


def share(value: Any) -> str:
    """Write a share as a percentage."""
    return "-" if value is None else f"{float(value):.0%}"


def count(value: Any, noun: str) -> str:
    """Write how many there are of something: ``1 click``, ``2 clicks``, ``no clicks``."""
    if value == 1:
        return f"1 {noun}"
    plural = f"{noun[:-1]}ies" if noun.endswith("ry") else f"{noun}es" if noun.endswith(("s", "ch")) else f"{noun}s"
    return f"{number(value) if value else 'no'} {plural}"


def seconds(value: Any) -> str:
    """Write a time in the unit that fits: ``12 s``, ``5 min``, ``10 h``, ``3 days``."""
    for size, unit in ((172_800, "days"), (7_200, "h"), (120, "min")):
        if value >= size:
            return f"{value / (size / 2):.0f} {unit}"
    return f"{number(value)} s"
