"""Finds, in what a demo's payments put out, a late event with the revision that it caused, and a matched sequence.

It listens to the outputs ``decisions.revisions`` and ``matches`` while they are written, and to the alerts; nothing here is
told that the run did not put out. Which event caused a revision, and how late it came, `gillnet.cli.demo_causes` finds among
the live records.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from heapq import heappush, heappushpop
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from gillnet.cli.demo_causes import RecordIndex, behind_us, events_read
from gillnet.plan.nodes import AggregateNode
from gillnet.plan.patterns import PatternNode
from gillnet.runtimes.embedded import Alert

if TYPE_CHECKING:
    from gillnet.core.messages import OutputRecord
    from gillnet.core.ports import Sink
    from gillnet.plan.nodes import PipelinePlan

_CANDIDATES = 2_000
"""So many revisions are kept to be looked at: of most it cannot be said for sure that one late event alone caused them."""

_KEPT = 5_000
_SEVERITY = {"block": 3, "step_up": 2, "review": 1, "allow": 0}


class LiveRecords(Protocol):
    """What is known of the live part: whether it has begun, and the records that were given, in order."""

    @property
    def live(self) -> bool:
        """Whether it has begun."""

    def values(self, stream: str) -> Sequence[bytes]:
        """Return a stream's records so far."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LateStory:
    """A payment whose row a late event has changed.

    Attributes
    ----------
    old, new
        Features, by name, before and after.
    changed
        Names of the features that differ.
    cause_stream, cause
        The late event: its stream, and the record.
    behind_us
        How far the event was behind the newest events of its stream when it came; microseconds of event time.
    """

    id: str
    event_time: datetime
    old: Mapping[str, Any]
    new: Mapping[str, Any]
    decisions: tuple[str, str]
    scores: tuple[float, float]
    changed: tuple[str, ...]
    cause_stream: str
    cause: Mapping[str, Any]
    behind_us: int

    @property
    def flipped(self) -> bool:
        """Whether the decision is another one."""
        return self.decisions[0] != self.decisions[1]

    @property
    def move(self) -> float:
        """How far the score moved."""
        return abs(self.scores[1] - self.scores[0])


class Matched(msgspec.Struct, frozen=True):
    """An event of a match."""

    step: str
    id: str
    event_time: datetime


@dataclass(frozen=True, slots=True)
class SequenceStory:
    """A match of the pattern, and the flagged payment that followed it; None if there was none."""

    key: str
    events: tuple[Matched, ...]
    payment: Alert | None


class _Cause(msgspec.Struct):
    stream: str
    id: str


class _Verdict(msgspec.Struct):
    decision: str
    score: float


class _Ranked(msgspec.Struct):
    """As much of a revision as ranks it."""

    flipped: bool
    old: _Verdict
    new: _Verdict


class _Side(_Verdict):
    features: dict[str, Any] = {}


class _Revision(msgspec.Struct):
    tx_id: str
    event_time: datetime
    cause: _Cause
    changed: list[str]
    old: _Side
    new: _Side


class _Match(msgspec.Struct):
    pattern: str
    first: str
    last: str
    withdrawn: bool
    key: str | None = None
    end: datetime | None = None
    events: tuple[Matched, ...] = ()


_ranked = msgspec.json.Decoder(_Ranked).decode
_revision = msgspec.json.Decoder(_Revision).decode
_match = msgspec.json.Decoder(_Match).decode

_Candidate = tuple[bool, float, int, bytes]
"""A revision behind what ranks it: whether the decision is another one, how far the score moved, and of equals the first."""

_MatchId = tuple[str, str, str]
"""Key, and the ids of the first and the last event: what a match is known by."""


