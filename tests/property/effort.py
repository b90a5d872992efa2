"""How many examples a property gets: its own number, or 10,000 under ``HYPOTHESIS_PROFILE=deep`` (`make test-deep`)."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from hypothesis import settings

if TYPE_CHECKING:
    from collections.abc import Collection

    from hypothesis import HealthCheck

DEEP = os.environ.get("HYPOTHESIS_PROFILE") == "deep"
DEEP_EXAMPLES = 10_000


def examples(count: int, *, suppress_health_check: Collection[HealthCheck] = ()) -> settings:
    """Settings for ``count`` examples, without a deadline: a shared machine's pauses are no failures."""
    return settings(
        max_examples=max(count, DEEP_EXAMPLES) if DEEP else count,
        deadline=None,
        suppress_health_check=suppress_health_check,
        print_blob=True,
    )
