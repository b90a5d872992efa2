"""What is compared of each output beside the rows: how its rows are known, and which of them a run that stopped could not know.

A session closes, a match that waits for its time is complete, and an event of an outer join has no partner, when a watermark has
passed. Where the run stopped before that, the batch answer says more than the run could: such rows are left out, and counted.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gillnet._kernel import Batch
from gillnet.lifecycle.output_consistency import OutputComparer, Records
from gillnet.operators.records import join_encoder, match_encoder, session_encoder
from gillnet.plan.patterns import PatternNode
from gillnet.runtimes.embedded.matches import MATCHES

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from numpy.typing import NDArray

    from gillnet.operators.encode import EncodeOperator
    from gillnet.plan.joins import IntervalJoinNode
    from gillnet.plan.nodes import PipelinePlan

SESSIONS = "sessions"
_EPOCH, _MICROSECOND = datetime(1970, 1, 1, tzinfo=UTC), timedelta(microseconds=1)
_NEVER = -(2**62)
_raw = msgspec.json.Decoder(dict[str, msgspec.Raw])


class JoinComparer(OutputComparer):
    """Compares the rows of one join.

    Parameters
    ----------
    join
        The join.
    records
        What the run wrote to its output.
    passed_us
        Each stream's watermark when the run stopped, microseconds UTC: events of an outer side for which it could still have
        brought a partner waited. None where that is not known: then the last event without one tells how far the run had come.
    """

    def __init__(self, join: IntervalJoinNode, records: Records, passed_us: Mapping[str, int | None]) -> None:
        self._alone_before: dict[str, int] = {}
        for side, other, stream, reach_us in (
            ("left", "right", join.right.stream, join.upper_us),
            ("right", "left", join.left.stream, -join.lower_us),
        ):
            passed = passed_us[stream]
            if passed is None:
                self._alone_before[side] = (
                    max(_ends(records, f"{side}_time", without=f"{other}_id"), default=_NEVER) + 1
                )
            else:
                self._alone_before[side] = passed - reach_us
        super().__init__(
            f"joins.{join.name}", "row of a join", ("left_id", "right_id"), records, encoder=join_encoder(join)
        )

    def expect(self, rows: Batch) -> None:
        """Hold rows of the batch answer against what was emitted; events that waited for a partner are left out."""
        before = np.full(rows.num_rows, np.iinfo(np.int64).max)
        ends = np.zeros(rows.num_rows, np.int64)
        for side, other in (("left", "right"), ("right", "left")):
            alone = pc.is_null(rows.column(f"__{other}_id")).to_numpy(zero_copy_only=False)
            before[alone] = self._alone_before[side]
            ends[alone] = _micros(rows, f"__{side}_time")[alone]
        known, waiting = _split(rows, ends, before)
        super().expect(known)
        self._leave_out(waiting)

    def _absent(self, name: str) -> bytes:  # noqa: ARG002 - either side may have no event
        return b"null"


class SessionComparer(OutputComparer):
    """Compares closed sessions.

    Parameters
    ----------
    plan
        The pipeline's plan.
    records
        What the run wrote to ``sessions``.
    passed_us
        The root's watermark when the run stopped, microseconds UTC: sessions that it has not passed were open. None where that is
        not known: then the last session that was said tells how far the run had come.
    """

    def __init__(self, plan: PipelinePlan, records: Records, passed_us: int | None) -> None:
        assert plan.sessions is not None
        self._plan, self._key = plan, plan.sessions.key
        if passed_us is None:
            self._ended_before = max(_ends(records, "session_end"), default=_NEVER) + 1
        else:
            self._ended_before = passed_us - plan.sessions.gap_us
        # The spans of open sessions by key, as text: one that was said may begin within, and is replaced when that one closes.
        self._open: dict[bytes, list[tuple[bytes, bytes]]] = {}
        super().__init__(SESSIONS, "session", (self._key, "session_start"), records)

    def expect(self, rows: Batch) -> None:
        """Hold sessions of the batch answer against what was emitted; those that were open are left out."""
        closed, open_ = _split(rows, _micros(rows, "session_end"), self._ended_before)
        super().expect(closed)
        for line in self._leave_out(open_):
            row = _raw.decode(line)
            self._open.setdefault(bytes(row[self._key]), []).append(
                (bytes(row["session_start"]), bytes(row["session_end"]))
            )

    def _is_undecided(self, ids: bytes) -> bool:
        key, _, start = ids.rpartition(b"\n")
        return any(first <= start <= last for first, last in self._open.get(key, ()))

    def _encoder_of(self, rows: Batch) -> EncodeOperator:
        return session_encoder(self._plan, rows.column_names)


class MatchComparer(OutputComparer):
    """Compares matches of patterns.

    Parameters
    ----------
    plan
        The pipeline's plan.
    records
        What the run wrote to ``matches``.
    passed_us
        Each stream's watermark when the run stopped, microseconds UTC: matches that it has not passed waited. None where that is
        not known: then the last match that was said tells how far the run had come.
    """

    def __init__(self, plan: PipelinePlan, records: Records, passed_us: Mapping[str, int | None]) -> None:
        self._complete_before: dict[str, int] = {}
        for feature in plan.features:
            # A match is complete with its last event, unless something must be absent for a time after it.
            if isinstance(feature, PatternNode) and feature.pattern.absent is not None:
                name, passed = feature.name, passed_us[feature.stream]
                if passed is None:
                    self._complete_before[name] = max(_ends(records, "end", pattern=name), default=_NEVER) + 1
                else:
                    self._complete_before[name] = passed - feature.pattern.absent.for_us
        super().__init__(MATCHES, "match", ("pattern", "key", "first", "last"), records, encoder=match_encoder())

    def expect(self, rows: Batch) -> None:
        """Hold matches of the batch answer against what was emitted; those that waited are left out."""
        names, ends = rows.column("pattern"), _micros(rows, "end")
        before = np.full(len(ends), np.iinfo(np.int64).max)
        for name, limit in self._complete_before.items():
            before[pc.equal(names, name).to_numpy(zero_copy_only=False)] = limit
        complete, waiting = _split(rows, ends, before)
        super().expect(complete)
        self._leave_out(waiting)


def _ends(records: Records, column: str, *, without: str = "replaced_by", **only: str) -> Iterator[int]:
    """Yield the times of all records that say something, microseconds UTC; of those without a field or with certain values alone."""
    for record in records():
        row = msgspec.json.decode(record)
        if not row.get("withdrawn") and without not in row and all(row.get(name) == is_ for name, is_ in only.items()):
            yield (datetime.fromisoformat(row[column]) - _EPOCH) // _MICROSECOND


def _micros(rows: Batch, column: str) -> NDArray[np.int64]:
    times: NDArray[np.int64] = rows.column(column).cast(pa.int64()).fill_null(0).to_numpy()
    return times


def _split(rows: Batch, ends: NDArray[np.int64], before: int | NDArray[np.int64]) -> tuple[Batch, Batch]:
    """Return the rows that ended before a time, and the others."""
    passed = ends < before
    if passed.all():
        return rows, rows.take([])
    return rows.take(passed.nonzero()[0].tolist()), rows.take((~passed).nonzero()[0].tolist())
