"""Holds a live run's sessions, matches and rows of joins against the batch answer, byte by byte (I2): a part of `gillnet verify`.

Whoever reads such an output keeps the last revision of each identity (a session's key and start, a match's pattern, key, first and
last event, the ids of a join's row), less those that were taken back; that table is what is compared. Both sides are JSON from
the same encoder, so equal values are equal bytes. Of what was emitted only identities and a digest are held; rows that differ are
looked up again.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec

from gillnet.core.errors import SourceError

if TYPE_CHECKING:
    from gillnet._kernel import Batch
    from gillnet.operators.encode import EncodeOperator

Records = Callable[[], Iterable[bytes]]
"""Gives every record of an output, each time it is called anew."""

LOOKED_UP = 10_000
"""Differing rows that are looked up again, to say by how much they differ."""

_FLAGS = ("revision", "withdrawn", "saturated", "replaced_by")
"""How a row came to be said; not what it says."""

_raw = msgspec.json.Decoder(dict[str, msgspec.Raw])
_revision = msgspec.json.Decoder(int)


@dataclass(frozen=True, slots=True)
class OutputDifference:
    """A row that is not what the batch answer says.

    Attributes
    ----------
    identity
        What the row is known by, by name; None for an id that it does not have.
    emitted
        As the run said it last; None if it never did, or took it back.
    expected
        As the batch twin computes it; None if it has no such row.
    history
        Every record about it, in the order in which they were read.
    """

    identity: dict[str, Any]
    emitted: dict[str, Any] | None
    expected: dict[str, Any] | None
    history: tuple[dict[str, Any], ...] = ()

    @property
    def names(self) -> list[str]:
        """What differs, by name."""
        mine, theirs = _flat(self.emitted or {}), _flat(self.expected or {})
        return sorted(name for name in mine.keys() | theirs.keys() if mine.get(name) != theirs.get(name))


@dataclass(slots=True)
class OutputConsistency:
    """How an output's rows, after their last revision, compare with the batch answer.

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
    undecided
        Rows of the batch answer that the run could not know when it stopped, which are in none of the other figures: sessions that
        were open, matches that waited for their time, events that waited for a partner.
    largest
        The largest difference of a number among the rows that differ: (identity, name, absolute difference); of events, how many
        are in one of the two only.
    first
        The one with the smallest identity, as text, of the batch answer's rows that are not equal; else of the run's.
    """

    rows: int = 0
    equal: int = 0
    missing: int = 0
    extra: int = 0
    differing: int = 0
    withdrawn: int = 0
    undecided: int = 0
    largest: tuple[dict[str, Any], str, float] | None = None
    first: OutputDifference | None = None

    @property
    def agrees(self) -> bool:
        """Whether every row is equal."""
        return self.equal == self.rows

    @property
    def share(self) -> float:
        """Equal rows among all; 1 if there are none."""
        return self.equal / self.rows if self.rows else 1.0


@dataclass(frozen=True, slots=True)
class _Emitted:
    revision: int
    digest: bytes | None
    """None where the row was taken back."""


class OutputComparer:
    """Compares the rows of one output: reads what was emitted, then takes the batch answer part by part.

    Parameters
    ----------
    output
        Its name.
    what
        What its rows are, for messages: ``"row of a join"``.
    identity
        The names of what a row is known by.
    records
        What the run wrote to it.
    encoder
        Writes rows as the run did; None if it follows from the rows, by `_encoder_of`.

    Raises
    ------
    SourceError
        If a record is no such row.
    """

    def __init__(
        self, output: str, what: str, identity: tuple[str, ...], records: Records, encoder: EncodeOperator | None = None
    ) -> None:
        self._output, self._what, self._identity = output, what, identity
        self._records = records
        self._encoder = encoder
        self._result = OutputConsistency()
        self._first: tuple[bytes, bytes | None] | None = None
        self._differing: dict[bytes, bytes] = {}
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
        for line in self._encode(rows):
            ids, row = self._parse(line)
            found = self._left.pop(ids, None)
            result.rows += 1
            if found == row.digest:
                result.equal += 1
                continue
            result.missing += found is None
            result.differing += found is not None
            if found is not None and len(self._differing) < LOOKED_UP:
                self._differing[ids] = line
            # The batch answer's rows are in no order; the smallest identity is the same one in every run.
            if self._first is None or ids < self._first[0]:
                self._first = (ids, line)

    def result(self) -> OutputConsistency:
        """Return how they compare, once the batch answer has been taken whole."""
        result = self._result
        extra = [ids for ids in self._left if not self._is_undecided(ids)]
        result.extra = len(extra)
        result.rows += result.extra
        if self._first is None and extra:
            self._first = (min(extra), None)
        if self._first is not None:
            self._look_up(self._first[0], self._first[1])
        return result

    def _leave_out(self, rows: Batch) -> list[bytes]:
        """Count rows that the run could not know yet, take them from what is compared, and return them as JSON."""
        lines = self._encode(rows)
        self._result.undecided += len(lines)
        for line in lines:
            self._left.pop(self._parse(line)[0], None)
        return lines

    def _is_undecided(self, ids: bytes) -> bool:  # noqa: ARG002 - for those that know better
        """Whether an emitted row that the batch answer does not have may be one that the run could not take back yet."""
        return False

    def _encoder_of(self, rows: Batch) -> EncodeOperator:
        """Return what writes rows as the run did: to be given by a comparer that names no encoder, and asked of no other."""
        raise NotImplementedError

    def _encode(self, rows: Batch) -> list[bytes]:
        if not rows.num_rows:
            return []
        if self._encoder is None:
            self._encoder = self._encoder_of(rows)
        return self._encoder.encode(rows)

    def _parse(self, record: bytes) -> tuple[bytes, _Emitted]:
        """Take a record apart: what the row is known by, and the row as of it."""
        try:
            row = _raw.decode(record)
            revision = _revision.decode(row["revision"])
            ids = b"\n".join(bytes(row[name]) if name in row else self._absent(name) for name in self._identity)
        except (msgspec.DecodeError, KeyError) as error:
            raise SourceError(
                f"{self._output}: a record is no {self._what} ({error}); give the outputs of a run of this pipeline."
            ) from None
        if "replaced_by" in row or bytes(row.get("withdrawn", b"false")) == b"true":
            return ids, _Emitted(revision, None)
        content = b"\n".join(bytes(value) for name, value in row.items() if name not in _FLAGS)
        return ids, _Emitted(revision, hashlib.blake2b(content, digest_size=16).digest())

    def _absent(self, name: str) -> bytes:
        """Return what stands for an identity's part that a record does not have."""
        raise KeyError(name)

    def _look_up(self, first: bytes, expected: bytes | None) -> None:
        """Read the records again for the history of the first row that differs, and for by how much rows differ."""
        wanted: dict[bytes, bytes | None] = {**self._differing, first: expected}
        last: dict[bytes, tuple[int, dict[str, Any] | None]] = {}
        history: list[dict[str, Any]] = []
        for record in self._records():
            ids, row = self._parse(record)
            if ids not in wanted:
                continue
            said = msgspec.json.decode(record)
            if ids == first:
                history.append(said)
            if ids not in last or row.revision >= last[ids][0]:
                last[ids] = (row.revision, None if row.digest is None else _without_flags(said))
        named = {
            ids: dict(zip(self._identity, map(msgspec.json.decode, ids.split(b"\n")), strict=True)) for ids in wanted
        }
        differences = [
            OutputDifference(
                named[ids],
                last.get(ids, (0, None))[1],
                None if line is None else _without_flags(msgspec.json.decode(line)),
                tuple(history) if ids == first else (),
            )
            for ids, line in wanted.items()
        ]
        self._result.first = differences[list(wanted).index(first)]
        self._result.largest = _largest(differences)


def _largest(differences: Iterable[OutputDifference]) -> tuple[dict[str, Any], str, float] | None:
    found: tuple[dict[str, Any], str, float] | None = None
    for difference in differences:
        if difference.emitted is None or difference.expected is None:
            continue
        mine, theirs = _flat(difference.emitted), _flat(difference.expected)
        for name in sorted(mine.keys() & theirs.keys()):
            gap = _gap(mine[name], theirs[name])
            if gap > 0 and (found is None or gap > found[2]):
                found = (difference.identity, name, gap)
    return found


def _gap(one: Any, other: Any) -> float:
    if isinstance(one, list) and isinstance(other, list):
        return sum(entry not in other for entry in one) + sum(entry not in one for entry in other)
    numbers = all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in (one, other))
    return abs(one - other) if numbers else 0


def _flat(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row with the columns of its groups beside its own."""
    groups = [value for value in row.values() if isinstance(value, dict)]
    own = ((name, value) for name, value in row.items() if not isinstance(value, dict))
    return dict(itertools.chain(own, *(group.items() for group in groups)))


def _without_flags(row: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name not in _FLAGS}
