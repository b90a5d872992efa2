"""Whole numbers in a definition that the kernel counts to."""

from __future__ import annotations

from gillnet.core.errors import DefinitionError

_MOST = 2**63


def is_count(value: object, *, least: int) -> bool:
    """Whether a value is a whole number of ``least`` or more that the kernel can hold; True and False are none."""
    return isinstance(value, int) and not isinstance(value, bool) and least <= value < _MOST


def check_limit(place: str, name: str, limit: int, usual: str) -> int:
    """Return a limit.

    Raises
    ------
    DefinitionError
        If it is no whole number above 0; the message begins with ``place`` and gives ``usual`` as an example.
    """
    if not is_count(limit, least=1):
        raise DefinitionError(f"{place}: {name}={limit!r} must be a whole number above 0, such as {usual}.")
    return limit
