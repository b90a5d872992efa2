"""Matches of patterns on their way out: encoded as records, keyed by whose they are.

A match is known by its pattern, its key and the ids of its first and last event. It goes out when it is complete; with a
higher ``revision`` when a late event changes what lies between; and once more, ``withdrawn``, when a late event undoes it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow.compute as pc

from gillnet.operators.encode import record_keys
from gillnet.operators.records import match_encoder

if TYPE_CHECKING:
    from gillnet._kernel import Batch
    from gillnet.plan.nodes import PipelinePlan

MATCHES = "matches"
"""The output's name."""


class MatchStage:
    """Encodes matches.

    Parameters
    ----------
    plan
        The pipeline's plan.
    """

    def __init__(self, plan: PipelinePlan) -> None:
        self.wanted = plan.has_patterns
        self._encoder = match_encoder()

    def withdrawn(self, rows: Batch) -> int:
        """Return how many of the matches are none any more."""
        return pc.sum(rows.column("withdrawn")).as_py() or 0

    def encode(self, rows: Batch) -> tuple[list[bytes], list[bytes | None]]:
        """Return matches as JSON, and their keys."""
        return self._encoder.encode(rows), record_keys(rows, "key")
