"""Holds a live run's rows of a join against the batch answer, byte by byte (I2): the joins' part of `gillnet verify`.

Whoever reads a join keeps the last revision of each (left id, right id), less those that are withdrawn; that table is what is
compared. Both sides are JSON from the same encoder, so equal values are equal bytes. Of what was emitted only the ids and a digest
are held; the first row that differs is looked up again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec

from gillnet.core.errors import SourceError
from gillnet.runtimes.embedded.joins import join_encoder

if TYPE_CHECKING:
    from gillnet._kernel import Batch
    from gillnet.plan.joins import IntervalJoinNode

Records = Callable[[], Iterable[bytes]]
"""Gives every record of a join's output, each time it is called anew."""

_FLAGS = ("revision", "withdrawn", "saturated")
"""How a row came to be said; not what it says."""

_raw = msgspec.json.Decoder(dict[str, msgspec.Raw])
_revision = msgspec.json.Decoder(int)


@dataclass(frozen=True, slots=True)
class JoinDifference:
    """A row of a join that is not what the batch answer says.

    Attributes
    ----------
    left_id, right_id
        The ids of its events; None where a side has none.
    expected
        The row as the batch twin computes it; None if it has no such row.
    history
        Every record about it, in the order in which they were read.
    """

    left_id: str | int | None
    right_id: str | int | None
    expected: dict[str, Any] | None
    history: tuple[dict[str, Any], ...] = ()


@dataclass(slots=True)
class JoinConsistency:
    """How a join's rows, after their last revision, compare with the batch answer.

    Attributes
    ----------
    rows
        Rows of either side.
    equal
        Rows that are the same bytes on both.
    missing, extra
        Rows that the batch answer has and the run does not, and the other way round.
    differing
        Rows of both whose content differs.
    withdrawn
        Rows that the run took back.
    first
        The one with the smallest ids, as text, of the batch answer's rows that are not equal; else of the run's.
    """

    rows: int = 0
    equal: int = 0
    missing: int = 0
    extra: int = 0
    differing: int = 0
    withdrawn: int = 0
    first: JoinDifference | None = None

    @property
    def share(self) -> float:
        """Equal rows among all; 1 if there are none."""
        return self.equal / self.rows if self.rows else 1.0


@dataclass(frozen=True, slots=True)
class _Emitted:
    revision: int
    digest: bytes | None
    """None where the row was withdrawn."""


class JoinComparer:
    """Compares the rows of one join: reads what was emitted, then takes the batch answer part by part.

    Parameters
    ----------
    join
        The join.
    records
        What the run wrote to its output.

    Raises
    ------
    SourceError
        If a record is no row of a join.
    """

    def __init__(self, join: IntervalJoinNode, records: Records) -> None:
        self._output = f"joins.{join.name}"
        self._records = records
        self._encoder = join_encoder(join)
        self._result = JoinConsistency()
        self._first: tuple[bytes, bytes | None] | None = None
        last: dict[bytes, _Emitted] = {}
        for record in records():
            ids, row = self._parse(record)
            if ids not in last or row.revision >= last[ids].revision:
                last[ids] = row
        self._left = {ids: row.digest for ids, row in last.items() if row.digest is not None}
        self._result.withdrawn = len(last) - len(self._left)

    def expect(self, rows: Batch) -> None:
        """Hold some rows of the batch answer against what was emitted."""
        result = self._result
        for line in self._encoder.encode(rows):
            ids, row = self._parse(line)
            found = self._left.pop(ids, None)
            result.rows += 1
            result.equal += found == row.digest
            result.missing += found is None
            result.differing += found is not None and found != row.digest
            # The batch answer's rows are in no order; the smallest ids are the same ones in every run.
            if found != row.digest and (self._first is None or ids < self._first[0]):
                self._first = (ids, line)

    def result(self) -> JoinConsistency:
        """Return how they compare, once the batch answer has been taken whole."""
        result = self._result
        result.extra = len(self._left)
        result.rows += result.extra
        if self._first is None and self._left:
            self._first = (min(self._left), None)
        if self._first is not None:
            result.first = self._look_up(*self._first)
        return result

    def _parse(self, record: bytes) -> tuple[bytes, _Emitted]:
        """Take a record apart: the ids of its events, and the row as of it."""
        try:
            row = _raw.decode(record)
            revision = _revision.decode(row["revision"])
        except (msgspec.DecodeError, KeyError) as error:
            raise SourceError(
                f"{self._output}: a record is no row of a join ({error}); give the outputs of a run of this pipeline."
            ) from None
        ids = b"\n".join(bytes(row.get(name, b"null")) for name in ("left_id", "right_id"))
        if "withdrawn" in row:
            return ids, _Emitted(revision, None)
        content = b"\n".join(bytes(value) for name, value in row.items() if name not in _FLAGS)
        return ids, _Emitted(revision, hashlib.blake2b(content, digest_size=16).digest())

    def _look_up(self, ids: bytes, line: bytes | None) -> JoinDifference:
        history = tuple(msgspec.json.decode(record) for record in self._records() if self._parse(record)[0] == ids)
        left, right = map(msgspec.json.decode, ids.split(b"\n"))
        expected = None if line is None else msgspec.json.decode(line)
        return JoinDifference(left, right, expected and _without_flags(expected), history)


def _without_flags(row: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name not in _FLAGS}
