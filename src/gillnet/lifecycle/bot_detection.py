"""How well sessions were flagged: what a run of the bots pipeline wrote, against the simulator's labels.

The unit is a session. A session counts as found from the first row that flagged it; the clicks before detection include
that row's own.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import msgspec
import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from gillnet.simulator import VisitorLabel

RULE_KINDS = ("limit", "baseline", "sequential")
"""Reason codes begin with the kind of their rule."""

ACTED = ("block", "step_up")
RATE_MIN_CLICKS = 5
"""Where the rate alone decides: fewer clicks are no rate."""

SessionId = tuple[str, str]
"""Visitor and start."""


class _Activity(msgspec.Struct):
    clicks: int
    clicks_per_minute: float = 0.0


class _Clicks(msgspec.Struct):
    clicks: int = 0


class FlaggedRow(msgspec.Struct):
    """A record of ``alerts`` or ``decisions``, as far as it is looked at."""

    visitor_id: str
    session_start: str
    decision: str
    reasons: list[str]
    features: _Activity

    @property
    def session(self) -> SessionId:
        """The session that the row belongs to."""
        return self.visitor_id, self.session_start


class ClosedSession(msgspec.Struct):
    """A record of ``sessions``, as far as it is looked at."""

    visitor_id: str
    session_start: str
    features: _Clicks = msgspec.field(default_factory=_Clicks)
    replaced_by: str | None = None


@dataclass(slots=True)
class SessionTally:
    """What the outputs say of each session; a `gillnet.core.ports.Sink` can be put on each of its methods.

    Attributes
    ----------
    clicks
        Clicks of each closed session.
    first
        For each cause (a decision, or a kind of rule), the clicks of a session when that first flagged it.
    rates
        For each session, the highest rates so far as (clicks, rate), ascending: where the rate alone would have found
        it.
    """

    clicks: dict[SessionId, int] = field(default_factory=dict)
    first: dict[str, dict[SessionId, int]] = field(default_factory=dict)
    rates: dict[SessionId, list[tuple[int, float]]] = field(default_factory=dict)

    def add_rows(self, values: Iterable[bytes]) -> None:
        """Take records of ``decisions`` or ``alerts``."""
        decode = _ROW.decode
        for value in values:
            row = decode(value)
            self._note_rate(row)
            if row.decision != "allow":
                causes = {row.decision, *(reason.partition("_")[0] for reason in row.reasons)}
                for cause in causes:
                    self.first.setdefault(cause, {}).setdefault(row.session, row.features.clicks)

    def add_sessions(self, values: Iterable[bytes]) -> None:
        """Take records of ``sessions``; a revision replaces what came before, or says that the start is no start any more."""
        for session in map(_SESSION.decode, values):
            if session.replaced_by is None:
                self.clicks[session.visitor_id, session.session_start] = session.features.clicks
            else:
                self.clicks.pop((session.visitor_id, session.session_start), None)

    def detected(self, causes: Sequence[str]) -> dict[SessionId, int]:
        """Return the sessions that any of the causes flagged, and their clicks then."""
        found: dict[SessionId, int] = {}
        for cause in causes:
            for session, clicks in self.first.get(cause, {}).items():
                found[session] = min(clicks, found.get(session, clicks))
        return found

    def faster_than(self, rate: float) -> dict[SessionId, int]:
        """Return the sessions that ever were faster, in clicks per minute, and their clicks then."""
        found = {}
        for session, peaks in self.rates.items():
            if peaks[-1][1] > rate:
                found[session] = next(clicks for clicks, peak in peaks if peak > rate)
        return found

    def _note_rate(self, row: FlaggedRow) -> None:
        if row.features.clicks < RATE_MIN_CLICKS:
            return
        peaks = self.rates.setdefault(row.session, [])
        if not peaks or row.features.clicks_per_minute > peaks[-1][1]:
            peaks.append((row.features.clicks, row.features.clicks_per_minute))


@dataclass(frozen=True, slots=True, kw_only=True)
class Detection:
    """How well one way of flagging does.

    Attributes
    ----------
    precision
        Share of bots among the flagged sessions; None if nothing was flagged.
    recall
        Share of bot sessions that were flagged; by kind in ``recall_by_kind``.
    clicks_p50, clicks_p90
        Clicks of a bot's session when it was found, of those that were.
    spared
        Share of all clicks of bots that came after their detection: what blocking at once would have kept away.
    false_alarms_per_1000
        Flagged human sessions of 1,000 human ones.
    takeovers
        Flagged sessions of villains who are no bots; they count against the precision.
    """

    flagged: int
    precision: float | None
    recall: float
    recall_by_kind: dict[str, float]
    clicks_p50: float | None
    clicks_p90: float | None
    spared: float
    false_alarms_per_1000: float
    takeovers: int


def judge(
    found: Mapping[SessionId, int], clicks: Mapping[SessionId, int], labels: Mapping[str, VisitorLabel]
) -> Detection:
    """Hold flagged sessions against the labels.

    Parameters
    ----------
    found
        Flagged sessions, and their clicks then.
    clicks
        All sessions, and their clicks in the end.
    labels
        The label of each visitor.
    """
    kinds = {session: labels[session[0]].kind for session in clicks}
    bots = [session for session in clicks if labels[session[0]].bot]
    people = sum(kind == "human" for kind in kinds.values())
    hits = [session for session in bots if session in found]
    seen = np.array([found[session] for session in hits], dtype=np.float64)
    later = sum(clicks[session] - found[session] for session in hits)
    alarmed = [kinds[session] for session in found]
    return Detection(
        flagged=len(found),
        precision=round(len(hits) / len(found), 4) if found else None,
        recall=_share(len(hits), len(bots)),
        recall_by_kind=_by_kind(bots, found, kinds),
        clicks_p50=float(np.quantile(seen, 0.5)) if len(seen) else None,
        clicks_p90=float(np.quantile(seen, 0.9)) if len(seen) else None,
        spared=_share(later, sum(clicks[session] for session in bots)),
        false_alarms_per_1000=round(1_000 * alarmed.count("human") / max(people, 1), 3),
        takeovers=alarmed.count("account_takeover"),
    )


def rate_threshold(tally: SessionTally, is_bot: Callable[[SessionId], bool], precision: float) -> float | None:
    """Return the lowest rate above which sessions are bots with at least this precision; None if there is none."""
    peaks = sorted(((rates[-1][1], is_bot(session)) for session, rates in tally.rates.items()), reverse=True)
    if not peaks:
        return None
    rate = np.array([peak for peak, _ in peaks])
    hits = np.cumsum([bot for _, bot in peaks])
    # A threshold parts only sessions whose rates differ.
    parts = np.flatnonzero(np.diff(rate, append=-1.0) < 0)
    good = parts[hits[parts] / (parts + 1) >= precision]
    if not len(good):
        return None
    last = int(good[-1])
    return float(rate[last + 1]) if last + 1 < len(rate) else 0.0


def _by_kind(
    bots: Sequence[SessionId], found: Mapping[SessionId, int], kinds: Mapping[SessionId, str]
) -> dict[str, float]:
    of_kind: dict[str, list[bool]] = {}
    for session in bots:
        of_kind.setdefault(kinds[session], []).append(session in found)
    return {kind: _share(sum(hits), len(hits)) for kind, hits in sorted(of_kind.items())}


def _share(part: int, whole: int) -> float:
    return round(part / whole, 4) if whole else 0.0


_ROW = msgspec.json.Decoder(FlaggedRow)
_SESSION = msgspec.json.Decoder(ClosedSession)
