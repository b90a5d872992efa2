"""Features that an upgrade left without what was never kept: which of them still are, and in words."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

from gillnet.plan.nodes import StreamNode
from gillnet.state.checkpoints import Checkpoint

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_FURTHEST_US = 250_000_000_000 * 1_000_000
"""Beyond the calendar's last years there is no word for an instant."""


def still_warming(checkpoint: Checkpoint, root: StreamNode, watermark_us: int | None) -> dict[str, int | None]:
    """Return the features that a row may still come for which they are incomplete, late ones included.

    ``watermark_us``: of the root stream ``root``.
    """
    reach_us = None if watermark_us is None else watermark_us - root.allowed_lateness_us
    return {
        name: since_us
        for name, since_us in checkpoint.warming.items()
        if since_us is None or reach_us is None or since_us > reach_us
    }


def warming_words(warming: Mapping[str, int | None]) -> dict[str, str]:
    """Return from when on each is complete, for people."""
    return {name: complete_words(since_us) for name, since_us in warming.items()}


def complete_words(since_us: int | None) -> str:
    """Write from when on a feature is complete: ``2026-07-01 12:00:00`` UTC, rounded up."""
    if since_us is None:
        return "each key's next pause"
    if since_us >= _FURTHEST_US:
        return "never"
    instant = _EPOCH + timedelta(seconds=-(-since_us // 1_000_000))
    return instant.strftime("%Y-%m-%d %H:%M:%S UTC")
