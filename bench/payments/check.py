"""Hold a contender's output against the oracle, row by row, over the whole input."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from bench.payments.contract import decide
from bench.payments.workload import transaction_number

if TYPE_CHECKING:
    from collections.abc import Iterable

    from bench.payments.oracle import FloatArray

# Scores are float32 in [0, 1]: two that differ in the last place are at most 6e-8 apart. A feature that is off by one
# payment moves the score by far more than this.
TOLERANCE = 1e-6


class Scored(msgspec.Struct, gc=False):
    """One output record."""

    tx_id: str
    score: float
    decision: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """How an output compares with the oracle. All counts are 0 when it is right."""

    rows: int
    missing: int
    duplicates: int
    differing: int
    wrong_decisions: int
    max_difference: float

    @property
    def right(self) -> bool:
        """Whether every payment was scored once, within `TOLERANCE`, and decided by its score."""
        return not (self.missing or self.duplicates or self.differing or self.wrong_decisions)


def compare(outputs: Iterable[bytes], expected: FloatArray) -> Comparison:
    """Compare scores with the oracle's.

    Parameters
    ----------
    outputs
        JSON of the contract, in any order.
    expected
        The oracle's score of payment *i* at index *i*.
    """
    decode = msgspec.json.Decoder(Scored).decode
    found = np.full(len(expected), np.nan, dtype=np.float32)
    rows = duplicates = wrong_decisions = 0
    for output in outputs:
        row = decode(output)
        number = transaction_number(row.tx_id)
        rows += 1
        duplicates += not np.isnan(found[number])
        wrong_decisions += row.decision != decide(row.score)
        found[number] = row.score
    difference = np.abs(found.astype(np.float64) - expected)
    present = ~np.isnan(found)
    return Comparison(
        rows=rows,
        missing=int((~present).sum()),
        duplicates=duplicates,
        differing=int((difference[present] > TOLERANCE).sum()),
        wrong_decisions=wrong_decisions,
        max_difference=float(difference[present].max(initial=0.0)),
    )