class EventTimeStories:
    """Listens to the outputs of a live run of payments and keeps what is worth telling.

    Parameters
    ----------
    plan
        The pipeline: payments with a model, and one pattern of another stream.
    feed
        The live records.

    Attributes
    ----------
    revised, flipped
        Revisions that went out while live, and those that changed the decision.
    matched
        Matches that were found while live, less those that were withdrawn.

    Notes
    -----
    The run calls `revisions_written`, `matches_written` and `on_alerts`, from one thread at a time, and little is done there.
    `late` and `sequence` are for one other thread: they look records up.
    """

    def __init__(self, plan: PipelinePlan, feed: LiveRecords) -> None:
        self._plan, self._feed = plan, feed
        self._pattern = next(feature for feature in plan.features if isinstance(feature, PatternNode))
        self._reads = events_read(plan)
        self._counts = frozenset(
            feature.name
            for feature in plan.features
            if isinstance(feature, AggregateNode) and feature.function == "count"
        )
        self._indexes = {stream.name: RecordIndex(stream.id) for stream in plan.streams}
        self._candidates: list[_Candidate] = []
        self._examined: dict[bytes, LateStory | None] = {}
        self._matches: dict[_MatchId, _Match] = {}
        self._flagged: dict[str, list[Alert]] = {}
        self.revised = self.flipped = self.matched = 0

    # On the run's thread

    def revisions_written(self, values: Sequence[bytes]) -> None:
        """Take records of ``decisions.revisions``."""
        if not self._feed.live:
            return
        for value in values:
            row = _ranked(value)
            self.revised += 1
            self.flipped += row.flipped
            candidate = (row.flipped, abs(row.new.score - row.old.score), -self.revised, value)
            if len(self._candidates) < _CANDIDATES:
                heappush(self._candidates, candidate)
            else:
                heappushpop(self._candidates, candidate)

    def matches_written(self, values: Sequence[bytes]) -> None:
        """Take records of ``matches``."""
        if not self._feed.live:
            return
        matches = dict(self._matches)
        for match in map(_match, values):
            if match.pattern != self._pattern.name or match.key is None:
                continue
            known = matches.pop((match.key, match.first, match.last), None)
            # One that the windows' filling had found may be revised or withdrawn now; it is not counted.
            self.matched += (not match.withdrawn) - (known is not None)
            if not match.withdrawn:
                matches[match.key, match.first, match.last] = match
        while len(matches) > _KEPT:
            del matches[next(iter(matches))]
        self._matches = matches

    def on_alerts(self, alerts: Sequence[Alert]) -> None:
        """Take flagged payments."""
        for alert in alerts:
            if alert.row.get(self._pattern.name) and len(self._flagged) < _KEPT:
                key = str(alert.row[self._pattern.at or self._pattern.key or ""])
                self._flagged[key] = [*self._flagged.get(key, ()), alert]

    # On the display's thread

    def late(self) -> LateStory | None:
        """Return the late event that changed most: a decision, or else a score; None if there was none so far."""
        examined, self._examined = self._examined, {}
        for *_, value in sorted(self._candidates, reverse=True):  # A copy: the run's thread goes on.
            story = examined[value] if value in examined else self._examine(_revision(value))
            self._examined[value] = story
            if story is not None:
                return story
        return None

    def sequence(self) -> SequenceStory | None:
        """Return the match that tells most: before a blocked payment, and of many events; None if there was none so far."""
        stories = [self._followed(match) for match in self._matches.values()]
        return max(stories, key=_telling, default=None)

    def _examine(self, revision: _Revision) -> LateStory | None:
        root, stream = self._plan.stream(self._plan.root), self._plan.stream(revision.cause.stream)
        records = self._feed.values(stream.name)
        cause = self._indexes[stream.name].find(records, revision.cause.id)
        row = self._indexes[root.name].find(self._feed.values(root.name), revision.tx_id)
        if cause is None or row is None:
            return None  # It came before the run was live.
        reads = {read for name in revision.changed for read in self._reads[name]}
        behind = behind_us(records, cause[0], cause[1][stream.event_time])
        if behind is None or behind <= stream.watermark_delay_us:
            return None  # Out of order, and not late.
        if not all(read.holds(stream.name, cause[1], row[1]) for read in reads):
            return None
        shared = {**row[1], **revision.new.features}
        old = {**shared, **dict.fromkeys(revision.changed), **revision.old.features}
        new = {**shared, **{name: revision.new.features.get(name) for name in revision.changed}}
        if any((new[name] or 0) - (old[name] or 0) != 1 for name in revision.changed if name in self._counts):
            return None  # Others came with it.
        return LateStory(
            id=revision.tx_id,
            event_time=revision.event_time,
            old=old,
            new=new,
            decisions=(revision.old.decision, revision.new.decision),
            scores=(revision.old.score, revision.new.score),
            changed=tuple(revision.changed),
            cause_stream=stream.name,
            cause=cause[1],
            behind_us=behind,
        )

    def _followed(self, match: _Match) -> SequenceStory:
        event_time = self._plan.stream(self._plan.root).event_time
        after = [
            alert
            for alert in self._flagged.get(match.key or "", ())
            if match.end is not None and 0 <= _us(alert.row[event_time] - match.end) < self._pattern.over_us
        ]
        first = max(after, key=lambda alert: _SEVERITY[alert.decision], default=None)
        return SequenceStory(match.key or "", match.events, first)


def _us(span: timedelta) -> int:
    return span // timedelta(microseconds=1)


def _telling(story: SequenceStory) -> tuple[int, int]:
    return (-1 if story.payment is None else _SEVERITY[story.payment.decision]), len(story.events)


class ListeningSink:
    """A sink that passes everything on and lets somebody read along.

    Parameters
    ----------
    sink
        Where rows go; None if nobody else wants them.
    listen
        Called with the rows of each write.
    """

    def __init__(self, sink: Sink | None, listen: Callable[[Sequence[bytes]], None]) -> None:
        self._sink = sink
        self._listen = listen

    def write(self, values: Sequence[bytes], keys: Sequence[bytes | None] | None = None) -> None:
        """Pass rows on and let them be read."""
        self._listen(values)
        if self._sink is not None:
            self._sink.write(values, keys)

    def write_records(self, records: Sequence[OutputRecord]) -> None:
        """Pass records on."""
        if self._sink is not None:
            self._sink.write_records(records)

    def flush(self) -> None:
        """Flush the sink behind."""
        if self._sink is not None:
            self._sink.flush()

    def close(self) -> None:
        """Close the sink behind."""
        if self._sink is not None:
            self._sink.close()
